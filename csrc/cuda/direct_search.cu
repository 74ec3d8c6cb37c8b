// The best matches by the direct form alone: exact for all numbers, at the cost of D products in double precision per
// pair. One block per query and part of the gallery; a second kernel merges the parts.
#include "kernels.h"
#include "matches.cuh"
#include "warp.cuh"

namespace mmdf2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kCapacity = 2048;
constexpr int kStep = kCapacity - kMostMatches;  // matches that are offered to the list between two barriers
static_assert((kCapacity & (kCapacity - 1)) == 0, "the list is sorted as a power of two");

// A list that keeps the best `wanted` of what it is offered.
struct BestMatches {
  Matches<kCapacity> list;
  int count;
  double worst_score;  // a match that is not better than the worst one is not taken
  int worst_index;

  __device__ void clear() {
    if (threadIdx.x == 0) {
      count = 0;
      worst_score = -INFINITY;
      worst_index = INT_MAX;
    }
    __syncthreads();
  }

  // Called by single threads, at most kStep times between two calls of make_room by all threads.
  __device__ void offer(double score, int index) {
    if (!is_better(score, index, worst_score, worst_index)) return;
    const int place = atomicAdd(&count, 1);
    list.scores[place] = score;
    list.indices[place] = index;
  }

  __device__ void make_room(int wanted) {
    __syncthreads();
    if (count > kCapacity - kStep) sort(wanted);
    __syncthreads();
  }

  __device__ void sort(int wanted) {
    const int offered = count;
    sort_matches(list, offered);
    if (threadIdx.x == 0 && offered > wanted) {
      count = wanted;
      worst_score = list.scores[wanted - 1];
      worst_index = list.indices[wanted - 1];
    }
    __syncthreads();
  }
};

// Called by each warp that met a score that is not finite.
template <typename In>
__device__ void look_for_not_finite(const Problem<In>& problem, const In* query, int64_t begin, int64_t end,
                                    Status* status) {
  const auto look_at = [&](const In* row) {
    for (int k = lane_index(); k < problem.width; k += kWarp) {
      if (row[k] - row[k] != 0) status->not_finite = 1;
    }
  };
  look_at(query);
  for (int64_t item = begin + warp_index(); item < end; item += kWarps) {
    look_at(problem.gallery + item * problem.width);
  }
}

template <typename In>
__global__ void __launch_bounds__(kThreads)
    search_kernel(const Problem<In> problem, const int* row_numbers, const PartLists lists, Status* status) {
  __shared__ BestMatches best;
  const int number = static_cast<int>(blockIdx.y), part = static_cast<int>(blockIdx.x);
  const int64_t row = row_numbers == nullptr ? number : row_numbers[number];
  const In* query = problem.queries + row * problem.width;
  const int64_t begin = static_cast<int64_t>(problem.total) * part / lists.parts;
  const int64_t end = static_cast<int64_t>(problem.total) * (part + 1) / lists.parts;
  bool suspicious = false;  // rows with NaN or infinity have no finite score, and rows of large numbers may have none
  best.clear();
  for (int64_t first = begin; first < end; first += kStep) {
    const int64_t last = first + kStep < end ? first + kStep : end;
    for (int64_t item = first + warp_index(); item < last; item += kWarps) {
      const In* gallery = problem.gallery + item * problem.width;
      const double score = direct_score(query, gallery, problem.weight, problem.width);
      if (lane_index() == 0) best.offer(score, static_cast<int>(item));
      suspicious = suspicious || score - score != 0;
    }
    best.make_room(problem.matches);
  }
  if (suspicious) look_for_not_finite(problem, query, begin, end, status);
  best.sort(problem.matches);
  const int64_t start = (static_cast<int64_t>(number) * lists.parts + part) * problem.matches;
  for (int i = static_cast<int>(threadIdx.x); i < problem.matches; i += kThreads) {
    lists.scores[start + i] = i < best.count ? best.list.scores[i] : 0;
    lists.indices[start + i] = i < best.count ? best.list.indices[i] : -1;
  }
}

template <typename In>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(const Problem<In> problem, const Result result, const int* row_numbers, const PartLists lists) {
  __shared__ BestMatches best;
  const int number = static_cast<int>(blockIdx.x);
  const int64_t row = row_numbers == nullptr ? number : row_numbers[number];
  const int64_t begin = static_cast<int64_t>(number) * lists.parts * problem.matches;
  const int64_t end = begin + static_cast<int64_t>(lists.parts) * problem.matches;
  best.clear();
  for (int64_t first = begin; first < end; first += kStep) {
    const int64_t last = first + kStep < end ? first + kStep : end;
    for (int64_t i = first + static_cast<int>(threadIdx.x); i < last; i += kThreads) {
      if (lists.indices[i] >= 0) best.offer(lists.scores[i], lists.indices[i]);
    }
    best.make_room(problem.matches);
  }
  best.sort(problem.matches);
  for (int i = static_cast<int>(threadIdx.x); i < problem.matches; i += kThreads) {
    static_cast<In*>(result.scores)[row * problem.matches + i] = static_cast<In>(best.list.scores[i] + problem.bias);
    result.indices[row * problem.matches + i] = best.list.indices[i];
  }
}

}  // namespace

template <typename In>
cudaError_t direct_search(const Problem<In>& problem, const Result& result, const int* row_numbers, int rows,
                          const PartLists& lists, Status* status, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(lists.parts), static_cast<unsigned>(rows));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, search_kernel<In>, problem, row_numbers, lists, status);
  if (error != cudaSuccess) return error;
  config.gridDim = dim3(static_cast<unsigned>(rows));
  return cudaLaunchKernelEx(&config, merge_kernel<In>, problem, result, row_numbers, lists);
}

template cudaError_t direct_search(const Problem<float>&, const Result&, const int*, int, const PartLists&, Status*,
                                   cudaStream_t);
template cudaError_t direct_search(const Problem<double>&, const Result&, const int*, int, const PartLists&, Status*,
                                   cudaStream_t);

}  // namespace mmdf2::cuda
