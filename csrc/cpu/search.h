// Nearest items under the learned similarity s(a, b) = sum_k w_k (a_k - b_k)^2, weights of either sign.
//
// With a' = a - centre and b' = b - centre, for one centre common to all rows,
//     s(a, b) = form(a') + form(b') - 2 sum_k (w_k a'_k) b'_k,   form(x) = sum_k w_k x_k^2,
// so the scores of all pairs are one matrix product. It is used to find candidates only: each candidate's score is
// computed again by the direct form in double precision, and a bound on the error of the expanded form proves that no
// better item was left out, or asks for a second pass with a known floor. Few queries are searched by the direct form
// from the start: reading the items takes as long as computing it then.
//
// T is the type of the rows, float or double. No torch header here, nor in the kernels.
#pragma once

#include <cstdint>

#include "matches.h"
#include "vector_kernels.h"

namespace mmdf2 {

struct Range {
  int64_t begin, end;

  int64_t size() const { return end - begin; }
};

template <typename T>
struct Problem {
  const T* queries;  // (rows, width)
  const T* items;    // (total, width), the gallery
  const T* weight;   // (width)
  const T* centre;   // (width); any gives the same result, one amid the rows the fastest
  int64_t width;
  int64_t k;
  double largest_weight;  // absolute
  RowKernels<T> row;
  ProductKernel<T> product;

  const T* query(int64_t index) const { return queries + index * width; }
  const T* item(int64_t index) const { return items + index * width; }
  double score(int64_t query_index, int64_t item_index) const {
    return row.direct_score(query(query_index), item(item_index), weight, width);
  }
  // How many matches a search among `items` has.
  int64_t count(const Range& items) const { return items.size() < k ? items.size() : k; }
  // The product's candidates for each query: more than matches, so that the error of their order matters less.
  int64_t candidates(const Range& items) const { return items.size() < k + k / 8 + 16 ? items.size() : k + k / 8 + 16; }
};

// Both write each query's best matches among `items`, best first, to matches (queries, problem.count(items)).
// False when a row that was read holds NaN or infinity; what is written then means nothing.
template <typename T>
bool search_by_product(const Problem<T>& problem, const Range& queries, const Range& items, Match<double>* matches);
template <typename T>
bool search_directly(const Problem<T>& problem, const Range& queries, const Range& items, Match<double>* matches);

}  // namespace mmdf2
