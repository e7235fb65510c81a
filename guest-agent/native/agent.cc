// What the guest agent needs of the kernel and Node lacks.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent.h"

namespace {

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

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("mapPage", Napi::Function::New(env, map_page));
  export_exit_watch(env, exports);
  export_notify(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(agent, init)
