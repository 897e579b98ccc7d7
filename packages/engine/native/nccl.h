// The few functions of NCCL's C API that Paddock calls, found at run time: building needs neither nccl.h nor a CUDA
// toolkit. Names, types and numbers as in nccl.h of 2.18 to 2.32 (NVIDIA), whose ABI only grows.
#pragma once

#include <climits>
#include <cstddef>
#include <string>

namespace paddock::nccl {

using Comm = struct OpaqueComm*;
using Stream = void*;  // cudaStream_t
enum Result : int { kSuccess = 0, kInProgress = 7 };
constexpr int kUint8 = 1;  // ncclDataType_t: everything travels as bytes, nothing is summed by NCCL

struct UniqueId {
  char internal[128];
};

/// ncclConfig_t of 2.18. Later libraries read the fields of the version it names and default the rest.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21800;
  int blocking = 0;
  int cgaClusterSize = INT_MIN;
  int minCTAs = INT_MIN;
  int maxCTAs = INT_MIN;
  const char* netName = nullptr;
  int splitShare = INT_MIN;
};
constexpr int kOldest = 21800;  // major * 10000 + minor * 100 + patch

/// The library, loaded once and never unloaded.
struct Library {
  int version = 0;
  std::string path;
  Result (*getUniqueId)(UniqueId*) = nullptr;
  Result (*commInitRankConfig)(Comm*, int ranks, UniqueId, int rank, Config*) = nullptr;
  Result (*commGetAsyncError)(Comm, Result*) = nullptr;
  Result (*commAbort)(Comm) = nullptr;
  Result (*groupStart)() = nullptr;
  Result (*groupEnd)() = nullptr;
  Result (*send)(const void*, size_t count, int type, int peer, Comm, Stream) = nullptr;
  Result (*receive)(void*, size_t count, int type, int peer, Comm, Stream) = nullptr;
  const char* (*getErrorString)(Result) = nullptr;
  const char* (*getLastError)(Comm) = nullptr;
};

/// Looks at `path` if one is given, else at what libtorch has loaded, beside it in site-packages, and on the system.
/// Throws when there is none or it is too old.
const Library& library(const std::string& path);

}  // namespace paddock::nccl
