// Nearest items under the learned similarity s(a, b) = sum_k w_k (a_k - b_k)^2, weights of either sign.
//
// With a' = a - centre and b' = b - centre, for one centre common to all rows,
//     s(a, b) = form(a') + form(b') - 2 sum_k (w_k a'_k) b'_k,   form(x) = sum_k w_k x_k^2,
// so the scores of all pairs are one matrix product. It is used to find candidates only: each candidate's score is
// computed again by the direct form in double precision, and a bound on the error of the expanded form proves that no
// better item was left out, or asks for a second pass with a known floor.
//
// `In` is the type of the rows, `Work` the type of the matrix product. No torch header here, nor in the kernels, so
// that they compile wherever a compiler is.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace mmdf2 {

// What the error bound needs to know of a centred row.
struct RowTerms {
  double form = 0;       // sum w x^2
  double magnitude = 0;  // sum |w| x^2
  double largest = 0;    // max |x|
};

// The gallery's rows and the similarity's weights.
template <typename In>
struct Gallery {
  const In* rows;
  const In* weight;
  int64_t total;
  int64_t width;

  const In* row(int64_t index) const { return rows + index * width; }
};

// One query row, its own term of the expanded form and the error_bound of its scores.
template <typename In>
struct Query {
  const In* row;
  double form;
  double bound;
};

// Writes `row - centre`.
template <typename In, typename Work>
RowTerms centre_row(const In* row, const Work* centre, const In* weight, int64_t width, Work* centred);

// Multiplies a centred query row by -2 w, so that the matrix product with a centred gallery row is the mixed term.
template <typename In, typename Work>
void weigh_row(const In* weight, int64_t width, Work* row);

// Bound on |form(a') + fl(form(b') + mixed term) - s(a, b)| for a query row and any gallery row within `gallery`'s
// magnitude and largest entry. Infinite where Work could overflow.
template <typename Work>
double error_bound(const RowTerms& query, const RowTerms& gallery, double largest_weight, int64_t width);

// sum_k w_k (a_k - b_k)^2 in double precision. Equal rows give equal bits wherever they stand.
template <typename In>
double direct_score(const In* query, const In* gallery, const In* weight, int64_t width);

template <typename Score>
struct Match {
  Score score;
  int64_t index;
};

// Higher scores first, then smaller indices; NaN (infinity minus infinity in the direct form) last.
inline bool is_better(const Match<double>& a, const Match<double>& b) {
  const double left = a.score == a.score ? a.score : -std::numeric_limits<double>::infinity();
  const double right = b.score == b.score ? b.score : -std::numeric_limits<double>::infinity();
  return left > right || (left == right && a.index < b.index);
}

// The `count` highest of a stream of expanded scores, without sorting it: entries above the threshold are buffered,
// and a full buffer is cut back to its `count` highest, whose lowest is the new threshold.
template <typename Work>
class Candidates {
 public:
  explicit Candidates(int64_t count);

  // Scores of gallery rows first_index, first_index + 1, ...: mixed[n] + forms[n].
  void add(const Work* mixed, const Work* forms, int64_t length, int64_t first_index);

  // Cuts back to `count`. Every row left out scored at most threshold().
  void finish();

  const std::vector<Match<Work>>& matches() const { return buffer_; }
  Work threshold() const { return threshold_; }

 private:
  void cut();

  int64_t count_;
  int64_t capacity_;
  Work threshold_ = -std::numeric_limits<Work>::infinity();
  std::vector<Match<Work>> buffer_;
};

// The `count` best direct scores of a stream, in a heap whose front is the worst kept.
class BestMatches {
 public:
  explicit BestMatches(int64_t count) : count_(count) {}
  void add(double score, int64_t index);
  // A later index needs a higher score than this to come in.
  double worst() const;
  std::vector<Match<double>> sorted() const;

 private:
  int64_t count_;
  std::vector<Match<double>> heap_;
};

// How one query's search by candidates ended.
enum class Outcome {
  kProven,      // the matches are the best ones
  kUnproven,    // an item of score `floor` or more may be missing
  kInaccurate,  // the matrix product was less exact than Work promises (TF32, bfloat16)
};

struct Rescored {
  Outcome outcome = Outcome::kUnproven;
  double floor = 0;                    // no item below it is among the best
  std::vector<Match<double>> matches;  // best first
};

// Scores the candidates by the direct form and decides whether the `count` best of them are the best of all.
template <typename In, typename Work>
Rescored rescore(const Candidates<Work>& candidates, const Query<In>& query, const Gallery<In>& gallery, int64_t count);

// Second pass: scores by the direct form the rows whose expanded score is not below `floor`, in ascending order.
template <typename In, typename Work>
void add_above(const Work* mixed, const Work* forms, int64_t length, int64_t first_index, double floor,
               const Query<In>& query, const Gallery<In>& gallery, BestMatches& best);

}  // namespace mmdf2
