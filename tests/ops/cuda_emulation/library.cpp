// csrc/cuda's search over the host's memory, for Python's ctypes.
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "../../../csrc/cuda/search.h"
#include "cuda_runtime.h"
#include "emulation.h"

namespace {

int multiprocessors = 1;

// Each piece by itself, filled with NaN, so that a memory checker sees its end and a missing value is not zero.
struct Memory {
  std::vector<std::unique_ptr<unsigned char[]>> pieces;

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
}
