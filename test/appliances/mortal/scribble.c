// A hostile guest's hand on the control page (guest-agent/wire/control-page.ts), for so many seconds:
//
//   scribble SECONDS garbage    anything anywhere: its own half, the host's, crash lists, requests
//   scribble SECONDS lists      says, of one connection after the other, that its process has died
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../../guest-agent/bpf/crash.h"

enum { PAGE = 1 << 20, HALVES = 0x2000, LISTS = 0xc0000, ENTRIES = 4096, MOST = 256 };
// Where a page that is to be believed has what; and the marks by which it is one.
enum { HEARTBEAT = 0x1000, MAGIC = 0x1040, VERSION = 0x1044, REPORT_SEQ = 0x1080, APPLICATION = 0x1084, HEAD = 0x1100 };
enum { GUEST_MAGIC = 0x50474648, PAGE_VERSION = 1, STATES = 8 };

static volatile uint8_t *page;
static uint64_t seed = 88172645463325252ull;

static uint32_t any(uint32_t below) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return below ? (seed >> 16) % below : seed >> 16;
}

// The BAR of ivshmem-plain.
static int map_page(void) {
  DIR *devices = opendir("/sys/bus/pci/devices");
  for (struct dirent *d; devices && (d = readdir(devices));) {
    char path[512], id[16] = "";
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/device", d->d_name);
    FILE *f = fopen(path, "r");
    if (!f) continue;
    char *read = fgets(id, sizeof id, f);
    fclose(f);
    if (!read || strncmp(id, "0x1110", 6) != 0) continue;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/resource2", d->d_name);
    int fd = open(path, O_RDWR);
    page = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return page != MAP_FAILED;
  }
  return 0;
}

struct peer {
  uint32_t address;
  uint16_t remote, local;
};

// Clients of the protected ports, of both tables: IPv4 clients of IPv6 sockets, too.
static int peers(struct peer *into, int most) {
  int found = 0;
  for (int six = 0; six < 2; six++) {
    FILE *f = fopen(six ? "/proc/net/tcp6" : "/proc/net/tcp", "r");
    char line[512];
    while (f && found < most && fgets(line, sizeof line, f)) {
      unsigned local, remote, state;
      char to[40] = "";
      if (sscanf(line, " %*d: %*[0-9A-F]:%X %39[0-9A-F]:%X %X", &local, to, &remote, &state) != 4) continue;
      if (state != 1 || (local != 80 && local != 8080)) continue;
      uint32_t address = strtoul(to + (six ? 24 : 0), NULL, 16);
      into[found++] = (struct peer){address, (uint16_t)(remote >> 8 | remote << 8), (uint16_t)(local >> 8 | local << 8)};
    }
    if (f) fclose(f);
  }
  return found;
}

static void store(uint32_t at, uint32_t value) { *(volatile uint32_t *)(page + at) = value; }

// A page without its marks is not read at all: that would be no attack.
static void identify(void) {
  store(VERSION, PAGE_VERSION);
  store(MAGIC, GUEST_MAGIC);
}

static void scribble(void) {
  for (int i = 0; i < 64; i++) store(any(i % 2 ? HALVES / 4 : PAGE / 4) * 4, any(0));
  store(HEARTBEAT, any(0));
  store(APPLICATION, any(STATES));
  store(REPORT_SEQ, any(0) & ~1u);
  identify();
}

// A process that never was, and one of the connections that there are, each in its turn: named four times in a minute it would be ended.
static void tell(const struct peer *all, int count) {
  static unsigned turn;
  volatile uint64_t *head = (volatile uint64_t *)(page + HEAD);
  for (int kind = HF_CRASH_CONNECTION; kind <= HF_CRASH_PROCESS && count > 0; kind++) {
    const struct peer *p = &all[turn % count];
    struct hf_crash crash = {.kind = kind, .pid = any(0), .status = any(0), .family = 4, .rcv_nxt = any(0)};
    crash.raddr[3] = p->address;
    crash.rport = p->remote;
    crash.lport = p->local;
    memcpy((void *)(page + LISTS + *head % ENTRIES * sizeof crash), &crash, sizeof crash);
    ++*head;
  }
  turn++;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  if (argc != 3 || !map_page()) return fprintf(stderr, "usage: scribble SECONDS garbage|lists, in a guest\n"), 2;
  int garbage = strcmp(argv[2], "garbage") == 0;
  struct peer all[MOST];
  seed ^= time(NULL);
  for (double end = seconds() + atoi(argv[1]); seconds() < end;) {
    if (garbage) scribble();
    else tell(all, peers(all, MOST));
    usleep(garbage ? any(500) : 500000);
  }
}
