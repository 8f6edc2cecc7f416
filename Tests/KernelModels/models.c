#include "ckernels.h"
#include "kernelmodels.h"

extern const ck_table kernel_model_amx, kernel_model_avxvnni;

const void *kernel_model(int model) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return NULL;
#endif
  switch (model) {
    case MODEL_AVXVNNI: return &kernel_model_avxvnni;
    case MODEL_AMX: return &kernel_model_amx;
    default: return NULL;
  }
}
