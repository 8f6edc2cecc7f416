// NEON with bfdot and usdot (Armv8.6): Neoverse V1, N2 and later, such as Graviton 3. As neon.c, it has run under an emulator only.
#if defined(__aarch64__)
#include <arm_neon.h>
#pragma clang attribute push(__attribute__((target("bf16,i8mm"))), apply_to = function)
#define CK_NAME(x) x##_neonbf16
#define CK_HAS_FMA 1
#define TABLE_NAME "neonbf16"
#define TABLE_SYMBOL ck_table_neonbf16
#define DOT_BF16(acc, a, b) dot_bf16_neonbf16((acc), (vi)(a), (vi)(b))
#define DOT_INT8(acc, a, b) dot_int8_neonbf16((vi)(acc), (vi)(a), (vi)(b))
#define PANEL_ROWS 6
#define PASS_VECTORS 1
#define SELECT_BYTES select_bytes_neonbf16
#include "vector.inc"
// A vector's quarters, as registers hold them.
typedef union {
  vi whole;
  vf sums;
  int32x4_t words[4];
  float32x4_t numbers[4];
  uint8x16_t bytes[4];
  int8x16_t signed_bytes[4];
  bfloat16x8_t pairs[4];
} quarters_neonbf16;
CK_INLINE vf dot_bf16_neonbf16(vf acc, vi a, vi b) {
  const quarters_neonbf16 x = {a}, y = {b};
  quarters_neonbf16 result = {.sums = acc};
  UNROLL for (int i = 0; i < 4; i++) result.numbers[i] = vbfdotq_f32(result.numbers[i], x.pairs[i], y.pairs[i]);
  return result.sums;
}
CK_INLINE vi dot_int8_neonbf16(vi acc, vi a, vi b) {
  const quarters_neonbf16 x = {a}, y = {b};
  quarters_neonbf16 result = {acc};
  UNROLL for (int i = 0; i < 4; i++) result.words[i] = vusdotq_s32(result.words[i], x.bytes[i], y.signed_bytes[i]);
  return result.whole;
}
CK_INLINE vu select_bytes_neonbf16(const uint8_t *bytes, vu indices) {
  const quarters_neonbf16 from = {(vi)indices};
  quarters_neonbf16 selected;
  UNROLL for (int i = 0; i < 4; i++) selected.bytes[i] = vqtbl1q_u8(vld1q_u8(bytes), from.bytes[i]);
  return (vu)selected.whole;
}
#include "table.inc"
#pragma clang attribute pop
#endif
