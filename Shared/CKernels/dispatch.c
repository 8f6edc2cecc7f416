#include "ckernels.h"

extern const ck_table ck_table_portable, ck_table_avx2, ck_table_avx512, ck_table_avx512vnni, ck_table_avx512bf16;

const ck_table *ck_table_for(int isa) {
  switch (isa) {
    case CK_PORTABLE: return &ck_table_portable;
#if defined(__x86_64__)
    case CK_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &ck_table_avx2 : NULL;
    case CK_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512vl")
                 ? &ck_table_avx512
                 : NULL;
    case CK_AVX512VNNI: return ck_table_for(CK_AVX512) && __builtin_cpu_supports("avx512vnni") ? &ck_table_avx512vnni : NULL;
    case CK_AVX512BF16: return ck_table_for(CK_AVX512VNNI) && __builtin_cpu_supports("avx512bf16") ? &ck_table_avx512bf16 : NULL;
#endif
    default: return NULL;
  }
}
