// As upload-sink, by a main process and workers that have a thread for each connection:  mortal-sink PORT WORKERS
//
// A worker dies as a signal tells it; each is taken by a thread that serves nobody, and is not the process's first one:
//
//   SIGUSR1   that thread reads from address 0: SIGSEGV, which ends them all
//   SIGUSR2   that thread calls exit(1)
//   SIGHUP    that thread takes memory until the kernel has no more for it
//   SIGWINCH  no death: the first thread, which accepts connections, ends; those that serve go on
#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../../images/sink/http.h"

enum { MOST_WORKERS = 16, HUNGRY_BYTES = 1 << 20 };

// Connections of each worker, so that each gets its share.
static volatile int *served;
static int workers, me;
static sigset_t told;

static void *serve(void *arg) {
  struct connection *c = calloc(1, sizeof *c);
  uint8_t *input = malloc(256 << 10);
  if (!c || !input) abort();
  c->fd = (int)(intptr_t)arg;
  http_begin(c);
  ssize_t n;
  while (c->state != CLOSING && (n = recv(c->fd, input, 256 << 10, 0)) > 0) {
    for (ssize_t used = 0; used < n && c->state != CLOSING;) {
      used += http_consume(c, input + used, n - used);
      for (size_t sent = 0; sent < c->out_len;) {
        ssize_t m = send(c->fd, c->out + sent, c->out_len - sent, MSG_NOSIGNAL);
        if (m < 0) c->state = CLOSING;
        sent = m < 0 ? c->out_len : sent + m;
      }
      c->out_len = 0;
    }
  }
  close(c->fd);
  __sync_fetch_and_sub(&served[me], 1);
  free(input);
  free(c);
  return NULL;
}

static void leave(int signal) { pthread_exit(NULL); }

static void *die(void *first) {
  int signal;
  while (sigwait(&told, &signal) == 0) switch (signal) {
      case SIGUSR1:
        *(volatile int *)NULL;
        break;
      case SIGUSR2:
        exit(1);
      case SIGHUP:
        for (;;) memset(malloc(HUNGRY_BYTES), 1, HUNGRY_BYTES);
      case SIGWINCH:
        pthread_kill(*(pthread_t *)first, SIGURG);
    }
  return NULL;
}

static bool is_my_turn(void) {
  for (int i = 0; i < workers; i++)
    if (served[i] < served[me]) return false;
  return true;
}

static void work(int listener) {
  pthread_t first = pthread_self(), thread;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGURG, leave);
  pthread_sigmask(SIG_BLOCK, &told, NULL);
  pthread_create(&thread, NULL, die, &first);
  for (;;) {
    if (!is_my_turn()) {
      usleep(1000);
      continue;
    }
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    __sync_fetch_and_add(&served[me], 1);
    pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd);
    pthread_detach(thread);
  }
}

static pid_t start(int listener, int worker) {
  pid_t pid = fork();
  if (pid == 0) {
    me = worker;
    work(listener);
  }
  return pid;
}

int main(int argc, char **argv) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(argc > 1 ? atoi(argv[1]) : 8080)};
  int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  pid_t pids[MOST_WORKERS];
  workers = argc > 2 ? atoi(argv[2]) : 2;
  if (workers < 1 || workers > MOST_WORKERS) return fprintf(stderr, "mortal-sink: 1 to %d workers\n", MOST_WORKERS), 2;
  served = mmap(NULL, MOST_WORKERS * sizeof *served, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  sigemptyset(&told);
  for (const int *s = (int[]){SIGUSR1, SIGUSR2, SIGHUP, SIGWINCH, 0}; *s; s++) sigaddset(&told, *s);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
  if (served == MAP_FAILED || bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 4096))
    return perror("mortal-sink"), 1;
  for (int i = 0; i < workers; i++) pids[i] = start(listener, i);
  for (pid_t pid; (pid = wait(NULL)) > 0;)
    for (int i = 0; i < workers; i++)
      if (pids[i] == pid) {
        served[i] = 0;
        pids[i] = start(listener, i);
      }
}
