// AVX2 with FMA: Haswell, Zen and later.
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define CK_NAME(x) x##_avx2
#define CK_HAS_FMA 1
#define TABLE_NAME "avx2"
#define TABLE_SYMBOL ck_table_avx2
#define PANEL_ROWS 6
#define PASS_VECTORS 1
#include "table.inc"
#pragma clang attribute pop
#endif
