// Tables of kernels whose instructions are written out in C, so that tests can run them on any machine: the sources of Shared/CKernels
// around models of what the instructions are documented to do.
#pragma once

enum { MODEL_AVXVNNI = 0, MODEL_AMX = 1 };

/// A `ck_table` (Shared/CKernels), or null where this machine cannot run the code around the instructions.
const void *kernel_model(int model);
