#include "short-attention.h"

#include "simd.h"

#include <cmath>
#include <limits>
#include <vector>

#include "parallel.h"

namespace paddock::shortAttention {

#ifdef PADDOCK_SIMD

namespace {

using namespace simd;

/// Longer ones are faster as flash attention's blocks (measured: attention.cc).
constexpr int64_t kMaxLength = 64;
constexpr int64_t kMaxHeadDim = 128;

/// A matrix inside something larger. Element (row, column) lies at row * rowStride + column * columnStride.
struct Matrix {
  const float* values;
  int64_t rowStride, columnStride = 1;
};

/// to[r, n] = sum over k of a[r, k] * b[k, n], in order of k, for R rows and V vectors of columns that stay in registers.
template <int R, int V>
void block(const Matrix& a, const Matrix& b, int64_t depth, float* to, int64_t toStride) {
  F8 sums[R][V];
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) sums[r][v] = zero();
  }
  const float* left = a.values;
  const float* right = b.values;
  for (int64_t k = 0; k < depth; k++) {
    F8 columns[V];
    for (int v = 0; v < V; v++) columns[v] = load(right + v * kLanes);
    for (int r = 0; r < R; r++) {
      const F8 factor = all(left[r * a.rowStride]);
      for (int v = 0; v < V; v++) sums[r][v] = fma(factor, columns[v], sums[r][v]);
    }
    left += a.columnStride;
    right += b.rowStride;
  }
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) store(to + r * toStride + v * kLanes, sums[r][v]);
  }
}

/// The last rows, fewer than a full block's.
template <int R, int V>
void lastBlock(int64_t rows, const Matrix& a, const Matrix& b, int64_t depth, float* to, int64_t toStride) {
  if constexpr (R > 0) {
    if (rows == R) return block<R, V>(a, b, depth, to, toStride);
    lastBlock<R - 1, V>(rows, a, b, depth, to, toStride);
  }
}

/// R x V sums at a time: 12 of 16 registers.
template <int R, int V>
void columnsOf(int64_t rows, const Matrix& a, const Matrix& b, int64_t depth, float* to, int64_t toStride) {
  int64_t r = 0;
  for (; r + R <= rows; r += R) {
    block<R, V>({a.values + r * a.rowStride, a.rowStride, a.columnStride}, b, depth, to + r * toStride, toStride);
  }
  lastBlock<R - 1, V>(rows - r, {a.values + r * a.rowStride, a.rowStride, a.columnStride}, b, depth,
                      to + r * toStride, toStride);
}

/// to [rows, columns] = a [rows, depth] b [depth, columns]; columns is a multiple of the lanes, b's columns lie side by side.
void product(int64_t rows, int64_t columns, int64_t depth, const Matrix& a, const Matrix& b, float* to,
             int64_t toStride) {
  int64_t c = 0;
  const auto from = [&] { return Matrix{b.values + c, b.rowStride}; };
  for (; columns - c > 4 * kLanes || columns - c == 3 * kLanes; c += 3 * kLanes) {
    columnsOf<4, 3>(rows, a, from(), depth, to + c, toStride);
  }
  for (; columns - c >= 2 * kLanes; c += 2 * kLanes) columnsOf<6, 2>(rows, a, from(), depth, to + c, toStride);
  if (c < columns) columnsOf<8, 1>(rows, a, from(), depth, to + c, toStride);
}

/// One sequence's one head, and room to work. `padded` is the length rounded up to lanes; what is padded is zero.
struct Work {
  const Shape& shape;
  int64_t padded, rowStride, width;
  float scale;
  std::vector<float> transposed, weights, slopes;

  explicit Work(const Shape& s)
      : shape(s),
        padded((s.length + kLanes - 1) / kLanes * kLanes),
        rowStride(3 * s.width()),
        width(s.width()),
        scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.headDim)))),
        transposed(s.headDim * padded),
        weights(s.length * padded),
        slopes(s.length * padded) {}

  /// transposed [headDim, padded] = rows [length, headDim]
  void transpose(const float* rows, int64_t stride) {
    for (int64_t i = 0; i < shape.length; i++) {
      for (int64_t d = 0; d < shape.headDim; d++) transposed[d * padded + i] = rows[i * stride + d];
    }
  }

  /// weights = q kT, without the scale
  void scores(const float* q, const float* k) {
    transpose(k, rowStride);
    product(shape.length, padded, shape.headDim, {q, rowStride}, {transposed.data(), padded}, weights.data(), padded);
  }

  /// A row of scores to unnormalised softmax weights. Returns their sum; `highest` is the largest scaled score.
  float soften(float* row, float& highest) const {
    const F8 lowest = all(-std::numeric_limits<float>::infinity());
    F8 most = lowest;
    forVectors(shape.length, [&](int64_t j, auto lanes) { most = _mm256_max_ps(most, orElse(load(row + j), lowest, lanes)); });
    highest = max(most) * scale;
    F8 sums = zero();
    forVectors(shape.length, [&](int64_t j, auto lanes) {
      const F8 kept = only(exp(_mm256_fmsub_ps(load(row + j), all(scale), all(highest))), lanes);
      store(row + j, kept);
      sums = add(sums, kept);
    });
    return sum(sums);
  }
};

/// Calls body(work, sequence, head) for all, on the engine's threads.
template <class Body>
void forHeads(const Shape& shape, int64_t products, const Body& body) {
  const int64_t cost = products * shape.length * shape.length * shape.headDim / kLanes;
  forRows(shape.count * shape.heads, cost, [&](int64_t first, int64_t last) {
    Work work(shape);
    for (int64_t i = first; i < last; i++) body(work, i / shape.heads, i % shape.heads);
  });
}

}  // namespace

bool fits(const Shape& shape) {
  return shape.length <= kMaxLength && shape.headDim <= kMaxHeadDim && shape.headDim % kLanes == 0;
}

void forward(const Shape& shape, const float* qkv, float* out, float* lse) {
  forHeads(shape, 2, [&](Work& work, int64_t sequence, int64_t head) {
    const int64_t first = sequence * shape.length;
    const float* q = qkv + first * work.rowStride + head * shape.headDim;
    float* to = out + first * work.width + head * shape.headDim;
    work.scores(q, q + work.width);
    float factors[kMaxLength];
    for (int64_t i = 0; i < shape.length; i++) {
      float highest;
      const float total = work.soften(work.weights.data() + i * work.padded, highest);
      factors[i] = 1.0f / total;
      lse[(first + i) * shape.heads + head] = highest + std::log(total);
    }
    product(shape.length, shape.headDim, shape.length, {work.weights.data(), work.padded},
            {q + 2 * work.width, work.rowStride}, to, work.width);
    for (int64_t i = 0; i < shape.length; i++) {
      const F8 factor = all(factors[i]);
      for (int64_t d = 0; d < shape.headDim; d += kLanes) {
        store(to + i * work.width + d, mul(load(to + i * work.width + d), factor));
      }
    }
  });
}

void backward(const Shape& shape, const float* dout, const float* qkv, const float* out, const float* lse,
              float* dqkv) {
  forHeads(shape, 5, [&](Work& work, int64_t sequence, int64_t head) {
    const int64_t first = sequence * shape.length, offset = head * shape.headDim;
    const float* q = qkv + first * work.rowStride + offset;
    const float* k = q + work.width;
    const float* v = k + work.width;
    float* dq = dqkv + first * work.rowStride + offset;
    const float* dy = dout + first * work.width + offset;
    const float* y = out + first * work.width + offset;
    work.scores(q, k);
    work.transpose(v, work.rowStride);
    float *weights = work.weights.data(), *slopes = work.slopes.data();
    const int64_t padded = work.padded;
    product(shape.length, padded, shape.headDim, {dy, work.width}, {work.transposed.data(), padded}, slopes, padded);
    for (int64_t i = 0; i < shape.length; i++) {
      F8 products = zero();
      for (int64_t d = 0; d < shape.headDim; d += kLanes) {
        products = fma(load(dy + i * work.width + d), load(y + i * work.width + d), products);
      }
      const F8 along = all(sum(products)), total = all(lse[(first + i) * shape.heads + head]);
      float *weight = weights + i * padded, *slope = slopes + i * padded;
      forVectors(shape.length, [&](int64_t j, auto lanes) {
        const F8 p = only(exp(_mm256_fmsub_ps(load(weight + j), all(work.scale), total)), lanes);
        store(weight + j, p);
        store(slope + j, mul(mul(p, all(work.scale)), sub(load(slope + j), along)));
      });
    }
    product(shape.length, shape.headDim, shape.length, {slopes, padded}, {k, work.rowStride}, dq, work.rowStride);
    product(shape.length, shape.headDim, shape.length, {slopes, 1, padded}, {q, work.rowStride}, dq + work.width,
            work.rowStride);
    product(shape.length, shape.headDim, shape.length, {weights, 1, padded}, {dy, work.width}, dq + 2 * work.width,
            work.rowStride);
  });
}

#else

bool fits(const Shape&) { return false; }
void forward(const Shape&, const float*, float*, float*) {}
void backward(const Shape&, const float*, const float*, const float*, const float*, float*) {}

#endif

}  // namespace paddock::shortAttention
