// NEON: every 64-bit ARM processor. Tests/check-arm64.sh runs it under an emulator; its speed has not been seen.
#if defined(__aarch64__)
#define CK_NAME(x) x##_neon
#define CK_HAS_FMA 1
#define TABLE_NAME "neon"
#define TABLE_SYMBOL ck_table_neon
#define PANEL_ROWS 6
#define PASS_VECTORS 1
#include "table.inc"
#endif
