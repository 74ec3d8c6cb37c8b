// A block's list of matches in shared memory, and their order: higher scores first, then smaller indices, NaN last.
#pragma once

#include <cuda_runtime.h>

#include <climits>

namespace mmdf2::cuda {

template <int kCapacity>
struct Matches {
  double scores[kCapacity];
  int indices[kCapacity];
};

// The direct form gives NaN for infinity minus infinity.
__device__ inline double rank_of(double score) { return score == score ? score : -INFINITY; }

__device__ inline bool is_better(double score, int index, double other_score, int other_index) {
  const double left = rank_of(score), right = rank_of(other_score);
  return left > right || (left == right && index < other_index);
}

__device__ inline int power_of_two_from(int count) {
  int power = 1;
  while (power < count) power *= 2;
  return power;
}

// Sorts the first `count` matches, best first, by all threads of the block (a bitonic network). Entries from `count` up
// to the next power of two are overwritten. It begins and ends with a barrier.
template <int kCapacity>
__device__ void sort_matches(Matches<kCapacity>& matches, int count) {
  const int size = power_of_two_from(count), threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  for (int i = count + thread; i < size; i += threads) {
    matches.scores[i] = -INFINITY;
    matches.indices[i] = INT_MAX;
  }
  for (int run = 2; run <= size; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int pair = thread; pair < size / 2; pair += threads) {
        const int low = pair / distance * 2 * distance + pair % distance, high = low + distance;
        const double low_score = matches.scores[low], high_score = matches.scores[high];
        const int low_index = matches.indices[low], high_index = matches.indices[high];
        const bool descending = (low & run) == 0;
        if (is_better(high_score, high_index, low_score, low_index) != descending) continue;
        matches.scores[low] = high_score, matches.scores[high] = low_score;
        matches.indices[low] = high_index, matches.indices[high] = low_index;
      }
    }
  }
  __syncthreads();
}

}  // namespace mmdf2::cuda
