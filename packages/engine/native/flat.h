// Arithmetic on plain arrays: optimizer, averages, half precision, sums. No tensors, no allocation. Every
// elementwise result is the same wherever an element lies in an array, because arrays are cut differently
// for different numbers of workers: the file is compiled without contraction to fused multiply-add, and
// loops use only operations that round the same in vector and scalar form.
#pragma once

#include <cstddef>
#include <cstdint>

namespace paddock::flat {

struct AdamW {
  float beta1, beta2, eps;
  float decay;      // 1 - learningRate * weightDecay
  float stepSize;   // learningRate / (1 - beta1^step)
  float rootBias2;  // sqrt(1 - beta2^step)
};

void adamw(float* param, const float* grad, float* m, float* v, size_t count, const AdamW& o);
void ema(float* teacher, const float* student, size_t count, float momentum, float rest);
void encodeHalf(const float* from, uint16_t* to, size_t count);
void decodeHalf(const uint16_t* from, float* to, size_t count);
void roundHalf(float* x, size_t count);
void add(float* to, const float* from, size_t count);
void scale(float* x, size_t count, float factor);
double sumSquares(const float* x, size_t count);
bool allFinite(const float* x, size_t count);

}  // namespace paddock::flat
