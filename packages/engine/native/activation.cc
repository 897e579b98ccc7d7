// Activations with a backward of their own, and softmax.
#include "binding.h"
#include "families.h"
#include "precision.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

at::Tensor gelu(T x) { return at::gelu(x); }
at::Tensor geluBackward(T dy, T x) { return at::gelu_backward(as(dy, x), x); }

/// silu(x[:, :H]) * x[:, H:].
at::Tensor swiglu(T x_M2H) {
  const int64_t hidden = x_M2H.size(1) / 2;
  return at::silu(x_M2H.narrow(1, 0, hidden)).mul_(x_M2H.narrow(1, hidden, hidden));
}

at::Tensor swigluBackward(T upstream_MH, T x_M2H) {
  const at::Tensor dy_MH = as(upstream_MH, x_M2H);
  const int64_t hidden = x_M2H.size(1) / 2;
  const at::Tensor gate = x_M2H.narrow(1, 0, hidden);
  const at::Tensor value = x_M2H.narrow(1, hidden, hidden);
  at::Tensor dx = at::empty(x_M2H.sizes(), x_M2H.options());
  dx.narrow(1, 0, hidden).copy_(at::silu_backward(at::mul(dy_MH, value), gate));
  at::Tensor dvalue = dx.narrow(1, hidden, hidden);
  at::mul_out(dvalue, at::silu(gate), dy_MH);
  return dx;
}

at::Tensor softmax(T logits, int64_t axis) { return at::softmax(logits, axis, at::kFloat); }
at::Tensor logSoftmax(T logits, int64_t axis) { return at::log_softmax(logits, axis, at::kFloat); }

}  // namespace

void defineActivation(Module& module) {
  module.add("gelu", &gelu);
  module.add("geluBackward", &geluBackward);
  module.add("swiglu", &swiglu);
  module.add("swigluBackward", &swigluBackward);
  module.add("softmax", &softmax);
  module.add("logSoftmax", &logSoftmax);
}

}  // namespace paddock
