// What other families use of linear.cc; shapes and precisions are explained there.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>

namespace paddock {

at::Tensor linear(const at::Tensor& x_MI, const at::Tensor& w_OI, const std::optional<at::Tensor>& bias_O);

/// True if `linear` adds the bias to the finished product: float32 on CPUs, where ATen would write the bias first and have the product
/// read it again. Elsewhere the bias goes into the product, which rounds once.
bool addsBiasAfter(const at::Tensor& x_MI, const at::Tensor& w_OI, const at::Tensor& bias_O);

/// y += bias, in place.
void addBias(at::Tensor& y_MO, const at::Tensor& bias_O);

/// dx [M,I]
at::Tensor linearInputGradient(const at::Tensor& dy_MO, const at::Tensor& w_OI);

/// (dw [O,I], db [O] if hasBias)
std::array<at::Tensor, 2> linearWeightGradients(const at::Tensor& dy_MO, const at::Tensor& x_MI, const at::Tensor& w_OI,
                                                bool hasBias);

}  // namespace paddock
