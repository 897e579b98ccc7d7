// Turns a plain C++ function into a Node-API one: parameters from JS numbers, tensors from handles, lists
// from the shared array, results back as handles with their shapes, C++ exceptions as JS errors that name
// the op and what it was given. All of it is resolved at compile time.
#pragma once

#include "state.h"

#include <c10/core/InferenceMode.h>
#include <c10/util/SmallVector.h>
#include <node_api.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace paddock {

/// One registered function, handed back by Node-API on every call.
struct Binding {
  State* state;
  const char* name;
  void (*function)();  // of the signature that the callback was made for
};

/// A list of int32 that JS wrote into the shared array; the parameter itself is its length.
struct Ints {
  c10::SmallVector<int64_t, 8> values;
  operator at::IntArrayRef() const { return values; }
  size_t size() const { return values.size(); }
  int64_t operator[](size_t i) const { return values[i]; }
};

/// A list of handles that JS wrote into the shared array; the parameter itself is its length.
using Tensors = std::vector<at::Tensor>;

/// A typed array's memory, valid during the call.
struct Bytes {
  void* data;
  size_t size;  // in bytes
  size_t elements;
  napi_typedarray_type type;
  napi_value value;
};

constexpr size_t kMaxParameters = 14;

/// The arguments of the call under way.
class Call {
 public:
  Call(napi_env env, napi_callback_info info);

  State& state() const { return *binding_->state; }
  const char* name() const { return binding_->name; }
  napi_env env() const { return env_; }
  auto function() const { return binding_->function; }

  int32_t integer(size_t i) const;
  double number(size_t i) const;
  bool boolean(size_t i) const;
  Bytes bytes(size_t i) const;
  std::string text(size_t i) const;

  /// The next `count` ints of the argument lists. Lists are consumed in parameter order.
  const int32_t* take(int32_t count);

 private:
  napi_env env_;
  Binding* binding_;
  const int32_t* cursor_;
  napi_value arguments_[kMaxParameters];
};

template <class T>
struct From;

template <>
struct From<const at::Tensor&> {
  static const at::Tensor& get(Call& call, size_t i) { return call.state().get(call.integer(i)); }
};
/// An optional tensor: JS passes -1 for none.
template <>
struct From<const std::optional<at::Tensor>&> {
  static std::optional<at::Tensor> get(Call& call, size_t i) {
    const int32_t handle = call.integer(i);
    return handle == -1 ? std::nullopt : std::optional<at::Tensor>(call.state().get(handle));
  }
};
template <>
struct From<double> {
  static double get(Call& call, size_t i) { return call.number(i); }
};
template <>
struct From<int64_t> {
  static int64_t get(Call& call, size_t i) { return call.integer(i); }
};
template <>
struct From<bool> {
  static bool get(Call& call, size_t i) { return call.boolean(i); }
};
template <>
struct From<Dtype> {
  static Dtype get(Call& call, size_t i) { return static_cast<Dtype>(call.integer(i)); }
};
template <>
struct From<const Ints&> {
  static Ints get(Call& call, size_t i) {
    const int32_t count = call.integer(i);
    const int32_t* from = call.take(count);
    return Ints{c10::SmallVector<int64_t, 8>(from, from + count)};
  }
};
template <>
struct From<const Tensors&> {
  static Tensors get(Call& call, size_t i) {
    const int32_t count = call.integer(i);
    const int32_t* from = call.take(count);
    Tensors tensors;
    tensors.reserve(count);
    for (int32_t k = 0; k < count; k++) tensors.push_back(call.state().get(from[k]));
    return tensors;
  }
};
template <>
struct From<const Bytes&> {
  static Bytes get(Call& call, size_t i) { return call.bytes(i); }
};
template <>
struct From<const std::string&> {
  static std::string get(Call& call, size_t i) { return call.text(i); }
};
/// The call's environment, for the few functions that need it; not a JS parameter.
template <>
struct From<Call&> {
  static Call& get(Call& call, size_t) { return call; }
};

/// Tells V8 about memory taken or freed outside its heap.
void reportMemory(const Call& call);

/// Writes results from the front of the shared array; every tensor is (handle, rank, sizes).
class Results {
 public:
  explicit Results(Call& call) : call_(call) {}
  int32_t put(at::Tensor tensor);

 private:
  Call& call_;
  int32_t used_ = 0;
};

napi_value toJs(napi_env env, int32_t value);
napi_value toJs(napi_env env, double value);
napi_value toJs(napi_env env, bool value);
napi_value toJs(napi_env env, const std::string& value);

template <class T>
struct To {
  static napi_value put(Call& call, T value) { return toJs(call.env(), value); }
};
/// A result that is already a JS value.
template <>
struct To<napi_value> {
  static napi_value put(Call&, napi_value value) { return value; }
};
template <>
struct To<at::Tensor> {
  static napi_value put(Call& call, at::Tensor value) {
    return toJs(call.env(), Results(call).put(std::move(value)));
  }
};
/// As many tensors as there are: the JS result is their number.
template <>
struct To<Tensors> {
  static napi_value put(Call& call, Tensors values) {
    Results results(call);
    for (at::Tensor& value : values) results.put(std::move(value));
    return toJs(call.env(), static_cast<int32_t>(values.size()));
  }
};
/// Several tensors: the JS result is their number. An undefined tensor is left out.
template <size_t N>
struct To<std::array<at::Tensor, N>> {
  static napi_value put(Call& call, std::array<at::Tensor, N> values) {
    Results results(call);
    int32_t count = 0;
    for (at::Tensor& value : values) {
      if (!value.defined()) continue;
      results.put(std::move(value));
      count++;
    }
    return toJs(call.env(), count);
  }
};

/// Describes tensors and lists for an error message; says nothing about other parameters.
std::string describe(const at::Tensor& tensor);
template <class T>
void describeArgument(std::string&, const T&) {}
template <>
void describeArgument(std::string& text, const at::Tensor& tensor);
template <>
void describeArgument(std::string& text, const std::optional<at::Tensor>& tensor);
template <>
void describeArgument(std::string& text, const Tensors& tensors);
template <>
void describeArgument(std::string& text, const Ints& list);

/// Throws the JS error for the exception being handled. `given` describes the op's tensors.
void throwToJs(Call& call, const std::string& given);

template <class>
struct Signature;

/// How functions of one signature are called; shared by all of them, which keeps the build short.
template <class R, class... A>
struct Signature<R (*)(A...)> {
  using Function = R (*)(A...);

  /// How a parameter is held during the call: by reference where From returns one.
  using Held = std::tuple<decltype(From<A>::get(std::declval<Call&>(), 0))...>;

  /// Call& comes first, if at all, and takes no JS argument.
  static constexpr size_t kHidden = (std::is_same_v<A, Call&> || ... || false) ? 1 : 0;

  template <size_t... I>
  static napi_value run(Call& call, std::index_sequence<I...>) {
    const auto function = reinterpret_cast<Function>(call.function());
    std::string given;
    try {
      Held held{From<A>::get(call, I - kHidden)...};  // braces: evaluated left to right, lists in order
      try {
        if constexpr (std::is_void_v<R>) {
          function(std::get<I>(held)...);
          return nullptr;
        } else {
          return To<R>::put(call, function(std::get<I>(held)...));
        }
      } catch (...) {
        (describeArgument(given, std::get<I>(held)), ...);
        throw;
      }
    } catch (...) {
      throwToJs(call, given);
      return nullptr;
    }
  }

  static napi_value enter(napi_env env, napi_callback_info info) {
    Call call(env, info);
    c10::InferenceMode noAutograd;
    return run(call, std::index_sequence_for<A...>{});
  }
};

/// The addon's exports while they are being defined.
class Module {
 public:
  Module(napi_env env, napi_value exports, State* state) : env_(env), exports_(exports), state_(state) {}

  /// Exports a function under `name`, which also appears in its error messages and must be a literal.
  template <class F>
  void add(const char* name, F function) {
    define(name, &Signature<F>::enter, reinterpret_cast<void (*)()>(function));
  }

 private:
  void define(const char* name, napi_callback callback, void (*function)());

  napi_env env_;
  napi_value exports_;
  State* state_;
};

}  // namespace paddock
