// Entry point: Node calls it once per environment (main thread and every worker_thread that loads the
// addon). Each environment gets its own State, freed when the environment ends.
#include "allocator.h"
#include "binding.h"
#include "families.h"

namespace paddock {
namespace {

void freeState(napi_env, void* data, void*) { delete static_cast<State*>(data); }

void shareArray(napi_env env, napi_value exports, State& state) {
  void* memory = nullptr;
  napi_value buffer;
  napi_value array;
  napi_ref keepAlive;  // as long as the environment: released with it
  napi_create_arraybuffer(env, (kResultInts + kArgumentInts) * sizeof(int32_t), &memory, &buffer);
  napi_create_typedarray(env, napi_int32_array, kResultInts + kArgumentInts, buffer, 0, &array);
  napi_create_reference(env, array, 1, &keepAlive);
  napi_set_named_property(env, exports, "shared", array);
  state.setShared(static_cast<int32_t*>(memory));
}

napi_value init(napi_env env, napi_value exports) {
  useBlockCache();
  auto* state = new State();
  napi_set_instance_data(env, state, freeState, nullptr);
  shareArray(env, exports, *state);
  Module module(env, exports, state);
  defineTensors(module);
  defineDevice(module);
  defineElementwise(module);
  defineReduce(module);
  defineShape(module);
  defineIndexing(module);
  defineLinear(module);
  defineMlp(module);
  defineNorm(module);
  defineActivation(module);
  defineAttention(module);
  defineRope(module);
  defineRows(module);
  defineLoss(module);
  defineKoleo(module);
  defineSinkhorn(module);
  defineSequence(module);
  defineNccl(module);
  defineConvolution(module);
  definePooling(module);
  defineResize(module);
  defineFlat(module);
  defineVectors(module);
  return exports;
}

}  // namespace
}  // namespace paddock

NAPI_MODULE_INIT() { return paddock::init(env, exports); }
