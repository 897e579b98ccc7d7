// The flat arithmetic's door to JS: typed arrays (views of SharedArrayBuffers too), cut over the engine's
// threads. The cuts change no result: elementwise ones are position-independent, sums go by chunk.
#include "binding.h"
#include "families.h"
#include "flat.h"
#include "parallel.h"

#include <c10/util/Exception.h>

#include <atomic>
#include <cmath>

namespace paddock {
namespace {

float* floats(const Bytes& array) {
  TORCH_CHECK(array.type == napi_float32_array, "expected a Float32Array");
  return static_cast<float*>(array.data);
}

uint16_t* halves(const Bytes& array) {
  TORCH_CHECK(array.type == napi_uint16_array, "expected a Uint16Array");
  return static_cast<uint16_t*>(array.data);
}

void checkEqual(const Bytes& a, const Bytes& b) {
  TORCH_CHECK(a.elements == b.elements, "arrays of ", a.elements, " and ", b.elements,
              " elements must be equally long");
}

template <class Body>
void forParts(size_t count, const Body& body) {
  at::parallel_for(0, static_cast<int64_t>(count), kGrainValues * 2,
                   [&](int64_t first, int64_t last) { body(first, last - first); });
}

void adamw(const Bytes& param, const Bytes& grad, const Bytes& m, const Bytes& v, double learningRate,
           double beta1, double beta2, double eps, double weightDecay, double step) {
  float *p = floats(param), *g = floats(grad), *mean = floats(m), *square = floats(v);
  checkEqual(param, grad);
  checkEqual(param, m);
  checkEqual(param, v);
  flat::AdamW options{};
  options.beta1 = static_cast<float>(beta1);
  options.beta2 = static_cast<float>(beta2);
  options.eps = static_cast<float>(eps);
  options.decay = static_cast<float>(1 - learningRate * weightDecay);
  options.stepSize = static_cast<float>(learningRate / (1 - std::pow(beta1, step)));
  options.rootBias2 = static_cast<float>(std::sqrt(1 - std::pow(beta2, step)));
  forParts(param.elements, [&](int64_t first, int64_t count) {
    flat::adamw(p + first, g + first, mean + first, square + first, count, options);
  });
}

void ema(const Bytes& teacher, const Bytes& student, double momentum) {
  float *to = floats(teacher), *from = floats(student);
  checkEqual(teacher, student);
  forParts(teacher.elements, [&](int64_t first, int64_t count) {
    flat::ema(to + first, from + first, count, static_cast<float>(momentum),
              static_cast<float>(1 - momentum));
  });
}

void encodeHalf(const Bytes& source, const Bytes& target) {
  float* from = floats(source);
  uint16_t* to = halves(target);
  checkEqual(source, target);
  forParts(source.elements,
           [&](int64_t first, int64_t count) { flat::encodeHalf(from + first, to + first, count); });
}

void decodeHalf(const Bytes& source, const Bytes& target) {
  uint16_t* from = halves(source);
  float* to = floats(target);
  checkEqual(source, target);
  forParts(source.elements,
           [&](int64_t first, int64_t count) { flat::decodeHalf(from + first, to + first, count); });
}

void roundHalf(const Bytes& values) {
  float* x = floats(values);
  forParts(values.elements, [&](int64_t first, int64_t count) { flat::roundHalf(x + first, count); });
}

void add(const Bytes& target, const Bytes& source) {
  float *to = floats(target), *from = floats(source);
  checkEqual(target, source);
  forParts(target.elements,
           [&](int64_t first, int64_t count) { flat::add(to + first, from + first, count); });
}

void scale(const Bytes& values, double factor) {
  float* x = floats(values);
  forParts(values.elements, [&](int64_t first, int64_t count) {
    flat::scale(x + first, count, static_cast<float>(factor));
  });
}

void sumSquares(const Bytes& values, int64_t chunk, const Bytes& out) {
  TORCH_CHECK(out.type == napi_float64_array, "expected a Float64Array for the sums");
  TORCH_CHECK(chunk > 0, "chunk must be positive");
  const int64_t count = static_cast<int64_t>(values.elements);
  const int64_t chunks = (count + chunk - 1) / chunk;
  TORCH_CHECK(static_cast<int64_t>(out.elements) == chunks, "expected room for ", chunks, " sums, got ",
              out.elements);
  const float* x = floats(values);
  double* sums = static_cast<double*>(out.data);
  forRows(chunks, chunk, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; c++) {
      sums[c] = flat::sumSquares(x + c * chunk, std::min(chunk, count - c * chunk));
    }
  });
}

bool allFinite(const Bytes& values) {
  const float* x = floats(values);
  std::atomic<bool> finite{true};
  forParts(values.elements, [&](int64_t first, int64_t count) {
    if (!flat::allFinite(x + first, count)) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}

}  // namespace

void defineFlat(Module& module) {
  module.add("flatAdamw", &adamw);
  module.add("flatEma", &ema);
  module.add("flatEncodeHalf", &encodeHalf);
  module.add("flatDecodeHalf", &decodeHalf);
  module.add("flatRoundHalf", &roundHalf);
  module.add("flatAdd", &add);
  module.add("flatScale", &scale);
  module.add("flatSumSquares", &sumSquares);
  module.add("flatAllFinite", &allFinite);
}

}  // namespace paddock
