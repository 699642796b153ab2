// SPDX-License-Identifier: Apache-2.0
// Ways to make a commit durable, in turns: what the log does, and what it could do. Each has a file
// of its own whose blocks were written with zeros before, and appends commits to it. Sixteen
// commits of one way follow sixteen of the other, so that all see the same disk.
//
// usage: strategies DIRECTORY
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERED, BUFFERED_DSYNC, DIRECT, DIRECT_O_DSYNC, LINKED, RING, RING_OF_FOUR, WAYS };
static const char *const names[WAYS] = {
    "buffered, fdatasync", "buffered, RWF_DSYNC", "direct, fdatasync", "direct, O_DSYNC",
    "io_uring, direct, linked fdatasync", "io_uring, direct, RWF_DSYNC",
    "io_uring, direct, RWF_DSYNC, 4 in flight"};
enum { TURN = 16, MOST = 1600 };

static double microseconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1e6 + time.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void need(int holds, const char *what) {
  if (holds) return;
  perror(what);
  exit(1);
}

// io_uring without a library.
static size_t commit_size;
static int ring = -1;
static unsigned *sent, *sent_mask, *sent_order, *done, *done_end, *done_mask;
static struct io_uring_sqe *requests;
static struct io_uring_cqe *results;

static int open_ring(void) {
  struct io_uring_params p = {0};
  ring = syscall(__NR_io_uring_setup, 64, &p);
  if (ring < 0) return 0;
  int access = PROT_READ | PROT_WRITE, kind = MAP_SHARED | MAP_POPULATE;
  size_t length = p.sq_off.array + p.sq_entries * 4;
  char *sq = mmap(0, length, access, kind, ring, IORING_OFF_SQ_RING);
  length = p.cq_off.cqes + p.cq_entries * sizeof *results;
  char *cq = mmap(0, length, access, kind, ring, IORING_OFF_CQ_RING);
  length = p.sq_entries * sizeof *requests;
  requests = mmap(0, length, access, kind, ring, IORING_OFF_SQES);
  need(sq != MAP_FAILED && cq != MAP_FAILED && requests != MAP_FAILED, "mmap");
  sent = (void *)(sq + p.sq_off.tail);
  sent_mask = (void *)(sq + p.sq_off.ring_mask);
  sent_order = (void *)(sq + p.sq_off.array);
  done = (void *)(cq + p.cq_off.head);
  done_end = (void *)(cq + p.cq_off.tail);
  done_mask = (void *)(cq + p.cq_off.ring_mask);
  results = (void *)(cq + p.cq_off.cqes);
  return 1;
}

static void push(struct io_uring_sqe request) {
  unsigned tail = *sent, index = tail & *sent_mask;
  requests[index] = request;
  sent_order[index] = index;
  __atomic_store_n(sent, tail + 1, __ATOMIC_RELEASE);
}

static void enter(unsigned count, unsigned wait) {
  long result = syscall(__NR_io_uring_enter, ring, count, wait, IORING_ENTER_GETEVENTS, 0, 0);
  need(result >= 0, "io_uring_enter");
}

static unsigned long pop(void) {
  unsigned head = *done;
  while (head == __atomic_load_n(done_end, __ATOMIC_ACQUIRE)) enter(0, 1);
  struct io_uring_cqe *result = results + (head & *done_mask);
  need(result->res == 0 || result->res == (int)commit_size, "a write by io_uring");
  unsigned long of = result->user_data;
  __atomic_store_n(done, head + 1, __ATOMIC_RELEASE);
  return of;
}

static struct io_uring_sqe write_of(int file, void *bytes, size_t size, off_t at, unsigned long n) {
  return (struct io_uring_sqe){.opcode = IORING_OP_WRITE, .fd = file, .addr = (unsigned long)bytes,
                               .len = size, .off = at, .user_data = n};
}

static void commit(int way, int file, void *bytes, size_t size, off_t at) {
  struct iovec part = {bytes, size};
  struct io_uring_sqe request = write_of(file, bytes, size, at, 0);
  switch (way) {
    case BUFFERED_DSYNC:
      need(pwritev2(file, &part, 1, at, RWF_DSYNC) == (ssize_t)size, "pwritev2");
      return;
    case LINKED:
      request.flags = IOSQE_IO_LINK;
      push(request);
      push((struct io_uring_sqe){
          .opcode = IORING_OP_FSYNC, .fd = file, .fsync_flags = IORING_FSYNC_DATASYNC});
      enter(2, 2);
      pop();
      pop();
      return;
    case RING:
      request.rw_flags = RWF_DSYNC;
      push(request);
      enter(1, 1);
      pop();
      return;
    default:
      need(pwrite(file, bytes, size, at) == (ssize_t)size, "pwrite");
      if (way != DIRECT_O_DSYNC) need(fdatasync(file) == 0, "fdatasync");
  }
}

static void four_in_flight(int file, void *bytes, size_t size, off_t at, double *took) {
  double began[TURN];
  int begun = 0, ended = 0;
  while (ended < TURN) {
    int fresh = 0;
    for (; begun < TURN && begun - ended < 4; begun++, fresh++) {
      began[begun] = microseconds(CLOCK_MONOTONIC);
      struct io_uring_sqe request = write_of(file, bytes, size, at + begun * size, begun);
      request.rw_flags = RWF_DSYNC;
      push(request);
    }
    if (fresh) enter(fresh, 1);
    unsigned long of = pop();
    took[of] = microseconds(CLOCK_MONOTONIC) - began[of];
    ended++;
  }
}

int main(int count, char **arguments) {
  need(count == 2 && chdir(arguments[1]) == 0, "usage: strategies DIRECTORY");
  int ways = open_ring() ? WAYS : LINKED;
  if (ways < WAYS) printf("left out: io_uring, which this system does not give\n");
  char *bytes;
  size_t most = 1 << 20;
  need(posix_memalign((void **)&bytes, 4096, most) == 0, "posix_memalign");
  printf("%8s %-42s %10s %8s %8s %8s\n", "bytes", "way", "commits/s", "p50 us", "p99 us", "cpu us");
  for (size_t size = 4096; size <= most; size *= 4) {
    int commits = size >= 262144 ? 320 : MOST;
    int files[WAYS];
    commit_size = size;
    static double took[WAYS][MOST], wall[WAYS], cpu[WAYS];
    memset(bytes, 0, most);
    for (int way = 0; way < ways; way++) {
      char name[16];
      snprintf(name, sizeof name, "way-%d", way);
      int flags = way < DIRECT ? 0 : way == DIRECT_O_DSYNC ? O_DIRECT | O_DSYNC : O_DIRECT;
      files[way] = open(name, O_CREAT | O_EXCL | O_RDWR | (flags & O_DIRECT), 0600);
      need(files[way] >= 0, name);
      for (off_t at = 0; at < (off_t)(commits * size + most); at += most)
        need(pwrite(files[way], bytes, most, at) == (ssize_t)most, "pwrite");
      need(fsync(files[way]) == 0, "fsync");
      close(files[way]);
      files[way] = open(name, O_RDWR | flags);
      need(files[way] >= 0 && unlink(name) == 0, name);
      wall[way] = cpu[way] = 0;
    }
    memset(bytes, 1, most);
    for (int done = 0; done < commits; done += TURN)
      for (int way = 0; way < ways; way++) {
        double began = microseconds(CLOCK_MONOTONIC);
        double used = microseconds(CLOCK_PROCESS_CPUTIME_ID);
        if (way == RING_OF_FOUR)
          four_in_flight(files[way], bytes, size, done * size, took[way] + done);
        else
          for (int n = done; n < done + TURN; n++) {
            double start = microseconds(CLOCK_MONOTONIC);
            commit(way, files[way], bytes, size, (off_t)(n * size));
            took[way][n] = microseconds(CLOCK_MONOTONIC) - start;
          }
        wall[way] += microseconds(CLOCK_MONOTONIC) - began;
        cpu[way] += microseconds(CLOCK_PROCESS_CPUTIME_ID) - used;
      }
    for (int way = 0; way < ways; way++) {
      qsort(took[way], commits, sizeof(double), ascending);
      printf("%8zu %-42s %10.0f %8.0f %8.0f %8.0f\n", size, names[way], commits / wall[way] * 1e6,
             took[way][commits / 2], took[way][commits * 99 / 100], cpu[way] / commits);
      close(files[way]);
    }
    fflush(stdout);
  }
}
