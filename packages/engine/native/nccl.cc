// Collectives between GPUs, one process each: all-to-all of tensors through NCCL, on the current stream. Communicators
// are non-blocking: JS polls, with a deadline, and aborts. Sums are the caller's, in its order.
#include "nccl.h"

#include "aten.h"
#include "binding.h"
#include "families.h"

#include <ATen/Parallel.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>

namespace paddock {
namespace nccl {
namespace {

/// The folder of libtorch_cpu.so, with a slash, or "".
std::string folderOfTorch() {
  Dl_info info{};
  const auto symbol = reinterpret_cast<void*>(&at::get_num_threads);
  if (dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string file = info.dli_fname;
  return file.substr(0, file.rfind('/') + 1);
}

void* openLibrary(const std::string& path, std::string& tried) {
  if (!path.empty()) {
    void* given = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (given == nullptr) tried = dlerror();
    return given;
  }
  // The one that libtorch_cuda has brought into the process: two NCCLs in one would not know of each other.
  if (void* loaded = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)) return loaded;
  const std::string torch = folderOfTorch();
  for (const std::string& file : {torch + "../../nvidia/nccl/lib/libnccl.so.2", torch + "libnccl.so.2",
                                  std::string("libnccl.so.2")}) {
    if (void* found = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) return found;
    tried += (tried.empty() ? "" : "; ") + std::string(dlerror());
  }
  return nullptr;
}

template <class Function>
void find(void* handle, const char* name, Function& function) {
  void* symbol = dlsym(handle, name);
  TORCH_CHECK(symbol != nullptr, "libnccl lacks ", name);
  function = reinterpret_cast<Function>(symbol);
}

Library load(const std::string& path) {
  std::string tried;
  void* handle = openLibrary(path, tried);
  TORCH_CHECK(handle != nullptr, "no NCCL found: ", tried);
  Library found;
  Result (*getVersion)(int*) = nullptr;
  find(handle, "ncclGetVersion", getVersion);
  TORCH_CHECK(getVersion(&found.version) == kSuccess, "ncclGetVersion failed");
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(getVersion), &info) != 0) found.path = info.dli_fname;
  TORCH_CHECK(found.version >= kOldest, "expected NCCL 2.18 or newer, found ", found.version, " at ", found.path);
  find(handle, "ncclGetUniqueId", found.getUniqueId);
  find(handle, "ncclCommInitRankConfig", found.commInitRankConfig);
  find(handle, "ncclCommGetAsyncError", found.commGetAsyncError);
  find(handle, "ncclCommAbort", found.commAbort);
  find(handle, "ncclGroupStart", found.groupStart);
  find(handle, "ncclGroupEnd", found.groupEnd);
  find(handle, "ncclSend", found.send);
  find(handle, "ncclRecv", found.receive);
  find(handle, "ncclGetErrorString", found.getErrorString);
  find(handle, "ncclGetLastError", found.getLastError);
  return found;
}

}  // namespace

const Library& library(const std::string& path) {
  static std::mutex mutex;
  static std::unique_ptr<Library> loaded;
  std::lock_guard<std::mutex> lock(mutex);
  if (!loaded) loaded = std::make_unique<Library>(load(path));
  return *loaded;
}

}  // namespace nccl

namespace {

/// One process's end of a group of GPUs.
struct Communicator {
  nccl::Comm comm = nullptr;
  int rank = 0;
  int size = 0;
  at::Device device{at::kCUDA, 0};
  /// Of the operation under way: kept until its work on the GPU is done.
  Tensors held;
  bool submitted = false;
  std::unique_ptr<c10::Event> done;
};

/// Those of one JS environment, aborted when it ends: whoever still waits for a peer on the GPU would wait for ever.
struct Communicators {
  std::map<int64_t, std::unique_ptr<Communicator>> open;
  int64_t next = 1;
};

void abortAll(void* data) {
  auto* all = static_cast<Communicators*>(data);
  for (auto& [id, communicator] : all->open) nccl::library("").commAbort(communicator->comm);
  delete all;
}

std::mutex environmentsMutex;
std::map<napi_env, Communicators*> environments;

Communicators& communicatorsOf(Call& call) {
  std::lock_guard<std::mutex> lock(environmentsMutex);
  Communicators*& all = environments[call.env()];
  if (all == nullptr) {
    all = new Communicators();
    napi_add_env_cleanup_hook(
        call.env(),
        [](void* env) {
          std::unique_lock<std::mutex> hookLock(environmentsMutex);
          auto node = environments.extract(static_cast<napi_env>(env));
          hookLock.unlock();
          abortAll(node.mapped());
        },
        call.env());
  }
  return *all;
}

Communicator& communicatorOf(Call& call, int64_t id) {
  auto& open = communicatorsOf(call).open;
  const auto found = open.find(id);
  TORCH_CHECK(found != open.end(), "communicator ", id, " is not open on this thread");
  return *found->second;
}

void check(nccl::Result result, nccl::Comm comm, const char* what) {
  if (result == nccl::kSuccess || result == nccl::kInProgress) return;
  const nccl::Library& library = nccl::library("");
  const char* detail = library.getLastError(comm);
  TORCH_CHECK(false, what, ": ", library.getErrorString(result), detail && *detail ? " (" : "",
              detail ? detail : "", detail && *detail ? ")" : "");
}

c10::Stream currentStream(at::Device device) { return c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device); }

/// cudaStream_t of a stream without CUDA's headers: CUDAStream is a c10::Stream with methods.
nccl::Stream handleOf(const c10::Stream& stream) {
  using StreamOf = nccl::Stream (*)(const c10::Stream*);
  void* c10 = dlopen("libc10_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  auto streamOf = reinterpret_cast<StreamOf>(c10 ? dlsym(c10, "_ZNK3c104cuda10CUDAStream6streamEv") : nullptr);
  TORCH_CHECK(streamOf != nullptr, "libc10_cuda has no CUDAStream::stream");
  return streamOf(&stream);
}

/// version(path): of the library at `path`, or of the one that is found for "".
int32_t ncclVersion(const std::string& path) { return nccl::library(path).version; }

std::string ncclPath() { return nccl::library("").path; }

/// What rank 0 makes and the caller carries to all ranks.
void ncclUniqueId(const Bytes& out) {
  TORCH_CHECK(out.size == sizeof(nccl::UniqueId), "expected room for ", sizeof(nccl::UniqueId), " bytes");
  const auto result = nccl::library("").getUniqueId(static_cast<nccl::UniqueId*>(out.data));
  TORCH_CHECK(result == nccl::kSuccess, "ncclGetUniqueId: ", nccl::library("").getErrorString(result));
}

/// Begins to join the group; `ncclPoll` says when all have.
double ncclOpen(Call& call, const Bytes& id, int64_t rank, int64_t size) {
  TORCH_CHECK(id.size == sizeof(nccl::UniqueId), "expected an id of ", sizeof(nccl::UniqueId), " bytes");
  TORCH_CHECK(call.state().device.is_cuda(), "NCCL needs the engine on cuda, it is on ", call.state().device);
  auto communicator = std::make_unique<Communicator>();
  communicator->rank = static_cast<int>(rank);
  communicator->size = static_cast<int>(size);
  communicator->device = c10::impl::VirtualGuardImpl(at::kCUDA).getDevice();  // "cuda" with its number
  nccl::Config config;
  const auto result = nccl::library("").commInitRankConfig(
      &communicator->comm, communicator->size, *static_cast<const nccl::UniqueId*>(id.data), communicator->rank,
      &config);
  check(result, communicator->comm, "ncclCommInitRankConfig");
  Communicators& all = communicatorsOf(call);
  all.open[all.next] = std::move(communicator);
  return static_cast<double>(all.next++);
}

/// Whether nothing is under way any more, on the host and on the GPU. Throws what went wrong since the last call.
bool ncclPoll(Call& call, int64_t id) {
  Communicator& communicator = communicatorOf(call, id);
  nccl::Result state = nccl::kSuccess;
  check(nccl::library("").commGetAsyncError(communicator.comm, &state), communicator.comm,
        "ncclCommGetAsyncError");
  check(state, communicator.comm, "NCCL");
  if (state == nccl::kInProgress) return false;
  if (!communicator.submitted) return true;
  if (!communicator.done) {
    communicator.done = std::make_unique<c10::Event>(c10::DeviceType::CUDA);
    communicator.done->record(currentStream(communicator.device));
  }
  if (!communicator.done->query()) return false;
  communicator.done.reset();
  communicator.submitted = false;
  communicator.held.clear();
  return true;
}

/// Begins to send `outgoing[r]` to every rank r and to receive `incoming[r]`, whole contiguous tensors; the own one is
/// copied. Poll before the next call and before reading.
void ncclAllToAll(Call& call, int64_t id, const Tensors& outgoing, const Tensors& incoming) {
  Communicator& communicator = communicatorOf(call, id);
  const size_t size = static_cast<size_t>(communicator.size);
  TORCH_CHECK(!communicator.submitted, "an operation is under way: poll it first");
  TORCH_CHECK(outgoing.size() == size && incoming.size() == size, "expected ", size, " tensors each way, got ",
              outgoing.size(), " and ", incoming.size());
  for (const Tensors* side : {&outgoing, &incoming}) {
    for (const at::Tensor& tensor : *side) {
      TORCH_CHECK(tensor.device() == communicator.device && tensor.is_contiguous(),
                  "expected contiguous tensors on ", communicator.device);
    }
  }
  const nccl::Library& library = nccl::library("");
  at::Tensor(incoming[communicator.rank]).copy_(outgoing[communicator.rank]);
  const nccl::Stream stream = handleOf(currentStream(communicator.device));
  communicator.held = outgoing;
  communicator.held.insert(communicator.held.end(), incoming.begin(), incoming.end());
  communicator.submitted = true;
  check(library.groupStart(), communicator.comm, "ncclGroupStart");
  nccl::Result result = nccl::kSuccess;
  for (int peer = 0; peer < communicator.size && (result == nccl::kSuccess || result == nccl::kInProgress); peer++) {
    if (peer == communicator.rank) continue;
    result = library.send(outgoing[peer].data_ptr(), outgoing[peer].nbytes(), nccl::kUint8, peer, communicator.comm,
                          stream);
    if (result != nccl::kSuccess && result != nccl::kInProgress) break;
    result = library.receive(incoming[peer].data_ptr(), incoming[peer].nbytes(), nccl::kUint8, peer,
                             communicator.comm, stream);
  }
  const nccl::Result ended = library.groupEnd();
  check(result, communicator.comm, "ncclSend/ncclRecv");
  check(ended, communicator.comm, "ncclGroupEnd");
}

/// Ends a communicator wherever it is, its kernels on the GPU too.
void ncclAbort(Call& call, int64_t id) {
  auto& open = communicatorsOf(call).open;
  auto node = open.extract(id);
  if (!node.empty()) nccl::library("").commAbort(node.mapped()->comm);
}

}  // namespace

void defineNccl(Module& module) {
  module.add("ncclVersion", &ncclVersion);
  module.add("ncclPath", &ncclPath);
  module.add("ncclUniqueId", &ncclUniqueId);
  module.add("ncclOpen", &ncclOpen);
  module.add("ncclPoll", &ncclPoll);
  module.add("ncclAllToAll", &ncclAllToAll);
  module.add("ncclAbort", &ncclAbort);
}

}  // namespace paddock
