// What the lanes of a warp do together.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace mmdf2::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }

// The sum over the lanes, with the same bits in each of them.
template <typename Value>
__device__ inline Value sum_lanes(Value value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

__device__ inline double max_lanes(double value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const double other = __shfl_xor_sync(kAllLanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// How many lanes before this one are set in the ballot.
__device__ inline int rank_among(unsigned ballot) { return __popc(ballot & ((1u << lane_index()) - 1)); }

// Unsigned integers in the order of the floats; NaN is not ordered.
__device__ inline uint32_t ordered_key(float value) {
  const uint32_t bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ inline float value_of_key(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// sum_k w_k (a_k - b_k)^2 in double precision by all lanes of a warp. Equal rows give equal bits wherever they stand.
template <typename In>
__device__ inline double direct_score(const In* query, const In* gallery, const In* weight, int width) {
  double score = 0;
  for (int k = lane_index(); k < width; k += kWarp) {
    const double difference = static_cast<double>(query[k]) - static_cast<double>(gallery[k]);
    score += static_cast<double>(weight[k]) * (difference * difference);
  }
  return sum_lanes(score);
}

}  // namespace mmdf2::cuda
