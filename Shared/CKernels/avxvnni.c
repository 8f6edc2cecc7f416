// AVX2 with vpdpbusd on 256 bits: Alder Lake and later without AVX-512, Sierra Forest. (Zen 5 has it too, and AVX-512.)
//
// Tests/KernelModels compiles the same kernels with the instruction written out.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#define CK_NAME(x) x##_avxvnni
#define TABLE_NAME "avxvnni"
#define TABLE_SYMBOL ck_table_avxvnni
#define DOT_INT8 dot_int8_avxvnni
#include "avx2.inc"
// On both halves.
CK_INLINE vi dot_int8_avxvnni(vi acc, vi a, vi b) {
  const CK_NAME(halves) x = {a}, y = {b};
  CK_NAME(halves) sums = {acc};
  sums.halves[0] = _mm256_dpbusd_avx_epi32(sums.halves[0], x.halves[0], y.halves[0]);
  sums.halves[1] = _mm256_dpbusd_avx_epi32(sums.halves[1], x.halves[1], y.halves[1]);
  return sums.whole;
}
#include "table.inc"
#pragma clang attribute pop
#endif
