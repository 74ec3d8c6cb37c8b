// pair_topk for CUDA tensors: gives the search of this folder torch's memory and stream.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "../pair_topk_arguments.h"
#include "search.h"

namespace mmdf2 {
namespace {

using at::Tensor;

void check_sizes(const Tensor& query, const Tensor& gallery, int64_t k) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  TORCH_CHECK_VALUE(k <= cuda::kMostMatches, "pair_topk keeps at most ", cuda::kMostMatches,
                    " matches of a query on a GPU, got k = ", k, ": search on the CPU, which has no such limit");
  TORCH_CHECK_VALUE(query.size(0) < kMost && gallery.size(0) < kMost && query.size(1) < kMost,
                    "pair_topk takes fewer than 2^31 rows and columns on a GPU, got ", query.sizes(), " and ",
                    gallery.sizes(), ": search in parts");
}

template <typename In>
cuda::Outcome search(const Tensor& query, const Tensor& gallery, const Tensor& weight, double bias,
                     const Tensor& scores, const Tensor& indices) {
  std::vector<Tensor> memory;
  const auto bytes = query.options().dtype(at::kByte);
  const cuda::Allocate allocate = [&](size_t size) {
    memory.push_back(at::empty({static_cast<int64_t>(size)}, bytes));
    return memory.back().mutable_data_ptr();
  };
  const cuda::Problem<In> problem{query.const_data_ptr<In>(),      gallery.const_data_ptr<In>(),
                                  weight.const_data_ptr<In>(),     bias,
                                  static_cast<int>(query.size(0)), static_cast<int>(gallery.size(0)),
                                  static_cast<int>(query.size(1)), static_cast<int>(scores.size(1))};
  const auto stream = c10::cuda::getCurrentCUDAStream();
  return cuda::search<In>(problem, {scores.mutable_data_ptr(), indices.mutable_data_ptr<int64_t>()}, allocate,
                          stream.stream());
}

std::tuple<Tensor, Tensor> pair_topk(const Tensor& query, const Tensor& gallery, const Tensor& weight_difference,
                                     const std::optional<Tensor>& bias_difference, int64_t k) {
  check_pair_topk(query, gallery, weight_difference, bias_difference, k);
  check_sizes(query, gallery, k);
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  const c10::cuda::CUDAGuard device(query.device());
  const Tensor scores = at::empty({query.size(0), k}, query.options());
  const Tensor indices = at::empty({query.size(0), k}, query.options().dtype(at::kLong));
  if (query.size(0) == 0) return {scores, indices};
  const double bias = bias_difference.has_value() ? bias_difference->item().toDouble() : 0.0;
  const auto run = query.scalar_type() == at::kFloat ? search<float> : search<double>;
  const auto outcome =
      run(query.contiguous(), gallery.contiguous(), weight_difference.contiguous(), bias, scores, indices);
  TORCH_CHECK(outcome.error == nullptr, "pair_topk on ", query.device(), " failed: ", outcome.error);
  TORCH_CHECK_VALUE(outcome.finite, "query or gallery holds NaN or infinity");
  return {scores, indices};
}

}  // namespace
}  // namespace mmdf2

TORCH_LIBRARY_IMPL(mmdf2, CUDA, m) { m.impl("pair_topk", mmdf2::pair_topk); }
