#include "ceilings.h"

#include <time.h>

double process_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double ceiling_read(const void *memory, size_t bytes, float *result) {
  typedef unsigned long vector __attribute__((vector_size(64)));
  const vector *p = memory;
  vector a = {0}, b = {0}, c = {0}, d = {0};
  for (size_t i = 0; i < bytes / 64; i += 4) {
    a ^= p[i];
    b ^= p[i + 1];
    c ^= p[i + 2];
    d ^= p[i + 3];
  }
  *result = (float)(a[0] ^ b[0] ^ c[0] ^ d[0]);
  return (double)bytes;
}

#if defined(__x86_64__)
#include <immintrin.h>

// Twenty-four chains hide the latency of every processor so far. The empty assembly keeps the loop from being folded.
#define CHAINS 24
#define LOOP(statement)                          \
  for (long round = 0; round < rounds; round++) { \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < CHAINS; i++) statement; \
    __asm__ volatile("" : "+v"(x));              \
  }

__attribute__((target("avx512f"))) static double fp32_512(long rounds, float *result) {
  __m512 sums[CHAINS], x = _mm512_set1_ps(1.000001f);
  for (int i = 0; i < CHAINS; i++) sums[i] = _mm512_setzero_ps();
  LOOP(sums[i] = _mm512_fmadd_ps(x, x, sums[i]))
  for (int i = 0; i < CHAINS; i++) *result += _mm512_reduce_add_ps(sums[i]);
  return 2.0 * 16 * CHAINS * (double)rounds;
}

__attribute__((target("avx2,fma"))) static double fp32_256(long rounds, float *result) {
  enum { FEWER = 12 };
  __m256 sums[FEWER], x = _mm256_set1_ps(1.000001f);
  for (int i = 0; i < FEWER; i++) sums[i] = _mm256_setzero_ps();
  for (long round = 0; round < rounds; round++) {
    _Pragma("clang loop unroll(full)") for (int i = 0; i < FEWER; i++) sums[i] = _mm256_fmadd_ps(x, x, sums[i]);
    __asm__ volatile("" : "+x"(x));
  }
  for (int i = 0; i < FEWER; i++) *result += sums[i][0];
  return 2.0 * 8 * FEWER * (double)rounds;
}

__attribute__((target("avx512f,avx512bf16"))) static double bf16_512(long rounds, float *result) {
  __m512 sums[CHAINS];
  __m512i x = _mm512_set1_epi32(0x3f803f80);
  for (int i = 0; i < CHAINS; i++) sums[i] = _mm512_setzero_ps();
  LOOP(sums[i] = _mm512_dpbf16_ps(sums[i], (__m512bh)x, (__m512bh)x))
  for (int i = 0; i < CHAINS; i++) *result += _mm512_reduce_add_ps(sums[i]);
  return 4.0 * 16 * CHAINS * (double)rounds;
}

__attribute__((target("avx512f,avx512vnni"))) static double int8_512(long rounds, float *result) {
  __m512i sums[CHAINS], x = _mm512_set1_epi32(0x01010101);
  for (int i = 0; i < CHAINS; i++) sums[i] = _mm512_setzero_si512();
  LOOP(sums[i] = _mm512_dpbusd_epi32(sums[i], x, x))
  for (int i = 0; i < CHAINS; i++) *result += (float)_mm512_reduce_add_epi32(sums[i]);
  return 8.0 * 16 * CHAINS * (double)rounds;
}

double ceiling_fp32(long rounds, float *result) {
  if (__builtin_cpu_supports("avx512f")) return fp32_512(rounds, result);
  return __builtin_cpu_supports("fma") ? fp32_256(rounds, result) : 0;
}
double ceiling_bf16(long rounds, float *result) { return __builtin_cpu_supports("avx512bf16") ? bf16_512(rounds, result) : 0; }
double ceiling_int8(long rounds, float *result) { return __builtin_cpu_supports("avx512vnni") ? int8_512(rounds, result) : 0; }
#else
double ceiling_fp32(long rounds, float *result) { return (void)rounds, (void)result, 0; }
double ceiling_bf16(long rounds, float *result) { return (void)rounds, (void)result, 0; }
double ceiling_int8(long rounds, float *result) { return (void)rounds, (void)result, 0; }
#endif
