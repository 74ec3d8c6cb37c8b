// The best matches under the learned similarity s(a, b) on the CPU. mmdf2/retrieval/similarity.py derives its expanded
// form, the centre and the error bound; here a' and b' are centred rows, and form(x) = sum_k w_k x_k^2.
//
// The product of the expanded form only finds candidates: each candidate's score is computed again by the direct form
// in double precision. The error bound then proves that no better item was left out, or a second pass with a known
// floor looks for it. A few queries are searched by the direct form from the start, because reading the items takes as
// long as computing it then.
//
// T is the type of the rows, float or double. Neither this header nor the kernels include torch.
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
  const T* centre;   // (width); every centre gives the same result, one amid the rows the fastest
  int64_t width;
  int64_t k;
  double largest_weight;  // largest absolute weight
  RowKernels<T> row;
  ProductKernel<T> product;

  const T* query(int64_t index) const { return queries + index * width; }
  const T* item(int64_t index) const { return items + index * width; }
  double score(int64_t query_index, int64_t item_index) const {
    return row.direct_score(query(query_index), item(item_index), weight, width);
  }
  // Number of matches that a search among `items` has.
  int64_t count(const Range& items) const { return items.size() < k ? items.size() : k; }
  // Number of candidates per query: more than matches, so that errors in the order of the candidates matter less.
  int64_t candidates(const Range& items) const { return items.size() < k + k / 8 + 16 ? items.size() : k + k / 8 + 16; }
};

// Both write each query's best matches among `items`, best first, to matches (queries, problem.count(items)). They
// return false when a row that was read holds NaN or infinity; what they have written is meaningless then.
template <typename T>
bool search_by_product(const Problem<T>& problem, const Range& queries, const Range& items, Match<double>* matches);
template <typename T>
bool search_directly(const Problem<T>& problem, const Range& queries, const Range& items, Match<double>* matches);

}  // namespace mmdf2
