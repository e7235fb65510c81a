// Bodies that are kept: PUT /data/NAME becomes NAME in the store's directory, as a whole and in one step, and is
// answered only when no crash can lose it any more.
#pragma once
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct store {
  bool open;
  int fd;     // -1 once something has failed
  int error;  // errno of that
  char name[128], temp[160];
};

static int store_dir = -1;

static __attribute__((unused)) bool store_use(const char *dir) {
  if (mkdir(dir, 0755) != 0 && errno != EEXIST) return false;
  store_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return store_dir >= 0;
}

static void store_fail(struct store *s) {
  s->error = errno;
  if (s->fd >= 0) close(s->fd);
  s->fd = -1;
  unlinkat(store_dir, s->temp, 0);
}

// Does nothing unless the request's target names a place in the store. `id` tells apart what is written at once.
static void store_begin(struct store *s, const char *target, int id) {
  static const char prefix[] = "/data/";
  if (store_dir < 0 || strncmp(target, prefix, sizeof prefix - 1) != 0) return;
  target += sizeof prefix - 1;
  size_t n = 0;
  while (isalnum((unsigned char)target[n]) || (target[n] && strchr("._-", target[n]))) n++;
  if (n == 0 || n >= sizeof s->name || *target == '.' || target[n] != ' ') return;
  memcpy(s->name, target, n);
  s->name[n] = 0;
  snprintf(s->temp, sizeof s->temp, ".%s.%d", s->name, id);
  s->open = true;
  // A machine that died may have left one of this name, and its last writes may still be on their way into it.
  unlinkat(store_dir, s->temp, 0);
  s->fd = openat(store_dir, s->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (s->fd < 0) store_fail(s);
}

static void store_write(struct store *s, const uint8_t *data, size_t n) {
  while (s->open && s->fd >= 0 && n > 0) {
    ssize_t written = write(s->fd, data, n);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return store_fail(s);
    data += written, n -= written;
  }
}

// True if there was nothing to keep, or it is kept: content first, then the name.
static bool store_commit(struct store *s) {
  if (!s->open) return true;
  s->open = false;
  if (s->fd < 0) return false;
  if (fsync(s->fd) != 0 || renameat(store_dir, s->temp, store_dir, s->name) != 0) return store_fail(s), false;
  close(s->fd);
  if (fsync(store_dir) == 0) return true;
  s->error = errno;
  return false;
}

static void store_abandon(struct store *s) {
  if (s->open && s->fd >= 0) store_fail(s);
  s->open = false;
}
