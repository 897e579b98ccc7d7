// The steps of Sinkhorn-Knopp between two sums over ranks: Q = exp(scores) stays, row factors v and column factors u change.
// N rows, K prototypes.
#include "binding.h"
#include "families.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

void check(T q_NK, T u_K, T v_N1) {
  TORCH_CHECK(q_NK.dim() == 2 && u_K.numel() == q_NK.size(1) && v_N1.numel() == q_NK.size(0),
              "q must have a factor per row and per column");
}

/// (q [N,K] = exp((scores - row maximum) / t), v [N,1] = exp((row maximum - shift) / t)).
std::array<at::Tensor, 2> sinkhornStart(T scores_NK, double shift, double temperature) {
  const at::Tensor top_N1 = at::amax(scores_NK, {1}, /*keepdim=*/true);
  return {at::sub(scores_NK, top_N1).div_(temperature).exp_(), at::sub(top_N1, shift).div_(temperature).exp_()};
}

/// The columns' sums [1,K] of q v.
at::Tensor sinkhornColumns(T q_NK, T v_N1) { return at::mm(v_N1.reshape({1, -1}), q_NK); }

/// v [N,1] = 1 / (q u).
at::Tensor sinkhornRows(T q_NK, T u_K) { return at::mm(q_NK, u_K.reshape({-1, 1})).reciprocal_(); }

/// q u v [N,K].
at::Tensor sinkhornFinish(T q_NK, T u_K, T v_N1) {
  check(q_NK, u_K, v_N1);
  return at::mul(q_NK, u_K.reshape({1, -1})).mul_(v_N1.reshape({-1, 1}));
}

}  // namespace

void defineSinkhorn(Module& module) {
  module.add("sinkhornStart", &sinkhornStart);
  module.add("sinkhornColumns", &sinkhornColumns);
  module.add("sinkhornRows", &sinkhornRows);
  module.add("sinkhornFinish", &sinkhornFinish);
}

}  // namespace paddock
