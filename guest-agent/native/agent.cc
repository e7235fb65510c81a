// The part of the guest agent that must not wait for an event loop: a real-time thread that beats on the control
// page, follows the host's epoch and carries out its command word. The layout comes from wire/control-page.ts.
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "agent.h"

int start_thread(void *(*run)(void *), void *arg, int priority, int cpu) {
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
  pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
  const sched_param param = {priority};
  pthread_attr_setschedparam(&attr, &param);
  pthread_attr_setstacksize(&attr, 64 << 10);
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_attr_setaffinity_np(&attr, sizeof set, &set);
  }
  pthread_t thread;
  const int error = pthread_create(&thread, &attr, run, arg);
  pthread_attr_destroy(&attr);
  if (error == 0) pthread_detach(thread);
  return error;
}

namespace {

struct Heartbeat {
  volatile uint8_t *page;
  uint32_t heartbeat, epoch_echo, command_echo, clock_echo;
  uint32_t activation_seq, epoch, wall_clock_ns, command, command_id;
  uint32_t panic, halt, spin, reboot, poweroff, beat_ms, backup_beat_ms, clock_tolerance_ms;
  int sysrq, halt_module;
  napi_threadsafe_function others;

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
  // A torn read is tried again at the next beat.
  if ((seq & 1) || h.u32(h.activation_seq) != seq || seq == h.u32(h.clock_echo)) return;
  const int64_t off = now_ns(CLOCK_REALTIME) - wall;
  const int64_t tolerance = h.clock_tolerance_ms * 1000000LL;
  if (wall > 0 && (off > tolerance || off < -tolerance)) {
    const timespec t = {wall / 1000000000LL, wall % 1000000000LL};
    clock_settime(CLOCK_REALTIME, &t);
  }
  h.u32(h.clock_echo) = seq;
  // The host replays connections once it reads this: the clock is right by then.
  std::atomic_thread_fence(std::memory_order_release);
  h.u32(h.epoch_echo) = epoch;
}

void *spin(void *) {
  for (volatile uint32_t i = 0;; i = i + 1) {
  }
  return nullptr;
}

// From the last CPU to the first: the one that we run on goes on until its spinner is there.
void spin_everywhere() {
  const int throttle = open("/proc/sys/kernel/sched_rt_runtime_us", O_WRONLY | O_CLOEXEC);
  if (throttle < 0 || write(throttle, "-1", 2) != 2) return;
  const int self = sched_getcpu();
  for (int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1; cpu >= 0; cpu--)
    if (cpu != self) start_thread(spin, nullptr, 99, cpu);
  start_thread(spin, nullptr, 99, self);
}

void obey(const Heartbeat &h) {
  const uint32_t id = h.u32(h.command_id);
  if (id == h.u32(h.command_echo)) return;
  std::atomic_thread_fence(std::memory_order_acquire);
  const uint32_t command = h.u32(h.command);
  // Echoed first: the next boot on the same page must not carry it out again.
  h.u32(h.command_echo) = id;
  if (command == h.panic && write(h.sysrq, "c", 1) != 1) return;
  if (command == h.halt) syscall(SYS_finit_module, h.halt_module, "", 0);
  if (command == h.spin) spin_everywhere();
  if (command == h.reboot) ::reboot(RB_AUTOBOOT);
  if (command == h.poweroff) kill(1, SIGUSR2);
  if (command > h.poweroff)
    napi_call_threadsafe_function(h.others, reinterpret_cast<void *>(static_cast<uintptr_t>(command)), napi_tsfn_nonblocking);
}

// Keeps what has been run of the programs in memory, once it is there. Not all memory: V8 ends the process if it can't
// give back what it has freed, and what is locked can't be given back.
int lock_programs() {
  const auto lock = [](dl_phdr_info *object, size_t, void *) {
    for (int i = 0; i < object->dlpi_phnum; i++) {
      const ElfW(Phdr) &segment = object->dlpi_phdr[i];
      if (segment.p_type != PT_LOAD || segment.p_memsz == 0) continue;
      void *start = reinterpret_cast<void *>(object->dlpi_addr + segment.p_vaddr);
      if (mlock2(start, segment.p_memsz, MLOCK_ONFAULT) != 0) return errno;
    }
    return 0;
  };
  return dl_iterate_phdr(lock, nullptr);
}

// The calling thread's own, whole and at once.
void lock_stack() {
  pthread_attr_t attr;
  void *stack;
  size_t bytes;
  if (pthread_getattr_np(pthread_self(), &attr) != 0) return;
  if (pthread_attr_getstack(&attr, &stack, &bytes) == 0) mlock(stack, bytes);
  pthread_attr_destroy(&attr);
}

void *beat(void *arg) {
  const Heartbeat &h = *static_cast<Heartbeat *>(arg);
  lock_stack();
  timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (;;) {
    h.u64(h.heartbeat) = h.u64(h.heartbeat) + 1;
    follow_epoch(h);
    obey(h);
    next.tv_nsec += (h.u32(h.epoch_echo) == 0 ? h.backup_beat_ms : h.beat_ms) * 1000000L;
    if (next.tv_nsec >= 1000000000L) next.tv_sec += 1, next.tv_nsec -= 1000000000L;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, nullptr);
    // After a long pause do not make up for the beats that were missed.
    if (now_ns(CLOCK_MONOTONIC) - (next.tv_sec * 1000000000LL + next.tv_nsec) > 1000000000LL)
      clock_gettime(CLOCK_MONOTONIC, &next);
  }
  return nullptr;
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

// On the event loop: a command that is not for the real-time thread.
void pass_on(napi_env env, napi_value callback, void *, void *data) {
  if (env == nullptr) return;
  napi_value self, command;
  napi_get_undefined(env, &self);
  napi_create_uint32(env, static_cast<uint32_t>(reinterpret_cast<uintptr_t>(data)), &command);
  napi_call_function(env, self, callback, 1, &command, nullptr);
}

Napi::Value start_heartbeat(const Napi::CallbackInfo &info) {
  const Napi::Env env = info.Env();
  const auto layout = info[1].As<Napi::Object>();
  const auto get = [&](const char *name) { return layout.Get(name).As<Napi::Number>().Uint32Value(); };
  napi_threadsafe_function others;
  if (napi_create_threadsafe_function(env, info[2], nullptr, Napi::String::New(env, "commands"), 0, 1, nullptr, nullptr,
                                      nullptr, pass_on, &others) != napi_ok)
    return fail(env, "make a way for commands", ENOMEM), env.Undefined();
  // Lives as long as the process, as the thread does.
  auto *h = new Heartbeat{static_cast<uint8_t *>(info[0].As<Napi::ArrayBuffer>().Data()),
                          get("heartbeat"), get("epochEcho"), get("commandEcho"), get("clockEcho"),
                          get("activationSeq"), get("epoch"), get("wallClockNs"), get("command"), get("commandId"),
                          get("panic"), get("halt"), get("spin"), get("reboot"), get("poweroff"),
                          get("beatMs"), get("backupBeatMs"), get("clockToleranceMs"),
                          open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC),
                          open(layout.Get("haltModule").As<Napi::String>().Utf8Value().c_str(), O_RDONLY | O_CLOEXEC),
                          others};
  mlock(h, sizeof *h);
  errno = lock_programs();
  if (errno != 0) return fail(env, "mlock2"), env.Undefined();
  errno = start_thread(beat, h, 50, -1);
  if (errno != 0) return fail(env, "start the heartbeat thread"), env.Undefined();
  return env.Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("mapPage", Napi::Function::New(env, map_page));
  exports.Set("startHeartbeat", Napi::Function::New(env, start_heartbeat));
  export_exit_watch(env, exports);
  export_notify(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(agent, init)
