// The search of csrc/cuda over the host's memory, for ctypes in Python.
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "../../../csrc/cuda/kernels.h"
#include "../../../csrc/cuda/search.h"
#include "cuda_runtime.h"
#include "emulation.h"

namespace {

int multiprocessors = 1;

// Each piece is allocated separately and filled with NaN: a memory checker sees its end, and a missing value is not
// zero.
struct Memory {
  std::vector<std::unique_ptr<unsigned char[]>> pieces;

  template <typename Value>
  Value* allocate(int64_t count) {
    return static_cast<Value*>(allocate(static_cast<size_t>(count) * sizeof(Value)));
  }

  void* allocate(size_t bytes) {
    pieces.emplace_back(new unsigned char[bytes]);
    std::memset(pieces.back().get(), 0xff, bytes);
    return pieces.back().get();
  }
};

template <typename In>
const char* search(const In* queries, const In* gallery, const In* weight, double bias, int rows, int total, int width,
                   int matches, In* scores, int64_t* indices, int* searched_again) {
  Memory memory;
  const mmdf2::cuda::Problem<In> problem{queries, gallery, weight, bias, rows, total, width, matches};
  const auto outcome = mmdf2::cuda::search<In>(
      problem, {scores, indices}, [&](size_t bytes) { return memory.allocate(bytes); }, nullptr);
  *searched_again = outcome.searched_again;
  if (outcome.error != nullptr) return outcome.error;
  return outcome.finite ? nullptr : "query or gallery holds NaN or infinity";
}

}  // namespace

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = multiprocessors, cudaSuccess; }

extern "C" {

void set_emulation(unsigned seed, int count_of_multiprocessors) {
  emulation::seed(seed);
  multiprocessors = count_of_multiprocessors;
}

const char* search_float(const float* queries, const float* gallery, const float* weight, double bias, int rows,
                         int total, int width, int matches, float* scores, int64_t* indices, int* searched_again) {
  return search(queries, gallery, weight, bias, rows, total, width, matches, scores, indices, searched_again);
}

const char* search_double(const double* queries, const double* gallery, const double* weight, double bias, int rows,
                          int total, int width, int matches, double* scores, int64_t* indices, int* searched_again) {
  return search(queries, gallery, weight, bias, rows, total, width, matches, scores, indices, searched_again);
}

// The scores that collect_candidates computes: those of all pairs, because a list holds the whole gallery here.
const char* expanded_scores(const float* queries, const float* gallery, const float* weight, int rows, int total,
                            int width, double* scores) {
  using namespace mmdf2::cuda;
  Memory memory;
  Expanded expanded{};
  expanded.queries = queries;
  expanded.gallery = gallery;
  expanded.weight = weight;
  expanded.rows = rows;
  expanded.total = total;
  expanded.width = width;
  expanded.padded_width = (width + kDepth - 1) / kDepth * kDepth;
  expanded.centre = memory.allocate<float>(expanded.padded_width);
  expanded.forms = memory.allocate<float>(total);
  expanded.weighted = memory.allocate<float>(expanded.query_tiles() * kTile * expanded.padded_width);
  expanded.terms = memory.allocate<mmdf2::RowTerms>(rows);
  expanded.status = memory.allocate<Status>(1);
  std::memset(static_cast<void*>(expanded.status), 0, sizeof(Status));
  CandidateLists lists{};
  lists.blocks = 1;
  lists.keep = total;
  lists.capacity = total + kTile;
  lists.entries = memory.allocate<Candidate>(lists.slots(expanded.query_tiles()) * kTile * lists.capacity);
  lists.counts = memory.allocate<int>(lists.slots(expanded.query_tiles()) * kTile);
  if (choose_centre(expanded, nullptr) != cudaSuccess || expand_gallery(expanded, nullptr) != cudaSuccess ||
      expand_queries(expanded, nullptr) != cudaSuccess || collect_candidates(expanded, lists, nullptr) != cudaSuccess) {
    return "a kernel did not start";
  }
  for (int row = 0; row < rows; ++row) {
    if (lists.counts[row] != total) return "a pair has no score";
    for (int i = 0; i < total; ++i) {
      const Candidate& candidate = lists.entries[static_cast<int64_t>(row) * lists.capacity + i];
      scores[static_cast<int64_t>(row) * total + candidate.index] = expanded.terms[row].form + candidate.score;
    }
  }
  return nullptr;
}
}
