// Rotary positions: rotates queries and keys inside packed rows, in place. T rows; each row is q then k then v, each
// heads x headDim. `runs` are `count` sequences of `length` rows; the first `prefix` rows of a sequence (cls, registers) have no
// position, each later one has a row of the tables, which lie one after the other over the runs.
#include "binding.h"
#include "families.h"
#include "parallel.h"
#include "precision.h"

#include "aten.h"

#include <algorithm>

namespace paddock {
namespace {

using T = const at::Tensor&;

/// One run of equally long sequences: where its rows and its part of the tables begin.
struct Run {
  int64_t count, length, firstRow, firstPosition;

  int64_t rows() const { return count * length; }
};

/// Everything but the rows: tables [P, half] in float32, P positions of all runs, half = headDim / 2.
struct Rotation {
  at::Tensor cos, sin;
  int64_t heads, half, prefix;
  bool inverse, rounded;
  std::vector<Run> runs;
};

Rotation rotationOf(T qkv_T3C, T cos_PH, T sin_PH, int64_t heads, int64_t prefix, const Ints& runs, bool inverse,
                    bool rounded) {
  TORCH_CHECK(qkv_T3C.dim() == 2 && qkv_T3C.is_contiguous() && qkv_T3C.is_floating_point(),
              "the rows must be floats that lie one after the other");
  TORCH_CHECK(cos_PH.dim() == 2 && cos_PH.sizes() == sin_PH.sizes() && cos_PH.scalar_type() == at::kFloat &&
                  sin_PH.scalar_type() == at::kFloat,
              "the tables must be two float32 matrices of one shape");
  const int64_t half = cos_PH.size(1);
  TORCH_CHECK(heads > 0 && heads < 65536 && half > 0 && qkv_T3C.size(1) == 3 * heads * 2 * half, "rows of ",
              qkv_T3C.size(1), " do not hold q, k and v of ", heads, " heads of ", 2 * half);
  TORCH_CHECK(prefix >= 0, "a prefix of ", prefix, " rows");
  Rotation rotation{cos_PH.contiguous(), sin_PH.contiguous(), heads, half, prefix, inverse, rounded, {}};
  int64_t row = 0, position = 0;
  for (size_t i = 0; i + 1 < runs.size(); i += 2) {
    TORCH_CHECK(runs[i] >= 0 && runs[i + 1] >= prefix, "a run of ", runs[i], " sequences of ", runs[i + 1]);
    rotation.runs.push_back({runs[i], runs[i + 1], row, position});
    row += runs[i] * runs[i + 1];
    position += runs[i + 1] - prefix;
  }
  TORCH_CHECK(row == qkv_T3C.size(0), "the runs cover ", row, " rows of ", qkv_T3C.size(0));
  TORCH_CHECK(position == cos_PH.size(0), "the runs have ", position, " positions, the tables ", cos_PH.size(0));
  return rotation;
}

// --- CPUs --------------------------------------------------------------------------------------------------

inline float toBfloat16(float x) { return static_cast<float>(c10::BFloat16(x)); }

template <class S>
void rotateHead(S* __restrict row, const float* __restrict cos, const float* __restrict sin, int64_t half,
                float sign) {
  for (int64_t i = 0; i < half; i++) {
    const float a = static_cast<float>(row[i]), b = static_cast<float>(row[half + i]), s = sign * sin[i];
    row[i] = static_cast<S>(a * cos[i] - b * s);
    row[half + i] = static_cast<S>(b * cos[i] + a * s);
  }
}

/// Every operand and result rounded to bfloat16, as that arithmetic does.
template <class S>
void rotateHeadRounded(S* __restrict row, const float* __restrict cos, const float* __restrict sin, int64_t half,
                       float sign) {
  for (int64_t i = 0; i < half; i++) {
    const float a = toBfloat16(static_cast<float>(row[i])), b = toBfloat16(static_cast<float>(row[half + i]));
    const float s = sign * sin[i];
    row[i] = static_cast<S>(toBfloat16(toBfloat16(a * cos[i]) - toBfloat16(b * s)));
    row[half + i] = static_cast<S>(toBfloat16(toBfloat16(b * cos[i]) + toBfloat16(a * s)));
  }
}

/// Rows without a position go to bfloat16 and back like the others.
template <class S>
void roundRow(S* row, int64_t values) {
  for (int64_t i = 0; i < values; i++) row[i] = static_cast<S>(toBfloat16(static_cast<float>(row[i])));
}

template <class S>
void rotateOnCpu(const Rotation& r, T qkv) {
  S* data = qkv.data_ptr<S>();
  const float *cos = r.cos.data_ptr<float>(), *sin = r.sin.data_ptr<float>();
  const int64_t half = r.half, width = r.heads * 2 * half;
  const float sign = r.inverse ? -1.0f : 1.0f;
  const auto rotate = r.rounded ? &rotateHeadRounded<S> : &rotateHead<S>;
  forRows(qkv.size(0), 2 * width, [&](int64_t first, int64_t last) {
    for (const Run& run : r.runs) {
      const int64_t end = std::min(last, run.firstRow + run.rows());
      for (int64_t t = std::max(first, run.firstRow); t < end; t++) {
        S* row = data + t * 3 * width;
        const int64_t position = (t - run.firstRow) % run.length - r.prefix;
        if (position < 0) {
          if (r.rounded) roundRow(row, 2 * width);
          continue;
        }
        const int64_t at = (run.firstPosition + position) * half;
        for (int64_t h = 0; h < 2 * r.heads; h++) rotate(row + h * 2 * half, cos + at, sin + at, half, sign);
      }
    }
  });
}

// --- other devices -----------------------------------------------------------------------------------------

/// Halves a and b of the heads in x [count, positions, 2, heads, headDim].
void rotateRun(const Rotation& r, const Run& run, T x) {
  const int64_t positions = run.length - r.prefix;
  const auto table = [&](T all) {
    const at::Tensor part = all.narrow(0, run.firstPosition, positions).view({positions, 1, 1, r.half});
    return r.rounded ? part.to(at::kBFloat16) : part;
  };
  const at::Tensor cos = table(r.cos), sin = r.inverse ? table(r.sin).neg() : table(r.sin);
  const at::Tensor a = x.narrow(4, 0, r.half), b = x.narrow(4, r.half, r.half);
  const auto operandOf = [&](T half) { return r.rounded ? half.to(at::kBFloat16) : wide(half); };
  const at::Tensor from = operandOf(a), to = operandOf(b);
  if (r.rounded) {
    const at::Tensor first = at::mul(from, cos).sub_(at::mul(to, sin));
    b.copy_(at::mul(to, cos).add_(at::mul(from, sin)));
    a.copy_(first);
    return;
  }
  const at::Tensor first = at::mul(from, cos).addcmul_(to, sin, -1);
  b.copy_(at::mul(to, cos).addcmul_(from, sin));
  a.copy_(first);
}

void rotateElsewhere(const Rotation& r, T qkv) {
  for (const Run& run : r.runs) {
    if (run.rows() == 0) continue;
    const at::Tensor heads = qkv.narrow(0, run.firstRow, run.rows())
                                 .view({run.count, run.length, 3, r.heads, 2 * r.half})
                                 .narrow(2, 0, 2);
    if (r.rounded && r.prefix > 0) {
      const at::Tensor before = heads.narrow(1, 0, r.prefix);
      before.copy_(before.to(at::kBFloat16));
    }
    if (run.length > r.prefix) rotateRun(r, run, heads.narrow(1, r.prefix, run.length - r.prefix));
  }
}

/// Overwrites q and k of qkv. `inverse` turns the other way, which is the gradient; `rounded`: in bfloat16.
void rope(T qkv_T3C, T cos_PH, T sin_PH, int64_t heads, int64_t prefix, const Ints& runs, bool inverse,
          bool rounded) {
  const Rotation r = rotationOf(qkv_T3C, cos_PH, sin_PH, heads, prefix, runs, inverse, rounded);
  if (!qkv_T3C.is_cpu()) return rotateElsewhere(r, qkv_T3C);
  switch (qkv_T3C.scalar_type()) {
    case at::kFloat:
      return rotateOnCpu<float>(r, qkv_T3C);
    case at::kBFloat16:
      return rotateOnCpu<c10::BFloat16>(r, qkv_T3C);
    case at::kHalf:
      return rotateOnCpu<c10::Half>(r, qkv_T3C);
    default:
      TORCH_CHECK(false, "no rotation of ", qkv_T3C.scalar_type());
  }
}

}  // namespace

void defineRope(Module& module) { module.add("rope", &rope); }

}  // namespace paddock
