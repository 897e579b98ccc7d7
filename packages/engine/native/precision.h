// Low precision: bfloat16 or half storage under TF.js's `float32` label. It enters by `toPrecision` alone; from there each
// op follows its tensors: products take their weights' dtype, everything that adds up (norms, losses, residual sums) computes
// in float32 and returns the dtype its header says.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace paddock {

/// The dtype that JS's number of a precision stands for: fp32, bf16, fp16 (src/native.ts).
inline at::ScalarType typeOfPrecision(int64_t precision) {
  constexpr at::ScalarType types[] = {at::kFloat, at::kBFloat16, at::kHalf};
  TORCH_CHECK(precision >= 0 && precision < 3, "no precision of number ", precision);
  return types[precision];
}

inline bool isLow(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
}

/// x in float32; x itself if it is.
inline at::Tensor wide(const at::Tensor& x) { return isLow(x) ? x.to(at::kFloat) : x; }

/// x with the dtype of `like`; x itself if it has it.
inline at::Tensor as(const at::Tensor& x, const at::Tensor& like) { return x.to(like.scalar_type()); }

/// Operand of a product. CPUs multiply low-precision values as float32, in which they and their products are exact: sums are
/// float32 and the result is rounded once, as on a GPU's tensor cores, and 60 times faster than these CPUs' own bfloat16.
inline at::Tensor operand(const at::Tensor& x) { return x.is_cpu() ? wide(x) : x; }

}  // namespace paddock
