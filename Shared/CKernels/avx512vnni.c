// AVX-512 with vpdpbusd: Cascade Lake, Ice Lake.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma"))), apply_to = function)
#define CK_NAME(x) x##_avx512vnni
#define TABLE_NAME "avx512vnni"
#define TABLE_SYMBOL ck_table_avx512vnni
#define DOT_INT8(acc, a, b) (vi)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(a), (__m512i)(b))
#include "avx512.inc"
#include "table.inc"
#pragma clang attribute pop
#endif
