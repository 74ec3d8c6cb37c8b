// The best matches on a GPU. This header includes neither torch nor CUDA: the caller provides pointers and memory.
//
//   float32, many queries    expand_rows -> collect_candidates -> rescore_candidates, then direct_search for the
//                            queries whose candidates could not be proved complete
//   float64, or few queries  direct_search alone, which is exact by itself
//
// mmdf2/retrieval/similarity.py derives the algebra; ../error_bound.h has the bound that proves candidates complete.
#pragma once

#include <cstdint>
#include <functional>

namespace mmdf2::cuda {

// The most matches that a search can be asked for. Their list is sorted in shared memory.
constexpr int kMostMatches = 1024;

// Contiguous rows in the device's memory.
template <typename In>
struct Problem {
  const In* queries;  // (rows, width)
  const In* gallery;  // (total, width)
  const In* weight;   // (width)
  double bias;        // added to each score
  int rows, total, width;
  int matches;  // k, 1 to min(total, kMostMatches)
};

struct Result {
  void* scores;      // (rows, k) of the rows' type
  int64_t* indices;  // (rows, k)
};

// Allocates device memory that lives until the work queued on the stream has used it.
using Allocate = std::function<void*(size_t bytes)>;

struct Outcome {
  const char* error = nullptr;  // CUDA's message about what went wrong
  bool finite = true;           // false: queries or gallery hold NaN or infinity, and the result is not to be used
  int searched_again = 0;       // queries that needed direct_search after rescore_candidates
};

// Fills `result` with the best matches of all rows. The work is queued on the current device's `stream` and waited for.
template <typename In>
Outcome search(const Problem<In>& problem, const Result& result, const Allocate& allocate, void* stream);

}  // namespace mmdf2::cuda
