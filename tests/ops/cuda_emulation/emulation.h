// What the parts of the emulation share.
#pragma once

#include <deque>
#include <vector>

namespace emulation {

// A thread's background copies, in the groups that it committed.
struct Copy {
  void* to;
  const void* from;
  int bytes;
  bool valid;
};
struct CopyQueue {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

CopyQueue& copies();  // those of the running thread

void seed(unsigned value);  // sets the order of threads and blocks

}  // namespace emulation
