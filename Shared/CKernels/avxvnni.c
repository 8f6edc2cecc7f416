// AVX2 with vpdpbusd on 256 bits: Alder Lake and later without AVX-512, Sierra Forest. (Zen 5 has it too, and AVX-512.)
//
// Tests/KernelModels compiles the same kernels with the instruction written out.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#define CK_NAME(x) x##_avxvnni
#define CK_HAS_FMA 1
#define TABLE_NAME "avxvnni"
#define TABLE_SYMBOL ck_table_avxvnni
#define DOT_INT8 dot_int8_avxvnni
#define SELECT_BYTES select_bytes_avxvnni
#define PANEL_ROWS 6
#define PASS_VECTORS 1
#include "vector.inc"
// On both halves.
CK_INLINE vi dot_int8_avxvnni(vi acc, vi a, vi b) {
  typedef union {
    vi whole;
    __m256i halves[2];
  } split;
  const split x = {a}, y = {b};
  split sums = {acc};
  sums.halves[0] = _mm256_dpbusd_avx_epi32(sums.halves[0], x.halves[0], y.halves[0]);
  sums.halves[1] = _mm256_dpbusd_avx_epi32(sums.halves[1], x.halves[1], y.halves[1]);
  return sums.whole;
}
// vpshufb on both halves.
CK_INLINE vu select_bytes_avxvnni(const uint8_t *bytes, vu indices) {
  typedef union {
    vu whole;
    __m256i halves[2];
  } split;
  const split from = {indices};
  const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
  split selected;
  selected.halves[0] = _mm256_shuffle_epi8(table, from.halves[0]);
  selected.halves[1] = _mm256_shuffle_epi8(table, from.halves[1]);
  return selected.whole;
}
#include "table.inc"
#pragma clang attribute pop
#endif
