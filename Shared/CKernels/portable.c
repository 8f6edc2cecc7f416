// The table that runs anywhere: plain C, whatever vectors the target's baseline has.
#define CK_NAME(x) x##_portable
#define CK_HAS_FMA 0
#define TABLE_NAME "portable"
#define TABLE_SYMBOL ck_table_portable
#define PANEL_ROWS 2
#define PASS_VECTORS 1
#include "table.inc"
