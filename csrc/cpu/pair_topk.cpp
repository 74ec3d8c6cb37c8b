// pair_topk on the CPU: tiles of the score matrix by BLAS, the kernels of pair_similarity.h over their rows.
#include "../pair_similarity.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <tuple>

namespace mmdf2 {
namespace {

using at::Tensor;

// Extra memory is that of a tile of scores (16 MB in float32), its two factors and the candidates of its rows.
constexpr int64_t kQueryTile = 1024;
constexpr int64_t kGalleryTile = 4096;
constexpr int64_t kGrain = 8;

template <typename In>
struct Problem {
  const In* query;
  const In* gallery;
  const In* weight;
  int64_t rows, total, width, k;
  double bias;
  double largest_weight;
  Tensor centre;

  const In* query_row(int64_t row) const { return query + row * width; }
  const In* gallery_row(int64_t row) const { return gallery + row * width; }
};

// A tile of expanded scores, less the query's own form: mixed(row, n) + forms[n] for gallery rows begin + n.
template <typename Work>
struct Tile {
  const Work* mixed;
  const Work* forms;
  int64_t begin, length;
};

// Goes over the gallery for some query rows. Expands them once, then hands out one tile of scores after another.
template <typename In, typename Work>
class Scan {
 public:
  Scan(const Problem<In>& problem, std::vector<int64_t> rows)
      : problem_(problem),
        rows_(std::move(rows)),
        terms_(rows_.size()),
        options_(at::TensorOptions(c10::CppTypeToScalarType<Work>::value)),
        centre_(problem.centre.to(options_.dtype())),
        weighted_(at::empty({size(), problem.width}, options_)) {
    Work* weighted = weighted_.template mutable_data_ptr<Work>();
    at::parallel_for(0, size(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Work* row = weighted + i * problem_.width;
        terms_[i] = centre_row(problem_.query_row(rows_[i]), centre(), problem_.weight, problem_.width, row);
        weigh_row(problem_.weight, problem_.width, row);
      }
    });
  }

  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  int64_t row(int64_t i) const { return rows_[i]; }
  double form(int64_t i) const { return terms_[i].form; }

  // After a run: how far the expanded scores of row i may be from the direct ones.
  double bound(int64_t i) const {
    return error_bound<Work>(terms_[i], gallery_terms_, problem_.largest_weight, problem_.width);
  }

  // Calls visit(i, mixed scores of row i, tile) for each row and each tile, rows in parallel.
  template <typename Visit>
  void run(const Visit& visit) {
    const int64_t step = std::min(kGalleryTile, problem_.total);
    Tensor centred = at::empty({step, problem_.width}, options_);
    Tensor mixed = at::empty({size(), step}, options_);
    std::vector<Work> forms(step);
    for (int64_t begin = 0; begin < problem_.total; begin += step) {
      const int64_t length = std::min(step, problem_.total - begin);
      expand_gallery(begin, length, centred.template mutable_data_ptr<Work>(), forms.data());
      auto scores = length == step ? mixed : at::empty({size(), length}, options_);
      at::mm_out(scores, weighted_, centred.narrow(0, 0, length).t());
      const Tile<Work> tile{scores.template const_data_ptr<Work>(), forms.data(), begin, length};
      at::parallel_for(0, size(), kGrain, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) visit(i, tile.mixed + i * length, tile);
      });
    }
  }

 private:
  const Work* centre() const { return centre_.template const_data_ptr<Work>(); }

  void expand_gallery(int64_t begin, int64_t length, Work* centred, Work* forms) {
    std::vector<RowTerms> terms(length);
    at::parallel_for(0, length, kGrain * 16, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        terms[n] = centre_row(problem_.gallery_row(begin + n), centre(), problem_.weight, problem_.width,
                              centred + n * problem_.width);
        forms[n] = static_cast<Work>(terms[n].form);
      }
    });
    for (const auto& row : terms) {
      gallery_terms_.magnitude = std::max(gallery_terms_.magnitude, row.magnitude);
      gallery_terms_.largest = std::max(gallery_terms_.largest, row.largest);
    }
  }

  const Problem<In>& problem_;
  const std::vector<int64_t> rows_;
  std::vector<RowTerms> terms_;
  RowTerms gallery_terms_;
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
    // In float32, unless the matrix product turns out to be less exact than that (TF32 or bfloat16 was allowed).
    bool accurate = true;
    for (int64_t begin = 0; begin < problem_.rows; begin += kQueryTile) {
      std::vector<int64_t> rows(std::min(kQueryTile, problem_.rows - begin));
      std::iota(rows.begin(), rows.end(), begin);
      if (accurate) accurate = search<In>(rows);
      if (!accurate) search<double>(rows);
    }
  }

 private:
  // False, and nothing done, when the matrix product proves less exact than Work.
  template <typename Work>
  bool search(const std::vector<int64_t>& rows) {
    const int64_t count = std::min(problem_.total, problem_.k + problem_.k / 8 + 16);
    Scan<In, Work> scan(problem_, rows);
    std::vector<Candidates<Work>> candidates(rows.size(), Candidates<Work>(count));
    scan.run([&](int64_t i, const Work* mixed, const Tile<Work>& tile) {
      candidates[i].add(mixed, tile.forms, tile.length, tile.begin);
    });
    std::vector<Rescored> rescored(rows.size());
    at::parallel_for(0, scan.size(), kGrain, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        candidates[i].finish();
        rescored[i] = rescore(candidates[i], problem_.query_row(rows[i]), problem_.gallery, problem_.weight,
                              problem_.width, problem_.total, problem_.k, scan.form(i), scan.bound(i));
      }
    });
    candidates.clear();
    const auto inaccurate = [](const Rescored& row) { return row.outcome == Outcome::kInaccurate; };
    if (!std::is_same_v<Work, double> && std::any_of(rescored.begin(), rescored.end(), inaccurate)) return false;
    finish<Work>(rows, rescored);
    return true;
  }

  // Writes what is proven and searches the rest once more, now with a floor.
  template <typename Work>
  void finish(const std::vector<int64_t>& rows, const std::vector<Rescored>& rescored) {
    std::vector<int64_t> open;
    std::vector<double> floors;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rescored[i].outcome == Outcome::kProven) {
        write(rows[i], rescored[i].matches);
      } else {
        open.push_back(rows[i]);
        floors.push_back(rescored[i].floor);
      }
    }
    if (open.empty()) return;
    Scan<In, Work> scan(problem_, open);
    std::vector<BestMatches> best(open.size(), BestMatches(problem_.k));
    scan.run([&](int64_t i, const Work* mixed, const Tile<Work>& tile) {
      add_above(mixed, tile.forms, tile.length, tile.begin, floors[i], problem_.query_row(open[i]), problem_.gallery,
                problem_.weight, problem_.width, best[i]);
    });
    for (size_t i = 0; i < open.size(); ++i) write(open[i], best[i].sorted());
  }

  void write(int64_t row, const std::vector<Match<double>>& matches) {
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
  const In* weights = weight.const_data_ptr<In>();
  double largest = 0;
  for (int64_t i = 0; i < weight.size(0); ++i) largest = std::max(largest, std::abs(static_cast<double>(weights[i])));
  const Problem<In> problem{query.const_data_ptr<In>(), gallery.const_data_ptr<In>(), weights, query.size(0),
                            gallery.size(0), query.size(1), k, bias, largest, centre};
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
  TORCH_CHECK_TYPE((dtype == at::kFloat || dtype == at::kDouble) && gallery.scalar_type() == dtype &&
                       weight.scalar_type() == dtype,
                   "pair_topk needs float32 or float64, the same for all, got ", dtype, ", ", gallery.scalar_type(),
                   " and ", weight.scalar_type());
  TORCH_CHECK_VALUE(k >= 1 && k <= gallery.size(0), "pair_topk needs 1 <= k <= ", gallery.size(0),
                    " (rows of gallery), got ", k);
}

std::tuple<Tensor, Tensor> pair_topk(const Tensor& query, const Tensor& gallery, const Tensor& weight_difference,
                                     const std::optional<Tensor>& bias_difference, int64_t k) {
  check(query, gallery, weight_difference, bias_difference, k);
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  // In double: the sum of a long gallery's finite rows must stay finite.
  const auto centre = (query.sum(0, false, at::kDouble) + gallery.sum(0, false, at::kDouble)) /
                      (query.size(0) + gallery.size(0));
  TORCH_CHECK_VALUE(std::isfinite(centre.sum().item<double>()),
                    "query or gallery holds NaN or infinity (or values whose sum is not finite)");
  const double bias = bias_difference.has_value() ? bias_difference->item().toDouble() : 0.0;
  const auto run = query.scalar_type() == at::kFloat ? search<float> : search<double>;
  return run(query.contiguous(), gallery.contiguous(), weight_difference.contiguous(), centre, bias, k);
}

}  // namespace
}  // namespace mmdf2

TORCH_LIBRARY_IMPL(mmdf2, CPU, m) { m.impl("pair_topk", mmdf2::pair_topk); }
