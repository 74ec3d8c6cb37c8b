// The threads of a block as fibers of one thread of the host, in an order drawn from a seed.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "cuda_runtime.h"
#include "emulation.h"

namespace emulation {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr int kYieldOneIn = 8;

[[noreturn]] void fail(const char* what, const char* file, int line) {
  std::fprintf(stderr, "CUDA emulation: %s (%s:%d)\n", what, file, line);
  std::abort();
}

// Where threads wait for each other. There are two sets of slots, because a thread may reach the next meeting while
// others have not yet read what was passed to this one; it cannot reach the meeting after that.
struct Meeting {
  int size = 0, arrived = 0, round = 0;
  const char* file = nullptr;
  int line = 0;
  bool all[2] = {true, true};
  std::vector<int> waiting;
  Brought brought[2][kWarp];
};

// Where a fiber, or the host, continues. Only the first switch to a fiber needs its context: unlike swapcontext,
// _setjmp and _longjmp make no system call.
struct Place {
  ucontext_t context;
  jmp_buf left;
  bool was_left = false;
};

void go(Place& from, Place& to) {
  from.was_left = true;
  if (_setjmp(from.left) != 0) return;
  if (to.was_left) _longjmp(to.left, 1);
  setcontext(&to.context);
}

struct Fiber {
  Place place;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  Indices indices;
  CopyQueue copies;
};

class Block {
 public:
  Block(dim3 grid, dim3 block, dim3 index, size_t shared_bytes, void (*call)(const void*), const void* argument,
        std::mt19937& random)
      : call_(call), argument_(argument), random_(random), shared_(shared_bytes, 0xff) {
    if (block.x % kWarp != 0 || block.y != 1) fail("a block must be whole warps", __FILE__, __LINE__);
    fibers_.resize(block.x);
    warps_.resize(block.x / kWarp);
    for (auto& warp : warps_) warp.size = kWarp;
    everybody_.size = static_cast<int>(block.x);
    for (unsigned thread = 0; thread < block.x; ++thread) {
      fibers_[thread] = std::make_unique<Fiber>();
      fibers_[thread]->indices = {dim3(thread), index, block, grid};
      runnable_.push_back(static_cast<int>(thread));
    }
  }

  void run();
  void enter();
  void yield();
  Fiber& current() { return *fibers_[current_]; }
  unsigned char* shared() { return shared_.data(); }
  Meeting& everybody() { return everybody_; }
  Meeting& warp() { return warps_[current_ / kWarp]; }
  std::mt19937& random() { return random_; }

  // Returns the round of the meeting, after all threads have reached it.
  int meet(Meeting& meeting, const char* file, int line);

 private:
  void switch_to_next(bool finished);

  void (*call_)(const void*);
  const void* argument_;
  std::mt19937& random_;
  std::vector<unsigned char> shared_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Meeting> warps_;
  Meeting everybody_;
  std::vector<int> runnable_;
  int current_ = -1, finished_ = 0;
  Place host_;
};

Block* running = nullptr;
std::mt19937 order;

void enter_fiber() { running->enter(); }

void Block::run() {
  running = this;
  for (auto& fiber : fibers_) {
    ucontext_t& context = fiber->place.context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber->stack.get();
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, enter_fiber, 0);
  }
  while (finished_ < static_cast<int>(fibers_.size())) {
    if (runnable_.empty()) fail("threads wait for others that have ended", everybody_.file, everybody_.line);
    const size_t pick = random_() % runnable_.size();
    current_ = runnable_[pick];
    runnable_[pick] = runnable_.back();
    runnable_.pop_back();
    go(host_, current().place);
  }
  running = nullptr;
}

void Block::enter() {
  call_(argument_);
  ++finished_;
  switch_to_next(true);
}

// Switches directly to another fiber where there is one, which halves the number of switches.
void Block::switch_to_next(bool finished) {
  Fiber& from = current();
  if (runnable_.empty() || finished) {
    go(from.place, host_);
    return;
  }
  const size_t pick = random_() % runnable_.size();
  current_ = runnable_[pick];
  runnable_[pick] = runnable_.back();
  runnable_.pop_back();
  go(from.place, current().place);
}

void Block::yield() {
  if (runnable_.empty()) return;
  runnable_.push_back(current_);
  switch_to_next(false);
}

int Block::meet(Meeting& meeting, const char* file, int line) {
  if (meeting.arrived == 0) {
    meeting.file = file;
    meeting.line = line;
  } else if (meeting.line != line || std::strcmp(meeting.file, file) != 0) {
    std::fprintf(stderr, "CUDA emulation: others wait at %s:%d\n", meeting.file, meeting.line);
    fail("threads of one meeting came to different lines", file, line);
  }
  const int round = meeting.round;
  if (++meeting.arrived < meeting.size) {
    meeting.waiting.push_back(current_);
    switch_to_next(false);
    return round;
  }
  meeting.arrived = 0;
  meeting.round = 1 - round;
  meeting.all[1 - round] = true;
  runnable_.insert(runnable_.end(), meeting.waiting.begin(), meeting.waiting.end());
  meeting.waiting.clear();
  return round;
}

}  // namespace

void seed(unsigned value) { order.seed(value); }

const Indices& indices() { return running->current().indices; }
int lane() { return static_cast<int>(running->current().indices.thread.x) % kWarp; }
unsigned char* dynamic_shared() { return running->shared(); }
CopyQueue& copies() { return running->current().copies; }

void maybe_yield() {
  if (running->random()() % kYieldOneIn == 0) running->yield();
}

bool meet_block(bool value, const char* file, int line) {
  Meeting& meeting = running->everybody();
  meeting.all[meeting.round] = meeting.all[meeting.round] && value;
  const int round = running->meet(meeting, file, line);
  return meeting.all[round];
}

const Brought* meet_warp(const void* bytes, size_t size, const char* file, int line) {
  Meeting& meeting = running->warp();
  if (size > kMostBytes) fail("too much for one lane to bring", file, line);
  std::memcpy(meeting.brought[meeting.round][lane()], bytes, size);
  const int round = running->meet(meeting, file, line);
  return meeting.brought[round];
}

void run_grid(dim3 grid, dim3 block, size_t dynamic_shared_bytes, void (*call)(const void*), const void* argument) {
  std::vector<dim3> blocks;
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) blocks.emplace_back(x, y);
  }
  std::shuffle(blocks.begin(), blocks.end(), order);
  for (const dim3& index : blocks) {
    Block(grid, block, index, dynamic_shared_bytes, call, argument, order).run();
  }
}

}  // namespace emulation
