// Huge pages for memory of JavaScript's that disks write from and read into: 8 MiB are then 4 pieces for a device, not 2,048.
#include <node_api.h>
#include <sys/mman.h>

#include <cstdint>

namespace {

constexpr uintptr_t kHugePageBytes = uintptr_t{2} << 20;

/**
 * advise(bytes: Uint8Array): the index of the first of them that lies at a huge page, and from which on the kernel is asked for
 * such pages; undefined where it has none, or none fits.
 */
napi_value advise(napi_env env, napi_callback_info info) {
  size_t given = 1;
  napi_value argument;
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &given, &argument, nullptr, nullptr) != napi_ok || given != 1 ||
      napi_get_typedarray_info(env, argument, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    napi_throw_type_error(env, nullptr, "advise: expected a Uint8Array");
    return nullptr;
  }
  const auto start = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (start + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t end = (start + length) / kHugePageBytes * kHugePageBytes;
  if (first >= end || madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE) != 0) return nullptr;
  napi_value index;
  napi_create_double(env, static_cast<double>(first - start), &index);
  return index;
}

}  // namespace

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "advise", NAPI_AUTO_LENGTH, advise, nullptr, &function);
  napi_set_named_property(env, exports, "advise", function);
  return exports;
}
