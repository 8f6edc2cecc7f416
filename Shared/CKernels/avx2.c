// AVX2 with FMA: Haswell, Zen and later.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define CK_NAME(x) x##_avx2
#define CK_HAS_FMA 1
#define TABLE_NAME "avx2"
#define TABLE_SYMBOL ck_table_avx2
#define DOT_INT16 dot_int16_avx2
#define SELECT_BYTES select_bytes_avx2
#define PANEL_ROWS 6
#define PASS_VECTORS 1
#include "vector.inc"
// vpmaddwd on both halves.
CK_INLINE vi dot_int16_avx2(vi acc, vi a, vi b) {
  typedef union {
    vi whole;
    __m256i halves[2];
  } split;
  const split x = {a}, y = {b};
  split products;
  products.halves[0] = _mm256_madd_epi16(x.halves[0], y.halves[0]);
  products.halves[1] = _mm256_madd_epi16(x.halves[1], y.halves[1]);
  return acc + products.whole;
}
// vpshufb on both halves.
CK_INLINE vu select_bytes_avx2(const uint8_t *bytes, vu indices) {
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
