// The kernels of Shared/CKernels/amx.c on arrays instead of tile registers. Vectors have half the width there, which changes no bytes.
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#endif
#include "amx_registers.h"
#define CK_NAME(x) x##_amx_model
#define CK_HAS_FMA 1
#define TABLE_NAME "amx-model"
#define TABLE_SYMBOL kernel_model_amx
#define PANEL_ROWS 8
#define PASS_VECTORS 1
#define HAS_AMX
#include "table.inc"
#if defined(__x86_64__)
#pragma clang attribute pop
#endif
