/* SPDX-License-Identifier: Apache-2.0 */
#include "common.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/tcp.h>
#include <net/ethernet.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

static const int REPAIR_SEND_QUEUE = 2; /* kernel: TCP_SEND_QUEUE */

static void option(Napi::Env env, int fd, const char *name, int level, int optname, int value)
{
	if (setsockopt(fd, level, optname, &value, sizeof value)) {
		int err = errno;
		close(fd);
		throwErrno(env, name, err);
	}
}

union Address {
	sockaddr any;
	sockaddr_in v4;
	sockaddr_in6 v6;
	socklen_t length() const { return any.sa_family == AF_INET6 ? sizeof v6 : sizeof v4; }
};

/* Of either family, as the text says. */
static Address address(const std::string &ip, int port)
{
	Address a = {};
	if (ip.find(':') != std::string::npos) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(port);
		inet_pton(AF_INET6, ip.c_str(), &a.v6.sin6_addr);
	} else {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(port);
		inet_pton(AF_INET, ip.c_str(), &a.v4.sin_addr);
	}
	return a;
}

/* replayConnect(clientIp, clientPort, ip, port, isn, receiveBuffer): a connecting socket whose SYN has sequence number `isn`. */
static Napi::Value replayConnect(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	Address from = address(stringArg(info, 0), intArg(info, 1)), to = address(stringArg(info, 2), intArg(info, 3));
	uint32_t isn = uintArg(info, 4);
	int fd = check(env, "socket", socket(from.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));

	if (from.any.sa_family == AF_INET6)
		option(env, fd, "IPV6_TRANSPARENT", IPPROTO_IPV6, IPV6_TRANSPARENT, 1);
	else
		option(env, fd, "IP_TRANSPARENT", IPPROTO_IP, IP_TRANSPARENT, 1);
	option(env, fd, "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1);
	option(env, fd, "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1);
	/* what the guest sends as urgent counts like any other byte of its output */
	option(env, fd, "SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1);
	option(env, fd, "SO_RCVBUFFORCE", SOL_SOCKET, SO_RCVBUFFORCE, intArg(info, 5));
	if (bind(fd, &from.any, from.length())) {
		int err = errno;
		close(fd);
		throwErrno(env, "bind", err);
	}
	option(env, fd, "TCP_REPAIR", IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	option(env, fd, "TCP_REPAIR_QUEUE", IPPROTO_TCP, TCP_REPAIR_QUEUE, REPAIR_SEND_QUEUE);
	option(env, fd, "TCP_QUEUE_SEQ", IPPROTO_TCP, TCP_QUEUE_SEQ, (int)isn);
	option(env, fd, "TCP_REPAIR", IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	if (connect(fd, &to.any, to.length()) && errno != EINPROGRESS) {
		int err = errno;
		close(fd);
		throwErrno(env, "connect", err);
	}
	return Napi::Number::New(env, fd);
}

/* sendBytes(fd, bytes, offset, length, urgent): bytes taken, or -errno. Urgent: the last byte is sent as urgent data. */
static Napi::Value sendBytes(const Napi::CallbackInfo &info)
{
	Napi::Uint8Array bytes = bytesArg(info, 1);
	size_t offset = info[2].As<Napi::Number>().Int64Value(), length = info[3].As<Napi::Number>().Int64Value();
	if (offset + length > bytes.ByteLength())
		throwErrno(info.Env(), "send", EINVAL);
	int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (info[4].ToBoolean() ? MSG_OOB : 0);
	ssize_t n = send(intArg(info, 0), bytes.Data() + offset, length, flags);
	return Napi::Number::New(info.Env(), n < 0 ? -errno : n);
}

/* discardInput(fd, max): bytes thrown away without copying them, 0 at the end of the stream, or -errno. */
static Napi::Value discardInput(const Napi::CallbackInfo &info)
{
	ssize_t n = recv(intArg(info, 0), nullptr, uintArg(info, 1), MSG_TRUNC | MSG_DONTWAIT);
	return Napi::Number::New(info.Env(), n < 0 ? -errno : n);
}

static Napi::Value socketError(const Napi::CallbackInfo &info)
{
	int err = 0;
	socklen_t n = sizeof err;
	check(info.Env(), "SO_ERROR", getsockopt(intArg(info, 0), SOL_SOCKET, SO_ERROR, &err, &n));
	return Napi::Number::New(info.Env(), err);
}

static Napi::Value shutdownWrite(const Napi::CallbackInfo &info)
{
	return Napi::Number::New(info.Env(), shutdown(intArg(info, 0), SHUT_WR) ? -errno : 0);
}

/* closeSilently(fd): no FIN, no RST (TCP repair mode). */
static Napi::Value closeSilently(const Napi::CallbackInfo &info)
{
	int fd = intArg(info, 0), on = TCP_REPAIR_ON;
	setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on);
	close(fd);
	return info.Env().Undefined();
}

static Napi::Value epollCreate(const Napi::CallbackInfo &info)
{
	return Napi::Number::New(info.Env(), check(info.Env(), "epoll_create1", epoll_create1(EPOLL_CLOEXEC)));
}

/* epollSet(epoll, fd, id, events, add) */
static Napi::Value epollSet(const Napi::CallbackInfo &info)
{
	epoll_event e = {};
	e.events = uintArg(info, 3);
	e.data.u32 = uintArg(info, 2);
	check(info.Env(), "epoll_ctl",
	      epoll_ctl(intArg(info, 0), info[4].ToBoolean() ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, intArg(info, 1), &e));
	return info.Env().Undefined();
}

/* epollWait(epoll, out: Uint32Array of pairs (id, events), timeoutMs): number of pairs. */
static Napi::Value epollWait(const Napi::CallbackInfo &info)
{
	Napi::Uint32Array out = info[1].As<Napi::Uint32Array>();
	std::vector<epoll_event> events(out.ElementLength() / 2);
	int n = epoll_wait(intArg(info, 0), events.data(), events.size(), intArg(info, 2));
	if (n < 0 && errno != EINTR)
		throwErrno(info.Env(), "epoll_wait", errno);
	for (int i = 0; i < n; i++) {
		out[2 * i] = events[i].data.u32;
		out[2 * i + 1] = events[i].events;
	}
	return Napi::Number::New(info.Env(), n < 0 ? 0 : n);
}

/* packetSocket(): sends whole frames; receives nothing. */
static Napi::Value packetSocket(const Napi::CallbackInfo &info)
{
	return Napi::Number::New(info.Env(), check(info.Env(), "AF_PACKET", socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)));
}

/* packetSend(fd, ifindex, frame): 0 or -errno. */
static Napi::Value packetSend(const Napi::CallbackInfo &info)
{
	Napi::Uint8Array frame = bytesArg(info, 2);
	sockaddr_ll to = {};
	to.sll_family = AF_PACKET;
	to.sll_ifindex = intArg(info, 1);
	memcpy(&to.sll_protocol, frame.Data() + 12, 2);
	to.sll_halen = 6;
	memcpy(to.sll_addr, frame.Data(), 6);
	ssize_t n = sendto(intArg(info, 0), frame.Data(), frame.ByteLength(), MSG_DONTWAIT, (sockaddr *)&to, sizeof to);
	return Napi::Number::New(info.Env(), n < 0 ? -errno : 0);
}

/* protocolSocket(ifindex, type): sends and receives frames of one Ethernet type at one interface; never waits. */
static Napi::Value protocolSocket(const Napi::CallbackInfo &info)
{
	int fd = check(info.Env(), "AF_PACKET", socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	sockaddr_ll at = {};
	at.sll_family = AF_PACKET;
	at.sll_protocol = htons(intArg(info, 1));
	at.sll_ifindex = intArg(info, 0);
	if (bind(fd, (sockaddr *)&at, sizeof at) < 0) {
		int err = errno;
		close(fd);
		throwErrno(info.Env(), "bind", err);
	}
	return Napi::Number::New(info.Env(), fd);
}

/* packetReceive(fd, out): bytes of the next frame, or -errno. */
static Napi::Value packetReceive(const Napi::CallbackInfo &info)
{
	Napi::Uint8Array out = bytesArg(info, 1);
	ssize_t n = recv(intArg(info, 0), out.Data(), out.ByteLength(), MSG_DONTWAIT);
	return Napi::Number::New(info.Env(), n < 0 ? -errno : n);
}

void exportSockets(Napi::Env env, Napi::Object exports)
{
	exports.Set("replayConnect", Napi::Function::New(env, replayConnect));
	exports.Set("sendBytes", Napi::Function::New(env, sendBytes));
	exports.Set("discardInput", Napi::Function::New(env, discardInput));
	exports.Set("socketError", Napi::Function::New(env, socketError));
	exports.Set("shutdownWrite", Napi::Function::New(env, shutdownWrite));
	exports.Set("closeSilently", Napi::Function::New(env, closeSilently));
	exports.Set("epollCreate", Napi::Function::New(env, epollCreate));
	exports.Set("epollSet", Napi::Function::New(env, epollSet));
	exports.Set("epollWait", Napi::Function::New(env, epollWait));
	exports.Set("packetSocket", Napi::Function::New(env, packetSocket));
	exports.Set("protocolSocket", Napi::Function::New(env, protocolSocket));
	exports.Set("packetReceive", Napi::Function::New(env, packetReceive));
	exports.Set("packetSend", Napi::Function::New(env, packetSend));
}
