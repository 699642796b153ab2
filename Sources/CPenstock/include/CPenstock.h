// SPDX-License-Identifier: Apache-2.0
#ifndef CPENSTOCK_H
#define CPENSTOCK_H

#include <stddef.h>
#include <stdint.h>

/// CRC-32C (Castagnoli) of `length` bytes, continuing from `crc` (0 to start). Uses the processor's
/// instruction where there is one.
uint32_t penstock_crc32c(uint32_t crc, const void *bytes, size_t length);

/// The same value by tables alone; tests compare the two.
uint32_t penstock_crc32c_portable(uint32_t crc, const void *bytes, size_t length);

/// `open` is variadic, which Swift does not import with a mode argument everywhere.
int penstock_open(const char *path, int flags, unsigned int mode);

/// Opens for writes past the page cache; -1 where the file system has no such way, or is none of
/// those known to drop what the page cache holds of the blocks that are written.
int penstock_open_direct(const char *path);

/// Takes an exclusive open-file-description lock on the whole file. 0, or -1 with errno set.
int penstock_lock_exclusive(int descriptor);

/// What `fdatasync` promises on Linux: data and the size needed to read it, through the device's cache.
int penstock_sync_data(int descriptor);

/// As above, with all metadata.
int penstock_sync_all(int descriptor);

/// Fills `length` bytes (at most 4096) from the system's generator. 0, or -1 where that is not to be had.
int penstock_random(void *bytes, size_t length);

/// The current errno, read in C because the macro expands to a call.
int penstock_errno(void);

#endif
