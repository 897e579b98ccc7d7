// Cross-entropy over very many prototypes, value and gradient in one visit of each row. N rows, K
// prototypes, M distinct target rows shared through `index`.
#include "binding.h"
#include "families.h"
#include "indices.h"
#include "parallel.h"
#include "precision.h"

#include "aten.h"

#include <cmath>
#include <cstring>

namespace paddock {
namespace {

using T = const at::Tensor&;

constexpr int64_t kLanes = 16;     // independent sums: the loop vectorises, the order stays fixed
constexpr int64_t kBlock = 1024;   // float sums over a block, double sums over blocks

/// exp for x <= 0, relative error below 2e-7; 1.2e-38 instead of 0 below -87. Plain arithmetic, so that
/// the compiler vectorises it. Polynomial: Cephes' expf.
inline float expNonPositive(float x) {
  const float bounded = x < -87.0f ? -87.0f : x;
  const float n = std::nearbyintf(bounded * 1.44269504088896341f);
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float fraction = p * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return fraction * power;
}

float largest(const float* values, int64_t count) {
  float lane[kLanes];
  for (int64_t i = 0; i < kLanes; i++) lane[i] = -INFINITY;
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    for (int64_t i = 0; i < kLanes; i++) lane[i] = values[k + i] > lane[i] ? values[k + i] : lane[i];
  }
  for (; k < count; k++) lane[0] = std::max(lane[0], values[k]);
  return *std::max_element(lane, lane + kLanes);
}

struct RowSums {
  double exp = 0;     // of exp(z)
  double target = 0;  // of target
  double dot = 0;     // of target * z
};

/// Writes exp(z), z = (logit - peak) / t, and adds up what the row needs.
RowSums expAndSums(const float* logits, const float* target, float peak, float inverse, float* exps,
                   int64_t count) {
  RowSums sums;
  for (int64_t start = 0; start < count; start += kBlock) {
    float e[kLanes] = {}, s[kLanes] = {}, d[kLanes] = {};
    const int64_t end = std::min(start + kBlock, count);
    const int64_t whole = start + (end - start) / kLanes * kLanes;
    for (int64_t k = start; k < whole; k += kLanes) {
      for (int64_t i = 0; i < kLanes; i++) {
        const float z = (logits[k + i] - peak) * inverse;
        const float value = expNonPositive(z);
        exps[k + i] = value;
        e[i] += value;
        s[i] += target[k + i];
        d[i] += target[k + i] * z;
      }
    }
    for (int64_t k = whole; k < end; k++) {
      const float z = (logits[k] - peak) * inverse;
      const float value = expNonPositive(z);
      exps[k] = value;
      e[0] += value;
      s[0] += target[k];
      d[0] += target[k] * z;
    }
    for (int64_t i = 0; i < kLanes; i++) {
      sums.exp += e[i];
      sums.target += s[i];
      sums.dot += d[i];
    }
  }
  return sums;
}

void check(const State& state, T logits_NK, T target_MK, T index_N, T weight_N, double temperature) {
  TORCH_CHECK(logits_NK.dim() == 2 && target_MK.dim() == 2 && logits_NK.size(1) == target_MK.size(1),
              "logits and targets must be rows over the same prototypes");
  TORCH_CHECK(index_N.scalar_type() == at::kInt && index_N.numel() == logits_NK.size(0) &&
                  weight_N.numel() == logits_NK.size(0),
              "index (int32) and weight must have one value per row of logits");
  TORCH_CHECK(temperature > 0, "temperature must be positive, got ", temperature);
  checkIndices(state, index_N, target_MK.size(0), "target row");
}

/// The same in ATen's ops, a few rows at a time so that temporaries stay small.
std::array<at::Tensor, 2> onDevice(T logits_NK, T target_MK, T index_N, T weight_N, double temperature) {
  const int64_t rowsAtOnce = std::max<int64_t>(1, (int64_t{64} << 20) / (logits_NK.size(1) * 4));
  std::vector<at::Tensor> losses;
  at::Tensor dlogits = at::empty_like(logits_NK);
  for (int64_t first = 0; first < logits_NK.size(0); first += rowsAtOnce) {
    const int64_t count = std::min(rowsAtOnce, logits_NK.size(0) - first);
    const at::Tensor target = at::index_select(target_MK, 0, index_N.narrow(0, first, count));
    const at::Tensor weight = weight_N.narrow(0, first, count);
    const at::Tensor logP = at::log_softmax(at::div(wide(logits_NK.narrow(0, first, count)), temperature), 1);
    losses.push_back(at::mul(target, logP).sum(1).mul_(weight).neg_());
    const at::Tensor total = target.sum(1, /*keepdim=*/true);
    at::Tensor out = dlogits.narrow(0, first, count);
    out.copy_(logP.exp().mul_(total).sub_(target).mul_(at::div(weight, temperature).unsqueeze(1)));
  }
  return {losses.empty() ? at::zeros({0}, weight_N.options()) : at::cat(losses), dlogits};
}

/// (rows [N] = -weight * sum_k target[index] * logSoftmax(logits / t), float32; its gradient [N,K] by logits, of their
/// precision). Computed in float32.
std::array<at::Tensor, 2> crossEntropy(Call& call, T logits_NK, T target_MK, T index_N, T weight_N,
                                       double temperature) {
  const at::Tensor index = index_N.contiguous();
  check(call.state(), logits_NK, target_MK, index, weight_N, temperature);
  if (!logits_NK.is_cpu()) return onDevice(logits_NK, target_MK, index, weight_N, temperature);
  const at::Tensor logits = wide(logits_NK).contiguous(), target = target_MK.contiguous();
  const at::Tensor weight = weight_N.contiguous();
  const int64_t prototypes = logits.size(1);
  at::Tensor loss = at::empty({logits.size(0)}, logits.options());
  at::Tensor dlogits = at::empty(logits.sizes(), logits.options());
  const float *from = logits.data_ptr<float>(), *targets = target.data_ptr<float>();
  const float* weights = weight.data_ptr<float>();
  const int32_t* rowOf = index.data_ptr<int32_t>();
  float *losses = loss.data_ptr<float>(), *to = dlogits.data_ptr<float>();
  const float inverse = static_cast<float>(1.0 / temperature);
  forRows(logits.size(0), prototypes * 8, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
      const float* row = from + n * prototypes;
      const float* goal = targets + rowOf[n] * prototypes;
      float* out = to + n * prototypes;
      const float peak = largest(row, prototypes);
      const RowSums sums = expAndSums(row, goal, peak, inverse, out, prototypes);
      losses[n] = static_cast<float>(-weights[n] * (sums.dot - sums.target * std::log(sums.exp)));
      const float share = static_cast<float>(sums.target / sums.exp);
      const float slope = static_cast<float>(weights[n] / temperature);
      for (int64_t k = 0; k < prototypes; k++) out[k] = slope * (out[k] * share - goal[k]);
    }
  });
  return {loss, as(dlogits, logits_NK)};
}

}  // namespace

void defineLoss(Module& module) { module.add("crossEntropy", &crossEntropy); }

}  // namespace paddock
