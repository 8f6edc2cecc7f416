// The C kernels behind the Swift module Kernels, which is their only user. Shapes are stated above each operation.
//
// One table of functions per instruction set; the same source (table.inc and what it includes) is compiled once per
// table, around the micro-kernels of that instruction set. A function works on the part of the result it is given and never
// starts threads: the caller partitions over outputs, and no result depends on how.
//
// `Reference.name` after an operation is its plain version: a function of Tests/KernelsTests/Reference.swift that says in
// double precision and a few lines what is computed. The tests compare every table with it.
#pragma once
#include <stddef.h>
#include <stdint.h>

/// Element types. Arrays are dense and row-major; `type` parameters take these values.
enum { CK_FP32 = 0, CK_BF16 = 1, CK_FP16 = 2 };
/// Activations of a matmul's epilogue.
enum { CK_NONE = 0, CK_GELU_TANH = 1, CK_SILU = 2, CK_GELU = 3 };
/// What a matmul's epilogue does with its result.
enum { CK_STORE = 0, CK_ADD = 1 };
/// Rotary pairings: channels (2j, 2j+1), or (j, j + D/2).
enum { CK_INTERLEAVED = 0, CK_ROTATE_HALF = 1 };

/// Forms of packed weights: as the product takes them, or in 4 bits (ck_table.pack_q4, only for int8 products).
enum { CK_PLAIN = 0, CK_Q4 = 1 };

/// What happens to a sum on its way out: out = act(sum + addend + bias), or out += gate * act(sum + addend + bias). Integer sums are first
/// turned into row_scale * column_scale * (sum - column_offset). Activations: Reference.silu, Reference.geluTanh, Reference.gelu.
typedef struct ck_epilogue {
  const float *row_scale;        // [m]; null for floating-point sums
  const float *column_scale;     // [n]
  const int32_t *column_offset;  // [n]
  const float *addend;  // [rows, ldo] or null
  const float *bias;  // [n] or null
  const float *gate;  // [n] or null (1); only with CK_ADD
  const float *const *row_gates;  // [m]: a gate [n] for every row instead of one for all, or null
  int activation;
  int mode;           // CK_STORE, or CK_ADD (into fp32)
  void *out;          // [rows, ldo]
  int out_type;       // CK_FP32 or CK_BF16
  size_t ldo;         // elements between rows of out
} ck_epilogue;

/// out[m, n] = epilogue(a[m, k] · b[n, k]ᵀ), with both operands packed. Reference.product, of operands as
/// Reference.represented has them.
typedef struct ck_gemm {
  size_t m, n, k;
  const void *a;      // packed rows, see pack_a
  const void *b;      // packed panels, see pack_b
  int b_format;       // CK_PLAIN or CK_Q4
  // A second product, which is added to the sums: a [m, added_k] · b [n, added_k]ᵀ, with operands of fp32 where those above are,
  // else of bf16; added_k is 0 where there is none.
  size_t added_k;
  const void *added_a, *added_b;
  ck_epilogue epilogue;
} ck_gemm;

/// softmax(q kᵀ / √head_dim) v for the heads that read one kv head; q [n, heads*head_dim], out likewise, of the operand's type.
/// Reference.attention.
typedef struct ck_attention {
  size_t n, m, heads, head_dim;
  int causal;         // query i sees keys j <= i + (m - n)
  const void *q;
  int q_type;
  const void *k, *v;  // one kv head, packed by pack_keys and pack_values
  void *out;
} ck_attention;

/// A 3×3 convolution with zero padding of 1 of an image [height, width, in_channels] into [height, width, out_channels], fp32. Both
/// may be present in part: `x` and `out` point at their rows x_row and out_row. Reference.convolution,
/// Reference.upsampleNearest2x.
typedef struct ck_convolution {
  size_t height, width, in_channels, out_channels;
  size_t x_row, out_row;
  int upsampled;         // the image is given at half the height and width; its pixels count twice in both directions
  int add;               // the result is added to `out`
  const float *x;
  const float *weights;  // from ck_winograd_weights
  const float *bias;     // [out_channels]
  float *out;
} ck_convolution;

/// An image [height, width, channels], fp32, of which `x` holds the rows from x_row on: the input of a 3×3 convolution
/// with stride 2 and zero padding of a row below and a column on the right, into [height / 2, width / 2, ..].
/// Reference.downsampling.
typedef struct ck_patches {
  size_t height, width, channels;
  size_t x_row;
  const float *x;
} ck_patches;

/// Widest head of int8_attention.
enum { CK_INT8_HEAD_DIM = 256 };

/// Most tiles of 4×4 pixels of one call of `convolution`; the image's tiles are numbered row by row.
enum { CK_WINOGRAD_TILES = 48 };

/// The matmul of one operand type: packing, and tiles of the product.
///
/// Packed b: panels of `panel_columns` columns, each [k/group][panel_columns][group]. Packed a: panels of `panel_rows` rows, each
/// [k/group][panel_rows][group], or as tile registers take them. Both are zero-padded. The layout of b is the same in every table; that of a is private.
typedef struct ck_matmul {
  size_t panel_rows, panel_columns;
  size_t (*packed_a_bytes)(size_t rows, size_t k);
  size_t (*packed_b_bytes)(size_t columns, size_t k);
  /// Packs `rows` rows of a [rows, lda]; rows of one panel must be packed by one call. Quantized operands put each row's scale into
  /// row_scale [rows]; the others leave it alone.
  void (*pack_a)(void *packed, float *row_scale, const void *a, int type, size_t lda, size_t rows, size_t k);
  /// Packs `columns` rows of the weight w [columns, ldw]; columns of one panel must be packed by one call. The int8 product takes
  /// int8 weights, the others any floating-point type.
  void (*pack_b)(void *packed, const void *w, int type, size_t ldw, size_t columns, size_t k);
  /// Computes rows [row0, row0+rows) × panels [panel0, panel0+panels); row0 is a multiple of panel_rows.
  void (*tile)(const ck_gemm *g, size_t row0, size_t rows, size_t panel0, size_t panels, void *scratch);
  /// Scratch bytes that `tile` needs.
  size_t (*tile_scratch_bytes)(size_t rows, size_t panels, int b_format);
} ck_matmul;

/// Attention with one operand type.
typedef struct ck_attention_kernel {
  /// Bytes of the packed keys (values) of one kv head.
  size_t (*packed_keys_bytes)(size_t m, size_t head_dim);
  size_t (*packed_values_bytes)(size_t m, size_t head_dim);
  /// Packs one kv head of k or v [m, kv_heads*head_dim].
  void (*pack_keys)(void *packed, const void *k, int type, size_t m, size_t kv_heads, size_t head_dim, size_t head);
  void (*pack_values)(void *packed, const void *v, int type, size_t m, size_t kv_heads, size_t head_dim, size_t head);
  /// Scratch bytes that `run` needs, aligned to a cache line.
  size_t (*scratch_bytes)(size_t head_dim);
  /// `run` takes queries in blocks of this many; query0 is a multiple of it.
  size_t block;
  void (*run)(const ck_attention *g, size_t head, size_t query0, size_t queries, void *scratch);
} ck_attention_kernel;

typedef struct ck_table {
  const char *name;
  /// Whether products of bf16 have an instruction, which makes them faster than those of fp32; the same of int8.
  int has_bf16_dot, has_int8_dot;
  ck_matmul fp32, bf16, int8;
  ck_attention_kernel fp32_attention, bf16_attention;
  /// With 8-bit products: queries and keys have a scale per row, weights and values scales per tile of keys. Never
  /// causal, heads of at most CK_INT8_HEAD_DIM, at least one key; `out` is bf16. Every table gives the same bytes.
  ck_attention_kernel int8_attention;

  /// Multiplies groups of 16, 64 or 256 elements with a regular Hadamard matrix, orthonormal and its own inverse; n is a multiple of
  /// `group`. out may be x. Reference.rotated.
  void (*rotate)(float *out, const void *x, int type, size_t n, size_t group);
  /// q = w / scale rounded to nearest even, scale = max|w| / 127 per row; w [rows, k], q [rows, k], scales [rows].
  /// Reference.quantizedInt8, as q · scale.
  void (*quantize_int8)(int8_t *q, float *scales, const void *w, int type, size_t rows, size_t k);
  /// What the epilogue takes off each column: 128 Σ q; q [rows, k], offsets [rows].
  void (*int8_offsets)(int32_t *offsets, const int8_t *q, size_t rows, size_t k);
  /// Bytes of weights packed in 4 bits: a multiple of those of one panel.
  size_t (*q4_bytes)(size_t columns, size_t k);
  /// Quantizes and packs the weights [columns, ldw] of one panel for the int8 product: a weight is its row's scale times an 8-bit
  /// number that is one of 16 levels times a factor of 16 inputs, see q4.inc. scales and offsets [columns] are those of int8; k is at most
  /// 65536. Reference.numbersQ4.
  void (*pack_q4)(void *packed, float *scales, int32_t *offsets, const void *w, int type, size_t ldw, size_t columns, size_t k);
  /// As pack_q4, of numbers of -8 … 7 [columns, k], which stay what they are.
  void (*pack_q4_numbers)(void *packed, int32_t *offsets, const int8_t *numbers, size_t columns, size_t k);

  /// dst = src in another floating-point type; dst fp32 or bf16. Rounds to nearest even, NaN stays NaN.
  /// Reference.bf16Bits.
  void (*convert)(void *dst, int dst_type, const void *src, int src_type, size_t n);
  /// exp, sigmoid, silu and gelu of fp32 vectors. Reference.silu, Reference.geluTanh.
  void (*exp)(float *dst, const float *src, size_t n);
  void (*sigmoid)(float *dst, const float *src, size_t n);
  void (*silu)(float *dst, const float *src, size_t n);
  void (*gelu_tanh)(float *dst, const float *src, size_t n);
  /// x / sqrt(mean(x²) + epsilon) * weight; x [rows, d], weight [d]. Reference.rmsNorm.
  void (*rms_norm)(void *dst, int dst_type, const float *x, const float *weight, size_t rows, size_t d, float epsilon);
  /// (x - mean) / sqrt(variance + epsilon) * (1 + scale) + shift; x [rows, d], shift and scale [d].
  /// Reference.layerNormModulate.
  void (*layer_norm_modulate)(void *dst, int dst_type, const float *x, const float *shift, const float *scale, size_t rows, size_t d, float epsilon);
  /// silu(gate) * up, elementwise. Reference.siluMultiply.
  void (*silu_multiply)(void *dst, int dst_type, const void *gate, const void *up, int src_type, size_t n);
  /// a += b.
  void (*add)(void *a, int a_type, const void *b, int b_type, size_t n);
  /// In place on x [rows, heads*head_dim]: RMS norm of each head (weight [head_dim] or null), then rotation by cos, sin [rows, head_dim/2].
  /// Reference.headNormRotary.
  void (*head_norm_rotary)(void *x, int type, size_t rows, size_t heads, size_t head_dim, const float *weight, float epsilon, const float *cos, const float *sin, int style);
  /// x / max(‖x‖₂, 1e-12) * √c * gamma, then silu if asked; x [pixels, c]. dst may be x.
  /// Reference.channelRMSNorm.
  void (*channel_rms_norm)(float *dst, const float *x, const float *gamma, size_t pixels, size_t c, int silu);
  /// Computes tiles [tile0, tile0 + tiles) of a convolution.
  void (*convolution)(const ck_convolution *g, size_t tile0, size_t tiles, void *scratch);
  size_t (*convolution_scratch_bytes)(const ck_convolution *g);
  /// Packs the 3×3 patches under output pixels [pixel0, pixel0 + pixels), numbered row by row, as rows of `fp32`'s
  /// operand a: [3, 3, channels] each.
  void (*pack_patches)(float *packed, const ck_patches *g, size_t pixel0, size_t pixels);
  /// The epilogue of rows × columns accumulators [rows, lda] that belong at (row0, column0) of the result.
  void (*epilogue)(const ck_epilogue *e, const float *acc, size_t lda, size_t row0, size_t rows, size_t column0, size_t columns);
} ck_table;

/// Transforms the weights w [out_channels, in_channels, 3, 3] of one panel of output channels for ck_table.convolution; panel_columns
/// is that of ck_table.fp32. `packed` holds ck_winograd_weight_bytes and receives all panels.
void ck_winograd_weights(float *packed, const float *w, size_t out_channels, size_t in_channels, size_t panel_columns, size_t panel);
size_t ck_winograd_weight_bytes(size_t out_channels, size_t in_channels, size_t panel_columns);

/// Formats of weights that are expanded to fp32 before they are used: 8-bit floating point without infinity (torch's float8_e4m3fn)
/// and with it, two signed numbers of 4 bits a byte, and the blocks of GGUF files, which have the names that ggml gives them.
enum {
  CK_F8_E4M3 = 0, CK_F8_E5M2, CK_INT4, CK_Q4_0, CK_Q4_1, CK_Q5_0, CK_Q5_1, CK_Q8_0, CK_Q2_K, CK_Q3_K, CK_Q4_K, CK_Q5_K, CK_Q6_K,
  CK_IQ4_NL, CK_IQ4_XS, CK_BLOCK_FORMATS
};

/// Elements and bytes of a block.
size_t ck_block_elements(int format);
size_t ck_block_bytes(int format);
/// out [blocks * elements] = what consecutive blocks stand for; `in` need not be aligned. WeightsTests compare every format with the
/// PyPI package gguf, or torch.
void ck_expand(float *out, const void *in, int format, size_t blocks);

/// Instruction sets, in ascending order of preference.
enum { CK_PORTABLE = 0, CK_NEON, CK_NEONBF16, CK_AVX2, CK_AVXVNNI, CK_AVX512, CK_AVX512VNNI, CK_AVX512BF16, CK_AMX };

/// The table of an instruction set, or null if this machine lacks it. The first call for AMX asks the operating system for its
/// registers, on behalf of the process.
const ck_table *ck_table_for(int isa);

/// Sets a bit in bits[words] for each processor that the calling thread may run on, 64 to a word; returns how many there are, or 0
/// where that is unknown.
int ck_affinity(uint64_t *bits, size_t words);

/// A pool of compute threads. Calls of ck_pool_run from several threads are served one after the other; a call from inside a
/// running body is served inline.
typedef struct ck_pool ck_pool;
/// Starts threads - 1 threads (the caller of ck_pool_run is the last one). Null when out of memory; fewer threads when the system
/// refuses more. Where there are no more threads than `processors`, they look for the next operation for a moment before they sleep.
ck_pool *ck_pool_create(int threads, int processors);
int ck_pool_threads(const ck_pool *pool);
/// Calls body(context, i) once for every i in [0, count), in any order, and returns when all have ended.
void ck_pool_run(ck_pool *pool, size_t count, void (*body)(void *context, size_t index), void *context);
/// Ends and joins the threads; no run may be under way.
void ck_pool_destroy(ck_pool *pool);
