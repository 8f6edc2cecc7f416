// AVX-512 as of Skylake-X: F, BW, DQ, VL.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#define CK_NAME(x) x##_avx512
#define TABLE_NAME "avx512"
#define TABLE_SYMBOL ck_table_avx512
#define DOT_INT16(acc, a, b) ((acc) + (vi)_mm512_madd_epi16((__m512i)(a), (__m512i)(b)))
#include "avx512.inc"
#include "table.inc"
#pragma clang attribute pop
#endif
