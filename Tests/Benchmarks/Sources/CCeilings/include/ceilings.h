// What the processor can do at most: loops of independent multiply-adds in registers, and of loads from memory.
#pragma once
#include <stddef.h>

/// Operations (a multiply-add is two) that one run of `rounds` does; zero where this machine lacks the instruction. The result is a
/// product of the arithmetic, to keep it from being removed.
double ceiling_fp32(long rounds, float *result);
double ceiling_bf16(long rounds, float *result);
double ceiling_int8(long rounds, float *result);
/// Reads `bytes` (a multiple of 256) from memory.
double ceiling_read(const void *memory, size_t bytes, float *result);
/// Seconds of processor time that the process has used, over all threads.
double process_seconds(void);
