// AMX with bf16 and 8-bit products, beside AVX-512: Sapphire Rapids and later.
//
// Tests/KernelModels compiles the same kernels on arrays that behave as the tile registers do. On a processor that has them they have not
// been run yet: neither the choice of this table nor its speed has been seen.
#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma,amx-tile,amx-int8,amx-bf16"))), apply_to = function)
#define CK_NAME(x) x##_amx
#define HAS_BF16_PAIRS
#define TABLE_NAME "amx"
#define TABLE_SYMBOL ck_table_amx
#define DOT_INT8(acc, a, b) (vi)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(a), (__m512i)(b))
#define HAS_AMX
#include "avx512.inc"
#include "table.inc"
#pragma clang attribute pop
#endif
