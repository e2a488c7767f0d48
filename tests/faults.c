/* A disk that fails, or a process that dies, at chosen calls: preloaded into a child of a test (LD_PRELOAD).

   drill_arm(folder, mode, number, seed, mask) begins, for files below `folder` and for this process and its forks:

     mode 0   nothing happens; points are counted
     mode 1   the process is killed at point `number`: before the call if it is even, after it if it is odd
     mode 2   of a thousand calls `number` fail, by a generator that begins with `seed`; `mask` are the kinds of calls
     mode 3   from point `number` on there is no room: open for writing, write, mkdir and rename fail with ENOSPC

   A point is a call that changes what is on the disk for good: fsync, rename, unlink, mkdir, and with mask 1 each write,
   of which only half is done if it is killed before. drill_points() says how many points there were, drill_faults() how
   many calls have failed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, FSYNC = 4, RENAME = 8, UNLINK = 16, MKDIR = 32, READ = 64, STAT = 128, LINK = 256 };
enum { COUNT, KILL, FAIL, FULL, OFF };
#define DESCRIPTORS 4096

static char folder[PATH_MAX];
static size_t length;
static int mode = OFF, mask;
static long number, points, faults;
static uint64_t chance;
static unsigned char ours[DESCRIPTORS];

void drill_arm(const char *where, int how, long n, long seed, int kinds) {
  snprintf(folder, sizeof folder, "%s", where);
  length = strlen(folder);
  mode = how, number = n, mask = kinds, points = faults = 0;
  chance = (uint64_t)seed * 2862933555777941757ULL + 3037000493ULL;
}
long drill_points(void) { return points; }
long drill_faults(void) { return faults; }

static int below(const char *path) {
  if (mode == OFF || path == NULL) return 0;
  if (path[0] == '/') return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
  char here[PATH_MAX];
  return getcwd(here, sizeof here) && strncmp(here, folder, length) == 0;
}
static int below_at(int at, const char *path) {
  if (mode == OFF || path == NULL) return 0;
  if (path[0] == '/' || at == AT_FDCWD) return below(path);
  return at >= 0 && at < DESCRIPTORS && ours[at];
}
static int known(int fd) { return mode != OFF && fd >= 0 && fd < DESCRIPTORS && ours[fd]; }

/* Whether this call fails; errno is set then. */
static int fails(int kind, int writes) {
  static const int how[][4] = {
      {EIO, EACCES, ESTALE, EDQUOT}, {EIO, ENOSPC, EDQUOT, ENOSPC}, {EIO, ENOSPC, EDQUOT, EIO},
      {EIO, EACCES, ESTALE, ENOSPC}, {EIO, EACCES, ESTALE, EIO},    {EIO, EACCES, EDQUOT, ENOSPC},
      {EIO, EIO, ESTALE, EIO},       {EIO, EACCES, ESTALE, EIO},    {EIO, EACCES, EDQUOT, ENOSPC}};
  if (mode == FULL && points >= number && writes && kind != UNLINK) { /* names can still be removed */
    faults++, errno = ENOSPC;
    return 1;
  }
  if (mode != FAIL || !(mask & kind)) return 0;
  chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
  if ((long)((chance >> 11) % 1000) >= number) return 0;
  int row = 0;
  while ((1 << row) != kind) row++;
  errno = how[row][(chance >> 40) % 4];
  if (kind == OPEN && errno == EDQUOT && !writes) errno = EIO;
  faults++;
  return 1;
}

/* Looks and reads are many more than the others: a tenth of them fails as often, or nothing would ever get anywhere. */
static int fails_rarely(int kind) {
  static unsigned count;
  return mode == FAIL && (mask & kind) && ++count % 10 == 0 && fails(kind, 0);
}

/* A point: dies before the call if `number` is even, after it if it is odd. */
static void before(void) {
  if (mode == KILL && number == 2 * points) kill(getpid(), SIGKILL);
}
static void after(void) {
  if (mode == KILL && number == 2 * points + 1) kill(getpid(), SIGKILL);
  points++;
}

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int opened(int fd, int ok) {
  if (fd >= 0 && fd < DESCRIPTORS) ours[fd] = (unsigned char)ok;
  return fd;
}
#define MODE_OF(flags) \
  mode_t bits = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, flags); \
    bits = va_arg(rest, mode_t); \
    va_end(rest); \
  }
/* Whether an open needs room: it makes a file. */
static int makes(int at, const char *path, int flags) {
  struct stat there;
  return (flags & O_CREAT) && fstatat(at, path, &there, 0) != 0;
}

#define OPENS(name) \
  int name(const char *path, int flags, ...) { \
    MODE_OF(flags) \
    REAL(int, #name, const char *, int, ...); \
    int is = below(path); \
    if (is && fails(OPEN, makes(AT_FDCWD, path, flags))) return -1; \
    return opened(real(path, flags, bits), is); \
  }
OPENS(open)
OPENS(open64)
#define OPENS_AT(name) \
  int name(int at, const char *path, int flags, ...) { \
    MODE_OF(flags) \
    REAL(int, #name, int, const char *, int, ...); \
    int is = below_at(at, path); \
    if (is && fails(OPEN, makes(at, path, flags))) return -1; \
    return opened(real(at, path, flags, bits), is); \
  }
OPENS_AT(openat)
OPENS_AT(openat64)

int close(int fd) {
  REAL(int, "close", int);
  if (fd >= 0 && fd < DESCRIPTORS) ours[fd] = 0;
  return real(fd);
}

#define WRITE_BODY(half, all) \
  if (known(fd)) { \
    if (fails(WRITE, 1)) return -1; \
    if (mask & 1 && mode <= KILL) { \
      if (mode == KILL && number == 2 * points && size > 1) (void)!(half); \
      before(); \
      ssize_t done = all; \
      int kept = errno; \
      after(); \
      errno = kept; \
      return done; \
    } \
  } \
  return all;
ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t);
  WRITE_BODY(real(fd, data, size / 2), real(fd, data, size))
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
  WRITE_BODY(real(fd, data, size / 2, at), real(fd, data, size, at))
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
  WRITE_BODY(real(fd, data, size / 2, at), real(fd, data, size, at))
}

#define POINT(is, kind, call) \
  if (!(is)) return call; \
  if (fails(kind, 1)) return -1; \
  before(); \
  int done = call; \
  int kept = errno; \
  after(); \
  errno = kept; \
  return done;
int fsync(int fd) {
  REAL(int, "fsync", int);
  POINT(known(fd), FSYNC, real(fd))
}
int fdatasync(int fd) {
  REAL(int, "fdatasync", int);
  POINT(known(fd), FSYNC, real(fd))
}
int rename(const char *from, const char *to) {
  REAL(int, "rename", const char *, const char *);
  POINT(below(from) || below(to), RENAME, real(from, to))
}
int renameat(int a, const char *from, int b, const char *to) {
  REAL(int, "renameat", int, const char *, int, const char *);
  POINT(below_at(a, from) || below_at(b, to), RENAME, real(a, from, b, to))
}
int unlink(const char *path) {
  REAL(int, "unlink", const char *);
  POINT(below(path), UNLINK, real(path))
}
int unlinkat(int at, const char *path, int flags) {
  REAL(int, "unlinkat", int, const char *, int);
  POINT(below_at(at, path), UNLINK, real(at, path, flags))
}
int mkdir(const char *path, mode_t bits) {
  REAL(int, "mkdir", const char *, mode_t);
  POINT(below(path), MKDIR, real(path, bits))
}
int link(const char *from, const char *to) {
  REAL(int, "link", const char *, const char *);
  POINT(below(to), LINK, real(from, to))
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
  REAL(int, "linkat", int, const char *, int, const char *, int);
  POINT(below_at(b, to), LINK, real(a, from, b, to, flags))
}

ssize_t read(int fd, void *data, size_t size) {
  REAL(ssize_t, "read", int, void *, size_t);
  return known(fd) && fails_rarely(READ) ? -1 : real(fd, data, size);
}
ssize_t pread(int fd, void *data, size_t size, off_t at) {
  REAL(ssize_t, "pread", int, void *, size_t, off_t);
  return known(fd) && fails_rarely(READ) ? -1 : real(fd, data, size, at);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
  REAL(ssize_t, "pread64", int, void *, size_t, off64_t);
  return known(fd) && fails_rarely(READ) ? -1 : real(fd, data, size, at);
}

#define STATS(name, status) \
  int name(const char *path, status *found) { \
    REAL(int, #name, const char *, status *); \
    return below(path) && fails_rarely(STAT) ? -1 : real(path, found); \
  }
STATS(stat, struct stat)
STATS(lstat, struct stat)
STATS(stat64, struct stat64)
STATS(lstat64, struct stat64)
#define STATS_AT(name, status) \
  int name(int at, const char *path, status *found, int flags) { \
    REAL(int, #name, int, const char *, status *, int); \
    return below_at(at, path) && fails_rarely(STAT) ? -1 : real(at, path, found, flags); \
  }
STATS_AT(fstatat, struct stat)
STATS_AT(fstatat64, struct stat64)
