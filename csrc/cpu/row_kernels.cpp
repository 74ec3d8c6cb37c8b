// The kernels of single rows. They use no fused multiply-adds, so that a score is the same number on every machine:
// items of equal score on one machine have equal scores on all.
#ifdef __clang__
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include <cmath>
#include <cstring>

#include "vector_kernels.h"

namespace mmdf2 {
namespace {

// Two vectors of sums, so that the additions of one need not wait for those of the other.
constexpr int64_t kLanes = 8, kStep = 2 * kLanes;
typedef double Doubles __attribute__((vector_size(kLanes * sizeof(double))));

template <typename T>
struct Lanes {
  typedef T type __attribute__((vector_size(kLanes * sizeof(T))));
};

template <typename T>
MMDF2_INLINE void load(const T* from, Doubles& to) {
  typename Lanes<T>::type values;
  std::memcpy(&values, from, sizeof(values));
  to = __builtin_convertvector(values, Doubles);
}

MMDF2_INLINE double sum_lanes(const Doubles& first, const Doubles& second) {
  const Doubles lanes = first + second;
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

template <typename T>
MMDF2_INLINE double direct_score_body(const T* query, const T* item, const T* weight, int64_t width) {
  Doubles sums[2] = {};
  double rest = 0;
  int64_t k = 0;
  for (; k + kStep <= width; k += kStep) {
    for (int64_t half = 0; half < 2; ++half) {
      Doubles a, b, w;
      load(query + k + half * kLanes, a);
      load(item + k + half * kLanes, b);
      load(weight + k + half * kLanes, w);
      const Doubles difference = a - b;
      sums[half] += w * (difference * difference);
    }
  }
  for (; k < width; ++k) {
    const double difference = static_cast<double>(query[k]) - static_cast<double>(item[k]);
    rest += weight[k] * (difference * difference);
  }
  return sum_lanes(sums[0], sums[1]) + rest;
}

template <typename T>
MMDF2_INLINE RowTerms centre_row_body(const T* row, const T* centre, const T* weight, int64_t width, T* centred) {
  for (int64_t k = 0; k < width; ++k) centred[k] = row[k] - centre[k];
  Doubles form[2] = {}, magnitude[2] = {}, largest = {};
  int64_t k = 0;
  for (; k + kStep <= width; k += kStep) {
    for (int64_t half = 0; half < 2; ++half) {
      Doubles x, w;
      load(centred + k + half * kLanes, x);
      load(weight + k + half * kLanes, w);
      const Doubles product = w * (x * x);
      form[half] += product;
      magnitude[half] += product < 0 ? -product : product;
      const Doubles size = x < 0 ? -x : x;
      largest = size > largest ? size : largest;
    }
  }
  RowTerms terms{sum_lanes(form[0], form[1]), sum_lanes(magnitude[0], magnitude[1]), 0};
  for (int64_t lane = 0; lane < kLanes; ++lane) terms.largest = std::fmax(terms.largest, largest[lane]);
  for (; k < width; ++k) {
    const double x = centred[k], product = weight[k] * (x * x);
    terms.form += product;
    terms.magnitude += std::abs(product);
    terms.largest = std::fmax(terms.largest, std::abs(x));
  }
  return terms;
}

#define MMDF2_ROW_KERNELS(Name, TARGET)                                                                            \
  template <typename T>                                                                                            \
  struct Name {                                                                                                    \
    TARGET static RowTerms centre_row(const T* row, const T* centre, const T* weight, int64_t width, T* centred) { \
      return centre_row_body(row, centre, weight, width, centred);                                                 \
    }                                                                                                              \
    TARGET static double direct_score(const T* query, const T* item, const T* weight, int64_t width) {             \
      return direct_score_body(query, item, weight, width);                                                        \
    }                                                                                                              \
    static constexpr RowKernels<T> kKernels{centre_row, direct_score};                                             \
  };

MMDF2_ROW_KERNELS(Baseline, )
#ifdef MMDF2_AVX2
MMDF2_ROW_KERNELS(Avx2, MMDF2_AVX2)
MMDF2_ROW_KERNELS(Avx512, MMDF2_AVX512)
#endif

}  // namespace

template <typename T>
RowKernels<T> row_kernels(Instructions instructions) {
#ifdef MMDF2_AVX2
  if (instructions == Instructions::kAvx512) return Avx512<T>::kKernels;
  if (instructions == Instructions::kAvx2) return Avx2<T>::kKernels;
#endif
  return Baseline<T>::kKernels;
}

template RowKernels<float> row_kernels(Instructions);
template RowKernels<double> row_kernels(Instructions);

}  // namespace mmdf2
