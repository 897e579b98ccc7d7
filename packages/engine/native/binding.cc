#include "binding.h"

#include <c10/util/Exception.h>

#include <new>
#include <sstream>
#include <stdexcept>

namespace paddock {

Call::Call(napi_env env, napi_callback_info info) : env_(env) {
  size_t count = kMaxParameters;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, arguments_, nullptr, &data);  // absent ones become undefined
  binding_ = static_cast<Binding*>(data);
  cursor_ = state().arguments();
}

int32_t Call::integer(size_t i) const {
  int32_t value;
  if (napi_get_value_int32(env_, arguments_[i], &value) != napi_ok) {
    throw std::invalid_argument("argument " + std::to_string(i) + " must be a number");
  }
  return value;
}

double Call::number(size_t i) const {
  double value;
  if (napi_get_value_double(env_, arguments_[i], &value) != napi_ok) {
    throw std::invalid_argument("argument " + std::to_string(i) + " must be a number");
  }
  return value;
}

bool Call::boolean(size_t i) const {
  bool value;
  if (napi_get_value_bool(env_, arguments_[i], &value) != napi_ok) {
    throw std::invalid_argument("argument " + std::to_string(i) + " must be a boolean");
  }
  return value;
}

Bytes Call::bytes(size_t i) const {
  Bytes bytes{};
  bool isTypedArray = false;
  napi_is_typedarray(env_, arguments_[i], &isTypedArray);
  if (!isTypedArray) {
    throw std::invalid_argument("argument " + std::to_string(i) + " must be a typed array");
  }
  bytes.value = arguments_[i];
  napi_get_typedarray_info(env_, arguments_[i], &bytes.type, &bytes.elements, &bytes.data, nullptr,
                           nullptr);
  size_t width = 1;
  switch (bytes.type) {
    case napi_int16_array:
    case napi_uint16_array:
      width = 2;
      break;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array:
      width = 4;
      break;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array:
      width = 8;
      break;
    default:
      break;
  }
  bytes.size = bytes.elements * width;
  return bytes;
}

std::string Call::text(size_t i) const {
  size_t length = 0;
  if (napi_get_value_string_utf8(env_, arguments_[i], nullptr, 0, &length) != napi_ok) {
    throw std::invalid_argument("argument " + std::to_string(i) + " must be a string");
  }
  std::string text(length, '\0');
  napi_get_value_string_utf8(env_, arguments_[i], text.data(), length + 1, &length);
  return text;
}

const int32_t* Call::take(int32_t count) {
  const int32_t* from = cursor_;
  const int32_t* end = binding_->state->arguments() + kArgumentInts;
  if (count < 0 || count > end - from) throw std::length_error("argument list does not fit");
  cursor_ += count;
  return from;
}

void reportMemory(const Call& call) {
  const int64_t change = call.state().takeUnreportedBytes();
  int64_t total;
  if (change != 0) napi_adjust_external_memory(call.env(), change, &total);
}

int32_t Results::put(at::Tensor tensor) {
  int32_t* out = call_.state().results() + used_;
  const int64_t rank = tensor.dim();
  if (used_ + 2 + rank > kResultInts) throw std::length_error("result list does not fit");
  out[1] = static_cast<int32_t>(rank);
  for (int64_t d = 0; d < rank; d++) out[2 + d] = static_cast<int32_t>(tensor.size(d));
  out[0] = call_.state().put(std::move(tensor));
  used_ += 2 + static_cast<int32_t>(rank);
  reportMemory(call_);
  return out[0];
}

napi_value toJs(napi_env env, int32_t value) {
  napi_value result;
  napi_create_int32(env, value, &result);
  return result;
}

napi_value toJs(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

napi_value toJs(napi_env env, bool value) {
  napi_value result;
  napi_get_boolean(env, value, &result);
  return result;
}

napi_value toJs(napi_env env, const std::string& value) {
  napi_value result;
  napi_create_string_utf8(env, value.data(), value.size(), &result);
  return result;
}

namespace {

/// TF.js's name where it has one.
const char* dtypeName(at::ScalarType type) {
  if (type == at::kFloat) return "float32";
  if (type == at::kInt) return "int32";
  return type == at::kBool ? "bool" : c10::toString(type);
}

}  // namespace

std::string describe(const at::Tensor& tensor) {
  std::ostringstream text;
  text << dtypeName(tensor.scalar_type()) << " [";
  for (int64_t d = 0; d < tensor.dim(); d++) text << (d ? "," : "") << tensor.size(d);
  text << "]";
  return text.str();
}

template <>
void describeArgument(std::string& text, const at::Tensor& tensor) {
  if (!text.empty()) text += ", ";
  text += describe(tensor);
}

template <>
void describeArgument(std::string& text, const std::optional<at::Tensor>& tensor) {
  if (tensor) describeArgument(text, *tensor);
}

template <>
void describeArgument(std::string& text, const Tensors& tensors) {
  for (const at::Tensor& tensor : tensors) describeArgument(text, tensor);
}

template <>
void describeArgument(std::string& text, const Ints& list) {
  if (!text.empty()) text += ", ";
  text += c10::str("[", c10::Join(",", list.values), "]");
}

void throwToJs(Call& call, const std::string& given) {
  const char* code = "engine-op";
  std::string what;
  try {
    throw;
  } catch (const std::bad_alloc&) {
    code = "out-of-memory";
    what = "not enough memory";
  } catch (const c10::OutOfMemoryError& error) {
    code = "out-of-memory";
    what = error.what_without_backtrace();
  } catch (const c10::Error& error) {
    what = error.what_without_backtrace();
    if (what.find("can't allocate memory") != std::string::npos) code = "out-of-memory";
  } catch (const std::exception& error) {
    what = error.what();
  } catch (...) {
    what = "unknown C++ exception";
  }
  std::string message = std::string(call.name()) + ": " + what;
  if (!given.empty()) message += " (given " + given + ")";
  napi_throw_error(call.env(), code, message.c_str());
}

void Module::define(const char* name, napi_callback callback, void (*function)()) {
  auto* binding = new Binding{state_, name, function};
  napi_value exported;
  napi_create_function(env_, name, NAPI_AUTO_LENGTH, callback, binding, &exported);
  napi_add_finalizer(
      env_, exported, binding, [](napi_env, void* data, void*) { delete static_cast<Binding*>(data); },
      nullptr, nullptr);
  napi_set_named_property(env_, exports_, name, exported);
}

}  // namespace paddock
