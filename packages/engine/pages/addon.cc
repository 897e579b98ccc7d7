// Memory in huge pages, for what disks read and write: 8 MiB are then 4 pieces for the device, not 2,048.
#include <node_api.h>
#include <sys/mman.h>

#include <cstdint>

namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

size_t roundUp(size_t bytes) { return (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes; }

void unmap(napi_env, void* memory, void* bytes) { munmap(memory, reinterpret_cast<size_t>(bytes)); }

/** A mapping that begins at a huge page; nullptr if there is no room. */
void* mapAligned(size_t bytes) {
  const size_t mapped = bytes + kHugePageBytes;
  void* start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  auto* first = static_cast<char*>(start);
  auto* aligned = reinterpret_cast<char*>(roundUp(reinterpret_cast<uintptr_t>(start)));
  if (aligned > first) munmap(first, aligned - first);
  munmap(aligned + bytes, first + mapped - (aligned + bytes));
  return aligned;
}

/** allocate(bytes: number): ArrayBuffer of at least so many bytes, or undefined where there is no such memory. */
napi_value allocate(napi_env env, napi_callback_info info) {
  size_t given = 1;
  napi_value argument;
  double asked = 0;
  if (napi_get_cb_info(env, info, &given, &argument, nullptr, nullptr) != napi_ok || given != 1 ||
      napi_get_value_double(env, argument, &asked) != napi_ok || !(asked > 0 && asked <= 1e15)) {
    napi_throw_type_error(env, nullptr, "allocate: expected a number of bytes from 1 on");
    return nullptr;
  }
  const size_t bytes = roundUp(static_cast<size_t>(asked));
  void* memory = mapAligned(bytes);
  if (memory == nullptr) return nullptr;
  napi_value buffer;
  if (madvise(memory, bytes, MADV_HUGEPAGE) != 0 ||
      napi_create_external_arraybuffer(env, memory, bytes, unmap, reinterpret_cast<void*>(bytes),
                                       &buffer) != napi_ok) {
    munmap(memory, bytes);
    return nullptr;
  }
  return buffer;
}

}  // namespace

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "allocate", NAPI_AUTO_LENGTH, allocate, nullptr, &function);
  napi_set_named_property(env, exports, "allocate", function);
  return exports;
}
