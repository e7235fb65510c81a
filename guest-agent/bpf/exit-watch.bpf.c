// SPDX-License-Identifier: GPL-2.0
/*
 * Exit watch: a process that dies must not say goodbye to its clients (promise P4).
 *
 *   signal_generate      somebody outside tells a service to end: what it closes from now on, it closes because of that
 *   sched_process_exit   fires before the kernel closes the files of the dying: marks the process, if it dies badly
 *   inet_sock_set_state  in the context of a marked process: its connection, about to say FIN or RST, is written down as crashed
 *   egress_guard         no segment of a crashed connection leaves the guest, now or later
 *
 * A service is a cgroup, made by the agent. The mark lies in the storage of the thread group's leader, never under a pid, which is
 * used again; of a process with threads, whichever of them is the last to let go of the files closes them.
 *
 * The guard is lifted by the guest's own SYN-ACK on the tuple: only a listener says that, and only when no socket has the tuple any
 * more, so nothing of the dead connection can come after it. No generation has to be agreed upon with the host.
 *
 * Limits: a socket that a process outside the service's cgroup, an io_uring or a message in flight (SCM_RIGHTS) still holds is
 * closed by them, later, and not seen; a network namespace of the service's own is not watched.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/stddef.h>
#include <linux/tcp.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "crash.h"
#include "watched.h"

#define CORE __attribute__((preserve_access_index))

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
	unsigned int flags;
	int group_exit_code;
} CORE;

struct kernfs_node {
	__u64 id;
} CORE;

struct cgroup {
	struct kernfs_node *kn;
} CORE;

struct css_set {
	struct cgroup *dfl_cgrp;
} CORE;

struct task_struct {
	int tgid;
	int exit_code;
	struct signal_struct *signal;
	struct task_struct *group_leader;
	struct css_set *cgroups;
} CORE;

struct kernel_siginfo;

struct sock_common {
	__u32 skc_daddr;
	__u16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr;
	unsigned long skc_flags;
} CORE;

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
} CORE;

struct inet_sock {
	__u16 inet_sport;
} CORE;

struct tcp_sock {
	__u32 rcv_nxt;
} CORE;

#define SIGINT 2
#define SIGQUIT 3
#define SIGTERM 15
#define SIGNAL_GROUP_EXIT 4 /* include/linux/sched/signal.h */
#define SOCK_DEAD 1         /* 1 << SOCK_DEAD, include/net/sock.h: no process has it any more */
#define DELIVERED 0         /* TRACE_SIGNAL_DELIVERED */
#define AF_INET 2
#define AF_INET6 10

enum { ESTABLISHED = 1, FIN_WAIT1 = 4, FIN_WAIT2 = 5, CLOSE = 7, CLOSE_WAIT = 8, LAST_ACK = 9, LISTEN = 10 };

#define TH_SYN 2
#define TH_RST 4
#define TH_ACK 16

/* What a service that was told to stop may take to do it. One that ignores it is an ordinary service again afterwards. */
#define DOOMED_NS 10000000000ULL

struct tuple {
	__u32 raddr[4];
	__u16 rport;
	__u16 lport;
	__u32 family;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, struct hf_watched);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hf_settings);
} settings SEC(".maps");

/* Of the group's leader: until when its closes are crashes, ns. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} marks SEC(".maps");

/* More of them than the control page can tell of: the host gives the guest up long before the oldest is forgotten. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tuple);
	__type(value, __u8);
} crashed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} crashes SEC(".maps");

static __always_inline struct hf_settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline int has_port(const __u8 *ports, __u32 port)
{
	return ports[(port >> 3) & (HF_PORT_BYTES - 1)] >> (port & 7) & 1;
}

/* The service of the running process, unless it is being stopped on purpose. */
static __always_inline struct hf_watched *own_service(void)
{
	__u64 id = bpf_get_current_cgroup_id();
	struct hf_watched *service = bpf_map_lookup_elem(&services, &id);

	return service && !service->announced ? service : 0;
}

static __always_inline void tell(const struct hf_crash *crash)
{
	struct hf_settings *s;

	if (!bpf_ringbuf_output(&crashes, (void *)crash, sizeof(*crash), BPF_RB_FORCE_WAKEUP))
		return;
	s = get_settings();
	if (s)
		__sync_fetch_and_add(&s->lost, 1);
}

static __always_inline void mark(struct task_struct *leader, __u64 until)
{
	__u64 *m = bpf_task_storage_get(&marks, leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (m && *m < until)
		*m = until;
}

static __always_inline int is_marked(struct task_struct *leader, __u64 now)
{
	__u64 *m = bpf_task_storage_get(&marks, leader, 0, 0);

	return m && *m > now;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_generate, int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)
{
	struct hf_crash crash = { .kind = HF_CRASH_SERVICE, .flags = HF_CRASH_TOLD_TO_STOP };
	struct hf_watched *service;
	__u64 id, now;

	/* Those that end a process politely. After the others it says nothing of its own, and its exit tells. */
	if ((sig != SIGTERM && sig != SIGINT && sig != SIGQUIT) || result != DELIVERED)
		return 0;
	id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	service = bpf_map_lookup_elem(&services, &id);
	if (!service || service->announced || id == bpf_get_current_cgroup_id())
		return 0;
	now = bpf_ktime_get_ns();
	mark(task->group_leader, now + DOOMED_NS);
	if ((__u32)task->tgid != service->main)
		return 0;
	if (service->doomed_until > now)
		return 0; /* told already */
	service->doomed_until = now + DOOMED_NS;
	crash.service = service->service;
	crash.pid = task->tgid;
	crash.status = sig;
	crash.at = now;
	tell(&crash);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct hf_watched *service = own_service();
	struct hf_crash crash = { .kind = HF_CRASH_PROCESS };
	struct signal_struct *signal;
	__u64 now = bpf_ktime_get_ns();
	int whole, code, main;

	if (!service)
		return 0;
	signal = task->signal;
	whole = signal->flags & SIGNAL_GROUP_EXIT;
	if (!whole && signal->live.counter)
		return 0; /* a thread's own end */
	code = whole ? signal->group_exit_code : task->exit_code;
	main = (__u32)task->tgid == service->main;
	if (!code && !main && !service->clean_exit_crashes && service->doomed_until <= now &&
	    !is_marked(task->group_leader, now))
		return 0;
	mark(task->group_leader, ~0ULL);
	if (main)
		service->doomed_until = ~0ULL; /* what its relatives close from now on, they close for want of it */
	if (signal->live.counter)
		return 0;
	crash.kind = main ? HF_CRASH_SERVICE : HF_CRASH_PROCESS;
	crash.service = service->service;
	crash.pid = task->tgid;
	crash.status = code;
	crash.at = now;
	tell(&crash);
	return 0;
}

/*
 * Whether this is a close by the running process, and no segment that a softirq on top of it has just taken: of the transitions that
 * a process makes only the one to CLOSE is made by segments, too (a reset), and then the host has seen that segment.
 */
static __always_inline int is_close(int from, int to, unsigned long flags)
{
	switch (from) {
	case ESTABLISHED:
		return to == FIN_WAIT1 || (to == CLOSE && !(flags & SOCK_DEAD));
	case CLOSE_WAIT:
		return to == LAST_ACK || (to == CLOSE && !(flags & SOCK_DEAD));
	case FIN_WAIT1:
	case FIN_WAIT2:
		return (to == from || to == CLOSE) && !(flags & SOCK_DEAD);
	}
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(socket_state, const struct sock *sk, const int from, const int to)
{
	struct hf_crash crash = { .kind = HF_CRASH_CONNECTION };
	struct hf_settings *s = get_settings();
	struct task_struct *task;
	struct hf_watched *service;
	struct tuple t = {};
	__u64 now;
	__u32 port = sk->__sk_common.skc_num;
	__u8 one = 1;

	/* With unread input the kernel gives the port back before it says that it closes; what it puts into segments stays. */
	if (!port)
		port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	asm volatile("" : "+r"(port)); /* the verifier does not know of what bpf_ntohs is worth, and wants has_port to mask it */
	if (!s || sk->sk_protocol != IPPROTO_TCP || !has_port(s->ports, port))
		return 0;
	if (to == LISTEN) {
		s->deaf[(port >> 3) & (HF_PORT_BYTES - 1)] &= ~(1 << (port & 7));
		return 0;
	}
	if (!(from == LISTEN && to == CLOSE) && !is_close(from, to, sk->__sk_common.skc_flags))
		return 0;
	service = own_service();
	if (!service)
		return 0;
	now = bpf_ktime_get_ns();
	task = bpf_get_current_task_btf();
	if (service->doomed_until <= now && !is_marked(task->group_leader, now))
		return 0;
	s->armed = 1;
	if (from == LISTEN) {
		/* one worker's own listener (SO_REUSEPORT) is not the last */
		if (service->doomed_until > now)
			s->deaf[(port >> 3) & (HF_PORT_BYTES - 1)] |= 1 << (port & 7);
		return 0;
	}
	t.lport = bpf_htons(port);
	t.rport = sk->__sk_common.skc_dport;
	t.family = 4;
	t.raddr[3] = sk->__sk_common.skc_daddr;
	if (sk->__sk_common.skc_family == AF_INET6) {
		struct in6_addr a;
		bpf_core_read(&a, sizeof(a), &sk->__sk_common.skc_v6_daddr);
		/* an IPv4 client of an IPv6 socket has an IPv4 tuple on the wire */
		if (a.s6_addr32[0] || a.s6_addr32[1] || a.s6_addr32[2] != bpf_htonl(0xffff)) {
			__builtin_memcpy(t.raddr, a.s6_addr32, sizeof(t.raddr));
			t.family = 6;
		} else
			t.raddr[3] = a.s6_addr32[3];
	}
	bpf_map_update_elem(&crashed, &t, &one, BPF_ANY);
	crash.service = service->service;
	crash.pid = task->tgid;
	__builtin_memcpy(crash.raddr, t.raddr, sizeof(crash.raddr));
	crash.rport = t.rport;
	crash.lport = t.lport;
	crash.family = t.family;
	crash.state = from;
	crash.rcv_nxt = BPF_CORE_READ((struct tcp_sock *)sk, rcv_nxt);
	crash.at = now;
	tell(&crash);
	return 0;
}

/* Swallowed rather than refused: to a sender that is told of a drop it would be congestion. */
SEC("tc")
int egress_guard(struct __sk_buff *skb)
{
	struct hf_settings *s = get_settings();
	struct tuple t = {};
	__u32 l4 = ETH_HLEN;
	__u8 tcp[14];

	if (!s || !s->armed)
		return TC_ACT_OK;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP)
			return TC_ACT_OK;
		l4 += ip.ihl * 4;
		t.raddr[3] = ip.daddr;
		t.family = 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
			return TC_ACT_OK;
		l4 += sizeof(ip);
		__builtin_memcpy(t.raddr, &ip.daddr, sizeof(t.raddr));
		t.family = 6;
	} else
		return TC_ACT_OK;
	if (bpf_skb_load_bytes(skb, l4, tcp, sizeof(tcp)))
		return TC_ACT_OK;
	t.lport = *(__u16 *)tcp;
	t.rport = *(__u16 *)(tcp + 2);
	if (!has_port(s->ports, bpf_ntohs(t.lport)))
		return TC_ACT_OK;
	if ((tcp[13] & (TH_SYN | TH_ACK)) == (TH_SYN | TH_ACK)) {
		bpf_map_delete_elem(&crashed, &t);
		return TC_ACT_OK;
	}
	if (tcp[13] & TH_RST && has_port(s->deaf, bpf_ntohs(t.lport)))
		return TC_ACT_STOLEN;
	return bpf_map_lookup_elem(&crashed, &t) ? TC_ACT_STOLEN : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
