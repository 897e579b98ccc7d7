// From patch rows to the rows of whole sequences, and back: class token and registers in front, positions added. n sequences of
// N = 1 + R + P rows, D features; the grid of positions has a row for the class token and B others, which `matrix` [P,B] makes P of.
#include "binding.h"
#include "families.h"
#include "precision.h"

#include "aten.h"

namespace paddock {
namespace {

using T = const at::Tensor&;
using MaybeT = const std::optional<at::Tensor>&;

/// Rows [n * N, D], float32, from patches [n * P, D], cls (D values), registers (R rows of D), positions (1 + B rows of D).
at::Tensor sequenceRows(T patches_D, T cls, MaybeT registers, MaybeT positions, MaybeT matrix_PB, int64_t n) {
  TORCH_CHECK(patches_D.dim() == 2 && n > 0 && patches_D.size(0) % n == 0, patches_D.size(0), " rows are not those of ", n,
              " sequences");
  const int64_t width = patches_D.size(1), count = patches_D.size(0) / n;
  TORCH_CHECK(cls.numel() == width && (!registers || registers->numel() % width == 0) &&
                  (!positions || positions->numel() % width == 0),
              "cls, registers and positions must have rows of ", width, " values");
  const int64_t extra = registers ? registers->numel() / width : 0;
  const at::Tensor patches = wide(patches_D).reshape({n, count, width});
  at::Tensor rows = at::empty({n, 1 + extra + count, width}, patches.options());
  at::Tensor first = rows.narrow(1, 0, 1), others = rows.narrow(1, 1 + extra, count);
  if (registers) rows.narrow(1, 1, extra).copy_(registers->reshape({1, extra, width}));
  if (!positions) {
    first.copy_(cls.reshape({1, 1, width}));
    others.copy_(patches);
  } else {
    const at::Tensor grid = positions->reshape({-1, width});
    first.copy_(at::add(cls.reshape({1, width}), grid.narrow(0, 0, 1)).unsqueeze(0));
    at::Tensor base = grid.narrow(0, 1, grid.size(0) - 1);
    if (matrix_PB) base = at::mm(*matrix_PB, base);
    TORCH_CHECK(base.size(0) == count, base.size(0), " positions for ", count, " patches");
    at::add_out(others, patches, base.unsqueeze(0));
  }
  return rows.reshape({-1, width});
}

/// (dpatches [n * P, D], dcls [1,1,D], dregisters [1,R,D] if any, dpositions [1,1+B,D] if asked for) for d [n * N, D].
std::array<at::Tensor, 4> sequenceRowsBackward(T d_D, MaybeT matrix_PB, int64_t n, int64_t registers, bool withPositions) {
  TORCH_CHECK(d_D.dim() == 2 && n > 0 && d_D.size(0) % n == 0 && registers >= 0 && d_D.size(0) / n > registers,
              d_D.size(0), " rows are not those of ", n, " sequences");
  const int64_t width = d_D.size(1), length = d_D.size(0) / n, count = length - 1 - registers;
  const at::Tensor d = d_D.reshape({n, length, width});
  const at::Tensor sums = d.sum(0);
  const at::Tensor dcls = sums.narrow(0, 0, 1);
  at::Tensor dbase = sums.narrow(0, 1 + registers, count);
  if (matrix_PB) {
    TORCH_CHECK(matrix_PB->dim() == 2 && matrix_PB->size(0) == count, "the matrix must have a row per patch");
    dbase = at::mm(matrix_PB->t(), dbase);
  }
  return {d.narrow(1, 1 + registers, count).reshape({-1, width}), dcls.reshape({1, 1, width}),
          registers > 0 ? sums.narrow(0, 1, registers).reshape({1, registers, width}) : at::Tensor(),
          withPositions ? at::cat({dcls, dbase}).unsqueeze(0) : at::Tensor()};
}

/// Rows of x [M,D] whose place in mask [M,1] is 1 replaced by the token (D values).
at::Tensor maskRows(T x_MD, T mask_M1, T token) {
  return at::where(mask_M1.reshape({-1, 1}).ne(0), token.reshape({1, -1}), x_MD);
}

/// (dx [M,D], dtoken [1,D]) for d [M,D].
std::array<at::Tensor, 2> maskRowsBackward(T d_MD, T mask_M1) {
  const at::Tensor mask = mask_M1.reshape({-1, 1});
  return {at::mul(d_MD, at::rsub(mask, 1)), at::mm(mask.t(), d_MD)};
}

}  // namespace

void defineSequence(Module& module) {
  module.add("sequenceRows", &sequenceRows);
  module.add("sequenceRowsBackward", &sequenceRowsBackward);
  module.add("maskRows", &maskRows);
  module.add("maskRowsBackward", &maskRowsBackward);
}

}  // namespace paddock
