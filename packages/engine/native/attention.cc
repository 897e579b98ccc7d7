// Attention inside packed sequences. T rows; each row is q then k then v, each heads x headDim. `groups`
// are runs of `count` sequences of `length` rows; sequences never see each other.
//
// Five ways, by device, precision, length and libtorch: our own loops for short sequences on CPUs and flash attention for others
// (float32), flash attention for CUDA (low precision), memory-efficient attention on CUDA (float32), and plain matrix products for
// what those refuse. All keep only the softmax's log-sum-exp, in float32, for the backward pass; its layout is each way's own, laid
// end to end over the groups in one vector.
#include "binding.h"
#include "families.h"
#include "precision.h"
#include "short-attention.h"

#include "aten.h"

#include <cmath>

namespace paddock {
namespace {

using T = const at::Tensor&;

/// One run of equally long sequences, as views [count, heads, length, headDim] of the packed rows.
struct Group {
  int64_t count, length, heads, headDim, firstRow;

  int64_t rows() const { return count * length; }
  shortAttention::Shape shape() const { return {count, length, heads, headDim}; }
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

/// (out [n,H,L,D], lse [n,H,L]), in float32.
std::pair<at::Tensor, at::Tensor> productForward(T q, T k, T v) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  at::Tensor scores = at::matmul(at::mul(wide(q), scale), wide(k).transpose(2, 3));
  const at::Tensor lse = at::logsumexp(scores, {3});
  return {at::matmul(scores.sub_(lse.unsqueeze(3)).exp_(), wide(v)), lse};
}

std::array<at::Tensor, 3> productBackward(T dout_, T q, T k_, T v, T out, T lse) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor dout = wide(dout_), k = wide(k_), scaled = at::mul(wide(q), scale);
  const at::Tensor weights = at::matmul(scaled, k.transpose(2, 3)).sub_(lse.unsqueeze(3)).exp_();
  const at::Tensor along = at::mul(dout, out).sum(3, /*keepdim=*/true);
  const at::Tensor dscores = at::matmul(dout, wide(v).transpose(2, 3)).sub_(along).mul_(weights);
  return {at::matmul(dscores, k).mul_(scale), at::matmul(dscores.transpose(2, 3), scaled),
          at::matmul(weights.transpose(2, 3), dout)};
}

// --- libtorch's fused kernels -----------------------------------------------------------------------------

enum class Way { kProducts, kShortCpu, kFlashCpu, kFlashCuda, kEfficientCuda };

#if PADDOCK_TORCH_MINOR >= 202
/// The CUDA kernels load 16 bytes at a time: other head widths go through products.
Way wayOf(T qkv, const Group& group) {
  if (qkv.is_cpu()) return shortAttention::fits(group.shape()) ? Way::kShortCpu : Way::kFlashCpu;
  const int64_t bytes = group.headDim * static_cast<int64_t>(qkv.element_size());
  if (!qkv.is_cuda() || bytes % 16 != 0) return Way::kProducts;
  return isLow(qkv) && group.headDim <= 256 ? Way::kFlashCuda : Way::kEfficientCuda;
}

std::pair<at::Tensor, at::Tensor> forwardBy(Way way, T q, T k, T v) {
  switch (way) {
    case Way::kProducts:
      return productForward(q, k, v);
    case Way::kShortCpu:
      break;
    case Way::kFlashCpu: {
      auto [out, lse] =
          at::_scaled_dot_product_flash_attention_for_cpu(operand(q), operand(k), operand(v));
      return {out, lse};
    }
    case Way::kFlashCuda: {
      const auto all = at::_scaled_dot_product_flash_attention(q, k, v, 0.0, false, false);
      return {std::get<0>(all), std::get<1>(all)};
    }
    case Way::kEfficientCuda: {
      auto [out, lse, seed, offset] =
          at::_scaled_dot_product_efficient_attention(q, k, v, {}, /*compute_log_sumexp=*/true);
      return {out, lse};
    }
  }
  throw std::logic_error("no such way");
}

std::array<at::Tensor, 3> backwardBy(Way way, T dout, T q, T k, T v, T out, T lse) {
  switch (way) {
    case Way::kProducts:
      return productBackward(dout, q, k, v, out, lse);
    case Way::kShortCpu:
      break;
    case Way::kFlashCpu: {
      auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          operand(dout), operand(q), operand(k), operand(v), operand(out), lse, 0.0, false);
      return {dq, dk, dv};
    }
    case Way::kFlashCuda: {
      // Sequences are not packed here, and the random state matters to dropout alone, which is off.
#if PADDOCK_TORCH_MINOR >= 207
      const at::Tensor state = at::zeros({2}, q.options().dtype(at::kLong)).view(at::kUInt64);
#else
      const at::Tensor state = at::zeros({2}, q.options().dtype(at::kLong));
#endif
      auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_backward(
          dout, q, k, v, out, lse, at::Tensor(), at::Tensor(), q.size(2), k.size(2), 0.0, false, state,
          state.select(0, 0));
      return {dq, dk, dv};
    }
    case Way::kEfficientCuda: {
      const at::Tensor none = at::zeros({}, q.options().dtype(at::kLong));
      auto [dq, dk, dv, dbias] = at::_scaled_dot_product_efficient_attention_backward(
          dout, q, k, v, at::Tensor(), out, lse, none, none, 0.0, {true, true, true, false});
      return {dq, dk, dv};
    }
  }
  throw std::logic_error("no such way");
}
#else
Way wayOf(T qkv, const Group& group) {
  return qkv.is_cpu() && shortAttention::fits(group.shape()) ? Way::kShortCpu : Way::kProducts;
}
std::pair<at::Tensor, at::Tensor> forwardBy(Way, T q, T k, T v) { return productForward(q, k, v); }
std::array<at::Tensor, 3> backwardBy(Way, T dout, T q, T k, T v, T out, T lse) {
  return productBackward(dout, q, k, v, out, lse);
}
#endif

/// Rows of log-sum-exp per sequence and head: the memory-efficient kernel pads them to a multiple of 32.
int64_t lseRows(Way way, int64_t length) {
  return way == Way::kEfficientCuda ? (length + 31) / 32 * 32 : length;
}

// --- the packed op ---------------------------------------------------------------------------------------

/// Of one group, into its rows of `out` and its part of `lse`.
void groupForward(const Group& group, Way way, T packed_T3C, T out, T lse) {
  if (way == Way::kShortCpu) {
    const at::Tensor rows = wide(group.rowsOf(packed_T3C));
    at::Tensor wideOut = isLow(out) ? at::empty(out.sizes(), out.options().dtype(at::kFloat)) : out;
    shortAttention::forward(group.shape(), rows.data_ptr<float>(), wideOut.data_ptr<float>(), lse.data_ptr<float>());
    if (isLow(out)) out.copy_(wideOut);
    return;
  }
  const auto [q, k, v] = group.qkv(packed_T3C);
  const auto [y, sums] = forwardBy(way, q, k, v);
  out.copy_(y.transpose(1, 2).reshape(out.sizes()));
  // The CPU's is [n,H,L] over memory [n,L,H]: keep the memory's order, so that nothing moves.
  lse.copy_((way == Way::kFlashCpu ? sums.transpose(1, 2) : sums).reshape({-1}));
}

/// Of one group, into its rows of `dqkv`.
void groupBackward(const Group& group, Way way, T dy_TC, T packed_T3C, T out_TC, T lse, T dqkv_T3C) {
  if (way == Way::kShortCpu) {
    const at::Tensor dy = wide(group.rowsOf(dy_TC)), rows = wide(group.rowsOf(packed_T3C));
    const at::Tensor y = wide(group.rowsOf(out_TC)), target = group.rowsOf(dqkv_T3C);
    at::Tensor wideTarget = isLow(target) ? at::empty(rows.sizes(), rows.options()) : target;
    shortAttention::backward(group.shape(), dy.data_ptr<float>(), rows.data_ptr<float>(), y.data_ptr<float>(),
                             lse.data_ptr<float>(), wideTarget.data_ptr<float>());
    if (isLow(target)) target.copy_(wideTarget);
    return;
  }
  const auto [q, k, v] = group.qkv(packed_T3C);
  const at::Tensor sums =
      way == Way::kFlashCpu
          ? lse.view({group.count, group.length, group.heads}).transpose(1, 2)
          : lse.view({group.count, group.heads, lseRows(way, group.length)});
  const auto grads = backwardBy(way, group.heads4(dy_TC), q, k, v, group.heads4(out_TC), sums);
  auto target = group.qkv(dqkv_T3C);
  for (size_t i = 0; i < 3; i++) target[i].copy_(grads[i]);
}

/// Values of log-sum-exp of a group.
int64_t lseSize(const Group& group, Way way) { return group.count * group.heads * lseRows(way, group.length); }

/// (out [T,C] as qkv, lse).
std::array<at::Tensor, 2> attention(T qkv_T3C, int64_t heads, const Ints& runs) {
  const at::Tensor packed = qkv_T3C.contiguous();
  const std::vector<Group> groups = groupsOf(packed, heads, runs);
  int64_t size = 0;
  for (const Group& group : groups) size += lseSize(group, wayOf(packed, group));
  at::Tensor out = at::empty({packed.size(0), packed.size(1) / 3}, packed.options());
  at::Tensor lse = at::empty({size}, packed.options().dtype(at::kFloat));
  int64_t used = 0;
  for (const Group& group : groups) {
    const Way way = wayOf(packed, group);
    const int64_t count = lseSize(group, way);
    groupForward(group, way, packed, group.rowsOf(out), lse.narrow(0, used, count));
    used += count;
  }
  return {out, lse};
}

/// dqkv [T,3C] as qkv.
at::Tensor attentionBackward(T dy_TC, T qkv_T3C, T out_TC, T lse, int64_t heads, const Ints& runs) {
  const at::Tensor packed = qkv_T3C.contiguous();
  const at::Tensor dy = as(dy_TC, packed).contiguous();
  const at::Tensor y = as(out_TC, packed).contiguous(), sums = lse.contiguous();
  TORCH_CHECK(sums.dim() == 1 && sums.scalar_type() == at::kFloat, "lse must be a list of float32");
  TORCH_CHECK(dy.sizes() == y.sizes() && y.dim() == 2 && y.size(0) == packed.size(0) && y.size(1) * 3 == packed.size(1),
              "dy and out must have qkv's rows and a third of its columns");
  at::Tensor dqkv = at::empty(packed.sizes(), packed.options());
  int64_t used = 0;
  for (const Group& group : groupsOf(packed, heads, runs)) {
    const Way way = wayOf(packed, group);
    const int64_t count = lseSize(group, way);
    groupBackward(group, way, dy, packed, y, sums.narrow(0, used, count), dqkv);
    used += count;
  }
  return dqkv;
}

}  // namespace

void defineAttention(Module& module) {
  module.add("attention", &attention);
  module.add("attentionBackward", &attentionBackward);
}

}  // namespace paddock
