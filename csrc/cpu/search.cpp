#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace mmdf2 {
namespace {

// A centred tile of items has to stay in the second-level cache while all queries are multiplied with it.
constexpr int64_t kTileItems = 192, kTileBytes = 192 << 10;

template <typename T>
bool is_finite(const T* row, int64_t width) {
  return std::all_of(row, row + width, [](T value) { return std::isfinite(value); });
}

// Some queries, centred, weighted and packed for the product: panel by panel, with the queries of a panel side by side.
template <typename T>
class PackedQueries {
 public:
  PackedQueries(const Problem<T>& problem, const std::vector<int64_t>& indices)
      : columns_(problem.product.queries), width_(problem.width), terms_(indices.size()) {
    packed_.resize(padded() * width_);
    std::vector<T> centred(width_);
    for (int64_t i = 0; i < size(); ++i) {
      const T* row = problem.query(indices[i]);
      terms_[i] = problem.row.centre_row(row, problem.centre, problem.weight, width_, centred.data());
      finite_ &= is_finite(row, width_);
      T* to = packed_.data() + i / columns_ * columns_ * width_ + i % columns_;
      for (int64_t k = 0; k < width_; ++k) to[k * columns_] = -2 * problem.weight[k] * centred[k];
    }
  }

  int64_t size() const { return static_cast<int64_t>(terms_.size()); }
  // The number of queries with those that fill the last panel.
  int64_t padded() const { return (size() + columns_ - 1) / columns_ * columns_; }
  const T* panel(int64_t first) const { return packed_.data() + first * width_; }
  const RowTerms& terms(int64_t i) const { return terms_[i]; }
  bool finite() const { return finite_; }

 private:
  int64_t columns_, width_;
  bool finite_ = true;
  std::vector<RowTerms> terms_;
  std::vector<T> packed_;
};

// The items of a range, centred in a buffer tile by tile.
template <typename T>
class TiledItems {
 public:
  TiledItems(const Problem<T>& problem, const Range& items) : problem_(problem), items_(items), end_(items.begin) {
    const int64_t block = problem.product.items, row_bytes = std::max<int64_t>(1, problem.width * sizeof(T));
    const int64_t rows = std::min({kTileItems, kTileBytes / row_bytes, items.size() + block - 1});
    capacity_ = std::max(block, rows / block * block);
    rows_.resize(capacity_ * problem.width);
    forms_.resize(capacity_);
  }

  // Centres the next tile; false at the end of the range.
  bool next() {
    begin_ = end_;
    end_ = std::min(begin_ + capacity_, items_.end);
    for (int64_t n = begin_; n < end_; ++n) {
      const auto terms = problem_.row.centre_row(problem_.item(n), problem_.centre, problem_.weight, problem_.width,
                                                 rows_.data() + (n - begin_) * problem_.width);
      forms_[n - begin_] = static_cast<T>(terms.form);
      largest_.magnitude = std::max(largest_.magnitude, terms.magnitude);
      largest_.largest = std::max(largest_.largest, terms.largest);
      // The magnitude of a row that is not finite is not finite. An overflow has the same effect, so the row is looked
      // at.
      if (!std::isfinite(terms.magnitude)) finite_ &= is_finite(problem_.item(n), problem_.width);
      if (!std::isfinite(terms.magnitude)) largest_.magnitude = std::numeric_limits<double>::infinity();
    }
    return begin_ < end_;
  }

  int64_t begin() const { return begin_; }
  int64_t size() const { return end_ - begin_; }
  const T* row(int64_t i) const { return rows_.data() + i * problem_.width; }
  const T* forms() const { return forms_.data(); }
  // The largest terms of all items so far.
  const RowTerms& largest() const { return largest_; }
  bool finite() const { return finite_; }

 private:
  const Problem<T>& problem_;
  Range items_;
  int64_t begin_ = 0, end_, capacity_;
  RowTerms largest_;
  bool finite_ = true;
  std::vector<T> rows_, forms_;
};

// Calls visit(i, score, item) for each query i and item whose expanded score, without the query's own form, is not at
// most thresholds[i]; so it is called for NaN. `visit` may raise thresholds, of which there are queries.padded().
template <typename T, typename Visit>
void scan(const Problem<T>& problem, const PackedQueries<T>& queries, TiledItems<T>& items, const T* thresholds,
          const Visit& visit) {
  const auto& product = problem.product;
  T scores[ProductKernel<T>::kLargestBlock];
  const auto visit_item = [&](int64_t item, int64_t first, const T* of_item) {
    const int64_t last = std::min(first + product.queries, queries.size());
    for (int64_t i = first; i < last; ++i) {
      if (!(of_item[i - first] <= thresholds[i])) visit(i, of_item[i - first], item);
    }
  };
  while (items.next()) {
    for (int64_t first = 0; first < queries.size(); first += product.queries) {
      const T* panel = queries.panel(first);
      for (int64_t n = 0; n < items.size(); n += product.items) {
        uint32_t hits =
            product.multiply(items.row(n), items.forms() + n, panel, problem.width, thresholds + first, scores);
        for (int64_t j = 0; hits != 0 && n + j < items.size(); ++j, hits >>= 1) {
          if (hits & 1) visit_item(items.begin() + n + j, first, scores + j * product.queries);
        }
      }
    }
  }
}

// A query whose candidates are not proved to be complete.
struct OpenQuery {
  int64_t index;
  double bound, floor;  // no item below the floor is among the best
};

// The second pass: scores directly what may be above the floor or above the worst match so far.
template <typename T>
void search_again(const Problem<T>& problem, const std::vector<OpenQuery>& open, const Range& queries,
                  const Range& range, Match<double>* matches) {
  std::vector<int64_t> indices;
  for (const auto& query : open) indices.push_back(query.index);
  const PackedQueries<T> packed(problem, indices);
  std::vector<T> thresholds(packed.padded(), std::numeric_limits<T>::infinity());
  const auto raise = [&](size_t i, double score) {
    const double threshold = score - packed.terms(i).form - open[i].bound;
    // Rounded down, so that rounding loses no item. Where the bound is infinite all items must pass, which NaN
    // achieves.
    const T lower = std::nextafter(static_cast<T>(threshold), -std::numeric_limits<T>::infinity());
    thresholds[i] = std::isfinite(lower) ? lower : std::numeric_limits<T>::quiet_NaN();
  };
  for (size_t i = 0; i < open.size(); ++i) raise(i, open[i].floor);
  std::vector<BestMatches> best(open.size(), BestMatches(problem.count(range)));
  TiledItems<T> items(problem, range);
  scan(problem, packed, items, thresholds.data(), [&](int64_t i, T, int64_t item) {
    const double before = best[i].worst();
    best[i].add(problem.score(open[i].index, item), item);
    if (best[i].worst() > std::max(before, open[i].floor)) raise(i, best[i].worst());
  });
  for (size_t i = 0; i < open.size(); ++i) {
    const auto sorted = best[i].take_sorted();
    std::copy(sorted.begin(), sorted.end(), matches + (open[i].index - queries.begin) * problem.count(range));
  }
}

}  // namespace

template <typename T>
bool search_by_product(const Problem<T>& problem, const Range& queries, const Range& range, Match<double>* matches) {
  std::vector<int64_t> indices(queries.size());
  for (int64_t i = 0; i < queries.size(); ++i) indices[i] = queries.begin + i;
  const PackedQueries<T> packed(problem, indices);
  const int64_t count = problem.count(range);
  Candidates<T> candidates(packed.size(), packed.padded(), problem.candidates(range));
  TiledItems<T> items(problem, range);
  scan(problem, packed, items, candidates.thresholds(),
       [&](int64_t i, T score, int64_t item) { candidates.add(i, score, item); });
  if (!packed.finite() || !items.finite()) return false;

  const auto arithmetic = ordinary_arithmetic<T>(problem.width);
  std::vector<OpenQuery> open;
  for (int64_t i = 0; i < packed.size(); ++i) {
    candidates.finish(i);
    const double bound =
        error_bound(arithmetic, packed.terms(i), items.largest(), problem.largest_weight, problem.width);
    BestMatches best(count);
    for (auto match = candidates.begin(i); match != candidates.end(i); ++match) {
      best.add(problem.score(indices[i], match->index), match->index);
    }
    const double worst = best.worst();
    const bool complete = candidates.end(i) - candidates.begin(i) == range.size();
    // Strictly above, because an item of equal score and smaller index would come first.
    if (complete || worst > packed.terms(i).form + candidates.threshold(i) + bound) {
      const auto sorted = best.take_sorted();
      std::copy(sorted.begin(), sorted.end(), matches + i * count);
    } else {
      open.push_back({indices[i], bound, worst});
    }
  }
  if (!open.empty()) search_again(problem, open, queries, range, matches);
  return true;
}

template <typename T>
bool search_directly(const Problem<T>& problem, const Range& queries, const Range& range, Match<double>* matches) {
  std::vector<BestMatches> best(queries.size(), BestMatches(problem.count(range)));
  bool finite = true;
  for (int64_t item = range.begin; item < range.end; ++item) {
    for (int64_t i = 0; i < queries.size(); ++i) {
      const double score = problem.score(queries.begin + i, item);
      best[i].add(score, item);
      // The score of a row that is not finite is not finite. An overflow in double precision has the same effect.
      if (!std::isfinite(score)) {
        finite &=
            is_finite(problem.item(item), problem.width) && is_finite(problem.query(queries.begin + i), problem.width);
      }
    }
  }
  for (auto& matches_of_query : best) {
    const auto sorted = matches_of_query.take_sorted();
    matches = std::copy(sorted.begin(), sorted.end(), matches);
  }
  return finite;
}

#define MMDF2_INSTANTIATE(T)                                                                      \
  template bool search_by_product(const Problem<T>&, const Range&, const Range&, Match<double>*); \
  template bool search_directly(const Problem<T>&, const Range&, const Range&, Match<double>*);

MMDF2_INSTANTIATE(float)
MMDF2_INSTANTIATE(double)

}  // namespace mmdf2
