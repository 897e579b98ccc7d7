// The group's door to JS. Nothing here blocks: an operation is a promise that the group's thread settles through a
// thread-safe function. Typed arrays of an operation are kept alive until then.
#include "group.h"

#include <node_api.h>

#include <stdexcept>

namespace paddock {
namespace {

struct Handle;

/// One operation under way: a promise, what keeps its memory alive, and its outcome.
struct Pending {
  Handle* handle;
  napi_deferred deferred;
  std::vector<napi_ref> kept;
  Failure failure;
  std::shared_ptr<Group::Addresses> addresses;  // of listen()
};

/// A group as JS holds it. Owned by the JS value and by the thread-safe function, whichever goes last.
struct Handle {
  napi_threadsafe_function settle = nullptr;
  std::unique_ptr<Group> group;
  size_t pending = 0;
  int owners = 2;
};

void disown(Handle* handle) {
  if (--handle->owners == 0) delete handle;
}

void checkNapi(napi_env env, napi_status status) {
  if (status == napi_ok) return;
  const napi_extended_error_info* info = nullptr;
  napi_get_last_error_info(env, &info);
  throw std::invalid_argument(info && info->error_message ? info->error_message : "a Node-API call failed");
}

napi_value toError(napi_env env, const Failure& failure) {
  napi_value code, message, error;
  napi_create_string_utf8(env, failure.code.c_str(), NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, failure.message.c_str(), NAPI_AUTO_LENGTH, &message);
  napi_create_error(env, code, message, &error);
  return error;
}

napi_value toArray(napi_env env, const Group::Addresses& addresses) {
  napi_value list;
  napi_create_array_with_length(env, addresses.size(), &list);
  for (size_t i = 0; i < addresses.size(); i++) {
    void* memory = nullptr;
    napi_value buffer, bytes;
    napi_create_arraybuffer(env, addresses[i].size(), &memory, &buffer);
    std::copy(addresses[i].begin(), addresses[i].end(), static_cast<char*>(memory));
    napi_create_typedarray(env, napi_uint8_array, addresses[i].size(), buffer, 0, &bytes);
    napi_set_element(env, list, static_cast<uint32_t>(i), bytes);
  }
  return list;
}

/// On the JS thread: settles the promise of an operation. `env` is null while the environment ends.
void settle(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Pending> pending(static_cast<Pending*>(data));
  if (!env) return;
  for (napi_ref kept : pending->kept) napi_delete_reference(env, kept);
  if (--pending->handle->pending == 0) napi_unref_threadsafe_function(env, pending->handle->settle);
  if (pending->failure) {
    napi_reject_deferred(env, pending->deferred, toError(env, pending->failure));
    return;
  }
  napi_value result;
  if (pending->addresses) {
    result = toArray(env, *pending->addresses);
  } else {
    napi_get_undefined(env, &result);
  }
  napi_resolve_deferred(env, pending->deferred, result);
}

/// Stops the group's threads while what they call still exists.
void endGroup(void* data) {
  auto* handle = static_cast<Handle*>(data);
  handle->group.reset();
}

void freeHandle(napi_env env, void* data, void*) {
  auto* handle = static_cast<Handle*>(data);
  napi_remove_env_cleanup_hook(env, endGroup, handle);
  handle->group.reset();
  if (handle->settle) napi_release_threadsafe_function(handle->settle, napi_tsfn_release);
  disown(handle);
}

/// After the last call that was queued on it.
void freeFunction(napi_env, void* data, void*) {
  auto* handle = static_cast<Handle*>(data);
  handle->settle = nullptr;
  disown(handle);
}

class Arguments {
 public:
  Arguments(napi_env env, napi_callback_info info, size_t count) : env_(env) {
    size_t given = kMost;
    checkNapi(env, napi_get_cb_info(env, info, &given, values_, nullptr, nullptr));
    if (given < count) throw std::invalid_argument("expected " + std::to_string(count) + " arguments");
  }

  int32_t integer(size_t i) const {
    int32_t value = 0;
    checkNapi(env_, napi_get_value_int32(env_, values_[i], &value));
    return value;
  }

  std::string text(size_t i) const {
    size_t length = 0;
    checkNapi(env_, napi_get_value_string_utf8(env_, values_[i], nullptr, 0, &length));
    std::string value(length, '\0');
    checkNapi(env_, napi_get_value_string_utf8(env_, values_[i], &value[0], length + 1, &length));
    return value;
  }

  Handle& handle(size_t i) const {
    void* data = nullptr;
    checkNapi(env_, napi_get_value_external(env_, values_[i], &data));
    return *static_cast<Handle*>(data);
  }

  Group::Milliseconds milliseconds(size_t i) const { return Group::Milliseconds(integer(i)); }

  /// The memory of `count` Uint8Arrays, which stay alive with `pending`.
  std::vector<Span> spans(size_t i, int count, Pending& pending) const {
    std::vector<Span> spans;
    for (int k = 0; k < count; k++) {
      napi_value element;
      napi_typedarray_type type;
      size_t length = 0;
      void* data = nullptr;
      checkNapi(env_, napi_get_element(env_, values_[i], static_cast<uint32_t>(k), &element));
      checkNapi(env_, napi_get_typedarray_info(env_, element, &type, &length, &data, nullptr, nullptr));
      if (type != napi_uint8_array) throw std::invalid_argument("expected Uint8Arrays");
      napi_ref reference;
      checkNapi(env_, napi_create_reference(env_, element, 1, &reference));
      pending.kept.push_back(reference);
      spans.push_back({static_cast<char*>(data), length});
    }
    return spans;
  }

 private:
  static constexpr size_t kMost = 8;
  napi_env env_;
  napi_value values_[kMost];
};

/// Runs `body`, its exceptions as JS errors.
template <class Body>
napi_value guarded(napi_env env, const Body& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    napi_throw_error(env, "invalid-argument", error.what());
    return nullptr;
  }
}

/// A promise for what `start` asks of the group.
template <class Start>
napi_value promise(napi_env env, Handle& handle, std::unique_ptr<Pending> pending, const Start& start) {
  napi_value result;
  checkNapi(env, napi_create_promise(env, &pending->deferred, &result));
  if (handle.pending++ == 0) napi_ref_threadsafe_function(env, handle.settle);
  Pending* raw = pending.release();
  start([raw](const Failure& failure) {
    raw->failure = failure;
    napi_call_threadsafe_function(raw->handle->settle, raw, napi_tsfn_blocking);
  });
  return result;
}

std::unique_ptr<Pending> pendingOf(Handle& handle) {
  return std::unique_ptr<Pending>(new Pending{&handle, nullptr, {}, {}, nullptr});
}

/// open(rank, size, host) -> group
napi_value open(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    Arguments given(env, info, 3);
    const int rank = given.integer(0);
    const int size = given.integer(1);
    if (rank < 0 || rank >= size) throw std::invalid_argument("expected a rank in [0, size)");
    auto handle = std::make_unique<Handle>();
    napi_value name, result;
    napi_create_string_utf8(env, "paddock collectives", NAPI_AUTO_LENGTH, &name);
    checkNapi(env, napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, handle.get(),
                                                   freeFunction, nullptr, settle, &handle->settle));
    Handle* raw = handle.release();
    napi_unref_threadsafe_function(env, raw->settle);
    raw->group = std::make_unique<Group>(rank, size, given.text(2));
    // Added after the function's own hook, hence run before it.
    napi_add_env_cleanup_hook(env, endGroup, raw);
    checkNapi(env, napi_create_external(env, raw, freeHandle, nullptr, &result));
    return result;
  });
}

/// listen(group, timeoutMs) -> Promise of one address per rank
napi_value listen(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    Arguments given(env, info, 2);
    Handle& handle = given.handle(0);
    auto addresses = std::make_shared<Group::Addresses>();
    auto pending = pendingOf(handle);
    pending->addresses = addresses;
    return promise(env, handle, std::move(pending), [&](Group::Done done) {
      handle.group->listen(given.milliseconds(1), addresses, std::move(done));
    });
  });
}

/// connect(group, timeoutMs, addresses) -> Promise
napi_value connect(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    Arguments given(env, info, 3);
    Handle& handle = given.handle(0);
    auto pending = pendingOf(handle);
    Group::Addresses peers;
    for (const Span& span : given.spans(2, handle.group->size(), *pending)) {
      peers.emplace_back(span.data, span.data + span.bytes);
    }
    return promise(env, handle, std::move(pending), [&](Group::Done done) {
      handle.group->connect(given.milliseconds(1), std::move(peers), std::move(done));
    });
  });
}

/// exchange(group, timeoutMs, key, outgoing, incoming) -> Promise
napi_value exchange(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    Arguments given(env, info, 5);
    Handle& handle = given.handle(0);
    auto pending = pendingOf(handle);
    Transfer transfer;
    transfer.key = given.text(2);
    transfer.outgoing = given.spans(3, handle.group->size(), *pending);
    transfer.incoming = given.spans(4, handle.group->size(), *pending);
    return promise(env, handle, std::move(pending), [&](Group::Done done) {
      handle.group->exchange(given.milliseconds(1), std::move(transfer), std::move(done));
    });
  });
}

/// close(group, reason)
napi_value close(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    Arguments given(env, info, 2);
    given.handle(0).group->close(given.text(1));
    return nullptr;
  });
}

napi_value init(napi_env env, napi_value exports) {
  const std::pair<const char*, napi_callback> functions[] = {
      {"open", open}, {"listen", listen}, {"connect", connect}, {"exchange", exchange}, {"close", close}};
  for (const auto& [name, callback] : functions) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
    napi_set_named_property(env, exports, name, function);
  }
  return exports;
}

}  // namespace
}  // namespace paddock

NAPI_MODULE_INIT() { return paddock::init(env, exports); }
