#define _GNU_SOURCE
#include "ckernels.h"

#include <stdatomic.h>

extern const ck_table ck_table_portable, ck_table_neon, ck_table_neonbf16, ck_table_avx2, ck_table_avxvnni, ck_table_avx512,
    ck_table_avx512vnni, ck_table_avx512bf16, ck_table_amx;

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

static int has_neonbf16(void) {
  const unsigned long features = HWCAP2_I8MM | HWCAP2_BF16;
  return (getauxval(AT_HWCAP2) & features) == features;
}
#elif defined(__aarch64__)
static int has_neonbf16(void) { return 0; }
#endif

#if defined(__x86_64__)
#include <cpuid.h>

static int has_avxvnni(void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

// Whether there are tile registers with bf16 and 8-bit products, of the size that the kernels take, and the operating system saves them.
static int has_amx(void) {
  const unsigned features = 1u << 22 | 1u << 24 | 1u << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & features) != features) return 0;
  // Palette 1: eight registers of 16 rows of 64 bytes.
  if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d) || b >> 16 < 8 || (b & 0xffff) != 64 || (c & 0xffff) < 16) return 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  const unsigned saved = 1u << 17 | 1u << 18;  // XTILECFG, XTILEDATA
  __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return (a & saved) == saved;
}

// Linux lets a process use the registers only after it has asked; all of its threads may then, those too that there are already. It
// refuses while a thread has a signal stack that could not hold them.
static int may_use_amx(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// Asked once: what the answer is based on does not change, and what was chosen once must stay.
static int amx_is_usable(void) {
  enum { UNKNOWN, NO, YES };
  static atomic_int known = UNKNOWN;
  int answer = atomic_load_explicit(&known, memory_order_relaxed);
  if (answer == UNKNOWN) {
    int expected = UNKNOWN;
    answer = has_amx() && may_use_amx() ? YES : NO;
    if (!atomic_compare_exchange_strong(&known, &expected, answer)) answer = expected;
  }
  return answer == YES;
}
#endif

const ck_table *ck_table_for(int isa) {
  switch (isa) {
    case CK_PORTABLE: return &ck_table_portable;
#if defined(__aarch64__)
    case CK_NEON: return &ck_table_neon;
    case CK_NEONBF16: return has_neonbf16() ? &ck_table_neonbf16 : NULL;
#endif
#if defined(__x86_64__)
    case CK_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &ck_table_avx2 : NULL;
    case CK_AVXVNNI: return ck_table_for(CK_AVX2) && has_avxvnni() ? &ck_table_avxvnni : NULL;
    case CK_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512vl")
                 ? &ck_table_avx512
                 : NULL;
    case CK_AVX512VNNI: return ck_table_for(CK_AVX512) && __builtin_cpu_supports("avx512vnni") ? &ck_table_avx512vnni : NULL;
    case CK_AVX512BF16: return ck_table_for(CK_AVX512VNNI) && __builtin_cpu_supports("avx512bf16") ? &ck_table_avx512bf16 : NULL;
#endif
#if defined(__x86_64__) && defined(__linux__)
    case CK_AMX: return ck_table_for(CK_AVX512BF16) && amx_is_usable() ? &ck_table_amx : NULL;
#endif
    default: return NULL;
  }
}
