// Everything one JS environment (main thread or worker_thread) owns: its tensors, its device and the
// array it shares with JS. One State per napi_env, never shared between threads: no locks anywhere.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

namespace paddock {

/// TF.js dtype names in the order JS numbers them (see src/native.ts).
enum class Dtype : int32_t { kFloat32 = 0, kInt32 = 1, kBool = 2 };

at::ScalarType scalarTypeOf(Dtype dtype);

/// Smallest and largest value of a list of indices.
struct Bounds {
  int32_t low;
  int32_t high;
};

/// Layout of the Int32Array shared with JS: results in front, argument lists behind.
constexpr int32_t kResultInts = 1024;
constexpr int32_t kArgumentInts = 31 * 1024;

class State {
 public:
  State();
  ~State() { alive.reset(); }  // before the tensors, whose memory may be JS's

  /// Takes the tensor and returns its handle, a positive int32: slot index in the low bits, the slot's
  /// generation above, so that a stale handle is noticed instead of reaching another tensor.
  int32_t put(at::Tensor tensor, bool borrowed = false);

  /// Throws StaleHandle when `handle` was never given out or has been freed.
  const at::Tensor& get(int32_t handle) const;

  /// Notes what the tensor's int32 values lie between. A GPU would have to be waited for to tell.
  void setBounds(int32_t handle, Bounds bounds);

  /// What `setBounds` noted for the tensor or one that it is a view of.
  std::optional<Bounds> boundsOf(const at::Tensor& tensor) const;

  void release(int32_t handle);
  void releaseAll();

  int64_t numTensors() const { return numTensors_; }

  /// Bytes of the distinct storages behind the tensors; borrowed memory counts as zero.
  int64_t numBytes() const { return numBytes_; }

  /// What to tell V8 about memory outside its heap since the last time, or 0 while that is little:
  /// V8 may collect garbage on every report. Memory of a GPU is not its business.
  int64_t takeUnreportedBytes();

  int32_t* results() { return shared_; }
  int32_t* arguments() { return shared_ + kResultInts; }
  void setShared(int32_t* shared) { shared_ = shared; }

  at::Device device = at::Device(at::kCPU);

  /// Expires with the environment: what outlives it must not call back into Node-API.
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);

 private:
  struct Slot {
    at::Tensor tensor;
    int32_t generation = 0;
  };
  struct Storage {
    int32_t tensors = 0;
    int64_t bytes = 0;
    std::optional<Bounds> bounds;
  };

  size_t indexOf(int32_t handle) const;
  void releaseAt(size_t index);

  std::vector<Slot> slots_;
  std::vector<int32_t> freeSlots_;
  std::unordered_map<const c10::StorageImpl*, Storage> storages_;
  int64_t numTensors_ = 0;
  int64_t numBytes_ = 0;
  int64_t reportedBytes_ = 0;
  int32_t firstGeneration_ = 0;
  int32_t* shared_ = nullptr;
};

}  // namespace paddock
