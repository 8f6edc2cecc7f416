#include <string.h>

#include "ckernels.h"

// Formats that the products do not read, expanded to fp32. Every value is the product, or the difference of two products, that the
// format defines, each rounded once: the same bits on every machine, which is why contraction is off.

static float half(const uint8_t *p) {
  const uint32_t bits = (uint32_t)p[0] | (uint32_t)p[1] << 8, sign = (bits & 0x8000) << 16, rest = bits & 0x7fff;
  uint32_t word;
  float value;
  if (rest >= 0x7c00) {
    word = sign | 0x7f800000 | (rest & 0x3ff) << 13;
  } else if (rest >= 0x400) {
    word = sign | ((rest << 13) + 0x38000000);
  } else {
    value = (float)rest * 0x1p-24f;
    return sign ? -value : value;
  }
  memcpy(&value, &word, 4);
  return value;
}

// 8-bit floating point: `mantissa` bits below the exponent, whose bias is given; 0x7f alone is NaN in the format without infinity.
static float float8(uint8_t bits, int mantissa, int bias, int has_infinity) {
  const uint32_t magnitude = bits & 0x7f, exponent = magnitude >> mantissa, fraction = magnitude & ((1u << mantissa) - 1);
  const uint32_t sign = (uint32_t)(bits & 0x80) << 24;
  uint32_t word;
  float value;
  if (has_infinity ? exponent == 31 : magnitude == 0x7f) {
    word = sign | (has_infinity && fraction == 0 ? 0x7f800000 : 0x7fc00000);
  } else if (exponent == 0) {
    value = (float)fraction * (has_infinity ? 0x1p-16f : 0x1p-9f);
    return sign ? -value : value;
  } else {
    word = sign | (exponent + 127 - (uint32_t)bias) << 23 | fraction << (23 - mantissa);
  }
  memcpy(&value, &word, 4);
  return value;
}

static void float8_e4m3(float *out, const uint8_t *in, size_t blocks) {
  for (size_t i = 0; i < blocks; i++) out[i] = float8(in[i], 3, 7, 0);
}

static void float8_e5m2(float *out, const uint8_t *in, size_t blocks) {
  for (size_t i = 0; i < blocks; i++) out[i] = float8(in[i], 2, 15, 1);
}

// Two numbers of -8 … 7 a byte, the first in the low half.
static void int4(float *out, const uint8_t *in, size_t blocks) {
  for (size_t i = 0; i < blocks; i++, out += 2) {
    out[0] = (float)((int)((in[i] & 15u) ^ 8u) - 8);
    out[1] = (float)((int)(in[i] >> 4 ^ 8u) - 8);
  }
}

// MARK: 32 elements a block, with a scale; in the formats that end on _1 with an origin too

static void q8_0(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 34, out += 32) {
    const float d = half(in);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)in[2 + i];
  }
}

static void q4_0(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 18, out += 32) {
    const float d = half(in);
    for (int i = 0; i < 16; i++) {
      out[i] = d * (float)((in[2 + i] & 15) - 8);
      out[16 + i] = d * (float)((in[2 + i] >> 4) - 8);
    }
  }
}

static void q4_1(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 20, out += 32) {
    const float d = half(in), m = half(in + 2);
    for (int i = 0; i < 16; i++) {
      out[i] = d * (float)(in[4 + i] & 15) + m;
      out[16 + i] = d * (float)(in[4 + i] >> 4) + m;
    }
  }
}

// The fifth bits of a block's 32 numbers.
static uint32_t high_bits(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

static void q5_0(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 22, out += 32) {
    const float d = half(in);
    const uint32_t high = high_bits(in + 2);
    for (int i = 0; i < 16; i++) {
      out[i] = d * (float)((int)((in[6 + i] & 15u) | (high >> i & 1) << 4) - 16);
      out[16 + i] = d * (float)((int)(in[6 + i] >> 4 | (high >> (16 + i) & 1) << 4) - 16);
    }
  }
}

static void q5_1(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 24, out += 32) {
    const float d = half(in), m = half(in + 2);
    const uint32_t high = high_bits(in + 4);
    for (int i = 0; i < 16; i++) {
      out[i] = d * (float)((in[8 + i] & 15u) | (high >> i & 1) << 4) + m;
      out[16 + i] = d * (float)(in[8 + i] >> 4 | (high >> (16 + i) & 1) << 4) + m;
    }
  }
}

static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// 32 elements whose bytes hold element i and 16 + i.
static void iq4_group(float *out, const uint8_t *in, float scale) {
  for (int i = 0; i < 16; i++) {
    out[i] = scale * (float)iq4_levels[in[i] & 15];
    out[16 + i] = scale * (float)iq4_levels[in[i] >> 4];
  }
}

static void iq4_nl(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 18, out += 32) iq4_group(out, in + 2, half(in));
}

// MARK: 256 elements a block, in groups whose scales are numbers too

static void iq4_xs(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 136, out += 256) {
    const float d = half(in);
    const uint32_t high = (uint32_t)in[2] | (uint32_t)in[3] << 8;
    for (int group = 0; group < 8; group++) {
      const uint32_t low = in[4 + group / 2] >> (group % 2 * 4) & 15u;
      const int scale = (int)(low | (high >> (2 * group) & 3) << 4) - 32;
      iq4_group(out + 32 * group, in + 8 + 16 * group, d * (float)scale);
    }
  }
}

static void q2_k(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 84, out += 256) {
    const uint8_t *scales = in, *quarters = in + 16;
    const float d = half(in + 80), dmin = half(in + 82);
    for (int i = 0; i < 256; i++) {
      const float scale = d * (float)(scales[i / 16] & 15), origin = dmin * (float)(scales[i / 16] >> 4);
      const int number = quarters[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
      out[i] = scale * (float)number - origin;
    }
  }
}

static void q3_k(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 110, out += 256) {
    const uint8_t *high = in, *low = in + 32, *scales = in + 96;
    const float d = half(in + 108);
    for (int group = 0; group < 16; group++) {
      // Four bits of a scale are in the first eight bytes, the two above them in the last four.
      const int four = scales[group % 8] >> (group / 8 * 4) & 15, two = scales[8 + group % 4] >> (group / 4 * 2) & 3;
      const float scale = d * (float)((four | two << 4) - 32);
      for (int i = 16 * group; i < 16 * group + 16; i++) {
        const int bits = low[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3, isHigh = high[i % 32] >> (i / 32) & 1;
        out[i] = scale * (float)(isHigh ? bits : bits - 4);
      }
    }
  }
}

// Scale and origin of a group of 32, of six bits each, packed into twelve bytes.
static void scale_and_origin(const uint8_t *p, int group, int *scale, int *origin) {
  if (group < 4) {
    *scale = p[group] & 63;
    *origin = p[group + 4] & 63;
  } else {
    *scale = (p[group + 4] & 15) | p[group - 4] >> 6 << 4;
    *origin = p[group + 4] >> 4 | p[group] >> 6 << 4;
  }
}

static void q4_k(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 144, out += 256) {
    const float d = half(in), dmin = half(in + 2);
    for (int group = 0; group < 8; group++) {
      int scale, origin;
      scale_and_origin(in + 4, group, &scale, &origin);
      const float step = d * (float)scale, least = dmin * (float)origin;
      const uint8_t *pairs = in + 16 + group / 2 * 32;
      for (int i = 0; i < 32; i++) out[32 * group + i] = step * (float)(pairs[i] >> (group % 2 * 4) & 15) - least;
    }
  }
}

static void q5_k(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 176, out += 256) {
    const float d = half(in), dmin = half(in + 2);
    const uint8_t *high = in + 16;
    for (int group = 0; group < 8; group++) {
      int scale, origin;
      scale_and_origin(in + 4, group, &scale, &origin);
      const float step = d * (float)scale, least = dmin * (float)origin;
      const uint8_t *pairs = in + 48 + group / 2 * 32;
      for (int i = 0; i < 32; i++) {
        const int number = (pairs[i] >> (group % 2 * 4) & 15) | (high[i] >> group & 1) << 4;
        out[32 * group + i] = step * (float)number - least;
      }
    }
  }
}

static void q6_k(float *out, const uint8_t *in, size_t blocks) {
  for (; blocks > 0; blocks--, in += 210, out += 256) {
    const uint8_t *low = in, *high = in + 128, *scales = in + 192;
    const float d = half(in + 208);
    for (int i = 0; i < 256; i++) {
      const int group = i / 32 % 4;
      const int four = low[i / 128 * 64 + group % 2 * 32 + i % 32] >> (group / 2 * 4) & 15;
      const int two = high[i / 128 * 32 + i % 32] >> (2 * group) & 3;
      out[i] = d * (float)(int8_t)scales[i / 16] * (float)((four | two << 4) - 32);
    }
  }
}

static const struct {
  size_t elements, bytes;
  void (*expand)(float *out, const uint8_t *in, size_t blocks);
} formats[CK_BLOCK_FORMATS] = {
    [CK_F8_E4M3] = {1, 1, float8_e4m3}, [CK_F8_E5M2] = {1, 1, float8_e5m2}, [CK_INT4] = {2, 1, int4},
    [CK_Q4_0] = {32, 18, q4_0},         [CK_Q4_1] = {32, 20, q4_1},         [CK_Q5_0] = {32, 22, q5_0},
    [CK_Q5_1] = {32, 24, q5_1},         [CK_Q8_0] = {32, 34, q8_0},         [CK_Q2_K] = {256, 84, q2_k},
    [CK_Q3_K] = {256, 110, q3_k},       [CK_Q4_K] = {256, 144, q4_k},       [CK_Q5_K] = {256, 176, q5_k},
    [CK_Q6_K] = {256, 210, q6_k},       [CK_IQ4_NL] = {32, 18, iq4_nl},     [CK_IQ4_XS] = {256, 136, iq4_xs},
};

size_t ck_block_elements(int format) { return formats[format].elements; }
size_t ck_block_bytes(int format) { return formats[format].bytes; }
void ck_expand(float *out, const void *in, int format, size_t blocks) { formats[format].expand(out, in, blocks); }
