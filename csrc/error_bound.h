// How far the expanded form of the similarity can be from the direct one, on the host and on the device.
// mmdf2/retrieval/similarity.py derives the bound.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#ifdef __CUDACC__
#define MMDF2_HOST_DEVICE __host__ __device__
#else
#define MMDF2_HOST_DEVICE
#endif

namespace mmdf2 {

// What the error bound needs to know of a centred row x.
struct RowTerms {
  double form = 0;       // sum w x^2
  double magnitude = 0;  // sum |w| x^2
  double largest = 0;    // max |x|
};

// The arithmetic of a matrix product of rows of `width` entries.
struct Arithmetic {
  double unit;      // relative error of one rounding
  double smallest;  // smallest normal number
  double greatest;
  double roundings;  // in a sum of products, each at most `unit` times the sum of the products' absolute values
};

// The arithmetic of Work itself: a sum of D products errs by at most D u sum |products|, in whatever order it is added
// (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
template <typename Work>
MMDF2_HOST_DEVICE inline Arithmetic ordinary_arithmetic(int64_t width) {
  using Limits = std::numeric_limits<Work>;
  constexpr double kUnit = static_cast<double>(Limits::epsilon()) / 2 + std::numeric_limits<double>::epsilon();
  constexpr double kSmallest = Limits::min(), kGreatest = Limits::max();
  return {kUnit, kSmallest, kGreatest, static_cast<double>(width)};
}

// Bound on |form(a') + fl(form(b') + mixed term) - s(a, b)| for a query row and every gallery row whose magnitude and
// largest entry are at most those of `gallery`. Infinite where the arithmetic could overflow.
MMDF2_HOST_DEVICE inline double error_bound(const Arithmetic& arithmetic, const RowTerms& query,
                                            const RowTerms& gallery, double largest_weight, int64_t width) {
  const double reach = sqrt(query.magnitude) + sqrt(gallery.magnitude);
  const double scale = reach * reach;
  // Rounding the centred and weighted entries, the forms and the final addition.
  const double steps = (arithmetic.roundings + 10) * arithmetic.unit;
  // Products below the smallest normal number may be lost completely.
  const double lost =
      8 * (width + 1) * arithmetic.smallest * (1 + (1 + largest_weight) * (query.largest + gallery.largest));
  const bool usable = steps < 0.5 && scale < arithmetic.greatest / 8;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return usable ? steps / (1 - steps) * scale + lost : kInfinity;
}

}  // namespace mmdf2
