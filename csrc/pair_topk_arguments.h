// The checks of pair_topk's arguments that all devices share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace mmdf2 {

inline void check_pair_topk(const at::Tensor& query, const at::Tensor& gallery, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, int64_t k) {
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
  TORCH_CHECK_VALUE(gallery.device() == query.device() && weight.device() == query.device(),
                    "pair_topk needs all on one device, got ", query.device(), ", ", gallery.device(), " and ",
                    weight.device());
  TORCH_CHECK_VALUE(k >= 1 && k <= gallery.size(0), "pair_topk needs 1 <= k <= ", gallery.size(0),
                    " (rows of gallery), got ", k);
}

}  // namespace mmdf2
