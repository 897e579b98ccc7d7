#include "product.h"

#include "aten.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>

// libtorch need not have either: one built without MKL, or without oneDNN.
extern "C" int mkl_serv_cbwr_set(int branch) __attribute__((weak));

namespace at::native {
/// result = alpha * a b + beta * result. Exported by libtorch, declared in none of its installed headers; ATen calls it for low precision
/// only, though it takes float32 as well.
__attribute__((weak)) void mkldnn_matmul(const Tensor& a, const Tensor& b, const Tensor& result, float beta, float alpha);
}  // namespace at::native

namespace paddock {
namespace {

using T = const at::Tensor&;

/// Multiplications from which oneDNN's kernels make up for its calls, which cost 9 us against MKL's 0.5: 96 x 96 x 96 is where they meet.
constexpr int64_t kWorthwhile = int64_t{1} << 20;
/// Fewer rows or columns are MKL's: its products with a vector run at memory's speed.
constexpr int64_t kLeastRows = 4;

/// MKL has AVX-512 kernels for Intel's CPUs only; on others it runs AVX2's, at half the speed of units that are 512 bits wide. Zen 4
/// takes AVX-512 but has units of 256 bits, which MKL's kernels keep busy.
bool hasWideUnitsWithoutMkl() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx) == 0 || ebx == signature_INTEL_ebx) return false;
  const bool isAmd = ebx == signature_AMD_ebx;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
  const unsigned base = (eax >> 8) & 0xf, family = base == 0xf ? base + ((eax >> 20) & 0xff) : base;
  constexpr unsigned kZen4 = 0x19;
  if (isAmd && family <= kZen4) return false;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

/// Older ones refuse float32.
bool hasOneDnn() {
  if (at::native::mkldnn_matmul == nullptr) return false;
  try {
    const at::Tensor one = at::full({1, 1}, 1, at::kFloat), result = at::empty({1, 1}, at::kFloat);
    at::native::mkldnn_matmul(one, one, result, 0, 1);
    return result.item<float>() == 1;
  } catch (const std::exception&) {
    return false;
  }
}

bool chooseOneDnn() {
  const char* asked = std::getenv("PADDOCK_PRODUCTS");
  const std::string wanted = asked == nullptr ? "" : asked;
  TORCH_CHECK(wanted.empty() || wanted == "onednn" || wanted == "mkl", "PADDOCK_PRODUCTS: expected onednn or mkl, received ", wanted);
  if (wanted == "mkl" || (wanted.empty() && !hasWideUnitsWithoutMkl())) return false;
  const bool has = hasOneDnn();
  TORCH_CHECK(has || wanted.empty(), "PADDOCK_PRODUCTS=onednn: this libtorch has no oneDNN that multiplies float32");
  return has;
}

bool usesOneDnn() {
  static const bool answer = chooseOneDnn();
  return answer;
}

/// Rows or columns one after the other, which both libraries read in place.
bool isDense(T m) {
  const int64_t rows = m.stride(0), columns = m.stride(1);
  return (columns == 1 && rows >= m.size(1)) || (rows == 1 && columns >= m.size(0));
}

bool suitsOneDnn(T a, T b) {
  if (!a.is_cpu() || a.scalar_type() != at::kFloat || b.scalar_type() != at::kFloat || a.dim() != 2 || b.dim() != 2) return false;
  const int64_t m = a.size(0), k = a.size(1), n = b.size(1);
  return k == b.size(0) && m >= kLeastRows && n >= kLeastRows && m * n * k >= kWorthwhile && isDense(a) && isDense(b);
}

}  // namespace

at::Tensor product(T a_MK, T b_KN) {
  if (!suitsOneDnn(a_MK, b_KN) || !usesOneDnn()) return at::mm(a_MK, b_KN);
  at::Tensor result = at::empty({a_MK.size(0), b_KN.size(1)}, a_MK.options());
  at::native::mkldnn_matmul(a_MK, b_KN, result, /*beta=*/0, /*alpha=*/1);
  return result;
}

std::string productLibrary() {
  if (usesOneDnn()) return "oneDNN";
  return mkl_serv_cbwr_set == nullptr ? "ATen" : "MKL";
}

void askForReproducibleProducts() {
  constexpr int kAutoStrict = 2 | 0x10000;  // MKL_CBWR_AUTO | MKL_CBWR_STRICT
  if (mkl_serv_cbwr_set != nullptr && std::getenv("MKL_CBWR") == nullptr) mkl_serv_cbwr_set(kAutoStrict);
}

}  // namespace paddock
