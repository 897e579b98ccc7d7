// Loops over rows on the engine's threads.
#pragma once

#include <ATen/Parallel.h>

namespace paddock {

/// Values one thread should at least handle: below this, waking it costs more than it saves.
constexpr int64_t kGrainValues = 32768;

/// Calls body(first, last) over parts of [0, rows), each row being `width` values of work.
template <class Body>
void forRows(int64_t rows, int64_t width, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kGrainValues / std::max<int64_t>(1, width));
  at::parallel_for(0, rows, grain, body);
}

}  // namespace paddock
