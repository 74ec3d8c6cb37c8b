// pair_topk on the CPU: tiles of the score matrix by BLAS, the kernels of pair_similarity.h over their rows.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../pair_similarity.h"

namespace mmdf2 {
namespace {

using at::Tensor;

// Extra memory is that of a tile of scores (16 MB in float32), its two factors and the candidates of its rows.
constexpr int64_t kQueryTile = 1024;
constexpr int64_t kGalleryTile = 4096;

template <typename Visit>
void for_rows(int64_t count, const Visit& visit) {
  at::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) visit(i);
  });
}

// In double and in pieces: the sum of a long gallery's finite rows must stay finite, and torch sums a converted copy.
Tensor sum_rows(const Tensor& rows) {
  Tensor total = at::zeros({rows.size(1)}, rows.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < rows.size(0); begin += kGalleryTile) {
    total += rows.narrow(0, begin, std::min(kGalleryTile, rows.size(0) - begin)).sum(0, false, at::kDouble);
  }
  return total;
}

template <typename In>
struct Problem {
  const In* queries;
  int64_t rows;
  Gallery<In> gallery;
  double largest_weight;
  double bias;
  int64_t k;
  Tensor centre;

  const In* query_row(int64_t row) const { return queries + row * gallery.width; }
};

// Expanded scores of all rows of a scan, less the rows' own forms, for gallery rows begin, begin + 1, ...
template <typename Work>
struct Tile {
  const Work* mixed;  // (rows, length)
  const Work* forms;  // (length)
  int64_t begin, length;

  const Work* row(int64_t i) const { return mixed + i * length; }
};

// Expands some query rows once and goes over the gallery with them, tile by tile.
template <typename In, typename Work>
class Scan {
 public:
  Scan(const Problem<In>& problem, const std::vector<const In*>& rows)
      : problem_(problem),
        gallery_(problem.gallery),
        terms_(rows.size()),
        options_(at::TensorOptions(c10::CppTypeToScalarType<Work>::value)),
        centre_(problem.centre.to(options_.dtype())),
        weighted_(at::empty({size(), gallery_.width}, options_)) {
    Work* weighted = weighted_.template mutable_data_ptr<Work>();
    for_rows(size(), [&](int64_t i) {
      Work* row = weighted + i * gallery_.width;
      terms_[i] = centre_row(rows[i], centre(), gallery_.weight, gallery_.width, row);
      weigh_row(gallery_.weight, gallery_.width, row);
    });
  }

  int64_t size() const { return static_cast<int64_t>(terms_.size()); }
  double form(int64_t i) const { return terms_[i].form; }

  // After run(): how far the expanded scores of row i may be from the direct ones.
  double bound(int64_t i) const {
    return error_bound<Work>(terms_[i], largest_terms_, problem_.largest_weight, gallery_.width);
  }

  // Calls visit(i, tile) for each row and each tile; rows in parallel, tiles in order.
  template <typename Visit>
  void run(const Visit& visit) {
    const int64_t step = std::min(kGalleryTile, gallery_.total);
    const Tensor centred = at::empty({step, gallery_.width}, options_);
    const Tensor mixed = at::empty({size() * step}, options_);
    std::vector<Work> forms(step);
    for (int64_t begin = 0; begin < gallery_.total; begin += step) {
      const int64_t length = std::min(step, gallery_.total - begin);
      expand_gallery(begin, length, centred.template mutable_data_ptr<Work>(), forms.data());
      Tensor scores = mixed.narrow(0, 0, size() * length).view({size(), length});
      at::mm_out(scores, weighted_, centred.narrow(0, 0, length).t());
      const Tile<Work> tile{scores.template const_data_ptr<Work>(), forms.data(), begin, length};
      for_rows(size(), [&](int64_t i) { visit(i, tile); });
    }
  }

 private:
  const Work* centre() const { return centre_.template const_data_ptr<Work>(); }

  void expand_gallery(int64_t begin, int64_t length, Work* centred, Work* forms) {
    std::vector<RowTerms> terms(length);
    for_rows(length, [&](int64_t n) {
      terms[n] =
          centre_row(gallery_.row(begin + n), centre(), gallery_.weight, gallery_.width, centred + n * gallery_.width);
      forms[n] = static_cast<Work>(terms[n].form);
    });
    for (const auto& row : terms) {
      largest_terms_.magnitude = std::max(largest_terms_.magnitude, row.magnitude);
      largest_terms_.largest = std::max(largest_terms_.largest, row.largest);
    }
  }

  const Problem<In>& problem_;
  const Gallery<In>& gallery_;
  std::vector<RowTerms> terms_;
  RowTerms largest_terms_;
  const at::TensorOptions options_;
  const Tensor centre_;
  Tensor weighted_;
};

template <typename In>
class Search {
 public:
  Search(const Problem<In>& problem, In* scores, int64_t* indices)
      : problem_(problem), scores_(scores), indices_(indices) {}

  void run() {
    // In the rows' own precision, unless the matrix product proves less exact (TF32 or bfloat16 may be allowed).
    bool accurate = true;
    for (int64_t begin = 0; begin < problem_.rows; begin += kQueryTile) {
      const int64_t end = std::min(begin + kQueryTile, problem_.rows);
      if (accurate) accurate = search<In>(begin, end);
      if (!accurate) search<double>(begin, end);
    }
  }

 private:
  // Query rows begin to end. False, and nothing written, when the matrix product proves less exact than Work.
  template <typename Work>
  bool search(int64_t begin, int64_t end) {
    const int64_t size = end - begin, k = problem_.k;
    std::vector<const In*> rows(size);
    for (int64_t i = 0; i < size; ++i) rows[i] = problem_.query_row(begin + i);
    Scan<In, Work> scan(problem_, rows);
    std::vector<Candidates<Work>> candidates(size, Candidates<Work>(std::min(problem_.gallery.total, k + k / 8 + 16)));
    scan.run([&](int64_t i, const Tile<Work>& tile) {
      candidates[i].add(tile.row(i), tile.forms, tile.length, tile.begin);
    });

    std::vector<Query<In>> queries(size);
    std::vector<Rescored> found(size);
    for_rows(size, [&](int64_t i) {
      candidates[i].finish();
      queries[i] = {rows[i], scan.form(i), scan.bound(i)};
      found[i] = rescore(candidates[i], queries[i], problem_.gallery, k);
    });
    candidates.clear();
    const auto inaccurate = [](const Rescored& row) { return row.outcome == Outcome::kInaccurate; };
    if (std::is_same_v<Work, float> && std::any_of(found.begin(), found.end(), inaccurate)) return false;
    search_again<Work>(queries, found);
    for (int64_t i = 0; i < size; ++i) write(begin + i, found[i].matches);
    return true;
  }

  // Completes the matches of the rows without a proof: a second pass over the gallery, now with a floor.
  template <typename Work>
  void search_again(const std::vector<Query<In>>& queries, std::vector<Rescored>& found) {
    std::vector<size_t> open;
    std::vector<const In*> rows;
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i].outcome == Outcome::kProven) continue;
      open.push_back(i);
      rows.push_back(queries[i].row);
    }
    if (open.empty()) return;
    std::vector<BestMatches> best(open.size(), BestMatches(problem_.k));
    Scan<In, Work>(problem_, rows).run([&](int64_t j, const Tile<Work>& tile) {
      add_above(tile.row(j), tile.forms, tile.length, tile.begin, found[open[j]].floor, queries[open[j]],
                problem_.gallery, best[j]);
    });
    for (size_t j = 0; j < open.size(); ++j) found[open[j]].matches = best[j].sorted();
  }

  void write(int64_t row, const std::vector<Match<double>>& matches) {
    TORCH_INTERNAL_ASSERT(static_cast<int64_t>(matches.size()) == problem_.k);
    for (int64_t j = 0; j < problem_.k; ++j) {
      scores_[row * problem_.k + j] = static_cast<In>(matches[j].score + problem_.bias);
      indices_[row * problem_.k + j] = matches[j].index;
    }
  }

  const Problem<In>& problem_;
  In* scores_;
  int64_t* indices_;
};

template <typename In>
std::tuple<Tensor, Tensor> search(const Tensor& query, const Tensor& gallery, const Tensor& weight,
                                  const Tensor& centre, double bias, int64_t k) {
  Tensor scores = at::empty({query.size(0), k}, query.options());
  Tensor indices = at::empty({query.size(0), k}, query.options().dtype(at::kLong));
  const Gallery<In> rows{gallery.const_data_ptr<In>(), weight.const_data_ptr<In>(), gallery.size(0), gallery.size(1)};
  double largest_weight = 0;
  for (int64_t d = 0; d < rows.width; ++d) {
    largest_weight = std::max(largest_weight, std::abs(static_cast<double>(rows.weight[d])));
  }
  const Problem<In> problem{query.const_data_ptr<In>(), query.size(0), rows, largest_weight, bias, k, centre};
  Search<In>(problem, scores.mutable_data_ptr<In>(), indices.mutable_data_ptr<int64_t>()).run();
  return {scores, indices};
}

void check(const Tensor& query, const Tensor& gallery, const Tensor& weight, const std::optional<Tensor>& bias,
           int64_t k) {
  TORCH_CHECK_VALUE(query.dim() == 2 && gallery.dim() == 2 && weight.dim() == 1 && query.size(1) == gallery.size(1) &&
                        query.size(1) == weight.size(0),
                    "pair_topk needs query (M, D), gallery (N, D) and weight_difference (D), got ", query.sizes(), ", ",
                    gallery.sizes(), " and ", weight.sizes());
  TORCH_CHECK_VALUE(!bias.has_value() || bias->numel() == 1, "pair_topk needs one bias_difference, got ",
                    bias->sizes());
  const auto dtype = query.scalar_type();
  TORCH_CHECK_TYPE(
      (dtype == at::kFloat || dtype == at::kDouble) && gallery.scalar_type() == dtype && weight.scalar_type() == dtype,
      "pair_topk needs float32 or float64, the same for all, got ", dtype, ", ", gallery.scalar_type(), " and ",
      weight.scalar_type());
  TORCH_CHECK_VALUE(k >= 1 && k <= gallery.size(0), "pair_topk needs 1 <= k <= ", gallery.size(0),
                    " (rows of gallery), got ", k);
}

std::tuple<Tensor, Tensor> pair_topk(const Tensor& query, const Tensor& gallery, const Tensor& weight_difference,
                                     const std::optional<Tensor>& bias_difference, int64_t k) {
  check(query, gallery, weight_difference, bias_difference, k);
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  const auto centre = (sum_rows(query) + sum_rows(gallery)) / (query.size(0) + gallery.size(0));
  TORCH_CHECK_VALUE(std::isfinite(centre.sum().item<double>()),
                    "query or gallery holds NaN or infinity (or values whose sum is not finite)");
  const double bias = bias_difference.has_value() ? bias_difference->item().toDouble() : 0.0;
  const auto run = query.scalar_type() == at::kFloat ? search<float> : search<double>;
  return run(query.contiguous(), gallery.contiguous(), weight_difference.contiguous(), centre, bias, k);
}

}  // namespace
}  // namespace mmdf2

TORCH_LIBRARY_IMPL(mmdf2, CPU, m) { m.impl("pair_topk", mmdf2::pair_topk); }
