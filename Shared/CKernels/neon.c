// NEON: every 64-bit ARM processor. Tests/check-arm64.sh runs it under an emulator; its speed has not been seen.
#if defined(__aarch64__)
#include <arm_neon.h>
#define CK_NAME(x) x##_neon
#define CK_HAS_FMA 1
#define TABLE_NAME "neon"
#define TABLE_SYMBOL ck_table_neon
#define SELECT_BYTES select_bytes_neon
#define PANEL_ROWS 6
#define PASS_VECTORS 1
#include "vector.inc"
// One look-up for each quarter.
CK_INLINE vu select_bytes_neon(const uint8_t *bytes, vu indices) {
  typedef union {
    vu whole;
    uint8x16_t quarters[4];
  } split;
  const split from = {indices};
  split selected;
  UNROLL for (int i = 0; i < 4; i++) selected.quarters[i] = vqtbl1q_u8(vld1q_u8(bytes), from.quarters[i]);
  return selected.whole;
}
#include "table.inc"
#endif
