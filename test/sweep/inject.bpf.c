/*
 * A leg's fault injector: drops, doubles and holds back TCP frames at random, and cuts single connections off. The draws
 * come from a seed and the number of the frame, so the n-th frame of a leg meets the same fate in every run.
 *
 * A held frame goes by way of a TAP to a program that lets others pass (hold.c) and comes back marked. GSO frames are
 * one frame here, as they are one on these devices.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define LEGS 7 /* clients 0 to 3, guests 0 and 1, replay */
#define WAYS 2 /* 0: towards the service, 1: from it */
#define CLIENTS 8
#define STAGES 64
#define MARK 0x48465357 /* has been here before */

/* The layout is known to injector.ts: 32-bit words in this order. */
struct way {
	__u32 loss; /* of 65536 */
	__u32 twice;
	__u32 hold;
	__u32 seed;
	__u32 ifindex; /* of the leg's own device */
	__u32 tap;
	__u32 ingress; /* where on the device this way is */
	__u32 first_port;
	__u32 first_client; /* last byte of its IPv4 address; of its IPv6 address it is 0 */
	__u32 seen;
	__u32 lost;
	__u32 doubled;
	__u32 held;
	__u32 returned;
	__u32 pad[2];
	__u32 cut[STAGES * CLIENTS]; /* 0: no, 1: all, 2: what is not a SYN */
	__u32 cuts[STAGES * CLIENTS]; /* frames that were cut */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LEGS * WAYS);
	__type(key, __u32);
	__type(value, struct way);
} ways SEC(".maps");

/* splitmix64 */
static __always_inline __u64 draw(__u64 x)
{
	x *= 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* Which connection: 0 if it is not TCP of a known one, else index + 1. */
static __always_inline __u32 connection(struct __sk_buff *skb, const struct way *w, int from, __u32 *syn)
{
	__u32 at, last;
	struct tcphdr tcp;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP)
			return 0;
		at = ETH_HLEN + ip.ihl * 4;
		last = bpf_ntohl(from ? ip.daddr : ip.saddr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
			return 0;
		at = ETH_HLEN + sizeof(ip);
		last = w->first_client + (from ? ip.daddr.in6_u.u6_addr8[15] : ip.saddr.in6_u.u6_addr8[15]);
	} else {
		return 0;
	}
	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return 0;
	*syn = tcp.syn;
	__u32 stage = bpf_ntohs(from ? tcp.source : tcp.dest) - w->first_port;
	__u32 client = (last & 0xff) - w->first_client;
	if (stage >= STAGES || client >= CLIENTS)
		return 0;
	return stage * CLIENTS + client + 1;
}

static __always_inline int inject(struct __sk_buff *skb, __u32 index)
{
	struct way *w = bpf_map_lookup_elem(&ways, &index);
	__u32 syn = 0, which;

	if (!w)
		return TC_ACT_UNSPEC;
	if (skb->mark == MARK) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	which = connection(skb, w, index % WAYS, &syn);
	if (!which || --which >= STAGES * CLIENTS)
		return TC_ACT_UNSPEC;
	__u32 n = __sync_fetch_and_add(&w->seen, 1);
	if (w->cut[which] == 1 || (w->cut[which] == 2 && !syn)) {
		__sync_fetch_and_add(&w->cuts[which], 1);
		return TC_ACT_SHOT;
	}
	__u64 dice = draw(((__u64)w->seed << 32) + n + 1);
	if ((dice & 0xffff) < w->loss) {
		__sync_fetch_and_add(&w->lost, 1);
		return TC_ACT_SHOT;
	}
	if ((dice >> 16 & 0xffff) < w->twice) {
		skb->mark = MARK;
		if (!bpf_clone_redirect(skb, w->ifindex, w->ingress ? BPF_F_INGRESS : 0))
			__sync_fetch_and_add(&w->doubled, 1);
		skb->mark = 0;
	}
	if (w->tap && (dice >> 32 & 0xffff) < w->hold) {
		__sync_fetch_and_add(&w->held, 1);
		return bpf_redirect(w->tap, 0);
	}
	return TC_ACT_UNSPEC;
}

/* At a TAP's ingress: what was held goes on where it was taken. */
static __always_inline int resume(struct __sk_buff *skb, __u32 index)
{
	struct way *w = bpf_map_lookup_elem(&ways, &index);
	__u32 syn = 0;

	if (!w || !connection(skb, w, index % WAYS, &syn))
		return TC_ACT_SHOT;
	__sync_fetch_and_add(&w->returned, 1);
	skb->mark = MARK;
	return bpf_redirect(w->ifindex, w->ingress ? BPF_F_INGRESS : 0);
}

#define WAY(i)                                                 \
	SEC("tc") int inject_##i(struct __sk_buff *skb)        \
	{                                                      \
		return inject(skb, i);                         \
	}                                                      \
	SEC("tc") int resume_##i(struct __sk_buff *skb)        \
	{                                                      \
		return resume(skb, i);                         \
	}
WAY(0)
WAY(1)
WAY(2)
WAY(3)
WAY(4)
WAY(5)
WAY(6)
WAY(7)
WAY(8)
WAY(9)
WAY(10)
WAY(11)
WAY(12)
WAY(13)

char _license[] SEC("license") = "GPL";
