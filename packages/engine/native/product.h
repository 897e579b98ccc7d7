// Products of matrices, by the library whose kernels suit this CPU. Which one shows in the last bits of a result: the choice depends on
// the CPU and the operands' shapes only, never on a measurement.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace paddock {

/// a [M,K] times b [K,N], of one dtype; either may be a transposed view.
at::Tensor product(const at::Tensor& a_MK, const at::Tensor& b_KN);

/// "oneDNN" or "MKL", or what else libtorch was built with ("ATen"): for large products in float32 on this CPU.
/// PADDOCK_PRODUCTS=onednn|mkl in the environment overrides the choice.
std::string productLibrary();

/// MKL promises results that do not depend on where operands lie in memory only if asked to, before its first call: without this,
/// products of a few rows differ in the last bit with the operands' alignment. The environment variable MKL_CBWR wins.
void askForReproducibleProducts();

}  // namespace paddock
