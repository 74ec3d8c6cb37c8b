// Logits of all pairs, and their gradients, as matrix products: nothing of size M x N x D is made. The same code runs
// on every device. mmdf2/retrieval/similarity.py derives the algebra.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

namespace {

using at::Tensor;

// Gallery rows whose weighted copies, one per class, are in memory at a time.
constexpr int64_t kTile = 4096;

void check(const Tensor& query, const Tensor& gallery, const Tensor& weight) {
  TORCH_CHECK_VALUE(query.dim() == 2 && gallery.dim() == 2 && weight.dim() == 2,
                    "pair_similarity needs query (M, D), gallery (N, D) and weight (C, D), got ", query.sizes(), ", ",
                    gallery.sizes(), " and ", weight.sizes());
  TORCH_CHECK_VALUE(query.size(1) == gallery.size(1) && query.size(1) == weight.size(1),
                    "pair_similarity needs one width D, got ", query.sizes(), ", ", gallery.sizes(), " and ",
                    weight.sizes());
}

// The vector that is subtracted from all rows: the similarity does not change by it, and the expanded form keeps
// digits.
Tensor common_centre(const Tensor& query, const Tensor& gallery) {
  const auto rows = std::max<int64_t>(query.size(0) + gallery.size(0), 1);
  return (query.sum(0) + gallery.sum(0)) / rows;
}

Tensor pair_similarity(const Tensor& query, const Tensor& gallery, const Tensor& weight,
                       const std::optional<Tensor>& bias) {
  check(query, gallery, weight);
  const auto rows = query.size(0), columns = gallery.size(0), classes = weight.size(0), width = query.size(1);
  TORCH_CHECK_VALUE(!bias.has_value() || (bias->dim() == 1 && bias->size(0) == classes), "pair_similarity needs bias (",
                    classes, "), got ", bias->sizes());
  const auto centre = common_centre(query, gallery);
  const auto a = query - centre;
  auto a_form = at::mm(a * a, weight.t());
  if (bias.has_value()) a_form = a_form + *bias;

  auto logits = at::empty({rows, columns, classes}, query.options());
  for (int64_t begin = 0; begin < columns; begin += kTile) {
    const auto length = std::min(kTile, columns - begin);
    const auto b = gallery.narrow(0, begin, length) - centre;
    const auto b_form = at::mm(b * b, weight.t());
    const auto weighted = (b.unsqueeze(1) * weight).reshape({length * classes, width});
    const auto forms = (a_form.unsqueeze(1) + b_form).reshape({rows, length * classes});
    const auto tile = at::addmm(forms, a, weighted.t(), 1, -2);
    logits.narrow(1, begin, length).copy_(tile.view({rows, length, classes}));
  }
  return logits;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pair_similarity_backward(const Tensor& grad, const Tensor& query,
                                                                    const Tensor& gallery, const Tensor& weight) {
  check(query, gallery, weight);
  TORCH_CHECK_VALUE(grad.dim() == 3 && grad.size(0) == query.size(0) && grad.size(1) == gallery.size(0) &&
                        grad.size(2) == weight.size(0),
                    "pair_similarity_backward needs grad (M, N, C), got ", grad.sizes());
  const auto centre = common_centre(query, gallery);
  const auto a = query - centre, b = gallery - centre;
  const auto a_total = grad.sum(1), b_total = grad.sum(0);  // (M, C), (N, C)
  auto a_grad = a * at::mm(a_total, weight);
  auto b_grad = b * at::mm(b_total, weight);
  auto weight_grad = at::mm(a_total.t(), a * a) + at::mm(b_total.t(), b * b);
  for (int64_t c = 0; c < weight.size(0); ++c) {
    const auto grad_c = grad.select(2, c), weight_c = weight.select(0, c);
    const auto pulled = at::mm(grad_c, b);  // sum over n of grad b
    a_grad -= weight_c * pulled;
    b_grad -= weight_c * at::mm(grad_c.t(), a);
    weight_grad.select(0, c) -= (a * pulled).sum(0) * 2;
  }
  return {a_grad * 2, b_grad * 2, weight_grad, a_total.sum(0)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdf2, CompositeExplicitAutograd, m) {
  m.impl("pair_similarity", pair_similarity);
  m.impl("pair_similarity_backward", pair_similarity_backward);
}
