// AVX-512 with vdpbf16ps: Cooper Lake, Sapphire Rapids, Zen 4 and later.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma"))), apply_to = function)
#define CK_NAME(x) x##_avx512bf16
#define CK_HAS_FMA 1
#define MAXIMUM(a, b) (vf)_mm512_max_ps((__m512)(a), (__m512)(b))
#define SCALE_BY_POWER(x, n) (vf)_mm512_scalef_ps((__m512)(x), (__m512)(n))
#define TABLE_NAME "avx512bf16"
#define TABLE_SYMBOL ck_table_avx512bf16
#define PANEL_ROWS 8
#define PASS_VECTORS 3
#define DOT_BF16(acc, a, b) (vf)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(a), (__m512bh)(b))
#include "table.inc"
#pragma clang attribute pop
#endif
