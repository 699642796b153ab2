// SPDX-License-Identifier: Apache-2.0
// What the Swift toolchain's Glibc module leaves out; the load generator waits with it.
#ifndef CEPOLL_H
#define CEPOLL_H
#if defined(__linux__)
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

static const unsigned int cepoll_readable = EPOLLIN;
static const unsigned int cepoll_writable = EPOLLOUT;

// epoll_event is packed on some processors, so it stays on this side.
static inline int cepoll_set(int poller, int descriptor, int is_new, unsigned int events) {
  struct epoll_event event = {.events = events, .data = {.fd = descriptor}};
  return epoll_ctl(poller, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, descriptor, &event);
}

// Writes the descriptors that are ready; at most 256 of them.
static inline int cepoll_wait(int poller, int *ready, int limit, int milliseconds) {
  struct epoll_event events[256];
  int count = epoll_wait(poller, events, limit < 256 ? limit : 256, milliseconds);
  for (int place = 0; place < count; place++) ready[place] = events[place].data.fd;
  return count;
}

// At a time of CLOCK_MONOTONIC.
static inline int cepoll_set_timer(int timer, unsigned long long nanoseconds) {
  struct itimerspec time = {.it_value = {(time_t)(nanoseconds / 1000000000),
                                         (long)(nanoseconds % 1000000000)}};
  return timerfd_settime(timer, TFD_TIMER_ABSTIME, &time, 0);
}
#endif
#endif
