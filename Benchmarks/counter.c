/* SPDX-License-Identifier: Apache-2.0
 *
 * Counts allocations, retains and releases of a process; loaded before it by LD_PRELOAD.
 *
 * Allocations are calls of the C library's allocator, whoever makes them. Objects, retains and
 * releases are calls of the Swift runtime from the program and from other libraries; what the
 * runtime does within itself, as for generic code that was not specialised, is not among them. (The
 * variables that the runtime calls through for instruments cut off bits that short strings need.)
 * `penstock bench micro` finds the two functions at the end with dlsym.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

enum { ALLOCATIONS, BYTES, OBJECTS, RETAINS, RELEASES, KINDS };
static _Atomic uint64_t counts[KINDS];
static atomic_bool counting;

static void add(int kind, uint64_t number) {
  if (atomic_load_explicit(&counting, memory_order_relaxed))
    atomic_fetch_add_explicit(&counts[kind], number, memory_order_relaxed);
}

static void allocated(size_t size) {
  add(ALLOCATIONS, 1);
  add(BYTES, size);
}

void *malloc(size_t size) {
  allocated(size);
  return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  allocated(count * size);
  return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
  allocated(size);
  return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
  allocated(size);
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **result, size_t alignment, size_t size) {
  void *memory = memalign(alignment, size);
  if (memory == NULL) return ENOMEM;
  *result = memory;
  return 0;
}

/* Defines a function of the runtime that counts and goes on to the runtime's own. */
#define COUNT(kind, condition, result, name, parameters, arguments)          \
  result name parameters {                                                   \
    static result(*_Atomic original) parameters;                             \
    result(*next) parameters = original;                                     \
    if (next == NULL)                                                        \
      original = next = (result(*) parameters)dlsym(RTLD_NEXT, #name);       \
    if (condition) add(kind, 1);                                             \
    return next arguments;                                                   \
  }

/* Neither nothing nor what is held in the pointer itself, such as a short string. */
#define COUNTED ((intptr_t)object > 0)

typedef const void *type_t;
typedef void *object_t;
COUNT(OBJECTS, 1, object_t, swift_allocObject, (type_t type, size_t size, size_t mask),
      (type, size, mask))
COUNT(RETAINS, COUNTED, object_t, swift_retain, (object_t object), (object))
COUNT(RETAINS, COUNTED, object_t, swift_retain_n, (object_t object, uint32_t n), (object, n))
COUNT(RETAINS, COUNTED, object_t, swift_bridgeObjectRetain, (object_t object), (object))
COUNT(RETAINS, COUNTED, object_t, swift_bridgeObjectRetain_n, (object_t object, int n), (object, n))
COUNT(RELEASES, COUNTED, void, swift_release, (object_t object), (object))
COUNT(RELEASES, COUNTED, void, swift_release_n, (object_t object, uint32_t n), (object, n))
COUNT(RELEASES, COUNTED, void, swift_bridgeObjectRelease, (object_t object), (object))
COUNT(RELEASES, COUNTED, void, swift_bridgeObjectRelease_n, (object_t object, int n), (object, n))

/* Begins to count, or ends it. */
void penstock_count(int on) { atomic_store(&counting, on != 0); }

/* Allocations, their bytes, objects, retains and releases since the process began, of all threads
 * while they were counted. */
void penstock_counts(uint64_t *result) {
  for (int kind = 0; kind < KINDS; kind++) result[kind] = atomic_load(&counts[kind]);
}
