// Memory of large CPU tensors: kept for the next tensor instead of being returned to the system, which
// would hand it back page by page, zeroed, at 0.2 ms per megabyte. A training step asks for the same sizes
// over and over, so almost every request is met by a block that an earlier tensor has left.
#pragma once

#include <cstdint>

namespace paddock {

/// Makes libtorch allocate through the cache. Once per process; later calls do nothing.
void useBlockCache();

/// Bytes kept for later tensors. Together with the live tensors never more than these took at their peak.
int64_t cachedBytes();

/// Returns what is kept to the system.
void emptyBlockCache();

}  // namespace paddock
