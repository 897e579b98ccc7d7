#include "allocator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <cstring>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

namespace paddock {
namespace {

constexpr size_t kSmall = size_t{512} << 10;  // below, malloc reuses memory well enough
constexpr size_t kGranule = size_t{64} << 10;
constexpr size_t kHugePage = size_t{2} << 20;

size_t roundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

/// A block may serve a request that is up to an eighth smaller.
bool fits(size_t block, size_t wanted) { return block >= wanted && block - wanted <= wanted / 8; }

/// Fresh memory from the system, on huge pages where the system has them.
void* map(size_t bytes) {
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* memory =
      mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  if (slack == 0) return memory;
  const auto start = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t aligned = roundUp(start, kHugePage);
  if (aligned > start) munmap(memory, aligned - start);
  const size_t behind = start + slack - aligned;
  if (behind > 0) munmap(reinterpret_cast<void*>(aligned + bytes), behind);
  madvise(reinterpret_cast<void*>(aligned), bytes, MADV_HUGEPAGE);
  return reinterpret_cast<void*>(aligned);
}

class BlockCache {
 public:
  void* take(size_t wanted) {
    const size_t bytes = roundUp(wanted, kGranule);
    const std::lock_guard<std::mutex> lock(mutex_);
    live_ += bytes;
    void* block = reuse(bytes);
    if (block != nullptr) return block;
    const size_t peak = std::max(peak_, live_);
    evict(peak - live_);
    block = map(bytes);
    if (block == nullptr) {
      evict(0);
      block = map(bytes);
    }
    if (block == nullptr) {
      live_ -= bytes;
      return nullptr;
    }
    peak_ = peak;
    sizes_.emplace(block, bytes);
    return block;
  }

  /// False if the memory is not of this cache.
  bool give(void* block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sizes_.find(block);
    if (found == sizes_.end()) return false;
    live_ -= found->second;
    cached_ += found->second;
    idle_.push_front({block, found->second});
    bySize_.emplace(found->second, idle_.begin());
    return true;
  }

  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    evict(0);
    peak_ = live_;
  }

  size_t cached() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return cached_;
  }

 private:
  struct Block {
    void* memory;
    size_t bytes;
  };
  using Idle = std::list<Block>;  // most recently left first
  using BySize = std::multimap<size_t, Idle::iterator>;

  void* reuse(size_t bytes) {
    const auto found = bySize_.lower_bound(bytes);
    if (found == bySize_.end() || !fits(found->first, bytes)) return nullptr;
    const Block block = *found->second;
    live_ += block.bytes - bytes;
    cached_ -= block.bytes;
    idle_.erase(found->second);
    bySize_.erase(found);
    return block.memory;
  }

  /// Returns the blocks unused for longest until at most `keep` bytes are kept.
  void evict(size_t keep) {
    while (cached_ > keep) {
      const auto oldest = std::prev(idle_.end());
      auto [entry, end] = bySize_.equal_range(oldest->bytes);
      while (entry != end && entry->second != oldest) ++entry;
      bySize_.erase(entry);
      munmap(oldest->memory, oldest->bytes);
      sizes_.erase(oldest->memory);
      cached_ -= oldest->bytes;
      idle_.erase(oldest);
    }
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;  // of every block, live or idle
  Idle idle_;
  BySize bySize_;
  size_t live_ = 0, cached_ = 0, peak_ = 0;
};

/// Never destroyed: tensors may outlive every destructor.
BlockCache& cache() {
  static auto* instance = new BlockCache();
  return *instance;
}

void release(void* memory) {
  if (!cache().give(memory)) c10::free_cpu(memory);
}

class CachingAllocator final : public c10::Allocator {
 public:
  // libtorch made this function non-const in 2.3; one of the two overrides the base's.
  c10::DataPtr allocate(size_t bytes) { return make(bytes); }
  c10::DataPtr allocate(size_t bytes) const { return make(bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const { std::memcpy(to, from, count); }

 private:
  static c10::DataPtr make(size_t bytes) {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes < kSmall) {
      void* memory = c10::alloc_cpu(bytes);
      return {memory, memory, &c10::free_cpu, cpu};
    }
    void* memory = cache().take(bytes);
    TORCH_CHECK(memory != nullptr, "can't allocate memory: ", bytes, " bytes asked for");
    return {memory, memory, &release, cpu};
  }
};

}  // namespace

void useBlockCache() {
  static const bool once = [] {
    c10::SetCPUAllocator(new CachingAllocator());
    return true;
  }();
  static_cast<void>(once);
}

int64_t cachedBytes() { return static_cast<int64_t>(cache().cached()); }

void emptyBlockCache() { cache().clear(); }

}  // namespace paddock
