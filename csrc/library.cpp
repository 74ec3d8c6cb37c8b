// The schemas of all operators, what autocast does with them, and the record of the build.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "mmdf2_build_info.h"  // written by csrc/extension.py

#ifdef __clang__
#define MMDF2_COMPILER __VERSION__
#else
#define MMDF2_COMPILER "GCC " __VERSION__
#endif

// mmdf2/ops/library.py reads this from the file before it loads the library, which may be built for another torch.
extern "C" __attribute__((visibility("default"), used)) const char mmdf2_build_info[] =
    "mmdf2-build-info:{\"compiler\": \"" MMDF2_COMPILER "\", " MMDF2_BUILD_INFO "}";

TORCH_LIBRARY(mmdf2, m) {
  m.def("pair_similarity(Tensor query, Tensor gallery, Tensor weight, Tensor? bias) -> Tensor");
  m.def(
      "pair_similarity_backward(Tensor grad, Tensor query, Tensor gallery, Tensor weight) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "pair_topk(Tensor query, Tensor gallery, Tensor weight_difference, Tensor? bias_difference, int k) "
      "-> (Tensor, Tensor)");
}

namespace {

using at::Tensor;

// Differences of squares lose too many digits in 16 bits, so autocast runs these operators in float32.
template <c10::DispatchKey key>
struct Autocast {
  static Tensor full(const Tensor& tensor) {
    const bool half = tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16;
    return half ? tensor.to(at::kFloat) : tensor;
  }

  static std::optional<Tensor> full(const std::optional<Tensor>& tensor) {
    return tensor.has_value() ? std::optional<Tensor>(full(*tensor)) : std::nullopt;
  }

  // Calls the operator with autocast off, so that its inner matrix products stay in float32 too.
  template <typename Signature, typename... Arguments>
  static auto call(const char* name, const Arguments&... arguments) {
    c10::impl::ExcludeDispatchKeyGuard off{c10::DispatchKeySet(key)};
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
    return op.call(arguments...);
  }

  static Tensor pair_similarity(const Tensor& query, const Tensor& gallery, const Tensor& weight,
                                const std::optional<Tensor>& bias) {
    return call<decltype(pair_similarity)>("mmdf2::pair_similarity", full(query), full(gallery), full(weight),
                                           full(bias));
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor> pair_similarity_backward(const Tensor& grad, const Tensor& query,
                                                                             const Tensor& gallery,
                                                                             const Tensor& weight) {
    return call<decltype(pair_similarity_backward)>("mmdf2::pair_similarity_backward", full(grad), full(query),
                                                    full(gallery), full(weight));
  }

  static std::tuple<Tensor, Tensor> pair_topk(const Tensor& query, const Tensor& gallery,
                                              const Tensor& weight_difference,
                                              const std::optional<Tensor>& bias_difference, int64_t k) {
    return call<decltype(pair_topk)>("mmdf2::pair_topk", full(query), full(gallery), full(weight_difference),
                                     full(bias_difference), k);
  }

  static void add_to(torch::Library& m) {
    m.impl("pair_similarity", pair_similarity);
    m.impl("pair_similarity_backward", pair_similarity_backward);
    m.impl("pair_topk", pair_topk);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(mmdf2, AutocastCPU, m) { Autocast<c10::DispatchKey::AutocastCPU>::add_to(m); }
TORCH_LIBRARY_IMPL(mmdf2, AutocastCUDA, m) { Autocast<c10::DispatchKey::AutocastCUDA>::add_to(m); }
