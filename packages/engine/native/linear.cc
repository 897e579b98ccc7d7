// Matrix products. Rows are M, inputs I, outputs O; weights are [O,I] as in PyTorch.
#include "binding.h"
#include "families.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

at::Tensor matmul(T a, T b, bool transposeA, bool transposeB) {
  const at::Tensor left = transposeA ? a.transpose(-1, -2) : a;
  const at::Tensor right = transposeB ? b.transpose(-1, -2) : b;
  if (at::isFloatingType(a.scalar_type())) return at::matmul(left, right);
  return at::matmul(left.to(at::kDouble), right.to(at::kDouble)).to(a.scalar_type());
}

at::Tensor linear(T x_MI, T w_OI, const std::optional<at::Tensor>& bias_O) {
  return bias_O ? at::linear(x_MI, w_OI, *bias_O) : at::linear(x_MI, w_OI);
}

/// (dw [O,I], db [O] if hasBias, dx [M,I] if needDx).
std::array<at::Tensor, 3> linearBackward(T dy_MO, T x_MI, T w_OI, bool needDx, bool hasBias) {
  return {at::mm(dy_MO.t(), x_MI), hasBias ? at::sum(dy_MO, 0) : at::Tensor(),
          needDx ? at::mm(dy_MO, w_OI) : at::Tensor()};
}

/// Any product that einsum's notation says, e.g. "bij,bjk->bik".
at::Tensor einsum(const std::string& equation, const Tensors& terms) {
  return at::einsum(equation, terms);
}

}  // namespace

void defineLinear(Module& module) {
  module.add("matmul", &matmul);
  module.add("einsum", &einsum);
  module.add("linear", &linear);
  module.add("linearBackward", &linearBackward);
}

}  // namespace paddock
