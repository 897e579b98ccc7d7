// Attention within short sequences on CPUs, in float32: a few patches each, where a library's kernel spends its time on setting
// out. One sequence and head at a time, everything in the first-level cache.
#pragma once

#include <cstdint>

namespace paddock::shortAttention {

/// `count` sequences of `length` rows each, packed one after the other.
struct Shape {
  int64_t count, length, heads, headDim;

  int64_t width() const { return heads * headDim; }
};

/// Whether this machine and these sizes are ones that it is faster for.
bool fits(const Shape& shape);

/// Rows of qkv are q, k, v, each heads x headDim; out [count * length, width]; lse [count, length, heads].
void forward(const Shape& shape, const float* qkv, float* out, float* lse);

/// dqkv like qkv, every element written.
void backward(const Shape& shape, const float* dout, const float* qkv, const float* out, const float* lse,
              float* dqkv);

}  // namespace paddock::shortAttention
