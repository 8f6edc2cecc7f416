// AVX-512 as of Skylake-X: F, BW, DQ, VL.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#define CK_NAME(x) x##_avx512
#define CK_HAS_FMA 1
#define MAXIMUM(a, b) (vf)_mm512_max_ps((__m512)(a), (__m512)(b))
#define MINIMUM(a, b) (vf)_mm512_min_ps((__m512)(a), (__m512)(b))
#define SCALE_BY_POWER(x, n) (vf)_mm512_scalef_ps((__m512)(x), (__m512)(n))
#define TABLE_NAME "avx512"
#define TABLE_SYMBOL ck_table_avx512
#define DOT_INT16(acc, a, b) ((acc) + (vi)_mm512_madd_epi16((__m512i)(a), (__m512i)(b)))
#define WEIGHT_BYTES weight_bytes_avx512
#define ROUNDED_PRODUCT(a, b) (vs)_mm512_mulhrs_epi16((__m512i)(a), (__m512i)(b))
#define SELECT_BYTES(bytes, indices) \
  (vu)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(bytes))), (__m512i)(indices))
#define PANEL_ROWS 8
#define PASS_VECTORS 3
#include "vector.inc"
// Saturating packs leave each 128-bit lane with four bytes of each vector, which a shuffle sets side by side.
CK_INLINE vu weight_bytes_avx512(vf a, vf b, vf c, vf d) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m512i low = _mm512_packus_epi32(_mm512_cvtps_epi32((__m512)a), _mm512_cvtps_epi32((__m512)b));
  const __m512i high = _mm512_packus_epi32(_mm512_cvtps_epi32((__m512)c), _mm512_cvtps_epi32((__m512)d));
  return (vu)_mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order);
}
#include "table.inc"
#pragma clang attribute pop
#endif
