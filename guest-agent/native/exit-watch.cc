// Loads the exit watch (bpf/exit-watch.bpf.c) and copies what it tells to the control page, in a thread that waits for nobody.
//
// Programs and maps are pinned: they go on while the agent is dead, and the next one finds what they have told meanwhile.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <link.h>
#include <linux/types.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>

#include "agent.h"
#include "crash.h"
#include "watched.h"

namespace {

constexpr int PRIORITY = 49;  // below the heart

struct Ring {
  uint8_t *entries;
  uint32_t count;
  std::atomic<uint64_t> *head;
  int settings;
  uint32_t lost;
};

int services_fd = -1;
std::string said;  // by libbpf about a load that failed: the verifier's reason stands nowhere else

int keep_words(libbpf_print_level level, const char *format, va_list args) {
  char line[512];
  if (level != LIBBPF_DEBUG && vsnprintf(line, sizeof line, format, args) > 0 && said.size() < 4096) said += line;
  return 0;
}

// An entry, then the number of entries: the host takes what lies below it.
int copy_crash(void *context, void *data, size_t size) {
  auto *ring = static_cast<Ring *>(context);
  const uint64_t head = ring->head->load(std::memory_order_relaxed);
  if (size >= sizeof(hf_crash)) memcpy(ring->entries + (head % ring->count) * sizeof(hf_crash), data, sizeof(hf_crash));
  ring->head->store(head + 1, std::memory_order_release);
  return 0;
}

// What the kernel's ring had no room for is told as a jump that no page has room for: the host then trusts no list.
void tell_lost(Ring *ring) {
  hf_settings settings;
  const uint32_t zero = 0;
  if (bpf_map_lookup_elem(ring->settings, &zero, &settings) != 0 || settings.lost == ring->lost) return;
  ring->lost = settings.lost;
  ring->head->fetch_add(ring->count + 1ULL, std::memory_order_release);
}

struct Watcher {
  ring_buffer *buffer;
  Ring ring;
};

void *watch(void *arg) {
  auto *w = static_cast<Watcher *>(arg);
  for (;;) {
    ring_buffer__poll(w->buffer, -1);
    tell_lost(&w->ring);
  }
  return nullptr;
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

// `watch` in a SCHED_FIFO thread. Returns an errno.
int start_thread(Watcher *watcher) {
  const int error = lock_programs();
  if (error) return error;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
  pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
  const sched_param param = {PRIORITY};
  pthread_attr_setschedparam(&attr, &param);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  const int failed = pthread_create(&thread, &attr, watch, watcher);
  pthread_attr_destroy(&attr);
  return failed;
}

int pin_all(bpf_object *object, const std::string &dir) {
  bpf_map *map;
  bpf_object__for_each_map(map, object) {
    if (bpf_map__is_internal(map)) continue;
    const int error = bpf_map__pin(map, (dir + "/" + bpf_map__name(map)).c_str());
    if (error) return error;
  }
  bpf_program *program;
  bpf_object__for_each_program(program, object) {
    if (bpf_program__type(program) == BPF_PROG_TYPE_SCHED_CLS) continue;
    bpf_link *link = bpf_program__attach(program);
    if (link == nullptr) return -errno;
    const int error = bpf_link__pin(link, (dir + "/" + bpf_program__name(program) + "_link").c_str());
    if (error) return error;
  }
  return 0;
}

int guard(bpf_object *object, int ifindex) {
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_EGRESS);
  LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = bpf_program__fd(bpf_object__find_program_by_name(object, "egress_guard")),
              .flags = BPF_TC_F_REPLACE, .handle = 1, .priority = 1);
  const int error = bpf_tc_hook_create(&hook);
  return error && error != -EEXIST ? error : bpf_tc_attach(&hook, &opts);
}

int set_ports(const std::string &dir, const Napi::Array &ports) {
  hf_settings settings = {};
  const uint32_t zero = 0;
  for (uint32_t i = 0; i < ports.Length(); i++) {
    const uint32_t port = ports.Get(i).As<Napi::Number>().Uint32Value() & 0xffff;
    settings.ports[port >> 3] |= 1 << (port & 7);
  }
  const int fd = bpf_obj_get((dir + "/settings").c_str());
  const int error = fd < 0 ? -errno : bpf_map_update_elem(fd, &zero, &settings, BPF_ANY);
  if (fd >= 0) close(fd);
  return error;
}

// The pin that is made last says that all is there.
bool is_loaded(const std::string &dir) { return access((dir + "/complete").c_str(), F_OK) == 0; }

// Removes what a load that was broken off has left.
void unpin(const std::string &dir) {
  for (const char *name : {"services", "settings", "marks", "crashed", "crashes", "signal_generate_link",
                           "process_exit_link", "socket_state_link", "complete"})
    unlink((dir + "/" + name).c_str());
  rmdir(dir.c_str());
}

int load(const std::string &file, const std::string &dir, int ifindex, const Napi::Array &ports) {
  unpin(dir);
  if (mkdir(dir.c_str(), 0700) != 0) return -errno;
  bpf_object *object = bpf_object__open_file(file.c_str(), nullptr);
  if (object == nullptr) return -errno;
  bpf_program__set_type(bpf_object__find_program_by_name(object, "egress_guard"), BPF_PROG_TYPE_SCHED_CLS);
  int error = bpf_object__load(object);
  // The guard first: what is taken for crashed must not get out.
  if (!error) error = guard(object, ifindex);
  if (!error) error = pin_all(object, dir);
  if (!error) error = set_ports(dir, ports);
  const int settings = bpf_map__fd(bpf_object__find_map_by_name(object, "settings"));
  if (!error && bpf_obj_pin(settings, (dir + "/complete").c_str()) != 0) error = -errno;
  bpf_object__close(object);  // the pins keep what was made
  return error;
}

// watchExits(object, pins, ifindex, ports, page, { head, entries, count })
Napi::Value watch_exits(const Napi::CallbackInfo &info) {
  const Napi::Env env = info.Env();
  const std::string file = info[0].As<Napi::String>(), dir = info[1].As<Napi::String>();
  auto *page = static_cast<uint8_t *>(info[4].As<Napi::ArrayBuffer>().Data());
  const auto layout = info[5].As<Napi::Object>();
  const auto get = [&](const char *name) { return layout.Get(name).As<Napi::Number>().Uint32Value(); };
  said.clear();
  libbpf_set_print(keep_words);
  if (!is_loaded(dir)) {
    const int error = load(file, dir, info[2].As<Napi::Number>().Int32Value(), info[3].As<Napi::Array>());
    if (error) return unpin(dir), fail(env, "load " + file + "\n" + said, -error), env.Undefined();
  }
  services_fd = bpf_obj_get((dir + "/services").c_str());
  const int crashes = bpf_obj_get((dir + "/crashes").c_str());
  // All three live as long as the process, as the thread does.
  auto *w = new Watcher{nullptr, {page + get("entries"), get("count"),
                                  reinterpret_cast<std::atomic<uint64_t> *>(page + get("head")),
                                  bpf_obj_get((dir + "/settings").c_str()), 0}};
  w->buffer = ring_buffer__new(crashes, copy_crash, &w->ring, nullptr);
  if (w->buffer == nullptr || services_fd < 0) return fail(env, "open the pins in " + dir), env.Undefined();
  const int error = start_thread(w);
  if (error) fail(env, "start the watching thread", error);
  return env.Undefined();
}

// Cgroups that systemd made for the same service before are gone, and there is no room for all that ever were.
void forget_others(uint64_t cgroup, uint32_t service) {
  uint64_t id, next;
  hf_watched watched;
  for (bool more = bpf_map_get_next_key(services_fd, nullptr, &next) == 0; more;) {
    id = next;
    more = bpf_map_get_next_key(services_fd, &id, &next) == 0;
    if (id != cgroup && bpf_map_lookup_elem(services_fd, &id, &watched) == 0 && watched.service == service)
      bpf_map_delete_elem(services_fd, &id);
  }
}

// watchService(cgroup: bigint, service, main, announced, cleanExitCrashes): from now on, with no mark of an earlier end.
Napi::Value watch_service(const Napi::CallbackInfo &info) {
  bool lossless;
  const uint64_t id = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  const auto number = [&](int i) { return info[i].As<Napi::Number>().Uint32Value(); };
  const hf_watched watched = {.main = number(2), .service = number(1), .announced = info[3].ToBoolean(),
                              .clean_exit_crashes = info[4].ToBoolean(), .doomed_until = 0};
  if (bpf_map_update_elem(services_fd, &id, &watched, BPF_ANY) != 0) fail(info.Env(), "watch a service");
  forget_others(id, number(1));
  return info.Env().Undefined();
}

}  // namespace

void export_exit_watch(Napi::Env env, Napi::Object exports) {
  exports.Set("watchExits", Napi::Function::New(env, watch_exits));
  exports.Set("watchService", Napi::Function::New(env, watch_service));
}
