// sd_notify's protocol, for which Node has no sockets: datagrams on a Unix socket, whose sender the kernel names.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "agent.h"

namespace {

constexpr size_t MOST_TEXT = 4096;
// Read at once, before the event loop turns to others.
constexpr int MOST_READ = 64;

struct Socket {
  uv_poll_t poll;
  Napi::FunctionReference heard;
};

// '@' begins the name of an abstract socket. Returns 0 if the name is too long.
socklen_t address_of(const std::string &name, sockaddr_un *address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (name.empty() || name.size() >= sizeof address->sun_path) return 0;
  memcpy(address->sun_path, name.data(), name.size());
  if (name[0] == '@') address->sun_path[0] = 0;
  return offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '@' ? 0 : 1);
}

// One datagram: its length, -1 if there is none. Room for the sender's credentials alone: descriptors sent with it are closed.
ssize_t receive(int fd, char *text, pid_t *pid) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  iovec part = {text, MOST_TEXT};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  const cmsghdr *c = size < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  ucred sender = {};
  if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) memcpy(&sender, CMSG_DATA(c), sizeof sender);
  *pid = sender.pid;
  return size;
}

void on_readable(uv_poll_t *poll, int, int) {
  auto *s = static_cast<Socket *>(poll->data);
  const Napi::Env env = s->heard.Env();
  const Napi::HandleScope scope(env);
  int fd;
  if (uv_fileno(reinterpret_cast<uv_handle_t *>(poll), &fd) != 0) return;
  for (int i = 0; i < MOST_READ; i++) {
    char text[MOST_TEXT];
    pid_t pid;
    const ssize_t size = receive(fd, text, &pid);
    if (size < 0) return;
    s->heard.MakeCallback(env.Global(), {Napi::Number::New(env, pid), Napi::String::New(env, text, size)});
  }
}

// hearNotifications(path, heard: (pid, text) => void)
Napi::Value hear(const Napi::CallbackInfo &info) {
  const Napi::Env env = info.Env();
  const std::string path = info[0].As<Napi::String>();
  sockaddr_un address;
  const socklen_t length = address_of(path, &address);
  if (length == 0) return fail(env, "bind " + path, ENAMETOOLONG), env.Undefined();
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  unlink(path.c_str());
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) != 0 ||
      bind(fd, reinterpret_cast<sockaddr *>(&address), length) != 0 || chmod(path.c_str(), 0666) != 0) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return fail(env, "bind " + path, error), env.Undefined();
  }
  uv_loop_t *loop;
  napi_get_uv_event_loop(env, &loop);
  // Heard for as long as the process lives; it alone does not keep it alive.
  auto *s = new Socket{{}, Napi::Persistent(info[1].As<Napi::Function>())};
  s->poll.data = s;
  uv_poll_init(loop, &s->poll, fd);
  uv_poll_start(&s->poll, UV_READABLE, on_readable);
  uv_unref(reinterpret_cast<uv_handle_t *>(&s->poll));
  return env.Undefined();
}

// notify(path, text): never waits; who does not read loses it.
Napi::Value notify(const Napi::CallbackInfo &info) {
  const Napi::Env env = info.Env();
  const std::string path = info[0].As<Napi::String>(), text = info[1].As<Napi::String>();
  sockaddr_un address;
  const socklen_t length = address_of(path, &address);
  if (length == 0) return fail(env, "notify " + path, ENAMETOOLONG), env.Undefined();
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const ssize_t sent = fd < 0 ? -1
                              : sendto(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                                       reinterpret_cast<sockaddr *>(&address), length);
  const int error = errno;
  if (fd >= 0) close(fd);
  if (sent < 0) fail(env, "notify " + path, error);
  return env.Undefined();
}

}  // namespace

void export_notify(Napi::Env env, Napi::Object exports) {
  exports.Set("hearNotifications", Napi::Function::New(env, hear));
  exports.Set("notify", Napi::Function::New(env, notify));
}
