// The best matches of one query, and the candidates of many queries.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace mmdf2 {

template <typename Score>
struct Match {
  Score score;
  int64_t index;
};

// Higher scores come first, then smaller indices. NaN, which the direct form gives for infinity minus infinity, is
// last.
inline bool is_better(const Match<double>& a, const Match<double>& b) {
  const double left = a.score == a.score ? a.score : -std::numeric_limits<double>::infinity();
  const double right = b.score == b.score ? b.score : -std::numeric_limits<double>::infinity();
  return left > right || (left == right && a.index < b.index);
}

// The `count` best direct scores of a stream, in a heap whose front is the worst kept.
class BestMatches {
 public:
  explicit BestMatches(int64_t count) : count_(count) {}
  void add(double score, int64_t index);
  // A match with a later index needs a higher score than this to be kept.
  double worst() const;
  // The matches, best first; the list is empty afterwards.
  std::vector<Match<double>> take_sorted();

 private:
  int64_t count_;
  std::vector<Match<double>> heap_;
};

// For each query the `count` highest of a stream of expanded scores, without sorting it. Entries above the query's
// threshold are buffered; a full buffer is cut back to its `count` highest entries, and the lowest of them is the new
// threshold.
template <typename T>
class Candidates {
 public:
  // The memory that one query takes.
  static int64_t bytes(int64_t count) { return capacity(count) * sizeof(Match<T>); }

  // `padded`: the number of thresholds. No score passes those that have no query.
  Candidates(int64_t queries, int64_t padded, int64_t count);

  void add(int64_t query, T score, int64_t index);
  // Cuts back to `count` entries. Every item left out scored at most threshold(query).
  void finish(int64_t query);

  T threshold(int64_t query) const { return thresholds_[query]; }
  // The thresholds of all queries, to compare many scores at once.
  const T* thresholds() const { return thresholds_.data(); }
  const Match<T>* begin(int64_t query) const { return matches_.data() + query * capacity_; }
  const Match<T>* end(int64_t query) const { return begin(query) + sizes_[query]; }

 private:
  static int64_t capacity(int64_t count) { return count + (count > 64 ? count : 64); }
  void cut(int64_t query);

  int64_t count_;
  int64_t capacity_;
  std::vector<T> thresholds_;
  std::vector<int64_t> sizes_;
  std::vector<Match<T>> matches_;
};

}  // namespace mmdf2
