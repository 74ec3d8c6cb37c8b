// Finds the best of each query's candidates by the direct form, and proves that no other item is better. One block per
// query.
#include "kernels.h"
#include "matches.cuh"
#include "warp.cuh"

namespace mmdf2::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kCapacity = 2048;  // a power of two, and more than candidate_count(kMostMatches)
constexpr int kDigits = 256;     // values of the eight bits of a key that a step of the selection looks at

// The lists of one query row, one per block that computed scores of its tile.
struct RowLists {
  CandidateLists lists;
  int first_slot, last_slot, row_in_tile;

  // Calls visit(candidate) for each candidate, all threads together.
  template <typename Visit>
  __device__ void for_each(const Visit& visit) const {
    for (int slot = first_slot; slot <= last_slot; ++slot) {
      const int64_t list = static_cast<int64_t>(slot) * kTile + row_in_tile;
      const int count = lists.counts[list];
      const Candidate* entries = lists.entries + list * lists.capacity;
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) visit(entries[i]);
    }
  }

  __device__ int total() const {
    int total = 0;
    for (int slot = first_slot; slot <= last_slot; ++slot) {
      total += lists.counts[static_cast<int64_t>(slot) * kTile + row_in_tile];
    }
    return total;
  }
};

__device__ RowLists lists_of_row(const Expanded& expanded, const CandidateLists& lists, int row) {
  const int query_tile = row / kTile;
  const int64_t gallery_tiles = expanded.gallery_tiles(), first = query_tile * gallery_tiles;
  const int from = CandidateLists::block_of(first, lists.blocks, expanded.tiles());
  const int to = CandidateLists::block_of(first + gallery_tiles - 1, lists.blocks, expanded.tiles());
  return {lists, from + query_tile, to + query_tile, row % kTile};
}

struct Selection {
  uint32_t key;  // the key of the last of the best ones
  int equal;     // how many of those with this very key are among the best
};

// In a warp: the digit at which the running count, from the greatest digit down, reaches `needed`.
__device__ int find_digit(const int* histogram, int& needed) {
  constexpr int kDigitsOfLane = kDigits / kWarp;
  const int top = kDigits - 1 - lane_index() * kDigitsOfLane;  // this lane's digits go down from here
  int own = 0;
  for (int i = 0; i < kDigitsOfLane; ++i) own += histogram[top - i];
  int before = 0;
  for (int lane = 0; lane < kWarp; ++lane) {
    const int other = __shfl_sync(kAllLanes, own, lane);
    before += lane < lane_index() ? other : 0;
  }
  const unsigned reaching = __ballot_sync(kAllLanes, before + own >= needed);
  int digit = top, left = needed - before;
  for (int i = 0; i < kDigitsOfLane - 1 && histogram[digit] < left; ++i) left -= histogram[digit--];
  const int owner = __ffs(static_cast<int>(reaching)) - 1;
  needed = __shfl_sync(kAllLanes, left, owner);
  return __shfl_sync(kAllLanes, digit, owner);
}

// The `count`-th highest key of a row's candidates, eight bits at a time; the same in all threads.
__device__ Selection select(const RowLists& lists, int count) {
  __shared__ int histogram[kDigits];
  __shared__ Selection found;
  uint32_t key = 0, known = 0;
  int needed = count;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kThreads) histogram[i] = 0;
    __syncthreads();
    lists.for_each([&](const Candidate& candidate) {
      const uint32_t other = ordered_key(candidate.score);
      if ((other & known) == key) atomicAdd(&histogram[other >> shift & (kDigits - 1)], 1);
    });
    __syncthreads();
    if (warp_index() == 0) {
      const int digit = find_digit(histogram, needed);
      if (lane_index() == 0) found = {key | static_cast<uint32_t>(digit) << shift, needed};
    }
    __syncthreads();
    key = found.key;
    needed = found.equal;
    known |= static_cast<uint32_t>(kDigits - 1) << shift;
  }
  return {key, needed};
}

// Puts the selected candidates, in any order, into the list; their expanded scores stand for the direct ones.
__device__ void gather(const RowLists& lists, const Selection& selection, Matches<kCapacity>& matches) {
  __shared__ int gathered, equal;
  if (threadIdx.x == 0) gathered = equal = 0;
  __syncthreads();
  lists.for_each([&](const Candidate& candidate) {
    const uint32_t key = ordered_key(candidate.score);
    if (key < selection.key) return;
    if (key == selection.key && atomicAdd(&equal, 1) >= selection.equal) return;
    const int place = atomicAdd(&gathered, 1);
    matches.scores[place] = candidate.score;
    matches.indices[place] = candidate.index;
  });
  __syncthreads();
}

__device__ double value_of_bits(unsigned long long bits) { return __longlong_as_double(static_cast<long long>(bits)); }

__device__ double bound_of_row(const Expanded& expanded, int row) {
  const Status& status = *expanded.status;
  const RowTerms gallery{0, value_of_bits(status.largest_magnitude), value_of_bits(status.largest_entry)};
  return error_bound(scores_arithmetic(expanded.width), expanded.terms[row], gallery,
                     value_of_bits(status.largest_weight), expanded.width);
}

// Replaces expanded scores by direct ones; returns false in all threads if one is further away than the bound.
__device__ bool rescore(const Expanded& expanded, int row, int count, double bound, Matches<kCapacity>& matches) {
  const float* query = expanded.queries + static_cast<int64_t>(row) * expanded.width;
  bool accurate = true;
  for (int i = warp_index(); i < count; i += kWarps) {
    const float* item = expanded.gallery + static_cast<int64_t>(matches.indices[i]) * expanded.width;
    const double score = direct_score(query, item, expanded.weight, expanded.width);
    accurate = accurate && fabs(expanded.terms[row].form + matches.scores[i] - score) <= bound;
    __syncwarp();  // all have read the expanded score
    if (lane_index() == 0) matches.scores[i] = score;
  }
  return __syncthreads_and(accurate) != 0;
}

__global__ void __launch_bounds__(kThreads)
    rescore_kernel(const Expanded expanded, const CandidateLists lists, const Problem<float> problem,
                   const Result result, int first_row, int* open_rows) {
  __shared__ Matches<kCapacity> matches;
  const int row = static_cast<int>(blockIdx.x), wanted = problem.matches;
  const RowLists row_lists = lists_of_row(expanded, lists, row);
  const int total = row_lists.total(), count = total < lists.keep ? total : lists.keep;
  const double bound = bound_of_row(expanded, row);
  // There can be fewer candidates than wanted, because scores that overflowed to NaN are not collected.
  bool proven = bound < INFINITY && count >= wanted;
  if (proven) {
    const Selection selection = select(row_lists, count);
    gather(row_lists, selection, matches);
    proven = rescore(expanded, row, count, bound, matches);
    sort_matches(matches, count);
    const double left_out = expanded.terms[row].form + value_of_key(selection.key) + bound;
    // Strictly above, because an item of equal score and smaller index would come first.
    proven = proven && (count == expanded.total || matches.scores[wanted - 1] > left_out);
  }
  if (!proven) {
    if (threadIdx.x == 0) open_rows[atomicAdd(&expanded.status->open_count, 1)] = first_row + row;
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < wanted; i += kThreads) {
    const int64_t place = static_cast<int64_t>(first_row + row) * wanted + i;
    static_cast<float*>(result.scores)[place] = static_cast<float>(matches.scores[i] + problem.bias);
    result.indices[place] = matches.indices[i];
  }
}

}  // namespace

cudaError_t rescore_candidates(const Expanded& expanded, const CandidateLists& lists, const Problem<float>& problem,
                               const Result& result, int first_row, int* open_rows, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(expanded.rows));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, rescore_kernel, expanded, lists, problem, result, first_row, open_rows);
}

}  // namespace mmdf2::cuda
