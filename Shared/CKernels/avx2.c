// AVX2 with FMA: Haswell, Zen and later.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define CK_NAME(x) x##_avx2
#define TABLE_NAME "avx2"
#define TABLE_SYMBOL ck_table_avx2
#define DOT_INT16 dot_int16_avx2
#include "avx2.inc"
// vpmaddwd on both halves.
CK_INLINE vi dot_int16_avx2(vi acc, vi a, vi b) {
  const CK_NAME(halves) x = {a}, y = {b};
  CK_NAME(halves) products;
  products.halves[0] = _mm256_madd_epi16(x.halves[0], y.halves[0]);
  products.halves[1] = _mm256_madd_epi16(x.halves[1], y.halves[1]);
  return acc + products.whole;
}
#include "table.inc"
#pragma clang attribute pop
#endif
