/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ICMP errors that quote a segment of a protected connection. They belong to the flow's owner, not to whoever is active, and
 * quote sequence numbers that the client's side of the translation knows: without theirs in the guest's own space, path MTU
 * discovery is dead on a spliced flow. What quotes nothing in flight is dropped, as a guest would (RFC 5927, 4.1).
 */
#ifndef HF_ICMP_H
#define HF_ICMP_H
#include "handshake.h"

#define ICMP_BYTES 8 /* of an error, before what it quotes */

/* <linux/icmp.h> pulls in headers of a 32-bit libc. */
enum { ICMP_DEST_UNREACH = 3, ICMP_SOURCE_QUENCH = 4, ICMP_REDIRECT = 5, ICMP_TIME_EXCEEDED = 11, ICMP_PARAMETERPROB = 12 };

static __always_inline int is_error(const struct packet *p, __u8 type)
{
	if (p->family == 4)
		return p->protocol == IPPROTO_ICMP &&
		       (type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
			type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB);
	return p->protocol == IPPROTO_ICMPV6 && type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMPROB;
}

/* The head of a TCP segment that an error quotes. */
struct quoted {
	struct hf_key key;
	__u32 at; /* frame offset of its TCP header */
	__u32 seq;
};

/* 1: a segment from a protected port of the service; 0: something else; -1: not to be known. */
static __always_inline int read_quoted(struct __sk_buff *skb, const struct packet *p, const struct hf_control *c,
				       struct quoted *q)
{
	__u32 at = p->l4 + ICMP_BYTES, source[4] = {}, destination[4] = {};
	struct {
		__u16 sport, dport;
		__u32 seq;
	} tcp;

	if (p->family == 4) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return -1;
		if (ip.protocol != IPPROTO_TCP)
			return 0;
		if (ip.frag_off & bpf_htons(0x1fff))
			return -1;
		source[3] = ip.saddr;
		destination[3] = ip.daddr;
		at += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
			return -1;
		if (ip.nexthdr == IPPROTO_UDP || ip.nexthdr == IPPROTO_ICMPV6)
			return 0;
		if (ip.nexthdr != IPPROTO_TCP)
			return -1;
		__builtin_memcpy(source, &ip.saddr, 16);
		__builtin_memcpy(destination, &ip.daddr, 16);
		at += IPV6_BYTES;
	}
	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return -1;
	if (!is_service(c, p, source) || !protected_port(c, tcp.sport))
		return 0;
	client_side_key(&q->key, p->family, destination, tcp.dport, tcp.sport);
	q->at = at;
	q->seq = bpf_ntohl(tcp.seq);
	return 1;
}

/* What is no TCP: to the active guest, but an error about a protected connection to its owner. */
static __noinline int other_from_wire(struct __sk_buff *skb, struct packet *p, struct hf_control *c)
{
	struct quoted q = {};
	struct hf_flow *f;
	__u32 id, ifindex = 0, d = 0;
	__u8 type;
	int kind;

	if (is_discovery(skb, p))
		copy_to_leaving(skb, c);
	if ((p->protocol != IPPROTO_ICMP && p->protocol != IPPROTO_ICMPV6) || p->fragment == FRAGMENT_LATER)
		return pass_to_active(c);
	if (bpf_skb_load_bytes(skb, p->l4, &type, 1) || !is_error(p, type))
		return pass_to_active(c);
	if (p->fragment)
		return drop(HF_STAT_DROP_ICMP);
	kind = read_quoted(skb, p, c, &q);
	if (kind == 0)
		return pass_to_active(c);
	f = kind > 0 ? find_flow(&q.key, &id) : 0;
	if (!f)
		return drop(HF_STAT_DROP_ICMP);
	bpf_spin_lock(&f->lock);
	__s64 position = out_position(f, q.seq);
	if (same_key(&f->key, &q.key) && in_current_epoch(c, f) && position >= (__s64)f->out_acked &&
	    position <= (__s64)f->out_sent &&
	    (f->state == HF_TRACKED || f->state == HF_SPLICED || (f->state == HF_REPLAYING && f->answered))) {
		ifindex = c->slots[f->owner & (HF_SLOTS - 1)].ifindex;
		d = is_translated(f) ? f->d : 0;
	}
	bpf_spin_unlock(&f->lock);
	if (!ifindex)
		return drop(HF_STAT_DROP_ICMP);
	if (d) {
		/* The quoted TCP checksum, where there is one, goes wrong by it: nobody can verify it in a part of a segment. */
		__u32 old = bpf_htonl(q.seq), new = bpf_htonl(q.seq - d);
		if (bpf_l4_csum_replace(skb, p->l4 + 2, old, new, 4) ||
		    bpf_skb_store_bytes(skb, q.at + 4, &new, sizeof(new), 0))
			return drop(HF_STAT_DROP_ICMP);
	}
	count(HF_STAT_PASSED_OTHER);
	return bpf_redirect(ifindex, 0);
}

#endif
