/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel knows of one network interface: one question, one answer, however many interfaces there are. */
#include "common.h"
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

/* routeSocket(): for linkState, in the network namespace of the caller. */
static Napi::Value routeSocket(const Napi::CallbackInfo &info)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	return Napi::Number::New(info.Env(), check(info.Env(), "AF_NETLINK", fd));
}

/*
 * linkState(fd, ifindex, Float64Array out): fills flags (IFF_*), packets received, sent, and dropped as they were to be sent.
 * 0 or -errno (ENODEV: there is no such interface).
 */
static Napi::Value linkState(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = intArg(info, 0);
	struct {
		nlmsghdr header;
		ifinfomsg link;
	} request = {};
	alignas(nlmsghdr) char answer[16384];
	request.header.nlmsg_len = sizeof request;
	request.header.nlmsg_type = RTM_GETLINK;
	request.header.nlmsg_flags = NLM_F_REQUEST;
	request.link.ifi_index = intArg(info, 1);
	if (send(fd, &request, sizeof request, 0) < 0)
		return Napi::Number::New(env, -errno);
	/* The kernel has answered before send() returns. */
	int n = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
	if (n < 0)
		return Napi::Number::New(env, -errno);
	auto *header = (nlmsghdr *)answer;
	if (!NLMSG_OK(header, (unsigned)n))
		return Napi::Number::New(env, -EBADMSG);
	if (header->nlmsg_type == NLMSG_ERROR)
		return Napi::Number::New(env, ((nlmsgerr *)NLMSG_DATA(header))->error);
	auto *link = (ifinfomsg *)NLMSG_DATA(header);
	Napi::Float64Array out = info[2].As<Napi::Float64Array>();
	int left = IFLA_PAYLOAD(header);
	out[0] = link->ifi_flags;
	for (rtattr *a = IFLA_RTA(link); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type != IFLA_STATS64)
			continue;
		rtnl_link_stats64 stats = {};
		memcpy(&stats, RTA_DATA(a), RTA_PAYLOAD(a) < sizeof stats ? RTA_PAYLOAD(a) : sizeof stats);
		out[1] = stats.rx_packets;
		out[2] = stats.tx_packets;
		out[3] = stats.tx_dropped;
	}
	return Napi::Number::New(env, 0);
}

void exportLink(Napi::Env env, Napi::Object exports)
{
	exports.Set("routeSocket", Napi::Function::New(env, routeSocket));
	exports.Set("linkState", Napi::Function::New(env, linkState));
}
