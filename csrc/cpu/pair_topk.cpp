// pair_topk on the CPU: divides the work of search.h among threads.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "../pair_topk_arguments.h"
#include "search.h"

namespace mmdf2 {
namespace {

using at::Tensor;

// From this number of queries on, the product is faster than the direct form.
constexpr int64_t kProductQueries = 5;
// The queries of a group are compared with the gallery together. Groups are large, because each one centres the gallery
// again, but their candidates and packed rows take memory in each thread.
constexpr int64_t kGroupQueries = 2048, kGroupBytes = 8 << 20;
// About the fewest items of a part of the gallery, which a thread searches with candidates of its own.
constexpr int64_t kPartItems = 4096;
constexpr int64_t kCentreRows = 4096;

constexpr char kNotFinite[] = "query or gallery holds NaN or infinity (or values whose sum is not finite)";

Instructions available_instructions() {
  // torch's own choice, which the environment variable ATEN_CPU_CAPABILITY can lower.
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return Instructions::kAvx512;
  return capability == "AVX2" ? Instructions::kAvx2 : Instructions::kBaseline;
}

// Adds up a sample of rows, spread evenly because rows may be sorted; returns how many were added.
template <typename T>
int64_t add_some_rows(const T* rows, int64_t count, std::vector<double>& sum) {
  const int64_t width = static_cast<int64_t>(sum.size()), step = std::max<int64_t>(1, count / kCentreRows);
  int64_t added = 0;
  for (int64_t i = 0; i < count; i += step, ++added) {
    for (int64_t k = 0; k < width; ++k) sum[k] += rows[i * width + k];
  }
  return added;
}

// The centre: approximately the mean of all rows.
template <typename T>
std::vector<T> common_centre(const Tensor& query, const Tensor& gallery) {
  std::vector<double> sum(query.size(1));
  const int64_t added = add_some_rows(query.const_data_ptr<T>(), query.size(0), sum) +
                        add_some_rows(gallery.const_data_ptr<T>(), gallery.size(0), sum);
  std::vector<T> centre(sum.size());
  for (size_t k = 0; k < sum.size(); ++k) {
    centre[k] = static_cast<T>(sum[k] / added);
    TORCH_CHECK_VALUE(std::isfinite(centre[k]), kNotFinite);
  }
  return centre;
}

// The tasks: each one searches a group of queries in a part of the gallery.
struct Division {
  int64_t rows, total, group, part;

  int64_t groups() const { return at::divup(rows, group); }
  int64_t parts() const { return at::divup(total, part); }
  Range queries(int64_t task) const {
    const int64_t begin = task / parts() * group;
    return {begin, std::min(begin + group, rows)};
  }
  Range items(int64_t task) const {
    const int64_t begin = task % parts() * part;
    return {begin, std::min(begin + part, total)};
  }
};

Division divide(int64_t rows, int64_t total, int64_t k, int64_t largest_group, int64_t panel) {
  const int64_t threads = at::get_num_threads();
  int64_t groups = at::divup(rows, largest_group);
  if (groups > threads) groups = at::divup(groups, threads) * threads;
  const int64_t group = at::divup(at::divup(rows, groups), panel) * panel;
  const int64_t parts = std::min(at::divup(threads, at::divup(rows, group)), at::divup(total, std::max(kPartItems, k)));
  return {rows, total, group, at::divup(total, parts)};
}

template <typename T>
class Search {
 public:
  Search(const Problem<T>& problem, const Division& division, bool direct, double bias, T* scores, int64_t* indices)
      : problem_(problem), division_(division), direct_(direct), bias_(bias), scores_(scores), indices_(indices) {}

  void run() {
    const int64_t parts = division_.parts(), tasks = division_.groups() * parts;
    std::vector<std::vector<Match<double>>> found(tasks);
    std::atomic<bool> finite{true};
    at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const Range queries = division_.queries(task), items = division_.items(task);
        found[task].resize(queries.size() * problem_.count(items));
        const auto search = direct_ ? search_directly<T> : search_by_product<T>;
        if (!search(problem_, queries, items, found[task].data())) finite = false;
        if (parts == 1 && finite) write(task, &found[task]);
      }
    });
    TORCH_CHECK_VALUE(finite, kNotFinite);
    if (parts == 1) return;
    at::parallel_for(0, division_.groups(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) write(group * parts, &found[group * parts]);
    });
  }

 private:
  // Writes the best of what the tasks from `first` on found for the same queries in different parts of the gallery.
  void write(int64_t first, std::vector<Match<double>>* found) {
    const Range queries = division_.queries(first);
    std::vector<Match<double>> matches;
    for (int64_t query = queries.begin; query < queries.end; ++query) {
      matches.clear();
      for (int64_t part = 0; part < division_.parts(); ++part) {
        const int64_t count = problem_.count(division_.items(first + part));
        const auto of_query = found[part].begin() + (query - queries.begin) * count;
        matches.insert(matches.end(), of_query, of_query + count);
      }
      if (division_.parts() > 1) {
        std::partial_sort(matches.begin(), matches.begin() + problem_.k, matches.end(), is_better);
      }
      for (int64_t j = 0; j < problem_.k; ++j) {
        scores_[query * problem_.k + j] = static_cast<T>(matches[j].score + bias_);
        indices_[query * problem_.k + j] = matches[j].index;
      }
    }
    for (int64_t part = 0; part < division_.parts(); ++part) found[part] = {};
  }

  const Problem<T>& problem_;
  const Division division_;
  const bool direct_;
  const double bias_;
  T* scores_;
  int64_t* indices_;
};

template <typename T>
std::tuple<Tensor, Tensor> search(const Tensor& query, const Tensor& gallery, const Tensor& weight, double bias,
                                  int64_t k) {
  Tensor scores = at::empty({query.size(0), k}, query.options());
  Tensor indices = at::empty({query.size(0), k}, query.options().dtype(at::kLong));
  if (query.size(0) == 0) return {scores, indices};
  const bool direct = query.size(0) < kProductQueries;
  const auto centre = direct ? std::vector<T>() : common_centre<T>(query, gallery);
  const auto instructions = available_instructions();
  Problem<T> problem{query.const_data_ptr<T>(),
                     gallery.const_data_ptr<T>(),
                     weight.const_data_ptr<T>(),
                     centre.data(),
                     query.size(1),
                     k,
                     0,
                     row_kernels<T>(instructions),
                     product_kernel<T>(instructions)};
  for (int64_t d = 0; d < problem.width; ++d) {
    problem.largest_weight = std::max(problem.largest_weight, std::abs(static_cast<double>(problem.weight[d])));
  }
  const int64_t bytes = Candidates<T>::bytes(problem.candidates({0, gallery.size(0)})) + problem.width * sizeof(T);
  const int64_t largest_group = std::clamp(kGroupBytes / bytes, problem.product.queries, kGroupQueries);
  const auto division = divide(query.size(0), gallery.size(0), k, largest_group, direct ? 1 : problem.product.queries);
  Search<T>(problem, division, direct, bias, scores.mutable_data_ptr<T>(), indices.mutable_data_ptr<int64_t>()).run();
  return {scores, indices};
}

std::tuple<Tensor, Tensor> pair_topk(const Tensor& query, const Tensor& gallery, const Tensor& weight_difference,
                                     const std::optional<Tensor>& bias_difference, int64_t k) {
  check_pair_topk(query, gallery, weight_difference, bias_difference, k);
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  const double bias = bias_difference.has_value() ? bias_difference->item().toDouble() : 0.0;
  const auto run = query.scalar_type() == at::kFloat ? search<float> : search<double>;
  return run(query.contiguous(), gallery.contiguous(), weight_difference.contiguous(), bias, k);
}

}  // namespace
}  // namespace mmdf2

TORCH_LIBRARY_IMPL(mmdf2, CPU, m) { m.impl("pair_topk", mmdf2::pair_topk); }
