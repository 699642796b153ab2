// SPDX-License-Identifier: Apache-2.0
#ifndef CFUZZER_H
#define CFUZZER_H

#include <stddef.h>
#include <stdint.h>

/// Takes one input; always returns 0.
typedef int (*penstock_fuzz_body)(const uint8_t *data, size_t size);

/// Runs libFuzzer on `body` with the arguments of its command line, the program's name first.
/// Returns the exit status.
int penstock_fuzz(int argc, char **argv, penstock_fuzz_body body);

#endif
