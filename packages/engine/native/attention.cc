// Attention inside packed sequences. T rows; each row is q then k then v, each heads x headDim. `groups`
// are runs of `count` sequences of `length` rows; sequences never see each other.
//
// Three ways, by device and libtorch: flash attention for CPUs, memory-efficient attention on CUDA, and
// plain matrix products. All keep only the softmax's log-sum-exp for the backward pass; its layout is
// each way's own, laid end to end over the groups in one vector.
#include "binding.h"
#include "families.h"

#include "aten.h"

#include <cmath>

namespace paddock {
namespace {

using T = const at::Tensor&;

#if PADDOCK_TORCH_MINOR >= 202
constexpr bool kHasFlashCpu = true;
#else
constexpr bool kHasFlashCpu = false;
#endif

/// One run of equally long sequences, as views [count, heads, length, headDim] of the packed rows.
struct Group {
  int64_t count, length, heads, headDim, firstRow;

  int64_t rows() const { return count * length; }
  at::Tensor rowsOf(T packed) const { return packed.narrow(0, firstRow, rows()); }

  at::Tensor heads4(T rows_TC) const {
    return rowsOf(rows_TC).view({count, length, heads, headDim}).transpose(1, 2);
  }
  std::array<at::Tensor, 3> qkv(T rows_T3C) const {
    const at::Tensor split = rowsOf(rows_T3C).view({count, length, 3, heads, headDim}).transpose(1, 3);
    return {split.select(2, 0), split.select(2, 1), split.select(2, 2)};
  }
};

std::vector<Group> groupsOf(T qkv_T3C, int64_t heads, const Ints& runs) {
  const int64_t width = qkv_T3C.size(1) / 3;
  TORCH_CHECK(heads > 0 && width > 0 && width * 3 == qkv_T3C.size(1) && width % heads == 0, "rows of ",
              qkv_T3C.size(1), " do not hold q, k and v of ", heads, " heads");
  std::vector<Group> groups;
  int64_t row = 0;
  for (size_t i = 0; i + 1 < runs.size(); i += 2) {
    TORCH_CHECK(runs[i] >= 0 && runs[i + 1] >= 0, "a run of ", runs[i], " sequences of ", runs[i + 1]);
    if (runs[i] == 0 || runs[i + 1] == 0) continue;  // flash attention divides by both
    groups.push_back({runs[i], runs[i + 1], heads, width / heads, row});
    row += groups.back().rows();
  }
  TORCH_CHECK(row == qkv_T3C.size(0), "the groups cover ", row, " rows of ", qkv_T3C.size(0));
  return groups;
}

// --- plain matrix products -----------------------------------------------------------------------------

/// (out [n,H,L,D], lse [n,H,L]).
std::pair<at::Tensor, at::Tensor> productForward(T q, T k, T v) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  at::Tensor scores = at::matmul(at::mul(q, scale), k.transpose(2, 3));
  const at::Tensor lse = at::logsumexp(scores, {3});
  return {at::matmul(scores.sub_(lse.unsqueeze(3)).exp_(), v), lse};
}

std::array<at::Tensor, 3> productBackward(T dout, T q, T k, T v, T out, T lse) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor scaled = at::mul(q, scale);
  const at::Tensor weights = at::matmul(scaled, k.transpose(2, 3)).sub_(lse.unsqueeze(3)).exp_();
  const at::Tensor along = at::mul(dout, out).sum(3, /*keepdim=*/true);
  const at::Tensor dscores = at::matmul(dout, v.transpose(2, 3)).sub_(along).mul_(weights);
  return {at::matmul(dscores, k).mul_(scale), at::matmul(dscores.transpose(2, 3), scaled),
          at::matmul(weights.transpose(2, 3), dout)};
}

// --- CUDA: memory-efficient attention --------------------------------------------------------------------

#if PADDOCK_TORCH_MINOR >= 202
/// Rows of log-sum-exp per sequence and head: the kernel pads them to a multiple of 32.
int64_t paddedLength(int64_t length) { return (length + 31) / 32 * 32; }

std::pair<at::Tensor, at::Tensor> cudaForward(T q, T k, T v) {
  auto [out, lse, seed, offset] =
      at::_scaled_dot_product_efficient_attention(q, k, v, {}, /*compute_log_sumexp=*/true);
  return {out, lse};
}

std::array<at::Tensor, 3> cudaBackward(T dout, T q, T k, T v, T out, T lse) {
  // The random state matters to dropout alone, which is off.
  const at::Tensor none = at::zeros({}, q.options().dtype(at::kLong));
  auto [dq, dk, dv, dbias] = at::_scaled_dot_product_efficient_attention_backward(
      dout, q, k, v, at::Tensor(), out, lse, none, none, 0.0, {true, true, true, false});
  return {dq, dk, dv};
}

std::pair<at::Tensor, at::Tensor> flashForward(T q, T k, T v) {
  auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(q, k, v);
  return {out, lse};
}

std::array<at::Tensor, 3> flashBackward(T dout, T q, T k, T v, T out, T lse) {
  auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(dout, q, k, v, out, lse,
                                                                               0.0, false);
  return {dq, dk, dv};
}
#else
int64_t paddedLength(int64_t length) { return length; }
constexpr auto cudaForward = productForward;
constexpr auto cudaBackward = productBackward;
constexpr auto flashForward = productForward;
constexpr auto flashBackward = productBackward;
#endif

// --- the packed op ---------------------------------------------------------------------------------------

bool usesFlash(T qkv) { return kHasFlashCpu && qkv.is_cpu(); }

/// (out [T,C], lse).
std::array<at::Tensor, 2> attention(T qkv_T3C, int64_t heads, const Ints& runs) {
  const at::Tensor packed = qkv_T3C.contiguous();
  std::vector<at::Tensor> outs;
  std::vector<at::Tensor> lses;
  for (const Group& group : groupsOf(packed, heads, runs)) {
    const auto [q, k, v] = group.qkv(packed);
    const auto [out, lse] = usesFlash(packed)     ? flashForward(q, k, v)
                            : packed.is_cuda() ? cudaForward(q, k, v)
                                               : productForward(q, k, v);
    outs.push_back(out.transpose(1, 2).reshape({group.rows(), group.heads * group.headDim}));
    // Flash attention's is [n,H,L] over memory [n,L,H]: keep the memory's order, so that nothing moves.
    lses.push_back((usesFlash(packed) ? lse.transpose(1, 2) : lse).reshape({-1}));
  }
  if (outs.size() == 1) return {outs[0], lses[0]};
  return {at::cat(outs), at::cat(lses)};
}

/// dqkv [T,3C].
at::Tensor attentionBackward(T dy_TC, T qkv_T3C, T out_TC, T lse, int64_t heads, const Ints& runs) {
  const at::Tensor packed = qkv_T3C.contiguous();
  const at::Tensor dy = dy_TC.contiguous();
  const at::Tensor y = out_TC.contiguous();
  at::Tensor dqkv = at::empty(packed.sizes(), packed.options());
  int64_t used = 0;
  for (const Group& group : groupsOf(packed, heads, runs)) {
    const auto [q, k, v] = group.qkv(packed);
    const at::Tensor dout = group.heads4(dy);
    const at::Tensor out = group.heads4(y);
    const int64_t length = packed.is_cuda() ? paddedLength(group.length) : group.length;
    const at::Tensor flat = lse.narrow(0, used, group.count * heads * length);
    used += flat.numel();
    const auto grads =
        usesFlash(packed)
            ? flashBackward(dout, q, k, v, out, flat.view({group.count, length, heads}).transpose(1, 2))
        : packed.is_cuda() ? cudaBackward(dout, q, k, v, out, flat.view({group.count, heads, length}))
                           : productBackward(dout, q, k, v, out, flat.view({group.count, heads, length}));
    auto target = group.qkv(dqkv);
    for (size_t i = 0; i < 3; i++) target[i].copy_(grads[i]);
  }
  return dqkv;
}

}  // namespace

void defineAttention(Module& module) {
  module.add("attention", &attention);
  module.add("attentionBackward", &attentionBackward);
}

}  // namespace paddock
