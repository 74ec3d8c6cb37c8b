// Between the parts of the emulation.
#pragma once

#include <deque>
#include <vector>

namespace emulation {

// A thread's background copies, in the groups it committed.
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

CopyQueue& copies();  // of the running thread

void seed(unsigned value);  // of the order of threads and blocks

}  // namespace emulation
