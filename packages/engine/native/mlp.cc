// Linear layers with GELU between them, forward and backward in a call each: an MLP of a block, or of a head. What enters each GELU
// is kept for backward; what leaves it is computed again, in the visit that its gradient makes anyway.
#include "activation.h"
#include "binding.h"
#include "families.h"
#include "linear.h"

#include "aten.h"

#include <tuple>

namespace paddock {
namespace {

using T = const at::Tensor&;

/// (y [M,O], what entered each GELU, in order). `biases` has one per weight, or none at all.
Tensors mlp(T x_MI, const Tensors& weights, const Tensors& biases) {
  TORCH_CHECK(!weights.empty() && (biases.empty() || biases.size() == weights.size()), weights.size(), " weights, ",
              biases.size(), " biases");
  Tensors results(1);
  at::Tensor x = x_MI;
  for (size_t i = 0; i < weights.size(); i++) {
    const auto bias = biases.empty() ? std::nullopt : std::optional<at::Tensor>(biases[i]);
    const bool isLast = i + 1 == weights.size();
    if (isLast) {
      results[0] = paddock::linear(x, weights[i], bias);
    } else if (bias && addsBiasAfter(x, weights[i], *bias)) {
      at::Tensor y = paddock::linear(x, weights[i], std::nullopt);
      x = addBiasAndGelu(y, *bias);
      results.push_back(y);
    } else {
      const at::Tensor y = paddock::linear(x, weights[i], bias);
      x = paddock::gelu(y);
      results.push_back(y);
    }
  }
  return results;
}

/// (dx [M,I], then of each layer dw, and db if there are biases).
Tensors mlpBackward(T dy_MO, T x_MI, const Tensors& before, const Tensors& weights, bool hasBias) {
  TORCH_CHECK(before.size() + 1 == weights.size(), weights.size(), " weights, ", before.size(), " kept activations");
  const size_t perLayer = hasBias ? 2 : 1;
  Tensors results(1 + perLayer * weights.size());
  at::Tensor d = dy_MO;
  for (size_t i = weights.size(); i-- > 0;) {
    at::Tensor input = x_MI, next = linearInputGradient(d, weights[i]);
    if (i > 0) std::tie(input, next) = geluAndBackward(next, before[i - 1]);
    const auto [dw, db] = linearWeightGradients(d, input, weights[i], hasBias);
    results[1 + perLayer * i] = dw;
    if (hasBias) results[2 + perLayer * i] = db;
    d = next;
  }
  results[0] = d;
  return results;
}

}  // namespace

void defineMlp(Module& module) {
  module.add("mlp", &mlp);
  module.add("mlpBackward", &mlpBackward);
}

}  // namespace paddock
