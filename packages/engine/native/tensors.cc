// Tensors in and out of JS, and the settings of this environment: device, threads.
#include "allocator.h"
#include "binding.h"
#include "families.h"
#include "precision.h"
#include "product.h"

#include "aten.h"
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace paddock {
namespace {

at::TensorOptions hostOptions(Dtype dtype) { return at::TensorOptions(scalarTypeOf(dtype)); }

int64_t countOf(const Ints& shape) {
  int64_t count = 1;
  for (const int64_t size : shape.values) count *= size;
  return count;
}

void checkSize(const Bytes& values, const Ints& shape, Dtype dtype) {
  const int64_t expected = countOf(shape) * at::elementSize(scalarTypeOf(dtype));
  TORCH_CHECK(static_cast<int64_t>(values.size) == expected, "the shape needs ", expected,
              " bytes, the array has ", values.size);
}

/// Keeps a typed array's memory alive for a tensor that reads it in place. Dies on the JS thread, since
/// every tensor does; after the environment's end the reference is gone already.
struct Pin {
  napi_env env;
  napi_ref array;
  std::weak_ptr<bool> environment;
};

/// memcpy on the engine's threads: one core alone does not reach the memory's speed.
void copyBytes(void* to, const void* from, size_t size) {
  at::parallel_for(0, static_cast<int64_t>(size), int64_t{1} << 20, [&](int64_t first, int64_t last) {
    std::memcpy(static_cast<char*>(to) + first, static_cast<const char*>(from) + first, last - first);
  });
}

/// Through pinned memory to a GPU: the copy then runs beside the CPU, in the order of the thread's stream.
at::Tensor copyOf(Call& call, const Bytes& values, Dtype dtype, const Ints& shape) {
  checkSize(values, shape, dtype);
  const at::Device device = call.state().device;
  at::Tensor tensor = at::empty(shape, hostOptions(dtype).pinned_memory(!device.is_cpu()));
  copyBytes(tensor.data_ptr(), values.data, values.size);
  return device.is_cpu() ? tensor : tensor.to(device, /*non_blocking=*/true);
}

/// A tensor of the array's values. Indices for a GPU are looked at here: see indices.h.
int32_t fromArray(Call& call, const Bytes& values, Dtype dtype, const Ints& shape) {
  const int32_t handle = Results(call).put(copyOf(call, values, dtype, shape));
  if (dtype == Dtype::kInt32 && !call.state().device.is_cpu() && values.size > 0) {
    const auto* first = static_cast<const int32_t*>(values.data);
    const auto [low, high] = std::minmax_element(first, first + values.size / sizeof(int32_t));
    call.state().setBounds(handle, {*low, *high});
  }
  return handle;
}

/// Whether the array's memory stays: JS can hand an ordinary ArrayBuffer to another thread, which frees it.
bool isShared(Call& call, const Bytes& values) {
  napi_value buffer;
  bool isOrdinary = true;
  napi_get_typedarray_info(call.env(), values.value, nullptr, nullptr, nullptr, &buffer, nullptr);
  napi_is_arraybuffer(call.env(), buffer, &isOrdinary);
  return !isOrdinary;
}

/// A tensor over a SharedArrayBuffer's own memory on CPUs: JS writes show in the tensor. Else a copy.
napi_value borrow(Call& call, const Bytes& values, Dtype dtype, const Ints& shape) {
  checkSize(values, shape, dtype);
  if (!call.state().device.is_cpu() || values.size == 0 || !isShared(call, values)) {
    return toJs(call.env(), fromArray(call, values, dtype, shape));
  }
  auto pin = std::make_unique<Pin>(Pin{call.env(), nullptr, call.state().alive});
  napi_create_reference(call.env(), values.value, 1, &pin->array);
  Pin* held = pin.release();
  at::Tensor tensor = at::from_blob(
      values.data, shape,
      [held](void*) {
        if (!held->environment.expired()) napi_delete_reference(held->env, held->array);
        delete held;
      },
      hostOptions(dtype));
  return toJs(call.env(), call.state().put(std::move(tensor), /*borrowed=*/true));
}

/// The values on the host as JS sees them: low precision reads as float32. Waits for the GPU.
at::Tensor hostContiguous(const at::Tensor& tensor, Dtype dtype) {
  const at::Tensor values = wide(tensor);
  TORCH_CHECK(values.scalar_type() == scalarTypeOf(dtype), "the tensor is not of the dtype asked for");
  if (values.is_cpu()) return values.contiguous();
  at::Tensor host = at::empty(values.sizes(), hostOptions(dtype).pinned_memory(true));
  return host.copy_(values);
}

napi_value read(Call& call, const at::Tensor& tensor, Dtype dtype) {
  const at::Tensor host = hostContiguous(tensor, dtype);
  void* memory = nullptr;
  napi_value buffer;
  if (napi_create_arraybuffer(call.env(), host.nbytes(), &memory, &buffer) != napi_ok) {
    throw std::bad_alloc();
  }
  if (host.nbytes() > 0) std::memcpy(memory, host.data_ptr(), host.nbytes());
  return buffer;
}

void readInto(const at::Tensor& tensor, Dtype dtype, const Bytes& out) {
  const at::ScalarType type = scalarTypeOf(dtype);
  TORCH_CHECK(tensor.scalar_type() == type || (isLow(tensor) && type == at::kFloat),
              "the tensor is not of the dtype asked for");
  const size_t bytes = tensor.numel() * at::elementSize(type);
  TORCH_CHECK(out.size == bytes, "the tensor has ", bytes, " bytes, the array ", out.size);
  if (out.size == 0) return;
  if (tensor.is_cpu() && (isLow(tensor) || !tensor.is_contiguous())) {  // one pass instead of two
    at::from_blob(out.data, tensor.sizes(), hostOptions(dtype)).copy_(tensor);
    return;
  }
  const at::Tensor host = hostContiguous(tensor, dtype);
  std::memcpy(out.data, host.data_ptr(), out.size);
}

void release(Call& call, int64_t handle) {
  call.state().release(static_cast<int32_t>(handle));
  reportMemory(call);
}

void releaseAll(Call& call) {
  call.state().releaseAll();
  emptyBlockCache();
  reportMemory(call);
}

double numTensors(Call& call) { return static_cast<double>(call.state().numTensors()); }
double numBytes(Call& call) { return static_cast<double>(call.state().numBytes()); }
double cachedBytesNow() { return static_cast<double>(cachedBytes()); }

void setThreads(int64_t threads) {
  // A thread that the system refuses would end the process, in the first op that wants it.
  TORCH_CHECK(threads >= 1 && threads <= 1024, "expected 1 to 1024 threads, got ", threads);
  askForReproducibleProducts();
  at::set_num_threads(static_cast<int>(threads));
  try {
    at::set_num_interop_threads(1);
  } catch (const c10::Error&) {
    // Only the first call in a process may set it; another environment did.
  }
}

/// x stored as float32 (0), bfloat16 (1) or half (2); JS goes on calling it float32.
at::Tensor toPrecision(const at::Tensor& x, int64_t precision) {
  TORCH_CHECK(at::isFloatingType(x.scalar_type()), "only floating-point tensors have a precision");
  return x.to(typeOfPrecision(precision));
}

}  // namespace

void defineTensors(Module& module) {
  module.add("fromArray", &fromArray);
  module.add("borrow", &borrow);
  module.add("read", &read);
  module.add("readInto", &readInto);
  module.add("free", &release);
  module.add("freeAll", &releaseAll);
  module.add("numTensors", &numTensors);
  module.add("numBytes", &numBytes);
  module.add("cachedBytes", &cachedBytesNow);
  module.add("setThreads", &setThreads);
  module.add("toPrecision", &toPrecision);
}

}  // namespace paddock
