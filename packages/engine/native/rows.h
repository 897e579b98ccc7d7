// What other families use of rows.cc.
#pragma once

#include <ATen/core/Tensor.h>

namespace paddock {

/// x [T,C] with r [S,C] added to `rows` (int32 [S], each in [0,T), not looked at here), in list order; rows may repeat. Float32.
at::Tensor addRows(const at::Tensor& x_TC, const at::Tensor& r_SC, const at::Tensor& rows_S);

}  // namespace paddock
