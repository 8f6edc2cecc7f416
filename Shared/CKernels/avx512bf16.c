// AVX-512 with vdpbf16ps and vpdpbusd: Cooper Lake, Sapphire Rapids, Zen 4 and later.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma"))), apply_to = function)
#define CK_NAME(x) x##_avx512bf16
#define HAS_BF16_PAIRS
#define TABLE_NAME "avx512bf16"
#define TABLE_SYMBOL ck_table_avx512bf16
#define DOT_BF16(acc, a, b) (vf)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(a), (__m512bh)(b))
#define DOT_INT8(acc, a, b) (vi)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(a), (__m512i)(b))
#include "avx512.inc"
#include "table.inc"
#pragma clang attribute pop
#endif
