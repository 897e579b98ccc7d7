// Adding branches back into the residual stream, whole or on a subset of rows, and row gather/scatter.
// T rows in the stream, S rows in the branch, C features. Sums over rows run in a fixed order on CPUs,
// whatever the number of threads; on CUDA ATen does the work. The stream is float32; a branch of lower precision is
// widened on the way in, and its gradient has its precision again.
#include "binding.h"
#include "families.h"
#include "indices.h"
#include "parallel.h"
#include "precision.h"
#include "rows.h"

#include "aten.h"

#include <cstring>

namespace paddock {
namespace {

using T = const at::Tensor&;
using MaybeT = const std::optional<at::Tensor>&;

/// Rows of the branch summed into one partial result of a column sum: fixed, so that the sum does not
/// depend on how many threads there are.
constexpr int64_t kPartialRows = 64;

const float* floats(MaybeT tensor) { return tensor ? tensor->data_ptr<float>() : nullptr; }
const int32_t* ints(MaybeT tensor) { return tensor ? tensor->data_ptr<int32_t>() : nullptr; }

std::optional<at::Tensor> contiguous(MaybeT tensor) {
  return tensor ? std::optional<at::Tensor>(tensor->contiguous()) : std::nullopt;
}

void checkBranch(const State& state, T x_TC, T r_SC, MaybeT gamma_C, MaybeT rows_S, MaybeT rowScale_S) {
  TORCH_CHECK(x_TC.dim() == 2 && r_SC.dim() == 2 && x_TC.size(1) == r_SC.size(1),
              "stream and branch must be rows of one width");
  TORCH_CHECK(rows_S ? rows_S->numel() == r_SC.size(0) : x_TC.size(0) == r_SC.size(0),
              "the branch's rows and the row list must be equally many");
  TORCH_CHECK(!gamma_C || gamma_C->numel() == r_SC.size(1), "gamma must have one value per feature");
  TORCH_CHECK(!rowScale_S || rowScale_S->numel() == r_SC.size(0), "rowScale must have one value per row");
  if (rows_S) checkIndices(state, *rows_S, x_TC.size(0), "row");
}

/// r scaled by row and feature, for the device-independent way.
at::Tensor scaled(T r_SC, MaybeT gamma_C, MaybeT rowScale_S) {
  at::Tensor result = gamma_C ? at::mul(r_SC, *gamma_C) : r_SC.alias();
  return rowScale_S ? at::mul(result, rowScale_S->unsqueeze(1)) : result;
}

/// to[c] += scale * gamma[c] * from[c]
void addScaledRow(float* to, const float* from, const float* gamma, float scale, int64_t width) {
  if (gamma == nullptr) {
    for (int64_t c = 0; c < width; c++) to[c] += scale * from[c];
  } else {
    for (int64_t c = 0; c < width; c++) to[c] += scale * gamma[c] * from[c];
  }
}

/// x with scale * gamma * r added to the listed rows, in list order. Each thread owns a range of the
/// stream's rows and walks the whole list, so that repeated rows are no race.
at::Tensor addBranch(T x_TC, T r_SC, MaybeT gamma_C, MaybeT rows_S, MaybeT rowScale_S) {
  if (!x_TC.is_cpu()) {
    const at::Tensor branch = scaled(r_SC, gamma_C, rowScale_S);
    if (!rows_S) return at::add(x_TC, branch);
    const c10::List<c10::optional<at::Tensor>> rows({rows_S->to(at::kLong)});
    return at::index_put(x_TC, rows, as(branch, x_TC), /*accumulate=*/true);  // sorts: a fixed order of sums
  }
  const at::Tensor x = wide(x_TC).contiguous();
  const at::Tensor r = wide(r_SC).contiguous();
  const auto gammaC = contiguous(gamma_C), rowsC = contiguous(rows_S), scaleC = contiguous(rowScale_S);
  const int64_t width = x.size(1), branchRows = r.size(0);
  at::Tensor y = at::empty(x.sizes(), x.options());
  const float *from = x.data_ptr<float>(), *branch = r.data_ptr<float>();
  const float *gamma = floats(gammaC), *scale = floats(scaleC);
  const int32_t* row = ints(rowsC);
  float* to = y.data_ptr<float>();
  forRows(x.size(0), width, [&](int64_t first, int64_t last) {
    std::memcpy(to + first * width, from + first * width, (last - first) * width * sizeof(float));
    const int64_t begin = row ? 0 : first, end = row ? branchRows : last;
    for (int64_t s = begin; s < end; s++) {
      const int64_t t = row ? row[s] : s;
      if (t < first || t >= last) continue;
      addScaledRow(to + t * width, branch + s * width, gamma, scale ? scale[s] : 1.0f, width);
    }
  });
  return y;
}

at::Tensor scaledAdd(Call& call, T x_TC, T r_SC, MaybeT gamma_C, MaybeT rows_S, MaybeT rowScale_S) {
  checkBranch(call.state(), x_TC, r_SC, gamma_C, rows_S, rowScale_S);
  return addBranch(x_TC, r_SC, gamma_C, rows_S, rowScale_S);
}

/// out[c] = sum over all rows of partial[row, c], in row order.
at::Tensor sumPartials(T partial_PC) {
  at::Tensor out = at::zeros({partial_PC.size(1)}, partial_PC.options());
  const int64_t width = partial_PC.size(1);
  const float* from = partial_PC.data_ptr<float>();
  float* to = out.data_ptr<float>();
  for (int64_t p = 0; p < partial_PC.size(0); p++) {
    for (int64_t c = 0; c < width; c++) to[c] += from[p * width + c];
  }
  return out;
}

/// (dr [S,C] as r, dgamma [C] float32 if gamma is given).
std::array<at::Tensor, 2> scaledAddBackward(Call& call, T dy_TC, T r_SC, MaybeT gamma_C, MaybeT rows_S,
                                            MaybeT rowScale_S) {
  checkBranch(call.state(), dy_TC, r_SC, gamma_C, rows_S, rowScale_S);
  if (!dy_TC.is_cpu()) {
    const at::Tensor dy = rows_S ? at::index_select(dy_TC, 0, *rows_S) : dy_TC;
    const at::Tensor dscaled = rowScale_S ? at::mul(dy, rowScale_S->unsqueeze(1)) : dy;
    if (!gamma_C) return {as(dscaled, r_SC), at::Tensor()};
    return {as(at::mul(dscaled, *gamma_C), r_SC), at::mul(dscaled, r_SC).sum(0)};
  }
  const at::Tensor dy = wide(dy_TC).contiguous();
  const at::Tensor r = wide(r_SC).contiguous();
  const auto gammaC = contiguous(gamma_C), rowsC = contiguous(rows_S), scaleC = contiguous(rowScale_S);
  const int64_t width = r.size(1), branchRows = r.size(0);
  const int64_t partials = (branchRows + kPartialRows - 1) / kPartialRows;
  at::Tensor dr = at::empty(r.sizes(), r.options());
  at::Tensor partial = gammaC ? at::zeros({partials, width}, r.options()) : at::Tensor();
  const float *upstream = dy.data_ptr<float>(), *branch = r.data_ptr<float>();
  const float *gamma = floats(gammaC), *scale = floats(scaleC);
  const int32_t* row = ints(rowsC);
  float* to = dr.data_ptr<float>();
  float* sums = gammaC ? partial.data_ptr<float>() : nullptr;
  forRows(partials, width * kPartialRows, [&](int64_t first, int64_t last) {
    for (int64_t s = first * kPartialRows; s < std::min(last * kPartialRows, branchRows); s++) {
      const float* d = upstream + (row ? row[s] : s) * width;
      const float* b = branch + s * width;
      const float factor = scale ? scale[s] : 1.0f;
      float* out = to + s * width;
      if (gamma == nullptr) {
        for (int64_t c = 0; c < width; c++) out[c] = factor * d[c];
        continue;
      }
      float* sum = sums + s / kPartialRows * width;
      for (int64_t c = 0; c < width; c++) {
        const float along = factor * d[c];
        out[c] = along * gamma[c];
        sum[c] += along * b[c];
      }
    }
  });
  return {as(dr, r_SC), gammaC ? sumPartials(partial) : at::Tensor()};
}

at::Tensor gatherRows(Call& call, T x_TC, T rows_S) {
  checkIndices(call.state(), rows_S, x_TC.size(0), "row");
  return at::index_select(x_TC, 0, rows_S);
}

/// x with r added to the listed rows, in list order; rows may repeat.
at::Tensor scatterAddRows(Call& call, T x_TC, T r_SC, T rows_S) {
  return scaledAdd(call, x_TC, r_SC, std::nullopt, rows_S, std::nullopt);
}

}  // namespace

at::Tensor addRows(T x_TC, T r_SC, T rows_S) { return addBranch(x_TC, r_SC, std::nullopt, rows_S, std::nullopt); }

void defineRows(Module& module) {
  module.add("scaledAdd", &scaledAdd);
  module.add("scaledAddBackward", &scaledAddBackward);
  module.add("gatherRows", &gatherRows);
  module.add("scatterAddRows", &scatterAddRows);
}

}  // namespace paddock
