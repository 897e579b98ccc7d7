// KoLeo: minus the mean log distance of unit rows to their nearest neighbours, value and gradient in one call; the sizes are small,
// what it saves is calls. n rows of `ranks` equal ranks, D features, k neighbours of each row.
#include "binding.h"
#include "families.h"
#include "precision.h"
#include "product.h"
#include "rows.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;

/// Rows of the largest inner products with other rows, flat [n * k]; the lower row of equals. Those of rows that are no numbers are
/// rows too.
at::Tensor nearestNeighbours(T unit_ND, int64_t k) {
  at::Tensor dots = product(unit_ND, unit_ND.t());
  dots.diagonal().fill_(-2);  // inner products of unit rows are at least -1
  if (k == 1) return at::argmax(dots, 1);
  const auto [values, indices] = at::sort(dots, /*stable=*/true, /*dim=*/1, /*descending=*/true);
  return indices.narrow(1, 0, k).reshape({-1});
}

/// (dx [n,D] of weight * the sum of the ranks' losses, neighbours int32 [n * k], each rank's loss []).
Tensors koleo(T rows_ND, int64_t k, int64_t ranks, double weight, double eps) {
  const at::Tensor x_ND = wide(rows_ND);
  const int64_t n = x_ND.size(0);
  TORCH_CHECK(x_ND.dim() == 2 && ranks > 0 && n > 0 && n % ranks == 0, n, " rows are not those of ", ranks, " equal ranks");
  TORCH_CHECK(k > 0 && k < n, k, " neighbours among ", n, " rows");
  const int64_t terms = n / ranks * k;
  const at::Tensor norm_N1 = at::linalg_vector_norm(x_ND, 2, {1}, /*keepdim=*/true).clamp_min_(eps);
  const at::Tensor unit = at::div(x_ND, norm_N1);
  const at::Tensor neighbours = nearestNeighbours(unit, k);
  const at::Tensor repeated = unit.unsqueeze(1).expand({n, k, unit.size(1)}).reshape({n * k, unit.size(1)});
  // torch.nn.PairwiseDistance adds eps to every component of the difference.
  at::Tensor difference = at::sub(repeated, at::index_select(unit, 0, neighbours)).add_(eps);
  const at::Tensor distance = at::mul(difference, difference).sum(1, /*keepdim=*/true).sqrt_();
  const at::Tensor wider = at::add(distance, eps);
  const at::Tensor logs = at::log(wider).view({ranks, terms}).mean(1).neg_();
  const at::Tensor slope = at::reciprocal(at::mul(wider, distance)).mul_(-weight / static_cast<double>(terms));
  const at::Tensor toward = difference.mul_(slope);
  // The gradient reaches both ends of each pair; the choice of the neighbour has none.
  const at::Tensor own = k == 1 ? toward : toward.view({n, k, -1}).sum(1);
  const at::Tensor rows = neighbours.to(at::kInt);
  const at::Tensor dunit = addRows(own, at::neg(toward), rows);
  const at::Tensor along = at::mul(dunit, unit).sum(1, /*keepdim=*/true);
  Tensors results{at::addcmul(dunit, unit, along, -1).div_(norm_N1), rows};
  for (int64_t rank = 0; rank < ranks; rank++) results.push_back(logs.select(0, rank));
  return results;
}

}  // namespace

void defineKoleo(Module& module) { module.add("koleo", &koleo); }

}  // namespace paddock
