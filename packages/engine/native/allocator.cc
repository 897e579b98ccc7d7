#include "allocator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes)
#endif

namespace paddock {
namespace {

constexpr size_t kSmallBits = 16, kSmall = size_t{1} << kSmallBits;  // below, each thread keeps its own
constexpr size_t kGranule = size_t{16} << 10;
constexpr size_t kHugePage = size_t{2} << 20;
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kLargest = size_t{4} << 30;  // as test-asan.mjs tells the sanitizer's malloc: it cannot run under a limit of address space
#else
constexpr size_t kLargest = size_t{1} << 62;
#endif

size_t roundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

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

/// Memory that was mapped and is in nobody's use, as ranges of whole granules that are not adjacent.
class IdleRanges {
 public:
  size_t bytes() const { return bytes_; }

  /// Adds a range, joined with its neighbours.
  void add(uintptr_t start, size_t bytes) {
    bytes_ += bytes;
    auto next = byAddress_.lower_bound(start);
    if (next != byAddress_.end() && start + bytes == next->first) {
      bytes += next->second;
      next = forget(next);
    }
    if (next != byAddress_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == start) {
        start = before->first;
        bytes += before->second;
        forget(before);
      }
    }
    remember(start, bytes);
  }

  /// The front of the smallest range that is large enough, or 0.
  uintptr_t take(size_t bytes) {
    const auto found = bySize_.lower_bound({bytes, 0});
    if (found == bySize_.end()) return 0;
    const auto [size, start] = *found;
    forget(byAddress_.find(start));
    if (size > bytes) remember(start + bytes, size - bytes);
    bytes_ -= bytes;
    return start;
  }

  /// The end of the smallest range, at most `most` of it: what can be missed best.
  std::pair<uintptr_t, size_t> takeLeast(size_t most) {
    const auto [size, start] = *bySize_.begin();
    const size_t part = std::min(size, most);
    forget(byAddress_.find(start));
    if (size > part) remember(start, size - part);
    bytes_ -= part;
    return {start + size - part, part};
  }

 private:
  using ByAddress = std::map<uintptr_t, size_t>;

  void remember(uintptr_t start, size_t bytes) {
    byAddress_.emplace(start, bytes);
    bySize_.emplace(bytes, start);
  }

  ByAddress::iterator forget(ByAddress::iterator range) {
    bySize_.erase({range->second, range->first});
    return byAddress_.erase(range);
  }

  ByAddress byAddress_;
  std::set<std::pair<size_t, uintptr_t>> bySize_;
  size_t bytes_ = 0;
};

/// Blocks of the process. One that is given back serves any later one that fits into it, and is joined again with its neighbours: the
/// sizes a step asks for, small after large, all come out of the same pages.
class BlockCache {
 public:
  void* take(size_t wanted) {
    if (wanted > kLargest) return nullptr;
    const size_t bytes = roundUp(wanted, kGranule);
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t peak = std::max(peak_, live_ + bytes);
    auto* block = reinterpret_cast<void*>(idle_.take(bytes));
    if (block == nullptr) {
      evict(peak - live_ - bytes);
      block = map(bytes);
    }
    if (block == nullptr) {
      evict(0);
      block = map(bytes);
    }
    if (block == nullptr) return nullptr;
    ASAN_UNPOISON_MEMORY_REGION(block, bytes);
    live_ += bytes;
    peak_ = peak;
    sizes_.emplace(block, bytes);
    return block;
  }

  /// False if the memory is not of this cache.
  bool give(void* block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sizes_.find(block);
    if (found == sizes_.end()) return false;
    ASAN_POISON_MEMORY_REGION(block, found->second);
    live_ -= found->second;
    idle_.add(reinterpret_cast<uintptr_t>(block), found->second);
    sizes_.erase(found);
    return true;
  }

  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    evict(0);
    peak_ = live_;
  }

  size_t cached() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return idle_.bytes();
  }

 private:
  /// Returns idle memory to the system until at most `keep` bytes are kept.
  void evict(size_t keep) {
    while (idle_.bytes() > keep) {
      const auto [start, bytes] = idle_.takeLeast(idle_.bytes() - keep);
      auto* memory = reinterpret_cast<void*>(start);
      ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
      munmap(memory, bytes);
    }
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;  // of the live blocks
  IdleRanges idle_;
  size_t live_ = 0, peak_ = 0;
};

/// Never destroyed: tensors may outlive every destructor.
BlockCache& cache() {
  static auto* instance = new BlockCache();
  return *instance;
}

/// Small blocks of one thread, by size class: malloc merges and splits what comes and goes a thousand times a step. Live and kept
/// blocks together never exceed what live ones took at their peak.
class SmallBlocks {
 public:
  void* take(size_t wanted) {
    const size_t index = classOf(wanted), bytes = bytesOf(index);
    std::vector<Header*>& idle = idle_[index];
    Header* block;
    if (idle.empty()) {
      evict(std::max(peak_, live_ + bytes) - live_ - bytes);
      block = static_cast<Header*>(c10::alloc_cpu(sizeof(Header) + bytes));
      block->index = index;
    } else {
      block = idle.back();
      idle.pop_back();
      cached_ -= bytes;
    }
    live_ += bytes;
    peak_ = std::max(peak_, live_);
    return block + 1;
  }

  void give(void* memory) {
    Header* block = static_cast<Header*>(memory) - 1;
    const size_t bytes = bytesOf(block->index);
    live_ -= std::min(live_, bytes);  // of another thread's block: it stays here
    cached_ += bytes;
    idle_[block->index].push_back(block);
    if (!kKeep || live_ + cached_ > peak_) evict(kKeep ? peak_ - live_ : 0);
  }

  void clear() {
    evict(0);
    peak_ = live_;
  }

 private:
  /// In front of the memory that is lent, which stays aligned as libtorch wants it.
  struct alignas(64) Header {
    size_t index;
  };

  /// Classes: eight between each power of two and the next, so that a block is at most an eighth larger than what was wanted.
  static constexpr size_t kSteps = 8, kLeastBits = 6, kClasses = (kSmallBits - kLeastBits + 1) * kSteps + 1;
#ifdef __SANITIZE_ADDRESS__
  static constexpr bool kKeep = false;  // or a use after the end would go unnoticed
#else
  static constexpr bool kKeep = true;
#endif

  static size_t classOf(size_t bytes) {
    if (bytes <= (size_t{1} << kLeastBits)) return 0;
    const size_t last = bytes - 1;
    const size_t bits = 63 - static_cast<size_t>(__builtin_clzll(last));  // 2^bits <= last
    return (bits - kLeastBits) * kSteps + (last >> (bits - 3)) - kSteps + 1;
  }

  static size_t bytesOf(size_t index) {
    if (index == 0) return size_t{1} << kLeastBits;
    const size_t bits = (index - 1) / kSteps + kLeastBits;
    return (kSteps + (index - 1) % kSteps + 1) << (bits - 3);
  }

  /// Frees kept blocks, the largest first, until at most `keep` bytes are kept.
  void evict(size_t keep) {
    for (size_t index = kClasses; index-- > 0 && cached_ > keep;) {
      while (!idle_[index].empty() && cached_ > keep) {
        c10::free_cpu(idle_[index].back());
        idle_[index].pop_back();
        cached_ -= bytesOf(index);
      }
    }
  }

  std::array<std::vector<Header*>, kClasses> idle_;
  size_t live_ = 0, cached_ = 0, peak_ = 0;
};

/// Never destroyed either, for the same reason; `emptyBlockCache` is called when an environment's tensors go.
SmallBlocks& smallBlocks() {
  thread_local auto* instance = new SmallBlocks();
  return *instance;
}

void releaseSmall(void* memory) { smallBlocks().give(memory); }

/// Of any size, for those who have nothing but the address.
void release(void* memory) {
  if (memory == nullptr) return;
  if (!cache().give(memory)) releaseSmall(memory);
}

void nothing(void*) {}

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
    if (bytes == 0) return {nullptr, nullptr, &nothing, cpu};
    if (bytes < kSmall) {
      void* memory = smallBlocks().take(bytes);
      return {memory, memory, &releaseSmall, cpu};
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

void emptyBlockCache() {
  cache().clear();
  smallBlocks().clear();
}

}  // namespace paddock
