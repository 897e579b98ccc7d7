// What other families use of activation.cc.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace paddock {

at::Tensor gelu(const at::Tensor& x);

/// gelu(y + bias); y itself becomes y + bias.
at::Tensor addBiasAndGelu(at::Tensor& y_MO, const at::Tensor& bias_O);

/// (gelu(x), dx for dy), in one visit of x on CPUs.
std::pair<at::Tensor, at::Tensor> geluAndBackward(const at::Tensor& dy, const at::Tensor& x);

}  // namespace paddock
