// Memory of CPU tensors: kept for the next tensor instead of being returned to the system, which would hand it back page by
// page, zeroed, at 0.2 ms per megabyte, or to malloc, which would merge and split it. A training step asks for the same sizes over
// and over, so almost every request is met by what earlier tensors have left. Large blocks are the process's, split and joined as they are
// needed; small ones are each thread's own.
#pragma once

#include <cstdint>

namespace paddock {

/// Makes libtorch allocate through the cache. Once per process; later calls do nothing.
void useBlockCache();

/// Bytes of large blocks kept for later tensors. Together with the live tensors never more than these took at their peak.
int64_t cachedBytes();

/// Returns what is kept to the system: large blocks, and this thread's small ones.
void emptyBlockCache();

}  // namespace paddock
