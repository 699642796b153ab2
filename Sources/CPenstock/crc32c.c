// SPDX-License-Identifier: Apache-2.0
// CRC-32C in two ways: the processor's instruction, three streams at a time, and tables of eight.
#include "CPenstock.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u  // Castagnoli, reflected

static uint32_t table[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void) {
  for (uint32_t n = 0; n < 256; n++) {
    uint32_t crc = n;
    for (int bit = 0; bit < 8; bit++) crc = (crc & 1) ? (crc >> 1) ^ POLYNOMIAL : crc >> 1;
    table[0][n] = crc;
  }
  for (uint32_t n = 0; n < 256; n++)
    for (int k = 1; k < 8; k++)
      table[k][n] = table[0][table[k - 1][n] & 0xff] ^ (table[k - 1][n] >> 8);
}

uint32_t penstock_crc32c_portable(uint32_t crc, const void *bytes, size_t length) {
  pthread_once(&tables_once, make_tables);
  const uint8_t *p = bytes;
  crc = ~crc;
  while (length >= 8) {
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) word |= (uint64_t)p[i] << (8 * i);
    word ^= crc;
    crc = table[7][word & 0xff] ^ table[6][(word >> 8) & 0xff] ^ table[5][(word >> 16) & 0xff] ^
          table[4][(word >> 24) & 0xff] ^ table[3][(word >> 32) & 0xff] ^
          table[2][(word >> 40) & 0xff] ^ table[1][(word >> 48) & 0xff] ^ table[0][word >> 56];
    p += 8;
    length -= 8;
  }
  while (length--) crc = table[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
  return ~crc;
}

#if defined(__x86_64__) || defined(__aarch64__)
#define HAVE_HARDWARE 1
// One instruction has a latency of three cycles and a throughput of one, so three independent streams
// keep the unit busy. Their results are joined by shifting a CRC over the bytes that follow it, which
// is linear and therefore a table look-up per byte of the CRC.
#define LONG_STREAM 1024
#define SHORT_STREAM 128
typedef struct {
  uint32_t one[4][256], two[4][256];  // over one stream of zero bytes, and over two
} shifts;
static shifts long_shifts, short_shifts;
static pthread_once_t shifts_once = PTHREAD_ONCE_INIT;

static uint32_t shifted(uint32_t crc, size_t zeros) {
  while (zeros--) crc = table[0][crc & 0xff] ^ (crc >> 8);
  return crc;
}

static void make_shift(shifts *to, size_t stream) {
  uint32_t one[32], two[32];
  for (int bit = 0; bit < 32; bit++) {
    one[bit] = shifted((uint32_t)1 << bit, stream);
    two[bit] = shifted(one[bit], stream);
  }
  for (int k = 0; k < 4; k++)
    for (uint32_t n = 0; n < 256; n++)
      for (int bit = 0; bit < 8; bit++)
        if (n & (1u << bit)) {
          to->one[k][n] ^= one[8 * k + bit];
          to->two[k][n] ^= two[8 * k + bit];
        }
}

static void make_shifts(void) {
  pthread_once(&tables_once, make_tables);
  make_shift(&long_shifts, LONG_STREAM);
  make_shift(&short_shifts, SHORT_STREAM);
}

static inline uint32_t shift_by(const uint32_t by[4][256], uint32_t crc) {
  return by[0][crc & 0xff] ^ by[1][(crc >> 8) & 0xff] ^ by[2][(crc >> 16) & 0xff] ^ by[3][crc >> 24];
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#define HARDWARE __attribute__((target("sse4.2")))
#define STEP8(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define STEP1(crc, byte) _mm_crc32_u8((crc), (byte))
static int hardware(void) { return __builtin_cpu_supports("sse4.2"); }
#else
#include <arm_acle.h>
#define HARDWARE __attribute__((target("+crc")))
#define STEP8(crc, word) __crc32cd((crc), (word))
#define STEP1(crc, byte) __crc32cb((crc), (byte))
#if defined(__linux__)
#include <sys/auxv.h>
static int hardware(void) { return (getauxval(AT_HWCAP) & (1 << 7)) != 0; }  // HWCAP_CRC32
#else
static int hardware(void) { return 1; }
#endif
#endif

static inline uint64_t word_at(const uint8_t *p) {
  uint64_t word;
  memcpy(&word, p, 8);
  return word;
}

// Takes three streams of `stream` bytes each, side by side.
HARDWARE static inline uint32_t three_streams(
    uint32_t crc, const uint8_t *p, size_t stream, const shifts *by) {
  uint32_t b = 0, c = 0;
  for (size_t i = 0; i < stream; i += 8) {
    crc = STEP8(crc, word_at(p + i));
    b = STEP8(b, word_at(p + stream + i));
    c = STEP8(c, word_at(p + 2 * stream + i));
  }
  return shift_by(by->two, crc) ^ shift_by(by->one, b) ^ c;
}

HARDWARE static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t length) {
  pthread_once(&shifts_once, make_shifts);
  crc = ~crc;
  for (; length >= 3 * LONG_STREAM; p += 3 * LONG_STREAM, length -= 3 * LONG_STREAM)
    crc = three_streams(crc, p, LONG_STREAM, &long_shifts);
  for (; length >= 3 * SHORT_STREAM; p += 3 * SHORT_STREAM, length -= 3 * SHORT_STREAM)
    crc = three_streams(crc, p, SHORT_STREAM, &short_shifts);
  while (length >= 8) {
    crc = STEP8(crc, word_at(p));
    p += 8;
    length -= 8;
  }
  while (length--) crc = STEP1(crc, *p++);
  return ~crc;
}
#endif

uint32_t penstock_crc32c(uint32_t crc, const void *bytes, size_t length) {
#if defined(HAVE_HARDWARE)
  if (hardware()) return by_instruction(crc, bytes, length);
#endif
  return penstock_crc32c_portable(crc, bytes, length);
}
