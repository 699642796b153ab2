// SPDX-License-Identifier: Apache-2.0
// File calls that Swift cannot name portably: variadic ones, and those that differ by platform.
#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "CPenstock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <sys/file.h>
#if defined(__linux__)
#include <sys/random.h>
#include <sys/vfs.h>
#endif
#include <unistd.h>

int penstock_open(const char *path, int flags, unsigned int mode) { return open(path, flags, mode); }

int penstock_open_direct(const char *path) {
#if defined(__linux__) && defined(O_DIRECT)
  int descriptor = open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
  struct statfs info;
  if (descriptor < 0 || fstatfs(descriptor, &info) != 0) return descriptor;
  switch ((unsigned long)info.f_type) {
    case 0xef53:      // ext2, ext3, ext4
    case 0x58465342:  // XFS
    case 0x9123683e:  // Btrfs
    case 0xf2f52010:  // F2FS
      return descriptor;
  }
  close(descriptor);
#endif
  (void)path;
  return -1;
}

int penstock_errno(void) { return errno; }

int penstock_random(void *bytes, size_t length) {
#if defined(__linux__)
  size_t filled = 0;
  while (filled < length) {
    ssize_t count = getrandom((char *)bytes + filled, length - filled, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return -1;
    filled += (size_t)count;
  }
  return 0;
#elif defined(__APPLE__)
  arc4random_buf(bytes, length);
  return 0;
#else
  return -1;
#endif
}

int penstock_lock_exclusive(int descriptor) {
#if defined(F_OFD_SETLK)
  struct flock lock;
  memset(&lock, 0, sizeof lock);
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (fcntl(descriptor, F_OFD_SETLK, &lock) == 0) return 0;
  if (errno != EINVAL) return -1;  // a file system without such locks: fall through
#endif
  return flock(descriptor, LOCK_EX | LOCK_NB);
}

int penstock_sync_data(int descriptor) {
#if defined(__APPLE__)
  return fcntl(descriptor, F_FULLFSYNC);  // fsync alone leaves the data in the drive's cache
#else
  return fdatasync(descriptor);
#endif
}

int penstock_sync_all(int descriptor) {
#if defined(__APPLE__)
  return fcntl(descriptor, F_FULLFSYNC);
#else
  return fsync(descriptor);
#endif
}
