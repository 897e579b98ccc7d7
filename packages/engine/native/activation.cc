// Activations with a backward of their own, and softmax.
#include "activation.h"
#include "binding.h"
#include "families.h"
#include "linear.h"
#include "parallel.h"
#include "precision.h"
#include "simd.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

#ifdef PADDOCK_SIMD
using simd::F8;

/// (1 + erf(x / sqrt 2)) / 2
F8 normalCdf(F8 x) {
  const F8 half = simd::all(0.5f);
  return simd::fma(simd::erf(simd::mul(x, simd::all(0.70710678f))), half, half);
}

/// Of the normal distribution.
F8 density(F8 x) {
  return simd::mul(simd::exp(simd::mul(simd::mul(x, x), simd::all(-0.5f))), simd::all(0.39894228f));
}

/// body(first, last) over [0, count) in parts, from multiples of the lanes on.
template <class Body>
void forParts(int64_t count, const Body& body) {
  const int64_t vectors = (count + simd::kLanes - 1) / simd::kLanes;
  forRows(vectors, simd::kLanes, [&](int64_t first, int64_t last) {
    body(first * simd::kLanes, std::min(last * simd::kLanes, count));
  });
}

/// Ours on CPUs in float32: about half of ATen's time.
bool isPlain(T x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }
#else
bool isPlain(T) { return false; }
#endif

at::Tensor geluBackward(T dy, T x) {
  return isPlain(x) ? geluAndBackward(dy, x).second : at::gelu_backward(as(dy, x), x);
}

/// silu(x[:, :H]) * x[:, H:].
at::Tensor swiglu(T x_M2H) {
  const int64_t hidden = x_M2H.size(1) / 2;
  return at::silu(x_M2H.narrow(1, 0, hidden)).mul_(x_M2H.narrow(1, hidden, hidden));
}

at::Tensor swigluBackward(T upstream_MH, T x_M2H) {
  const at::Tensor dy_MH = as(upstream_MH, x_M2H);
  const int64_t hidden = x_M2H.size(1) / 2;
  const at::Tensor gate = x_M2H.narrow(1, 0, hidden);
  const at::Tensor value = x_M2H.narrow(1, hidden, hidden);
  at::Tensor dx = at::empty(x_M2H.sizes(), x_M2H.options());
  dx.narrow(1, 0, hidden).copy_(at::silu_backward(at::mul(dy_MH, value), gate));
  at::Tensor dvalue = dx.narrow(1, hidden, hidden);
  at::mul_out(dvalue, at::silu(gate), dy_MH);
  return dx;
}

at::Tensor softmax(T logits, int64_t axis) { return at::softmax(logits, axis, at::kFloat); }
at::Tensor logSoftmax(T logits, int64_t axis) { return at::log_softmax(logits, axis, at::kFloat); }

}  // namespace

at::Tensor gelu(T x_) {
#ifdef PADDOCK_SIMD
  if (isPlain(x_)) {
    const at::Tensor x = x_.contiguous();
    at::Tensor y = at::empty(x.sizes(), x.options());
    const float* from = x.data_ptr<float>();
    float* to = y.data_ptr<float>();
    forParts(x.numel(), [&](int64_t first, int64_t last) {
      simd::forVectors(last - first, [&](int64_t i, auto lanes) {
        const F8 value = simd::load(from + first + i, lanes);
        simd::store(to + first + i, simd::mul(value, normalCdf(value)), lanes);
      });
    });
    return y;
  }
#endif
  return at::gelu(x_);
}

at::Tensor addBiasAndGelu(at::Tensor& y_MO, T bias_O) {
#ifdef PADDOCK_SIMD
  if (isPlain(y_MO) && y_MO.is_contiguous() && isPlain(bias_O)) {
    const at::Tensor biasC = bias_O.contiguous();
    const int64_t width = y_MO.size(1);
    TORCH_CHECK(biasC.dim() == 1 && biasC.size(0) == width, "the bias must have a value for each of ", width, " columns");
    at::Tensor result = at::empty(y_MO.sizes(), y_MO.options());
    const float* bias = biasC.data_ptr<float>();
    float *values = y_MO.data_ptr<float>(), *to = result.data_ptr<float>();
    forRows(y_MO.size(0), width, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; row++) {
        simd::forVectors(width, [&](int64_t c, auto lanes) {
          const int64_t i = row * width + c;
          const F8 value = simd::add(simd::load(values + i, lanes), simd::load(bias + c, lanes));
          simd::store(values + i, value, lanes);
          simd::store(to + i, simd::mul(value, normalCdf(value)), lanes);
        });
      }
    });
    return result;
  }
#endif
  addBias(y_MO, bias_O);
  return paddock::gelu(y_MO);
}

std::pair<at::Tensor, at::Tensor> geluAndBackward(T upstream, T x_) {
#ifdef PADDOCK_SIMD
  if (isPlain(x_)) {
    const at::Tensor dy = as(upstream, x_).contiguous(), x = x_.contiguous();
    TORCH_CHECK(dy.sizes() == x.sizes(), "dy must have the shape of x");
    at::Tensor y = at::empty(x.sizes(), x.options()), dx = at::empty(x.sizes(), x.options());
    const float *along = dy.data_ptr<float>(), *from = x.data_ptr<float>();
    float *to = y.data_ptr<float>(), *slopes = dx.data_ptr<float>();
    forParts(x.numel(), [&](int64_t first, int64_t last) {
      simd::forVectors(last - first, [&](int64_t i, auto lanes) {
        const F8 value = simd::load(from + first + i, lanes), cdf = normalCdf(value);
        simd::store(to + first + i, simd::mul(value, cdf), lanes);
        const F8 slope = simd::fma(value, density(value), cdf);
        simd::store(slopes + first + i, simd::mul(simd::load(along + first + i, lanes), slope), lanes);
      });
    });
    return {y, dx};
  }
#endif
  return {at::gelu(x_), at::gelu_backward(as(upstream, x_), x_)};
}

void defineActivation(Module& module) {
  module.add("gelu", &gelu);
  module.add("geluBackward", &geluBackward);
  module.add("swiglu", &swiglu);
  module.add("swigluBackward", &swigluBackward);
  module.add("softmax", &softmax);
  module.add("logSoftmax", &logSoftmax);
}

}  // namespace paddock
