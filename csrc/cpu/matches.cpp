#include "matches.h"

#include <algorithm>
#include <utility>

namespace mmdf2 {

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

std::vector<Match<double>> BestMatches::take_sorted() {
  std::sort_heap(heap_.begin(), heap_.end(), is_better);
  return std::move(heap_);
}

template <typename T>
Candidates<T>::Candidates(int64_t queries, int64_t padded, int64_t count)
    : count_(count),
      capacity_(capacity(count)),
      thresholds_(padded, std::numeric_limits<T>::infinity()),
      sizes_(queries),
      matches_(queries * capacity_) {
  std::fill_n(thresholds_.begin(), queries, -std::numeric_limits<T>::infinity());
}

template <typename T>
void Candidates<T>::add(int64_t query, T score, int64_t index) {
  if (!(score > thresholds_[query])) return;  // NaN, or the threshold has risen meanwhile
  matches_[query * capacity_ + sizes_[query]++] = {score, index};
  if (sizes_[query] == capacity_) cut(query);
}

template <typename T>
void Candidates<T>::cut(int64_t query) {
  const auto first = matches_.begin() + query * capacity_, last = first + count_ - 1;
  std::nth_element(first, last, first + sizes_[query],
                   [](const Match<T>& a, const Match<T>& b) { return a.score > b.score; });
  thresholds_[query] = last->score;
  sizes_[query] = count_;
}

template <typename T>
void Candidates<T>::finish(int64_t query) {
  if (sizes_[query] > count_) cut(query);
}

template class Candidates<float>;
template class Candidates<double>;

}  // namespace mmdf2
