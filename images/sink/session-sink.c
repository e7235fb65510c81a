// As upload-sink, with a process for each connection, as many a server of sessions has it:  session-sink PORT
#define _GNU_SOURCE
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http.h"

static uint8_t input[256 << 10];

// Until the client has ended, or has broken off. An end with status 0 is an ordinary one.
static void serve(int fd) {
  struct connection *c = calloc(1, sizeof *c);
  if (!c) _exit(1);
  c->fd = fd;
  http_begin(c);
  ssize_t n;
  while (c->state != CLOSING && (n = recv(fd, input, sizeof input, 0)) > 0) {
    for (ssize_t used = 0; used < n && c->state != CLOSING;) {
      used += http_consume(c, input + used, n - used);
      for (size_t sent = 0; sent < c->out_len;) {
        ssize_t m = send(fd, c->out + sent, c->out_len - sent, MSG_NOSIGNAL);
        if (m < 0) _exit(0);
        sent += m;
      }
      c->out_len = 0;
    }
  }
  _exit(0);
}

int main(int argc, char **argv) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(argc > 1 ? atoi(argv[1]) : 8080)};
  int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  signal(SIGCHLD, SIG_IGN);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
  if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 4096)) return perror("session-sink"), 1;
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    if (fork() == 0) {
      close(listener);
      serve(fd);
    }
    close(fd);
  }
}
