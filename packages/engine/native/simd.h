// Eight float32 lanes at a time, where the CPU has AVX2 and fused multiply-add. What rounds differently without them (short
// attention, GELU) is left to ATen there.
#pragma once

#if defined(__AVX2__) && defined(__FMA__)
#define PADDOCK_SIMD 1

#include <immintrin.h>

#include <cstdint>

namespace paddock::simd {

constexpr int64_t kLanes = 8;

using F8 = __m256;

inline F8 load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, F8 x) { _mm256_storeu_ps(to, x); }
inline F8 all(float x) { return _mm256_set1_ps(x); }
inline F8 zero() { return _mm256_setzero_ps(); }
inline F8 add(F8 a, F8 b) { return _mm256_add_ps(a, b); }
inline F8 sub(F8 a, F8 b) { return _mm256_sub_ps(a, b); }
inline F8 mul(F8 a, F8 b) { return _mm256_mul_ps(a, b); }
/// a * b + c, rounded once.
inline F8 fma(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a, b, c); }
/// c - a * b, rounded once.
inline F8 fnma(F8 a, F8 b, F8 c) { return _mm256_fnmadd_ps(a, b, c); }

/// All bits set in the first `count` lanes.
inline __m256i firstLanes(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)), lane);
}

/// (0 op 4) op (2 op 6), op the same of the odd lanes.
template <class Op>
float fold(F8 x, const Op& op) {
  const __m128 four = op(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = op(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(op(two, _mm_movehdup_ps(two)));
}

inline float sum(F8 x) {
  return fold(x, [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
}
inline float max(F8 x) {
  return fold(x, [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
}

/// e^x within 2 units in the last place; below -87.3 it is e^-87.3, above 88.3 e^88.3. NaN stays NaN.
inline F8 exp(F8 x) {
  x = _mm256_min_ps(all(88.3f), _mm256_max_ps(all(-87.3f), x));  // in this order the second operand's NaN wins
  const F8 n = _mm256_round_ps(mul(x, all(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // The reduced argument, ln 2 in two parts of which the first has trailing zeros; then a polynomial of degree 7 (Cephes, expf).
  const F8 r = fnma(n, all(-2.12194440e-4f), fnma(n, all(0.693359375f), x));
  F8 p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  const F8 fraction = add(fma(mul(r, r), p, r), all(1.0f));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return mul(fraction, _mm256_castsi256_ps(exponent));
}

/// The error function, absolute error below 4e-7; exactly 1 in magnitude from 3.92 on. A quotient of polynomials in x^2 that is fitted to erf(x) / x
/// with relative error 2e-8 (least squares, reweighted). NaN stays NaN.
inline F8 erf(F8 x) {
  const F8 z = _mm256_min_ps(all(3.92f), _mm256_max_ps(all(-3.92f), x));
  const F8 u = mul(z, z);
  F8 p = all(2.0501668e-6f);
  p = fma(p, u, all(2.8487807e-4f));
  p = fma(p, u, all(3.7653162e-3f));
  p = fma(p, u, all(5.2747793e-2f));
  p = fma(p, u, all(1.9039913e-1f));
  p = fma(p, u, all(1.1283791f));
  F8 q = all(3.8092308e-5f);
  q = fma(q, u, all(1.1624668e-3f));
  q = fma(q, u, all(1.4968609e-2f));
  q = fma(q, u, all(1.1410611e-1f));
  q = fma(q, u, all(5.0206959e-1f));
  q = fma(q, u, all(1.0f));
  return _mm256_div_ps(mul(z, p), q);
}

/// All lanes of a vector. Masked loads and stores take several times as long, so only the last vector of a row is masked.
struct Every {};

/// Lanes that do not exist are zero, and their memory is not touched.
inline F8 load(const float* from, __m256i lanes) { return _mm256_maskload_ps(from, lanes); }
inline F8 load(const float* from, Every) { return load(from); }
inline void store(float* to, F8 x, __m256i lanes) { _mm256_maskstore_ps(to, lanes, x); }
inline void store(float* to, F8 x, Every) { store(to, x); }
/// x with zeros in the lanes that do not exist.
inline F8 only(F8 x, __m256i lanes) { return _mm256_and_ps(x, _mm256_castsi256_ps(lanes)); }
inline F8 only(F8 x, Every) { return x; }
/// x, and `otherwise` in the lanes that do not exist.
inline F8 orElse(F8 x, F8 otherwise, __m256i lanes) { return _mm256_blendv_ps(otherwise, x, _mm256_castsi256_ps(lanes)); }
inline F8 orElse(F8 x, F8, Every) { return x; }

/// Calls body(offset, lanes) for the vectors of [0, count): `Every`, and for a last part the mask of its lanes.
template <class Body>
void forVectors(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, Every{});
  if (i < count) body(i, firstLanes(count - i));
}

}  // namespace paddock::simd

#endif
