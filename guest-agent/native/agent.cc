// The part of the guest agent that must not wait for an event loop: a real-time thread that beats on the control
// page, follows the host's epoch and carries out its command word. The layout comes from wire/control-page.ts.
#include <fcntl.h>
#include <napi.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>

namespace {

struct Heartbeat {
  volatile uint8_t *page;
  uint32_t heartbeat, epoch_echo, command_echo;
  uint32_t activation_seq, epoch, wall_clock_ns, command, command_id;
  uint32_t panic_command, beat_ms, clock_tolerance_ms;
  int sysrq;

  volatile uint32_t &u32(uint32_t offset) const { return *reinterpret_cast<volatile uint32_t *>(page + offset); }
  volatile uint64_t &u64(uint32_t offset) const { return *reinterpret_cast<volatile uint64_t *>(page + offset); }
};

int64_t now_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void follow_epoch(const Heartbeat &h) {
  const uint32_t seq = h.u32(h.activation_seq);
  std::atomic_thread_fence(std::memory_order_acquire);
  const uint32_t epoch = h.u32(h.epoch);
  const int64_t wall = static_cast<int64_t>(h.u64(h.wall_clock_ns));
  std::atomic_thread_fence(std::memory_order_acquire);
  // A torn read is tried again at the next beat, 10 ms later.
  if ((seq & 1) || h.u32(h.activation_seq) != seq || epoch == h.u32(h.epoch_echo)) return;
  const int64_t off = now_ns(CLOCK_REALTIME) - wall;
  const int64_t tolerance = h.clock_tolerance_ms * 1000000LL;
  if (wall > 0 && (off > tolerance || off < -tolerance)) {
    const timespec t = {wall / 1000000000LL, wall % 1000000000LL};
    clock_settime(CLOCK_REALTIME, &t);
  }
  h.u32(h.epoch_echo) = epoch;
}

void obey(const Heartbeat &h) {
  const uint32_t id = h.u32(h.command_id);
  if (id == h.u32(h.command_echo)) return;
  std::atomic_thread_fence(std::memory_order_acquire);
  const uint32_t command = h.u32(h.command);
  // Echoed first: the next boot on the same page must not carry it out again.
  h.u32(h.command_echo) = id;
  if (command == h.panic_command && write(h.sysrq, "c", 1) != 1) return;
}

void *beat(void *arg) {
  const Heartbeat &h = *static_cast<Heartbeat *>(arg);
  timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (;;) {
    h.u64(h.heartbeat) = h.u64(h.heartbeat) + 1;
    follow_epoch(h);
    obey(h);
    next.tv_nsec += h.beat_ms * 1000000L;
    if (next.tv_nsec >= 1000000000L) next.tv_sec += 1, next.tv_nsec -= 1000000000L;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, nullptr);
    // After a long pause do not make up for the beats that were missed.
    if (now_ns(CLOCK_MONOTONIC) - (next.tv_sec * 1000000000LL + next.tv_nsec) > 1000000000LL)
      clock_gettime(CLOCK_MONOTONIC, &next);
  }
  return nullptr;
}

void fail(Napi::Env env, const std::string &what) {
  Napi::Error::New(env, what + ": " + strerror(errno)).ThrowAsJavaScriptException();
}

Napi::Value map_page(const Napi::CallbackInfo &info) {
  const Napi::Env env = info.Env();
  const std::string path = info[0].As<Napi::String>();
  const size_t bytes = info[1].As<Napi::Number>().Int64Value();
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return fail(env, "open " + path), env.Undefined();
  void *page = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int error = errno;
  close(fd);
  errno = error;
  if (page == MAP_FAILED) return fail(env, "mmap " + path), env.Undefined();
  return Napi::ArrayBuffer::New(env, page, bytes, [](Napi::Env, void *) { /* mapped for the process's life */ });
}

Napi::Value start_heartbeat(const Napi::CallbackInfo &info) {
  const Napi::Env env = info.Env();
  const auto layout = info[1].As<Napi::Object>();
  const auto get = [&](const char *name) { return layout.Get(name).As<Napi::Number>().Uint32Value(); };
  // Lives as long as the process, as the thread does.
  auto *h = new Heartbeat{static_cast<uint8_t *>(info[0].As<Napi::ArrayBuffer>().Data()),
                          get("heartbeat"), get("epochEcho"), get("commandEcho"),
                          get("activationSeq"), get("epoch"), get("wallClockNs"), get("command"), get("commandId"),
                          get("panicCommand"), get("beatMs"), get("clockToleranceMs"),
                          open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC)};
  // On fault only: locking all that V8 reserves would take more memory than the guest has.
  if (mlockall(MCL_CURRENT | MCL_ONFAULT) != 0) return fail(env, "mlockall"), env.Undefined();
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
  pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
  const sched_param priority = {50};
  pthread_attr_setschedparam(&attr, &priority);
  pthread_attr_setstacksize(&attr, 64 << 10);
  pthread_t thread;
  errno = pthread_create(&thread, &attr, beat, h);
  pthread_attr_destroy(&attr);
  if (errno != 0) return fail(env, "start the heartbeat thread"), env.Undefined();
  pthread_detach(thread);
  return env.Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("mapPage", Napi::Function::New(env, map_page));
  exports.Set("startHeartbeat", Napi::Function::New(env, start_heartbeat));
  return exports;
}

}  // namespace

NODE_API_MODULE(agent, init)
