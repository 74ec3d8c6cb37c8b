// The functions of csrc/cuda/ptx.cuh on the host, with the rounding of the hardware.
#pragma once

#include <cstdint>

#include "cuda_runtime.h"

namespace mmdf2::cuda {

constexpr bool kTensorCores = MMDF2_EMULATED_TENSOR_CORES;

inline unsigned char* dynamic_shared() { return emulation::dynamic_shared(); }

// The copy is made when it is waited for. Until then the memory holds NaN, which reveals a thread that reads too early.
void start_copy(void* shared, const void* global, int bytes, bool valid);
void commit_copies();
void wait_copies_but(int pending);

template <int kBytes>
void copy_async(void* shared, const void* global, bool valid) {
  start_copy(shared, global, kBytes, valid);
}
template <int kPending>
void wait_copies() {
  wait_copies_but(kPending);
}

uint32_t round_to_tf32(float value);
void multiply_tf32(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2],
                   const char* file = __builtin_FILE(), int line = __builtin_LINE());

}  // namespace mmdf2::cuda
