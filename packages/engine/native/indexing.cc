// Gather, scatter, one-hot, top-k. Indices are checked here: a wrong one is an error, never a wild read.
#include "binding.h"
#include "families.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

void checkGather(const State& state, T indices, int64_t size) {
  if (indices.numel() == 0) return;
  Bounds bounds{};
  if (indices.is_cpu()) {
    const auto [low, high] = at::aminmax(indices);
    bounds = {low.item<int32_t>(), high.item<int32_t>()};
  } else if (const auto known = state.boundsOf(indices)) {
    bounds = *known;  // see indices.h
  }
  const int64_t first = bounds.low, last = bounds.high;
  TORCH_CHECK_INDEX(first >= 0 && last < size, "GatherV2: the index value ", first < 0 ? first : last,
                    " is not in [0, ", size - 1, "]");
}

/// x taken at `indices` along `axis`; the first `batchDims` axes of both run in parallel.
at::Tensor gather(Call& call, T x, T indices, int64_t axis, int64_t batchDims) {
  TORCH_CHECK(0 <= batchDims && batchDims <= axis && axis < x.dim() && batchDims <= indices.dim(),
              "axis ", axis, " after ", batchDims, " batch axes is not one of ", x.dim());
  if (batchDims == 0) {
    checkGather(call.state(), indices, x.size(axis));
    auto shape = x.sizes().slice(0, axis).vec();
    shape.insert(shape.end(), indices.sizes().begin(), indices.sizes().end());
    shape.insert(shape.end(), x.sizes().begin() + axis + 1, x.sizes().end());
    return at::index_select(x, axis, indices.reshape({-1})).reshape(shape);
  }
  int64_t batch = 1;
  for (int64_t d = 0; d < batchDims; d++) batch *= x.size(d);
  auto tail = x.sizes().slice(batchDims).vec();
  auto indexTail = indices.sizes().slice(batchDims).vec();
  tail.insert(tail.begin(), batch);
  indexTail.insert(indexTail.begin(), batch);
  const at::Tensor flatX = x.reshape(tail);
  const at::Tensor flatIndices = indices.reshape(indexTail);
  std::vector<at::Tensor> parts;
  for (int64_t b = 0; b < batch; b++) {
    parts.push_back(gather(call, flatX[b], flatIndices[b], axis - batchDims, 0));
  }
  at::Tensor result = at::stack(parts);
  auto shape = x.sizes().slice(0, batchDims).vec();
  shape.insert(shape.end(), result.sizes().begin() + 1, result.sizes().end());
  return result.reshape(shape);
}

/// Rows of x summed by segment; rows with a negative id are left out, as in TF.js.
at::Tensor segmentSum(T x, T segmentIds, int64_t numSegments) {
  const int64_t rows = segmentIds.numel();
  std::vector<int64_t> shape = x.sizes().slice(segmentIds.dim()).vec();
  shape.insert(shape.begin(), rows);
  at::Tensor values = x.reshape(shape);
  at::Tensor ids = segmentIds.reshape({-1}).to(at::kLong);
  const at::Tensor kept = at::logical_and(at::ge(ids, 0), at::lt(ids, numSegments));
  if (!kept.all().item<bool>()) {
    const at::Tensor rowsKept = at::nonzero(kept).reshape({-1});
    values = at::index_select(values, 0, rowsKept);
    ids = at::index_select(ids, 0, rowsKept);
  }
  shape[0] = numSegments;
  return at::zeros(shape, x.options()).index_add_(0, ids, values);
}

/// Positions [n] in a tensor flattened over its first `depth` axes, from indices [..., depth].
at::Tensor flatIndex(T indices, at::IntArrayRef shape) {
  const int64_t depth = indices.size(-1);
  const at::Tensor rows = indices.reshape({-1, depth}).to(at::kLong);
  at::Tensor flat = at::zeros({rows.size(0)}, rows.options());
  for (int64_t d = 0; d < depth; d++) {
    const at::Tensor column = rows.select(1, d);
    const bool inside = column.numel() == 0 ||
                        (column.min().item<int64_t>() >= 0 && column.max().item<int64_t>() < shape[d]);
    TORCH_CHECK_INDEX(inside, "index out of range for axis ", d, " of size ", shape[d]);
    flat = flat.mul_(shape[d]).add_(column);
  }
  return flat;
}

int64_t product(at::IntArrayRef sizes) {
  int64_t result = 1;
  for (const int64_t size : sizes) result *= size;
  return result;
}

at::Tensor gatherNd(T params, T indices) {
  const int64_t depth = indices.size(-1);
  const auto inner = params.sizes().slice(depth);
  auto shape = indices.sizes().slice(0, indices.dim() - 1).vec();
  shape.insert(shape.end(), inner.begin(), inner.end());
  const at::Tensor rows = params.reshape({product(params.sizes().slice(0, depth)), product(inner)});
  return at::index_select(rows, 0, flatIndex(indices, params.sizes())).reshape(shape);
}

/// `updates` added into zeros of `shape` at `indices`.
at::Tensor scatterNd(T indices_, T updates, const Ints& shape) {
  const at::Tensor indices = indices_.dim() < 2 ? indices_.reshape({-1, 1}) : indices_;
  const int64_t depth = indices.size(-1);
  const at::IntArrayRef sizes = shape;
  const int64_t inner = product(sizes.slice(depth));
  at::Tensor out = at::zeros({product(sizes.slice(0, depth)), inner}, updates.options());
  const at::Tensor flat = flatIndex(indices, sizes);
  const at::Tensor rows = updates.reshape({flat.size(0), inner});
  if (out.scalar_type() == at::kBool) {
    out.index_copy_(0, flat, rows);
  } else {
    out.index_add_(0, flat, rows);
  }
  return out.reshape(sizes);
}

/// A copy of x with `updates` written at `indices`.
at::Tensor scatterUpdate(T x, T indices_, T updates) {
  const at::Tensor indices = indices_.dim() < 2 ? indices_.reshape({-1, 1}) : indices_;
  const int64_t depth = indices.size(-1);
  const int64_t inner = product(x.sizes().slice(depth));
  at::Tensor out = x.clone(at::MemoryFormat::Contiguous);
  const at::Tensor flat = flatIndex(indices, x.sizes());
  out.view({-1, inner}).index_copy_(0, flat, updates.reshape({flat.size(0), inner}));
  return out;
}

at::Tensor oneHot(T indices, int64_t depth, double on, double off, Dtype dtype) {
  const at::Tensor classes = at::arange(depth, indices.options());
  const at::Tensor hit = at::eq(indices.unsqueeze(-1), classes);
  const auto options = indices.options().dtype(scalarTypeOf(dtype));
  return at::where(hit, at::scalar_tensor(on, options), at::scalar_tensor(off, options));
}

/// Largest k of the last axis, ties by lower index: a stable descending sort, unlike at::topk.
std::array<at::Tensor, 2> topK(T x, int64_t k) {
  const auto [values, indices] = at::sort(x, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  return {values.narrow(-1, 0, k).contiguous(), indices.narrow(-1, 0, k).to(at::kInt)};
}

at::Tensor searchSorted(T sorted, T values, bool right) {
  return at::searchsorted(sorted.contiguous(), values.contiguous(), /*out_int32=*/true, right);
}

at::Tensor where(T condition) { return at::nonzero(condition).to(at::kInt); }

/// Occurrences of 0..size-1 along the last axis, weighted if weights are given.
at::Tensor bincount(T x, const std::optional<at::Tensor>& weights, int64_t size, bool binary) {
  const at::ScalarType type = weights && !binary ? weights->scalar_type() : at::kFloat;
  const at::Tensor rows = x.reshape({x.dim() == 2 ? x.size(0) : 1, -1}).to(at::kLong);
  const at::Tensor kept = at::lt(rows, size);
  at::Tensor ones = at::ones(rows.sizes(), x.options().dtype(type));
  if (weights && !binary) ones = weights->reshape(rows.sizes());
  ones = at::where(kept, ones, at::zeros({}, ones.options()));
  const at::Tensor safe = at::where(kept, rows, at::zeros({}, rows.options()));
  at::Tensor out = at::zeros({rows.size(0), size}, x.options().dtype(type)).scatter_add_(1, safe, ones);
  if (binary) out = at::gt(out, 0).to(type);
  return x.dim() == 2 ? out : out.select(0, 0);
}

}  // namespace

void defineIndexing(Module& module) {
  module.add("gather", &gather);
  module.add("segmentSum", &segmentSum);
  module.add("gatherNd", &gatherNd);
  module.add("scatterNd", &scatterNd);
  module.add("scatterUpdate", &scatterUpdate);
  module.add("oneHot", &oneHot);
  module.add("topK", &topK);
  module.add("searchSorted", &searchSorted);
  module.add("nonzero", &where);
  module.add("bincount", &bincount);
}

}  // namespace paddock
