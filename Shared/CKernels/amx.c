// AMX with bf16 and 8-bit products, beside AVX-512: Sapphire Rapids and later.
//
// Tests/KernelModels compiles the same kernels on arrays that behave as the tile registers do. On a processor that has them they have not
// been run yet: neither the choice of this table nor its speed has been seen.
#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma,amx-tile,amx-int8,amx-bf16"))), apply_to = function)
#define CK_NAME(x) x##_amx
#define CK_HAS_FMA 1
#define MAXIMUM(a, b) (vf)_mm512_max_ps((__m512)(a), (__m512)(b))
#define MINIMUM(a, b) (vf)_mm512_min_ps((__m512)(a), (__m512)(b))
#define SCALE_BY_POWER(x, n) (vf)_mm512_scalef_ps((__m512)(x), (__m512)(n))
#define PAIR_BF16 pair_bf16_amx
#define TABLE_NAME "amx"
#define TABLE_SYMBOL ck_table_amx
#define WEIGHT_BYTES weight_bytes_amx
#define ROUNDED_PRODUCT(a, b) (vs)_mm512_mulhrs_epi16((__m512i)(a), (__m512i)(b))
#define SELECT_BYTES(bytes, indices) \
  (vu)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(bytes))), (__m512i)(indices))
#define PANEL_ROWS 8
#define PASS_VECTORS 3
#define DOT_INT8(acc, a, b) (vi)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(a), (__m512i)(b))
#define HAS_AMX
#include "vector.inc"
CK_INLINE vu pair_bf16_amx(vf a, vf b) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                              19, 3, 18, 2, 17, 1, 16, 0);
  return (vu)_mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a));
}
// Saturating packs leave each 128-bit lane with four bytes of each vector, which a shuffle sets side by side.
CK_INLINE vu weight_bytes_amx(vf a, vf b, vf c, vf d) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m512i low = _mm512_packus_epi32(_mm512_cvtps_epi32((__m512)a), _mm512_cvtps_epi32((__m512)b));
  const __m512i high = _mm512_packus_epi32(_mm512_cvtps_epi32((__m512)c), _mm512_cvtps_epi32((__m512)d));
  return (vu)_mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order);
}
#include "table.inc"
#pragma clang attribute pop
#endif
