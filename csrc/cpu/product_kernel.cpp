// The kernel of a block of the score matrix. Its sums stay in registers over the whole width and are compared with the
// thresholds there. Each entry of an item is multiplied with a vector of queries, so items need no packing.
#include <cstring>

#include "vector_kernels.h"

namespace mmdf2 {
namespace {

template <typename T, int BYTES>
struct Vector {
  typedef T type __attribute__((vector_size(BYTES)));
};

template <typename T, int BYTES, int ITEMS, int VECTORS>
MMDF2_INLINE uint32_t multiply_body(const T* rows, const T* forms, const T* packed, int64_t width, const T* thresholds,
                                    T* scores) {
  using Lanes = typename Vector<T, BYTES>::type;
  constexpr int64_t kLanes = BYTES / sizeof(T), kQueries = VECTORS * kLanes;
  static_assert(ITEMS * kQueries <= ProductKernel<T>::kLargestBlock);
  Lanes sums[ITEMS][VECTORS];
  for (int64_t i = 0; i < ITEMS; ++i) {
    for (int64_t j = 0; j < VECTORS; ++j) sums[i][j] = forms[i] - Lanes{};
  }
  for (int64_t k = 0; k < width; ++k) {
    Lanes queries[VECTORS];
    for (int64_t j = 0; j < VECTORS; ++j) std::memcpy(&queries[j], packed + k * kQueries + j * kLanes, sizeof(Lanes));
    for (int64_t i = 0; i < ITEMS; ++i) {
      for (int64_t j = 0; j < VECTORS; ++j) sums[i][j] += rows[i * width + k] * queries[j];
    }
  }
  for (int64_t i = 0; i < ITEMS; ++i) {
    for (int64_t j = 0; j < VECTORS; ++j) {
      const Lanes sum = sums[i][j];  // referring to the array itself would move it from registers to memory
      std::memcpy(scores + i * kQueries + j * kLanes, &sum, sizeof(Lanes));
    }
  }
  uint32_t hits = 0;
#pragma GCC unroll 1  // otherwise GCC vectorises over the items, by shuffling
  for (int64_t i = 0; i < ITEMS; ++i) {
    int above = 0;
    for (int64_t q = 0; q < kQueries; ++q) above |= !(scores[i * kQueries + q] <= thresholds[q]);
    hits |= static_cast<uint32_t>(above) << i;
  }
  return hits;
}

// As many sums as the registers hold beside the queries and an item's entry: 32 registers with AVX-512, otherwise 16.
#define MMDF2_PRODUCT_KERNEL(Name, TARGET, BYTES, ITEMS, VECTORS)                                                  \
  template <typename T>                                                                                            \
  struct Name {                                                                                                    \
    TARGET static uint32_t multiply(const T* rows, const T* forms, const T* packed, int64_t width,                 \
                                    const T* thresholds, T* scores) {                                              \
      return multiply_body<T, BYTES, ITEMS, VECTORS>(rows, forms, packed, width, thresholds, scores);              \
    }                                                                                                              \
    static constexpr ProductKernel<T> kKernel{ITEMS, VECTORS * BYTES / static_cast<int64_t>(sizeof(T)), multiply}; \
  };

MMDF2_PRODUCT_KERNEL(Baseline, , 16, 4, 2)
#ifdef MMDF2_AVX2
MMDF2_PRODUCT_KERNEL(Avx2, MMDF2_AVX2, 32, 6, 2)
MMDF2_PRODUCT_KERNEL(Avx512, MMDF2_AVX512, 64, 12, 2)
#endif

}  // namespace

template <typename T>
ProductKernel<T> product_kernel(Instructions instructions) {
#ifdef MMDF2_AVX2
  if (instructions == Instructions::kAvx512) return Avx512<T>::kKernel;
  if (instructions == Instructions::kAvx2) return Avx2<T>::kKernel;
#endif
  return Baseline<T>::kKernel;
}

template ProductKernel<float> product_kernel(Instructions);
template ProductKernel<double> product_kernel(Instructions);

}  // namespace mmdf2
