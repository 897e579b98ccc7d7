#include "state.h"

#include <atomic>
#include <stdexcept>
#include <string>

namespace paddock {

namespace {

constexpr int64_t kReportBytes = int64_t{32} << 20;
constexpr int32_t kIndexBits = 21;  // two million tensors at once
constexpr int32_t kIndexMask = (1 << kIndexBits) - 1;
constexpr int32_t kGenerationMask = (1 << (31 - kIndexBits)) - 1;

// Environments start at different generations, so that a handle that strays into another thread is
// refused there instead of naming whatever lies in the same slot.
std::atomic<int32_t> environments{0};

}  // namespace

at::ScalarType scalarTypeOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return at::kFloat;
    case Dtype::kInt32:
      return at::kInt;
    case Dtype::kBool:
      return at::kBool;
  }
  throw std::invalid_argument("unknown dtype number");
}

State::State() : firstGeneration_((environments.fetch_add(1) * 97 + 1) & kGenerationMask) {
  slots_.reserve(4096);
}

int32_t State::put(at::Tensor tensor, bool borrowed) {
  Storage& storage = storages_[tensor.storage().unsafeGetStorageImpl()];
  if (storage.tensors++ == 0) {
    storage.bytes = borrowed ? 0 : static_cast<int64_t>(tensor.storage().nbytes());
    numBytes_ += storage.bytes;
  }
  numTensors_++;
  int32_t index;
  if (freeSlots_.empty()) {
    index = static_cast<int32_t>(slots_.size());
    if (index > kIndexMask) throw std::length_error("two million tensors are alive: is a tidy missing?");
    slots_.push_back({std::move(tensor), firstGeneration_});
  } else {
    index = freeSlots_.back();
    freeSlots_.pop_back();
    slots_[index].tensor = std::move(tensor);
  }
  return index | (slots_[index].generation << kIndexBits);
}

size_t State::indexOf(int32_t handle) const {
  const size_t index = static_cast<size_t>(handle & kIndexMask);
  const bool alive = handle >= 0 && index < slots_.size() && slots_[index].tensor.defined() &&
                     slots_[index].generation == (handle >> kIndexBits);
  if (!alive) {
    throw std::invalid_argument("tensor handle " + std::to_string(handle) +
                                " is not alive on this thread; was the tensor disposed?");
  }
  return index;
}

const at::Tensor& State::get(int32_t handle) const { return slots_[indexOf(handle)].tensor; }

void State::setBounds(int32_t handle, Bounds bounds) {
  storages_[get(handle).storage().unsafeGetStorageImpl()].bounds = bounds;
}

std::optional<Bounds> State::boundsOf(const at::Tensor& tensor) const {
  const auto found = storages_.find(tensor.storage().unsafeGetStorageImpl());
  return found == storages_.end() ? std::nullopt : found->second.bounds;
}

void State::release(int32_t handle) { releaseAt(indexOf(handle)); }

void State::releaseAll() {
  for (size_t index = 0; index < slots_.size(); index++) {
    if (slots_[index].tensor.defined()) releaseAt(index);
  }
}

void State::releaseAt(size_t index) {
  Slot& slot = slots_[index];
  const auto found = storages_.find(slot.tensor.storage().unsafeGetStorageImpl());
  if (--found->second.tensors == 0) {
    numBytes_ -= found->second.bytes;
    storages_.erase(found);
  }
  numTensors_--;
  slot.tensor.reset();
  slot.generation = (slot.generation + 1) & kGenerationMask;
  freeSlots_.push_back(static_cast<int32_t>(index));
}

int64_t State::takeUnreportedBytes() {
  const int64_t change = numBytes_ - reportedBytes_;
  if (!device.is_cpu() || (change < kReportBytes && change > -kReportBytes)) return 0;
  reportedBytes_ = numBytes_;
  return change;
}

}  // namespace paddock
