// Runs the C kernels that every processor has, and the models of others (Tests/KernelModels), on numbers made from a seed, and prints for
// each operation the checksum of its result. Tests/check-arm64.sh runs it on two architectures, whose lines must be the same.
//
// What has a short plain version is compared with it, in double precision; the tests of Swift do so for everything, on one architecture.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckernels.h"
#include "kernelmodels.h"

static int failed;

static uint64_t random_state;

static uint64_t random_word(void) {
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static void *memory(size_t bytes) {
  void *block = aligned_alloc(64, (bytes + 127) / 64 * 64);
  if (!block) abort();
  return memset(block, 0, (bytes + 127) / 64 * 64);
}

// Roughly normal numbers: sums of the quarters of a word.
static float *numbers(size_t count, float scale) {
  float *x = memory(count * sizeof(float));
  for (size_t i = 0; i < count; i++) {
    const uint64_t word = random_word();
    const int32_t sum = (int32_t)(word & 0xffff) + (int32_t)(word >> 16 & 0xffff) + (int32_t)(word >> 32 & 0xffff) + (int32_t)(word >> 48);
    x[i] = (float)(sum - 131070) * (1.0f / 37837.0f) * scale;
  }
  return x;
}

static void report(const ck_table *t, const char *name, const void *result, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const uint8_t *)result)[i]) * 0x100000001b3u;
  printf("%s %s %016llx\n", t->name, name, (unsigned long long)hash);
}

static void compare(const ck_table *t, const char *name, const float *result, const double *expected, size_t count, double bound) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < count; i++) {
    difference += (result[i] - expected[i]) * (result[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  const double error = sqrt(difference / norm);
  if (error <= bound) return;
  fprintf(stderr, "%s %s: error %g, allowed %g\n", t->name, name, error, bound);
  failed = 1;
}

static float bf16_rounded(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  memcpy(&x, &bits, sizeof x);
  return x;
}

typedef struct {
  const ck_matmul *matmul;
  const ck_gemm *gemm;
} product_context;

enum { TILE_ROWS_AT_A_TIME = 96 };

// The tile of an index: pieces of the rows, of two panels each.
static void product_tile(void *context, size_t index) {
  const product_context *c = context;
  const size_t row_tiles = (c->gemm->m + TILE_ROWS_AT_A_TIME - 1) / TILE_ROWS_AT_A_TIME;
  const size_t row = index % row_tiles * TILE_ROWS_AT_A_TIME, panel = index / row_tiles * 2;
  const size_t left = c->gemm->m - row, rows = left < TILE_ROWS_AT_A_TIME ? left : TILE_ROWS_AT_A_TIME;
  const size_t all = (c->gemm->n + c->matmul->panel_columns - 1) / c->matmul->panel_columns, panels = all - panel < 2 ? all - panel : 2;
  void *scratch = memory(c->matmul->tile_scratch_bytes(rows, panels, c->gemm->b_format));
  c->matmul->tile(c->gemm, row, rows, panel, panels, scratch);
  free(scratch);
}

enum { FP32, BF16, INT8, Q4 };

// silu(x · wᵀ + bias).
static void product(const ck_table *t, ck_pool *pool, int type, size_t m, size_t n, size_t k) {
  const ck_matmul *matmul = type == FP32 ? &t->fp32 : type == BF16 ? &t->bf16 : &t->int8;
  const int is_quantized = type == INT8 || type == Q4;
  float *x = numbers(m * k, 1), *w = numbers(n * k, 0.3f), *bias = numbers(n, 1), *out = memory(m * n * sizeof(float));
  float *row_scales = memory(m * sizeof(float)), *scales = memory(n * sizeof(float));
  int8_t *quantized = memory(n * k);
  int32_t *offsets = memory(n * sizeof(int32_t));
  void *a = memory(matmul->packed_a_bytes(m, k)), *b = memory(type == Q4 ? t->q4_bytes(n, k) : matmul->packed_b_bytes(n, k));
  t->quantize_int8(quantized, scales, w, CK_FP32, n, k);
  t->int8_offsets(offsets, quantized, n, k);
  matmul->pack_a(a, row_scales, x, CK_FP32, k, m, k);
  if (type == Q4)
    for (size_t column = 0; column < n; column += matmul->panel_columns) {
      const size_t columns = n - column < matmul->panel_columns ? n - column : matmul->panel_columns;
      t->pack_q4((char *)b + t->q4_bytes(column, k), scales + column, offsets + column, w + column * k, CK_FP32, k, columns, k);
    }
  else
    matmul->pack_b(b, type == INT8 ? (void *)quantized : w, CK_FP32, k, n, k);
  ck_gemm gemm = {.m = m, .n = n, .k = k, .a = a, .b = b, .b_format = type == Q4 ? CK_Q4 : CK_PLAIN};
  gemm.epilogue = (ck_epilogue){.bias = bias, .activation = CK_SILU, .mode = CK_STORE, .out = out, .out_type = CK_FP32, .ldo = n};
  if (is_quantized) {
    gemm.epilogue.row_scale = row_scales;
    gemm.epilogue.column_scale = scales;
    gemm.epilogue.column_offset = offsets;
  }
  product_context context = {matmul, &gemm};
  const size_t panels = (n + matmul->panel_columns - 1) / matmul->panel_columns;
  ck_pool_run(pool, (m + TILE_ROWS_AT_A_TIME - 1) / TILE_ROWS_AT_A_TIME * ((panels + 1) / 2), product_tile, &context);

  double *expected = memory(m * n * sizeof(double));
  for (size_t row = 0; row < m; row++)
    for (size_t column = 0; column < n; column++) {
      double sum = bias[column];
      for (size_t i = 0; i < k; i++) {
        const float p = x[row * k + i], q = w[column * k + i];
        sum += type == BF16 ? (double)bf16_rounded(p) * bf16_rounded(q) : (double)p * q;
      }
      expected[row * n + column] = sum / (1 + exp(-sum));
    }
  char name[80];
  snprintf(name, sizeof name, "%s product %zux%zux%zu", type == FP32 ? "fp32" : type == BF16 ? "bf16" : type == INT8 ? "int8" : "q4", m, n, k);
  compare(t, name, out, expected, m * n, type == Q4 ? 0.08 : type == INT8 ? 0.02 : 2e-6);
  report(t, name, out, m * n * sizeof(float));
  void *blocks[] = {x, w, bias, out, row_scales, scales, quantized, offsets, a, b, expected};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
}

static void attention(const ck_table *t, int type, size_t n, size_t m, size_t d, int causal) {
  const ck_attention_kernel *kernel = type == FP32 ? &t->fp32_attention : type == BF16 ? &t->bf16_attention : &t->int8_attention;
  float *q = numbers(n * d, 1), *k = numbers(m * d, 1), *v = numbers(m * d, 1), *out = memory(n * d * sizeof(float));
  if (type != FP32) {
    for (size_t i = 0; i < n * d; i++) q[i] = bf16_rounded(q[i]);
    for (size_t i = 0; i < m * d; i++) k[i] = bf16_rounded(k[i]), v[i] = bf16_rounded(v[i]);
  }
  void *keys = memory(kernel->packed_keys_bytes(m, d)), *values = memory(kernel->packed_values_bytes(m, d));
  void *scratch = memory(kernel->scratch_bytes(d)), *result = memory(n * d * sizeof(float));
  kernel->pack_keys(keys, k, CK_FP32, m, 1, d, 0);
  kernel->pack_values(values, v, CK_FP32, m, 1, d, 0);
  const ck_attention g = {.n = n, .m = m, .heads = 1, .head_dim = d, .causal = causal, .q = q, .q_type = CK_FP32, .k = keys, .v = values, .out = result};
  kernel->run(&g, 0, 0, n, scratch);
  t->convert(out, CK_FP32, result, type == FP32 ? CK_FP32 : CK_BF16, n * d);

  double *expected = memory(n * d * sizeof(double)), *weights = memory(m * sizeof(double));
  for (size_t i = 0; i < n; i++) {
    double total = 0;
    for (size_t j = 0; j < m; j++) {
      double score = 0;
      for (size_t c = 0; c < d; c++) score += (double)q[i * d + c] * k[j * d + c];
      weights[j] = causal && j + n > i + m ? 0 : exp(score / sqrt((double)d));
      total += weights[j];
    }
    for (size_t j = 0; j < m; j++)
      for (size_t c = 0; c < d; c++) expected[i * d + c] += weights[j] / total * v[j * d + c];
  }
  char name[80];
  snprintf(name, sizeof name, "%s attention %zux%zux%zu", type == FP32 ? "fp32" : type == BF16 ? "bf16" : "int8", n, m, d);
  compare(t, name, out, expected, n * d, type == FP32 ? 2e-6 : type == BF16 ? 0x1p-8 : 0.02);
  report(t, name, out, n * d * sizeof(float));
  void *blocks[] = {q, k, v, out, keys, values, scratch, result, expected, weights};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
}

static void convolution(const ck_table *t, size_t height, size_t width, size_t in, size_t outs) {
  const size_t columns = t->fp32.panel_columns, panels = (outs + columns - 1) / columns;
  float *x = numbers(height * width * in, 1), *w = numbers(outs * in * 9, 0.1f), *bias = numbers(outs, 1);
  float *packed = memory(ck_winograd_weight_bytes(outs, in, columns)), *out = memory(height * width * outs * sizeof(float));
  for (size_t panel = 0; panel < panels; panel++) ck_winograd_weights(packed, w, outs, in, columns, panel);
  const ck_convolution g = {.height = height, .width = width, .in_channels = in, .out_channels = outs, .x = x, .weights = packed, .bias = bias, .out = out};
  void *scratch = memory(t->convolution_scratch_bytes(&g));
  const size_t tiles = (height + 3) / 4 * ((width + 3) / 4);
  for (size_t tile = 0; tile < tiles; tile += CK_WINOGRAD_TILES)
    t->convolution(&g, tile, tiles - tile < CK_WINOGRAD_TILES ? tiles - tile : CK_WINOGRAD_TILES, scratch);

  double *expected = memory(height * width * outs * sizeof(double));
  for (size_t y = 0; y < height; y++)
    for (size_t column = 0; column < width; column++)
      for (size_t o = 0; o < outs; o++) {
        double sum = bias[o];
        for (size_t tap = 0; tap < 9; tap++) {
          const size_t sy = y + tap / 3, sx = column + tap % 3;  // one more than the pixel's place
          if (sy < 1 || sy > height || sx < 1 || sx > width) continue;
          for (size_t c = 0; c < in; c++) sum += (double)x[((sy - 1) * width + sx - 1) * in + c] * w[(o * in + c) * 9 + tap];
        }
        expected[(y * width + column) * outs + o] = sum;
      }
  compare(t, "convolution", out, expected, height * width * outs, 4e-6);
  report(t, "convolution", out, height * width * outs * sizeof(float));
  void *blocks[] = {x, w, bias, packed, out, scratch, expected};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
}

static void elementwise(const ck_table *t) {
  enum { ROWS = 7, WIDTH = 96, COUNT = ROWS * WIDTH };
  float *x = numbers(COUNT, 4), *y = numbers(COUNT, 2), *w = numbers(WIDTH, 1), *s = numbers(WIDTH, 1), *out = memory(COUNT * sizeof(float));
  uint16_t *narrow = memory(COUNT * 2);
#define REPORT(name, ...) __VA_ARGS__, report(t, name, out, COUNT * sizeof(float))
  REPORT("exp", t->exp(out, x, COUNT));
  REPORT("sigmoid", t->sigmoid(out, x, COUNT));
  REPORT("silu", t->silu(out, x, COUNT));
  REPORT("gelu_tanh", t->gelu_tanh(out, x, COUNT));
  REPORT("rms_norm", t->rms_norm(out, CK_FP32, x, w, ROWS, WIDTH, 1e-6f));
  REPORT("layer_norm_modulate", t->layer_norm_modulate(out, CK_FP32, x, w, s, ROWS, WIDTH, 1e-6f));
  REPORT("silu_multiply", t->silu_multiply(out, CK_FP32, x, y, CK_FP32, COUNT));
  REPORT("channel_rms_norm", t->channel_rms_norm(out, x, w, ROWS, WIDTH, 1));
  REPORT("rotate", t->rotate(out, x, CK_FP32, COUNT / 16 * 16, 16));
  REPORT("head_norm_rotary", memcpy(out, x, COUNT * sizeof(float)),
         t->head_norm_rotary(out, CK_FP32, ROWS, 2, WIDTH / 2, w, 1e-6f, y, y + COUNT / 2, CK_INTERLEAVED));
  t->convert(narrow, CK_BF16, x, CK_FP32, COUNT);
  report(t, "convert", narrow, COUNT * 2);
  void *blocks[] = {x, y, w, s, out, narrow};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
}

// Random blocks without infinities and NaN, whose signs architectures choose.
static void expansion(const ck_table *t) {
  for (int format = 0; format < CK_BLOCK_FORMATS; format++) {
    enum { BLOCKS = 8 };
    uint8_t *in = memory(BLOCKS * ck_block_bytes(format));
    float *out = memory(BLOCKS * ck_block_elements(format) * sizeof(float));
    for (size_t i = 0; i < BLOCKS * ck_block_bytes(format); i++) {
      in[i] = (uint8_t)random_word();
      if ((in[i] & 0x7c) == 0x7c) in[i] ^= 0x40;
    }
    ck_expand(out, in, format, BLOCKS);
    char name[32];
    snprintf(name, sizeof name, "expand %d", format);
    report(t, name, out, BLOCKS * ck_block_elements(format) * sizeof(float));
    free(in);
    free(out);
  }
}

int main(void) {
  const ck_table *tables[] = {
      ck_table_for(CK_PORTABLE), kernel_model(MODEL_AVXVNNI), kernel_model(MODEL_AMX),
#if defined(__aarch64__)
      ck_table_for(CK_NEON), ck_table_for(CK_NEONBF16),
#endif
  };
  ck_pool *pool = ck_pool_create(3, 1);
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    const ck_table *t = tables[i];
    if (!t) return fprintf(stderr, "this processor lacks a table or cannot run a model\n"), 1;
    random_state = 42;
    for (int type = FP32; type <= Q4; type++) {
      const size_t shapes[][3] = {{1, 1, 1}, {7, 64, 64}, {13, 50, 63}, {33, 97, 130}, {37, 24, 48}, {2, 97, 3420}, {100, 145, 1100}};
      for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) product(t, pool, type, shapes[s][0], shapes[s][1], shapes[s][2]);
      if (type == Q4) continue;
      attention(t, type, 5, 7, 16, 0);
      attention(t, type, 60, 500, 72, 0);
      if (type != INT8) attention(t, type, 37, 50, 13, 1);
    }
    convolution(t, 13, 10, 20, 50);
    elementwise(t);
  }
  expansion(tables[0]);
  ck_pool_destroy(pool);
  return failed;
}
