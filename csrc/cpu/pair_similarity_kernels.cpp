#include <algorithm>
#include <cmath>

#include "../pair_similarity.h"

namespace mmdf2 {

namespace {

// Sums in a fixed number of lanes: the compiler keeps them in vector registers, and the order of the additions does
// not depend on where a row stands.
constexpr int64_t kLanes = 8;

double sum_lanes(const double (&lanes)[kLanes]) {
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

}  // namespace

template <typename In, typename Work>
RowTerms centre_row(const In* row, const Work* centre, const In* weight, int64_t width, Work* centred) {
  double form[kLanes] = {}, magnitude[kLanes] = {}, largest[kLanes] = {};
  const auto step = [&](int64_t k, int64_t lane) {
    const Work x = static_cast<Work>(row[k]) - centre[k];
    centred[k] = x;
    const double square = static_cast<double>(x) * x;
    form[lane] += weight[k] * square;
    magnitude[lane] += std::abs(static_cast<double>(weight[k])) * square;
    largest[lane] = std::max(largest[lane], std::abs(static_cast<double>(x)));
  };
  int64_t k = 0;
  for (; k + kLanes <= width; k += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) step(k + lane, lane);
  }
  for (; k < width; ++k) step(k, 0);
  return {sum_lanes(form), sum_lanes(magnitude), *std::max_element(largest, largest + kLanes)};
}

template <typename In, typename Work>
void weigh_row(const In* weight, int64_t width, Work* row) {
  for (int64_t k = 0; k < width; ++k) row[k] *= static_cast<Work>(-2) * static_cast<Work>(weight[k]);
}

template <typename Work>
double error_bound(const RowTerms& query, const RowTerms& gallery, double largest_weight, int64_t width) {
  // Standard analysis (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1): a sum of D products errs
  // by at most D u sum |products|, in whatever order it is added; rounding the centred and weighted entries, the two
  // forms and the last addition adds a few u more; sum |w| (|a'| + |b'|)^2 dominates all terms.
  if ((query.largest == 0 && gallery.largest == 0) || largest_weight == 0) return 0;
  const double unit = std::numeric_limits<Work>::epsilon() / 2 + std::numeric_limits<double>::epsilon();
  const double reach = std::sqrt(query.magnitude) + std::sqrt(gallery.magnitude);
  const double scale = reach * reach;
  // Products below the smallest normal number may be lost altogether.
  const double tiny = std::numeric_limits<Work>::min();
  const double lost = 4 * (width + 1) * tiny * (1 + (1 + largest_weight) * (query.largest + gallery.largest));
  const double steps = (width + 10) * unit;
  const bool usable = steps < 0.5 && scale < std::numeric_limits<Work>::max() / 8;
  return usable ? steps / (1 - steps) * scale + lost : std::numeric_limits<double>::infinity();
}

template <typename In>
double direct_score(const In* query, const In* gallery, const In* weight, int64_t width) {
  double lanes[kLanes] = {};
  const auto step = [&](int64_t k, int64_t lane) {
    const double difference = static_cast<double>(query[k]) - static_cast<double>(gallery[k]);
    lanes[lane] += weight[k] * (difference * difference);
  };
  int64_t k = 0;
  for (; k + kLanes <= width; k += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) step(k + lane, lane);
  }
  for (; k < width; ++k) step(k, 0);
  return sum_lanes(lanes);
}

template <typename Work>
Candidates<Work>::Candidates(int64_t count) : count_(count), capacity_(count + std::max<int64_t>(count, 64)) {}

template <typename Work>
void Candidates<Work>::cut() {
  const auto last = buffer_.begin() + count_ - 1;
  std::nth_element(buffer_.begin(), last, buffer_.end(),
                   [](const Match<Work>& a, const Match<Work>& b) { return a.score > b.score; });
  threshold_ = last->score;
  buffer_.resize(count_);
}

template <typename Work>
void Candidates<Work>::add(const Work* mixed, const Work* forms, int64_t length, int64_t first_index) {
  // Most rows are below the threshold once it has risen: a chunk is first counted without a branch.
  constexpr int64_t kChunk = 32;
  for (int64_t begin = 0; begin < length; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, length);
    int hits = 0;
    for (int64_t n = begin; n < end; ++n) hits += mixed[n] + forms[n] > threshold_;
    if (hits == 0) continue;
    for (int64_t n = begin; n < end; ++n) {
      const Work score = mixed[n] + forms[n];
      if (!(score > threshold_)) continue;
      buffer_.push_back({score, first_index + n});
      if (static_cast<int64_t>(buffer_.size()) == capacity_) cut();
    }
  }
}

template <typename Work>
void Candidates<Work>::finish() {
  if (static_cast<int64_t>(buffer_.size()) > count_) cut();
}

void BestMatches::add(double score, int64_t index) {
  const Match<double> match{score, index};
  if (static_cast<int64_t>(heap_.size()) == count_) {
    if (!is_better(match, heap_.front())) return;
    std::pop_heap(heap_.begin(), heap_.end(), is_better);
    heap_.pop_back();
  }
  heap_.push_back(match);
  std::push_heap(heap_.begin(), heap_.end(), is_better);
}

double BestMatches::worst() const {
  const bool full = static_cast<int64_t>(heap_.size()) == count_;
  return full ? heap_.front().score : -std::numeric_limits<double>::infinity();
}

std::vector<Match<double>> BestMatches::sorted() const {
  auto matches = heap_;
  std::sort(matches.begin(), matches.end(), is_better);
  return matches;
}

template <typename In, typename Work>
Rescored rescore(const Candidates<Work>& candidates, const Query<In>& query, const Gallery<In>& gallery,
                 int64_t count) {
  const double lowest = -std::numeric_limits<double>::infinity();
  if (!std::isfinite(query.bound)) return {Outcome::kUnproven, lowest, {}};
  BestMatches best(count);
  bool accurate = true;
  for (const auto& [expanded, index] : candidates.matches()) {
    const double score = direct_score(query.row, gallery.row(index), gallery.weight, gallery.width);
    accurate &= std::abs(query.form + expanded - score) <= query.bound;
    best.add(score, index);
  }
  if (!accurate) return {Outcome::kInaccurate, lowest, {}};
  const bool complete = static_cast<int64_t>(candidates.matches().size()) == gallery.total;
  // Strictly above: an equal score with a smaller index would come first.
  const double worst = best.worst();
  const bool proven = complete || worst > query.form + candidates.threshold() + query.bound;
  return {proven ? Outcome::kProven : Outcome::kUnproven, worst - query.form - query.bound, best.sorted()};
}

template <typename In, typename Work>
void add_above(const Work* mixed, const Work* forms, int64_t length, int64_t first_index, double floor,
               const Query<In>& query, const Gallery<In>& gallery, BestMatches& best) {
  for (int64_t n = 0; n < length; ++n) {
    const Work expanded = mixed[n] + forms[n];
    // Written so that NaN, an overflow of the expanded form, is looked at.
    if (expanded < floor || query.form + expanded + query.bound <= best.worst()) continue;
    const int64_t index = first_index + n;
    best.add(direct_score(query.row, gallery.row(index), gallery.weight, gallery.width), index);
  }
}

#define MMDF2_INSTANTIATE_WORK(Work)                                                    \
  template double error_bound<Work>(const RowTerms&, const RowTerms&, double, int64_t); \
  template class Candidates<Work>;

#define MMDF2_INSTANTIATE(In, Work)                                                                                 \
  template RowTerms centre_row(const In*, const Work*, const In*, int64_t, Work*);                                  \
  template void weigh_row(const In*, int64_t, Work*);                                                               \
  template Rescored rescore(const Candidates<Work>&, const Query<In>&, const Gallery<In>&, int64_t);                \
  template void add_above(const Work*, const Work*, int64_t, int64_t, double, const Query<In>&, const Gallery<In>&, \
                          BestMatches&);

MMDF2_INSTANTIATE_WORK(float)
MMDF2_INSTANTIATE_WORK(double)
MMDF2_INSTANTIATE(float, float)
MMDF2_INSTANTIATE(float, double)
MMDF2_INSTANTIATE(double, double)

}  // namespace mmdf2
