// Flat float32 vectors that live on the device: shards of parameters, moments and gradients. What flat.cc does for arrays of the
// host, in a few launches. Every vector is part of a 1-D tensor: (handle, start, count). Nothing here waits for the device but
// what returns values to JS.
#include "binding.h"
#include "families.h"
#include "precision.h"

#include "aten.h"

#include <cmath>
#include <cstring>

namespace paddock {
namespace {

using T = const at::Tensor&;

at::Tensor part(T x, int64_t start, int64_t count) {
  TORCH_CHECK(x.dim() == 1 && x.scalar_type() == at::kFloat, "expected a float32 vector");
  return x.narrow(0, start, count);
}

/// One AdamW step of several vectors, in one launch; each of p, g, m, v lies at the same start with the same count.
void adamw(const Tensors& p, const Tensors& g, const Tensors& m, const Tensors& v, const Ints& starts,
           const Ints& counts, double learningRate, double beta1, double beta2, double eps,
           double weightDecay, double step) {
  for (const size_t size : {g.size(), m.size(), v.size(), starts.size(), counts.size()}) {
    TORCH_CHECK(size == p.size(), "expected as many of each list");
  }
  for (const size_t size : {g.size(), m.size(), v.size(), starts.size(), counts.size()}) {
    TORCH_CHECK(size == p.size(), "expected as many of each list");
  }
  std::vector<at::Tensor> parts[4];
  const Tensors* whole[4] = {&p, &g, &m, &v};
  for (size_t i = 0; i < p.size(); i++) {
    for (size_t k = 0; k < 4; k++) parts[k].push_back(part(whole[k]->at(i), starts[i], counts[i]));
  }
  if (p.empty()) return;
#if PADDOCK_TORCH_MINOR >= 206
  const at::Tensor now = at::full({}, step, p[0].options());
  const std::vector<at::Tensor> steps(p.size(), now);
  at::_fused_adamw_(parts[0], parts[1], parts[2], parts[3], {}, steps, learningRate, beta1, beta2,
                    weightDecay, eps, /*amsgrad=*/false, /*maximize=*/false);
#else  // no such kernel for CPUs, or of another signature
  const double stepSize = learningRate / (1 - std::pow(beta1, step)), root = std::sqrt(1 - std::pow(beta2, step));
  for (size_t i = 0; i < p.size(); i++) {
    at::Tensor &param = parts[0][i], &grad = parts[1][i], &mean = parts[2][i], &square = parts[3][i];
    mean.mul_(beta1).add_(grad, 1 - beta1);
    square.mul_(beta2).addcmul_(grad, grad, 1 - beta2);
    param.mul_(1 - learningRate * weightDecay).addcdiv_(mean, square.sqrt().div_(root).add_(eps), -stepSize);
  }
#endif
}

void ema(T teacher, int64_t toStart, T student, int64_t fromStart, int64_t count, double momentum) {
  part(teacher, toStart, count).mul_(momentum).add_(part(student, fromStart, count), 1 - momentum);
}

void copy(T to, int64_t toStart, T from, int64_t fromStart, int64_t count) {
  part(to, toStart, count).copy_(part(from, fromStart, count));
}

void add(T to, int64_t toStart, T from, int64_t fromStart, int64_t count) {
  part(to, toStart, count).add_(part(from, fromStart, count));
}

void scale(T x, int64_t start, int64_t count, double factor) { part(x, start, count).mul_(factor); }

void roundHalf(T x, int64_t start, int64_t count) {
  at::Tensor values = part(x, start, count);
  values.copy_(values.to(at::kHalf));
}

/// Copies device values of `bytes.size` bytes into the array, through pinned memory.
void download(T values, const Bytes& out) {
  const at::Tensor host = at::empty(values.sizes(), values.options().device(at::kCPU).pinned_memory(values.is_cuda()));
  host.copy_(values);
  std::memcpy(out.data, host.data_ptr(), out.size);
}

at::Tensor upload(const Bytes& values, at::ScalarType type, T like) {
  const int64_t count = static_cast<int64_t>(values.elements);
  at::Tensor host = at::empty({count}, at::TensorOptions(type).pinned_memory(like.is_cuda()));
  if (count > 0) std::memcpy(host.data_ptr(), values.data, values.size);
  return host;
}

void read(T x, int64_t start, const Bytes& out) {
  TORCH_CHECK(out.type == napi_float32_array, "expected a Float32Array");
  download(part(x, start, static_cast<int64_t>(out.elements)), out);
}

void write(T x, int64_t start, const Bytes& values) {
  TORCH_CHECK(values.type == napi_float32_array, "expected a Float32Array");
  part(x, start, static_cast<int64_t>(values.elements)).copy_(upload(values, at::kFloat, x), /*non_blocking=*/true);
}

void encodeHalf(T x, int64_t start, const Bytes& out) {
  TORCH_CHECK(out.type == napi_uint16_array, "expected a Uint16Array");
  download(part(x, start, static_cast<int64_t>(out.elements)).to(at::kHalf), out);
}

void decodeHalf(T x, int64_t start, const Bytes& halves) {
  TORCH_CHECK(halves.type == napi_uint16_array, "expected a Uint16Array");
  part(x, start, static_cast<int64_t>(halves.elements)).copy_(upload(halves, at::kHalf, x), /*non_blocking=*/true);
}

/// Sum of squares of each chunk of each vector (a vector's last may be shorter), in doubles, one vector after the other. Waits
/// for the device once.
void sumSquares(const Tensors& x, const Ints& starts, const Ints& counts, int64_t chunk, const Bytes& out) {
  TORCH_CHECK(chunk > 0, "expected chunks of at least one value");
  TORCH_CHECK(starts.size() == x.size() && counts.size() == x.size(), "expected a range of every vector");
  std::vector<at::Tensor> sums;
  int64_t total = 0;
  const auto squares = [](T values) { return values.to(at::kDouble).square_().sum(1); };
  for (size_t i = 0; i < x.size(); i++) {
    const at::Tensor values = part(x[i], starts[i], counts[i]);
    const int64_t whole = counts[i] / chunk, rest = counts[i] % chunk;
    if (whole > 0) sums.push_back(squares(values.narrow(0, 0, whole * chunk).view({whole, chunk})));
    if (rest > 0) sums.push_back(squares(values.narrow(0, whole * chunk, rest).view({1, rest})));
    total += whole + (rest > 0);
  }
  TORCH_CHECK(out.type == napi_float64_array && static_cast<int64_t>(out.elements) == total,
              "expected a Float64Array of one value per chunk, ", total);
  if (total > 0) download(at::cat(sums), out);
}

/// The vector cut into tensors, which share its memory: tensor i has rank ranks[i], its sizes lie in `sizes` one after the other,
/// and begins at starts[i]. Where precisions[i] (see toPrecision) is not 0 it is a copy of that precision.
Tensors cut(T x, const Ints& starts, const Ints& ranks, const Ints& sizes, const Ints& precisions) {
  TORCH_CHECK(ranks.size() == starts.size() && precisions.size() == starts.size(), "expected as many of each list");
  Tensors tensors;
  size_t used = 0;
  for (size_t i = 0; i < starts.size(); i++) {
    TORCH_CHECK(ranks[i] >= 0 && used + ranks[i] <= sizes.size(), "tensor ", i, " has no such rank");
    const at::IntArrayRef shape = at::IntArrayRef(sizes).slice(used, ranks[i]);
    used += ranks[i];
    int64_t count = 1;
    for (const int64_t size : shape) {
      TORCH_CHECK(size >= 0 && (size == 0 || count <= x.numel() / size), "tensor ", i, " is larger than the vector");
      count *= size;
    }
    tensors.push_back(part(x, starts[i], count).view(shape).to(typeOfPrecision(precisions[i])));
  }
  return tensors;
}

/// A vector of `size` values with the tensors' laid end to end from starts[i] on; zeros elsewhere.
at::Tensor join(const Tensors& tensors, const Ints& starts, int64_t size) {
  TORCH_CHECK(!tensors.empty() && starts.size() == tensors.size(), "expected a start of every tensor");
  int64_t total = 0;
  for (T tensor : tensors) total += tensor.numel();
  const auto options = tensors[0].options().dtype(at::kFloat);
  at::Tensor vector = total == size ? at::empty({size}, options) : at::zeros({size}, options);
  for (size_t i = 0; i < tensors.size(); i++) {
    part(vector, starts[i], tensors[i].numel()).view(tensors[i].sizes()).copy_(tensors[i]);
  }
  return vector;
}

}  // namespace

void defineVectors(Module& module) {
  module.add("cut", &cut);
  module.add("join", &join);
  module.add("vectorAdamw", &adamw);
  module.add("vectorEma", &ema);
  module.add("vectorCopy", &copy);
  module.add("vectorAdd", &add);
  module.add("vectorScale", &scale);
  module.add("vectorRoundHalf", &roundHalf);
  module.add("vectorRead", &read);
  module.add("vectorWrite", &write);
  module.add("vectorEncodeHalf", &encodeHalf);
  module.add("vectorDecodeHalf", &decodeHalf);
  module.add("vectorSumSquares", &sumSquares);
}

}  // namespace paddock
