// SPDX-License-Identifier: Apache-2.0
// Calls of Linux that the toolchain's Glibc module leaves out; the load generator waits with them.
// No header of libc is included: what it declares would count as this module's in all of Swift. So
// the calls have names of their own here, and what they take is written as the kernel defines it.
#ifndef CEPOLL_H
#define CEPOLL_H
#if defined(__linux__) && defined(__LP64__)

struct cepoll_event {
  unsigned int events;
  unsigned long long data;
}
#if defined(__x86_64__)
__attribute__((packed))
#endif
;

struct cepoll_time {
  long interval_seconds, interval_nanoseconds, seconds, nanoseconds;
};

int cepoll_call_create(int flags) __asm__("epoll_create1");
int cepoll_call_control(int poller, int operation, int descriptor, struct cepoll_event *event)
    __asm__("epoll_ctl");
int cepoll_call_wait(int poller, struct cepoll_event *events, int limit, int milliseconds)
    __asm__("epoll_wait");
int cepoll_call_timer(int clock, int flags) __asm__("timerfd_create");
int cepoll_call_set_timer(int timer, int flags, const struct cepoll_time *time, void *old)
    __asm__("timerfd_settime");

static inline int cepoll_create(void) { return cepoll_call_create(0); }

// Waits for bytes to read (1), and for room to write (4).
static inline int cepoll_set(int poller, int descriptor, int is_new, int writes) {
  struct cepoll_event event = {.events = writes ? 1 | 4 : 1, .data = (unsigned int)descriptor};
  return cepoll_call_control(poller, is_new ? 1 : 3, descriptor, &event);
}

// Writes the descriptors that are ready; at most 256 of them.
static inline int cepoll_wait(int poller, int *ready, int limit, int milliseconds) {
  struct cepoll_event events[256];
  int count = cepoll_call_wait(poller, events, limit < 256 ? limit : 256, milliseconds);
  for (int place = 0; place < count; place++) ready[place] = (int)events[place].data;
  return count;
}

// A timer of the clock that goes on while the machine sleeps (7), as PenstockSystem's does.
static inline int cepoll_timer(void) { return cepoll_call_timer(7, 0); }

// At an absolute time (1).
static inline int cepoll_set_timer(int timer, unsigned long long nanoseconds) {
  struct cepoll_time time = {0, 0, (long)(nanoseconds / 1000000000),
                             (long)(nanoseconds % 1000000000)};
  return cepoll_call_set_timer(timer, 1, &time, 0);
}
#endif
#endif
