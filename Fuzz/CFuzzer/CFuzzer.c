// SPDX-License-Identifier: Apache-2.0
#include "CFuzzer.h"

/// libFuzzer's own entry, for programs with a `main` of their own.
extern int LLVMFuzzerRunDriver(int *argc, char ***argv, penstock_fuzz_body body);

int penstock_fuzz(int argc, char **argv, penstock_fuzz_body body) {
  return LLVMFuzzerRunDriver(&argc, &argv, body);
}
