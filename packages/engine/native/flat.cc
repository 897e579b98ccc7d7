#include "flat.h"

#include <cmath>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace paddock::flat {

void adamw(float* __restrict param, const float* __restrict grad, float* __restrict m,
           float* __restrict v, size_t count, const AdamW& o) {
  const AdamW c = o;
  const float rest1 = 1.0f - c.beta1, rest2 = 1.0f - c.beta2;
  for (size_t i = 0; i < count; i++) {
    const float g = grad[i];
    const float mean = m[i] + rest1 * (g - m[i]);
    const float square = v[i] * c.beta2 + (rest2 * g) * g;
    m[i] = mean;
    v[i] = square;
    param[i] = param[i] * c.decay - (c.stepSize * mean) / (std::sqrt(square) / c.rootBias2 + c.eps);
  }
}

void ema(float* __restrict teacher, const float* __restrict student, size_t count, float momentum,
         float rest) {
  for (size_t i = 0; i < count; i++) teacher[i] = teacher[i] * momentum + student[i] * rest;
}

namespace {

/// Round to nearest, ties to even; NaN keeps its sign and the top of its payload and turns quiet.
uint16_t toHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above
  if (magnitude < 0x38800000u) {  // below 2^-14: the sum's low bits are the subnormal, rounded
    float shifted;
    std::memcpy(&shifted, &magnitude, sizeof(shifted));
    shifted += 0.5f;
    uint32_t rounded;
    std::memcpy(&rounded, &shifted, sizeof(rounded));
    return static_cast<uint16_t>(sign | (rounded - 0x3f000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

float fromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  uint32_t bits;
  float value;
  if (magnitude >= 0x7c00u) {
    const uint32_t quiet = magnitude > 0x7c00u ? 0x400000u : 0u;
    bits = sign | 0x7f800000u | (magnitude & 0x3ffu) << 13 | quiet;
  } else if (magnitude >= 0x400u) {
    bits = sign | ((magnitude << 13) + 0x38000000u);
  } else {
    const float small = static_cast<float>(magnitude) * 0x1p-24f;
    std::memcpy(&bits, &small, sizeof(bits));
    bits |= sign;
  }
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace

void encodeHalf(const float* from, uint16_t* to, size_t count) {
  size_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), half);
  }
#endif
  for (; i < count; i++) to[i] = toHalf(from[i]);
}

void decodeHalf(const uint16_t* from, float* to, size_t count) {
  size_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
#endif
  for (; i < count; i++) to[i] = fromHalf(from[i]);
}

void roundHalf(float* x, size_t count) {
  size_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_ps(x + i, _mm256_cvtph_ps(half));
  }
#endif
  for (; i < count; i++) x[i] = fromHalf(toHalf(x[i]));
}

void add(float* to, const float* from, size_t count) {
  for (size_t i = 0; i < count; i++) to[i] += from[i];
}

void scale(float* x, size_t count, float factor) {
  for (size_t i = 0; i < count; i++) x[i] *= factor;
}

double sumSquares(const float* x, size_t count) {
  double lane[8] = {};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (size_t l = 0; l < 8; l++) {
      const double value = x[i + l];
      lane[l] += value * value;
    }
  }
  for (size_t l = 0; i < count; i++, l++) {
    const double value = x[i];
    lane[l] += value * value;
  }
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

bool allFinite(const float* x, size_t count) {
  uint32_t bad = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof(bits));
    bad |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

}  // namespace paddock::flat
