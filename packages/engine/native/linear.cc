// Matrix products. Rows are M, inputs I, outputs O; weights are [O,I] as in PyTorch.
#include "binding.h"
#include "families.h"
#include "linear.h"
#include "parallel.h"
#include "precision.h"
#include "product.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

/// Operands of two precisions meet in the wider one.
at::Tensor matmul(T a, T b, bool transposeA, bool transposeB) {
  at::Tensor left = transposeA ? a.transpose(-1, -2) : a;
  at::Tensor right = transposeB ? b.transpose(-1, -2) : b;
  if (!at::isFloatingType(a.scalar_type())) {
    return at::matmul(left.to(at::kDouble), right.to(at::kDouble)).to(a.scalar_type());
  }
  if (a.scalar_type() != b.scalar_type()) return at::matmul(wide(left), wide(right));
  if (left.dim() == 2 && right.dim() == 2) return as(product(operand(left), operand(right)), a);
  return as(at::matmul(operand(left), operand(right)), a);
}

/// A product whose float32 sums are not rounded to the operands' precision.
at::Tensor wideProduct(T a, T b) {
#if PADDOCK_TORCH_MINOR >= 208
  if (a.is_cuda() && isLow(a)) return at::mm(a, b, at::kFloat);
#endif
  return wide(product(a, b));
}

/// As `linear.h`: (dw, db if hasBias, dx if needDx).
std::array<at::Tensor, 3> linearBackward(T dy_MO, T x_MI, T w_OI, bool needDx, bool hasBias) {
  const auto [dw, db] = linearWeightGradients(dy_MO, x_MI, w_OI, hasBias);
  return {dw, db, needDx ? linearInputGradient(dy_MO, w_OI) : at::Tensor()};
}

/// Any product that einsum's notation says, e.g. "bij,bjk->bik".
at::Tensor einsum(const std::string& equation, const Tensors& terms) {
  return at::einsum(equation, terms);
}

}  // namespace

bool addsBiasAfter(T x_MI, T w_OI, T bias_O) {
  const auto isPlain = [](T t) { return t.is_cpu() && t.scalar_type() == at::kFloat; };
  return isPlain(x_MI) && isPlain(w_OI) && isPlain(bias_O) && x_MI.dim() == 2;
}

void addBias(at::Tensor& y_MO, T bias_O) {
  const at::Tensor biasC = bias_O.contiguous();
  const int64_t width = y_MO.size(1);
  TORCH_CHECK(biasC.dim() == 1 && biasC.size(0) == width, "the bias must have a value for each of ", width, " outputs");
  const float* bias = biasC.data_ptr<float>();
  float* values = y_MO.data_ptr<float>();
  forRows(y_MO.size(0), width, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row++) {
      float* to = values + row * width;
      for (int64_t c = 0; c < width; c++) to[c] += bias[c];
    }
  });
}

/// The weights' dtype is that of the product and its result; x follows it.
at::Tensor linear(T x_MI, T w_OI, const std::optional<at::Tensor>& bias_O) {
  const at::Tensor x = operand(as(x_MI, w_OI)), w = operand(w_OI);
  if (!bias_O) return as(product(x, w.t()), w_OI);
  const at::Tensor bias = bias_O->to(w.scalar_type());
  if (!addsBiasAfter(x, w, bias)) return as(at::linear(x, w, bias), w_OI);
  at::Tensor y = product(x, w.t());
  addBias(y, bias);
  return as(y, w_OI);
}

at::Tensor linearInputGradient(T dy_MO, T w_OI) {
  return as(product(operand(as(dy_MO, w_OI)), operand(w_OI)), w_OI);
}

/// Gradients of weights are sums over rows, which are summed on over ranks: they stay float32.
std::array<at::Tensor, 2> linearWeightGradients(T dy_MO, T x_MI, T w_OI, bool hasBias) {
  const at::Tensor dy = operand(as(dy_MO, w_OI)), x = operand(as(x_MI, w_OI));
  return {wideProduct(dy.t(), x), hasBias ? at::sum(dy, 0, false, at::kFloat) : at::Tensor()};
}

void defineLinear(Module& module) {
  module.add("productLibrary", &productLibrary);
  module.add("matmul", &matmul);
  module.add("einsum", &einsum);
  module.add("linear", &linear);
  module.add("linearBackward", &linearBackward);
}

}  // namespace paddock
