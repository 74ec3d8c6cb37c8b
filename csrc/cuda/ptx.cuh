// Instructions that CUDA C++ has no functions for.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#ifdef MMDF2_EMULATED
#include "emulated_ptx.h"  // tests/ops/cuda_emulation: the same functions on the host
#else

namespace mmdf2::cuda {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
constexpr bool kTensorCores = true;
#else
constexpr bool kTensorCores = false;
#endif

// The block's dynamic shared memory.
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return bytes;
}

// Copies kBytes (4 or 16, with both addresses aligned to it) to shared memory in the background; writes zeros if not
// `valid`.
template <int kBytes>
__device__ inline void copy_async(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
  }
#else
  if constexpr (kBytes == 16) {
    *static_cast<float4*>(shared) = valid ? *static_cast<const float4*>(global) : float4{0, 0, 0, 0};
  } else {
    *static_cast<float*>(shared) = valid ? *static_cast<const float*>(global) : 0.0f;
  }
#endif
}

// Ends a group of copies of this thread.
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most kPending of this thread's groups of copies are unfinished.
template <int kPending>
__device__ inline void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// The nearest number with 10 bits of fraction.
__device__ inline uint32_t round_to_tf32(float value) {
  uint32_t bits = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
#endif
  return bits;
}

// sum (16, 8) += left (16, 8) times right (8, 8), spread over a warp. With group = lane / 4 and member = lane % 4:
//   left   (group, member), (group + 8, member), (group, member + 4), (group + 8, member + 4)
//   right  (member, group), (member + 4, group)
//   sum    (group, 2 member), (group, 2 member + 1), (group + 8, 2 member), (group + 8, 2 member + 1)
__device__ inline void multiply_tf32(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
#endif
}

}  // namespace mmdf2::cuda

#endif
