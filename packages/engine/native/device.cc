// The device of this environment: which there are, which one is used, its stream, its memory. Everything goes through c10's
// device-independent interfaces, so that no header of a CUDA toolkit is needed.
#include "binding.h"
#include "families.h"

#include "aten.h"
#include <c10/core/impl/VirtualGuardImpl.h>
#if PADDOCK_TORCH_MINOR >= 209
#include <c10/core/CachingDeviceAllocator.h>
#endif

namespace paddock {
namespace {

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(at::kCUDA); }

/// CUDA devices that libtorch can use.
int32_t cudaDevices() { return at::hasCUDA() ? cuda().deviceCount() : 0; }

/// Makes `name` ("cpu", "cuda", "cuda:<n>") this thread's device and returns its full name. On CUDA the thread gets a stream
/// of its own: threads of one process that share a GPU do not wait for each other.
std::string setDevice(Call& call, const std::string& name) {
  at::Device device(name);
  TORCH_CHECK(device.is_cpu() || device.is_cuda(), "the engine runs on cpu and cuda, not on ", name);
  if (device.is_cuda()) {
    TORCH_CHECK(at::hasCUDA(), "this libtorch sees no CUDA device");
    if (!device.has_index()) device.set_index(0);
    TORCH_CHECK(device.index() < cuda().deviceCount(), "there are ", cuda().deviceCount(), " CUDA devices");
    cuda().setDevice(device);
    cuda().exchangeStream(cuda().getStreamFromGlobalPool(device));
    at::empty({1}, at::TensorOptions(at::kFloat).device(device));  // fails here, not in the first op
  }
  call.state().device = device;
  return device.str();
}

/// Waits until everything launched by this thread is done.
void synchronize(Call& call) {
  const at::Device device = call.state().device;
  if (device.is_cuda()) cuda().synchronizeStream(cuda().getStream(device));
}

/// Fills [allocated, its peak, reserved, its peak, failed allocations] of the caching allocator, in bytes but for the last.
/// Zeros on a CPU. Returns whether this libtorch can tell.
bool deviceMemory(Call& call, const Bytes& out) {
  TORCH_CHECK(out.type == napi_float64_array && out.elements == 5, "expected a Float64Array of 5");
  double* values = static_cast<double*>(out.data);
  std::fill(values, values + 5, 0.0);
  const at::Device device = call.state().device;
  if (device.is_cpu()) return true;
#if PADDOCK_TORCH_MINOR >= 209
  const auto stats = at::getDeviceAllocator(at::kCUDA)->getDeviceStats(device.index());
  const auto& allocated = stats.allocated_bytes[0];  // 0: all pools together
  const auto& reserved = stats.reserved_bytes[0];
  values[0] = static_cast<double>(allocated.current);
  values[1] = static_cast<double>(allocated.peak);
  values[2] = static_cast<double>(reserved.current);
  values[3] = static_cast<double>(reserved.peak);
  values[4] = static_cast<double>(stats.num_ooms);
  return true;
#else
  return false;
#endif
}

/// Process-wide, as in PyTorch: whether float32 products on CUDA may round their operands to 10 bits.
void allowTf32(bool allowed) {
  if (at::hasCUDA()) at::globalContext().setAllowTF32CuBLAS(allowed);
}

}  // namespace

void defineDevice(Module& module) {
  module.add("cudaDevices", &cudaDevices);
  module.add("setDevice", &setDevice);
  module.add("synchronize", &synchronize);
  module.add("deviceMemory", &deviceMemory);
  module.add("allowTf32", &allowTf32);
}

}  // namespace paddock
