#define _GNU_SOURCE
#include <sched.h>

#include "ckernels.h"

int ck_affinity(uint64_t *bits, size_t words) {
  for (size_t i = 0; i < words; i++) bits[i] = 0;
#if defined(__linux__)
  if (sched_getaffinity(0, words * sizeof *bits, (cpu_set_t *)bits) == 0) {
    int count = 0;
    for (size_t i = 0; i < words; i++) count += __builtin_popcountll(bits[i]);
    return count;
  }
#endif
  return 0;
}
