// The inner loops of pair_topk on a CPU, compiled for several vector instruction sets. T is float or double.
#pragma once

#include <cstdint>

#include "../error_bound.h"

namespace mmdf2 {

enum class Instructions { kBaseline, kAvx2, kAvx512 };

// The instruction sets to compile a function for, beyond what every processor of the architecture has.
#if defined(__x86_64__)
#define MMDF2_AVX2 __attribute__((target("avx2,fma")))
#define MMDF2_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#endif
// Bodies that are inlined into functions of these sets, and so compiled for the same instructions.
#define MMDF2_INLINE __attribute__((always_inline)) inline

template <typename T>
struct RowKernels {
  // Writes row - centre and returns its terms.
  RowTerms (*centre_row)(const T* row, const T* centre, const T* weight, int64_t width, T* centred);
  // sum_k w_k (a_k - b_k)^2 in double precision. Equal rows give equal bits wherever they stand, with every instruction
  // set.
  double (*direct_score)(const T* query, const T* item, const T* weight, int64_t width);
};

// Expanded scores, without the queries' own forms, of `items` gallery rows and `queries` packed queries.
template <typename T>
struct ProductKernel {
  static constexpr int64_t kLargestBlock = 12 * 32;  // items x queries

  int64_t items;
  int64_t queries;
  // rows: (items, width), centred; forms: (items), of these rows; packed: (width, queries), weighted queries side by
  // side. Writes scores (items, queries). Bit i of the result is set when a score of item i is not at most the
  // threshold of its query; so it is set for NaN.
  uint32_t (*multiply)(const T* rows, const T* forms, const T* packed, int64_t width, const T* thresholds, T* scores);
};

template <typename T>
RowKernels<T> row_kernels(Instructions instructions);

template <typename T>
ProductKernel<T> product_kernel(Instructions instructions);

}  // namespace mmdf2
