// The kernels of Shared/CKernels/avxvnni.c with vpdpbusd written out.
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#endif
#define CK_NAME(x) x##_avxvnni_model
#define CK_HAS_FMA 1
#define TABLE_NAME "avxvnni-model"
#define TABLE_SYMBOL kernel_model_avxvnni
#define DOT_INT8 dot_int8_avxvnni_model
#define PANEL_ROWS 6
#define PASS_VECTORS 1
#include "vector.inc"
// Four products of an unsigned and a signed byte are added to every sum; nothing saturates.
CK_INLINE vi dot_int8_avxvnni_model(vi acc, vi a, vi b) {
  for (int i = 0; i < 32; i += 8) acc += (a >> i & 0xff) * (b << (24 - i) >> 24);
  return acc;
}
#include "table.inc"
#if defined(__x86_64__)
#pragma clang attribute pop
#endif
