// The tile registers of AMX as arrays, and the instructions on them under the names of their intrinsics; as the description of each
// instruction in Intel's manual says (volume 2). What a processor answers with a fault ends the process.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { MODEL_REGISTERS = 8, MODEL_ROWS = 16, MODEL_ROW_BYTES = 64 };

typedef struct {
  int palette;
  int row_bytes[MODEL_REGISTERS], rows[MODEL_REGISTERS];
  uint8_t data[MODEL_REGISTERS][MODEL_ROWS][MODEL_ROW_BYTES];
} model_registers;

// Every thread has its own.
static _Thread_local model_registers registers;

static inline void model_require(int condition) {
  if (!condition) __builtin_trap();
}

static void model_release(void) { memset(&registers, 0, sizeof registers); }

// ldtilecfg: 64 bytes with the palette, two bytes for the width of each register from byte 16 on, one for its height from byte 48 on. All
// registers become zero.
static void model_configure(const void *configuration) {
  const uint8_t *bytes = configuration;
  model_release();
  model_require(bytes[0] == 1 && bytes[1] == 0);
  for (int i = 2; i < 16; i++) model_require(bytes[i] == 0);
  registers.palette = 1;
  for (int i = 0; i < 16; i++) {
    const int width = bytes[16 + 2 * i] | bytes[17 + 2 * i] << 8, height = bytes[48 + i];
    if (i >= MODEL_REGISTERS) {
      model_require(width == 0 && height == 0);
      continue;
    }
    model_require(width <= MODEL_ROW_BYTES && height <= MODEL_ROWS && (width == 0) == (height == 0));
    registers.row_bytes[i] = width;
    registers.rows[i] = height;
  }
}

static void model_require_configured(int r) { model_require(registers.palette == 1 && registers.rows[r] > 0 && registers.row_bytes[r] % 4 == 0); }

static void model_zero(int r) {
  model_require_configured(r);
  memset(registers.data[r], 0, sizeof registers.data[r]);
}

// What lies beyond the configured rows and bytes becomes zero.
static void model_load(int r, const void *base, size_t stride) {
  model_zero(r);
  for (int row = 0; row < registers.rows[r]; row++)
    memcpy(registers.data[r][row], (const char *)base + (size_t)row * stride, (size_t)registers.row_bytes[r]);
}

static void model_store(int r, void *base, size_t stride) {
  model_require_configured(r);
  for (int row = 0; row < registers.rows[r]; row++)
    memcpy((char *)base + (size_t)row * stride, registers.data[r][row], (size_t)registers.row_bytes[r]);
}

static void model_require_product(int c, int a, int b) {
  model_require_configured(c);
  model_require_configured(a);
  model_require_configured(b);
  model_require(c != a && c != b && a != b);
  model_require(registers.rows[c] == registers.rows[a] && registers.row_bytes[a] == 4 * registers.rows[b] &&
                registers.row_bytes[c] == registers.row_bytes[b]);
}

// Subnormal numbers count as zero, coming in and going out.
static inline float model_flushed(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7f800000u) == 0) bits &= 0x80000000u;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline float model_bf16(const uint8_t *bytes) {
  const uint32_t bits = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 24;
  float x;
  memcpy(&x, &bits, sizeof x);
  return model_flushed(x);
}

// tdpbf16ps: for each sum the products of even and of odd numbers are added up apart, from zero on, with one rounding each (to nearest even);
// then both to one another, and that to what was there.
static void model_dot_bf16(int c, int a, int b) {
  model_require_product(c, a, b);
  for (int row = 0; row < registers.rows[c]; row++) {
    float even[MODEL_ROW_BYTES / 4] = {0}, odd[MODEL_ROW_BYTES / 4] = {0}, sums[MODEL_ROW_BYTES / 4];
    for (int k = 0; k < registers.row_bytes[a] / 4; k++) {
      const uint8_t *pair = registers.data[a][row] + 4 * k;
      const float x = model_bf16(pair), y = model_bf16(pair + 2);
      for (int column = 0; column < registers.row_bytes[c] / 4; column++) {
        const uint8_t *other = registers.data[b][k] + 4 * column;
        even[column] = model_flushed(__builtin_fmaf(x, model_bf16(other), even[column]));
        odd[column] = model_flushed(__builtin_fmaf(y, model_bf16(other + 2), odd[column]));
      }
    }
    memcpy(sums, registers.data[c][row], sizeof sums);
    for (int column = 0; column < registers.row_bytes[c] / 4; column++)
      sums[column] = model_flushed(model_flushed(sums[column]) + model_flushed(even[column] + odd[column]));
    memcpy(registers.data[c][row], sums, sizeof sums);
  }
}

// tdpbusd and tdpbsud: bytes of a unsigned and of b signed, or the other way round; sums wrap.
static inline void model_dot_bytes(int c, int a, int b, int a_is_signed) {
  model_require_product(c, a, b);
  for (int row = 0; row < registers.rows[c]; row++) {
    uint32_t sums[MODEL_ROW_BYTES / 4];
    memcpy(sums, registers.data[c][row], sizeof sums);
    for (int k = 0; k < registers.row_bytes[a] / 4; k++)
      for (int column = 0; column < registers.row_bytes[c] / 4; column++)
        for (int i = 0; i < 4; i++) {
          const uint8_t x = registers.data[a][row][4 * k + i], y = registers.data[b][k][4 * column + i];
          sums[column] += (uint32_t)(a_is_signed ? (int8_t)x * y : x * (int8_t)y);
        }
    memcpy(registers.data[c][row], sums, sizeof sums);
  }
}

#define _tile_loadconfig(configuration) model_configure(configuration)
#define _tile_release() model_release()
#define _tile_zero(r) model_zero(r)
#define _tile_loadd(r, base, stride) model_load(r, base, stride)
#define _tile_stored(r, base, stride) model_store(r, base, stride)
#define _tile_dpbf16ps(c, a, b) model_dot_bf16(c, a, b)
#define _tile_dpbusd(c, a, b) model_dot_bytes(c, a, b, 0)
#define _tile_dpbsud(c, a, b) model_dot_bytes(c, a, b, 1)
