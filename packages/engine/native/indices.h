// Lists of rows and targets are checked before they are used: a wrong one is an error, never a wild read. On a GPU a wrong index
// would end the process's use of the device, and reading the list back would wait for all that was launched: there the bounds
// that were noted when the list was uploaded decide. Lists that the GPU computed itself (arg-max) are right by construction.
#pragma once

#include "binding.h"

#include <c10/util/Exception.h>

namespace paddock {

/// Throws unless `indices` [n] is int32 with every value in [0, size).
inline void checkIndices(const State& state, const at::Tensor& indices, int64_t size, const char* what) {
  TORCH_CHECK(indices.scalar_type() == at::kInt && indices.dim() == 1, what, "s must be a list of int32");
  if (!indices.is_cpu()) {
    const std::optional<Bounds> bounds = state.boundsOf(indices);
    if (!bounds || (bounds->low >= 0 && bounds->high < size)) return;
    TORCH_CHECK_INDEX(false, what, " ", bounds->low < 0 ? bounds->low : bounds->high, " of ", size);
  }
  const at::Tensor list = indices.contiguous();
  const int32_t* index = list.data_ptr<int32_t>();
  for (int64_t i = 0; i < list.numel(); i++) {
    TORCH_CHECK_INDEX(index[i] >= 0 && index[i] < size, what, " ", index[i], " of ", size);
  }
}

}  // namespace paddock
