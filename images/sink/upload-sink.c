// An HTTP/1.1 server that answers each PUT or POST with the SHA-256 of its body, as hex and a newline. What a
// connection receives depends on what it sent and on nothing else: no Date header, no limits in time or size.
//
//   upload-sink PORT [DIRECTORY]     the body of PUT /data/NAME is kept in DIRECTORY, see store.h
//
// One thread, epoll, level-triggered; a connection costs under 2 KiB.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http.h"

static uint8_t input[256 << 10];
static int epoll;

// Sends what is waiting. False if the connection is to be dropped.
static bool flush(struct connection *c) {
  while (c->out_len > 0) {
    ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    c->out_len -= n;
    memmove(c->out, c->out + n, c->out_len);
  }
  return true;
}

static void watch(struct connection *c) {
  // Input that waits behind a full output is read again from `held`, see http.h.
  uint32_t events = c->out_len > 0 ? EPOLLOUT : EPOLLIN;
  if (events == c->events) return;
  struct epoll_event event = {.events = events, .data.ptr = c};
  epoll_ctl(epoll, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event);
  c->events = events;
}

static void drop(struct connection *c) {
  store_abandon(&c->store);
  close(c->fd);
  free(c->held);
  free(c);
}

// Feeds input to the parser until it is used up or the client does not take the answers.
static bool serve(struct connection *c, const uint8_t *data, size_t n) {
  for (;;) {
    size_t used = http_consume(c, data, n);
    data += used, n -= used;
    if (!flush(c)) return false;
    if (c->state == CLOSING) return c->out_len > 0;
    if (n == 0) return true;
    if (c->out_len > 0) {
      uint8_t *copy = malloc(n);
      if (!copy) return false;
      memcpy(copy, data, n);
      c->held = copy, c->held_len = n;
      return true;
    }
  }
}

static bool ready(struct connection *c) {
  if (!flush(c)) return false;
  if (c->out_len > 0) return true;
  if (c->state == CLOSING) return false;
  if (c->held) {
    uint8_t *data = c->held;
    c->held = NULL;
    bool keep = serve(c, data, c->held_len);
    free(data);
    return keep;
  }
  ssize_t n = recv(c->fd, input, sizeof input, 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  return n > 0 && serve(c, input, n);
}

static void accept_all(int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && errno != ECONNABORTED && errno != EINTR) return;
    if (fd < 0) continue;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    struct connection *c = calloc(1, sizeof *c);
    if (!c) {
      close(fd);
      continue;
    }
    c->fd = fd;
    http_begin(c);
    watch(c);
  }
}

static int listen_on(uint16_t port) {
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_any};
  struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  bool v6 = fd >= 0;
  if (!v6) fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  if (v6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
  if (bind(fd, v6 ? (void *)&any6 : (void *)&any4, v6 ? sizeof any6 : sizeof any4) || listen(fd, 4096)) {
    perror("upload-sink: listen");
    exit(1);
  }
  return fd;
}

int main(int argc, char **argv) {
  struct rlimit files = {65536, 65536};
  setrlimit(RLIMIT_NOFILE, &files);
  signal(SIGPIPE, SIG_IGN);
  if (argc > 2 && !store_use(argv[2])) return perror(argv[2]), 1;
  epoll = epoll_create1(EPOLL_CLOEXEC);
  int listener = listen_on(argc > 1 ? atoi(argv[1]) : 8080);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  struct epoll_event events[256];
  for (;;) {
    int count = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (!c) accept_all(listener);
      else if (ready(c)) watch(c);
      else drop(c);
    }
  }
}
