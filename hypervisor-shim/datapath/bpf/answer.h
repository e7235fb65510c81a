/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Answers to the client that no guest gives. The client's own frame is turned around, so this needs nobody in user space: with
 * the guest dead and the supervisor gone a held connection stays alive all the same (promise P5).
 */
#ifndef HF_ANSWER_H
#define HF_ANSWER_H
#include "handshake.h"

enum turn {
	TURN_NOT = 0,
	TURN_HOLD = 1,   /* ACK of all that is logged, window 0: wait, but do not give up */
	TURN_WINDOW = 2, /* what the guest said last: to a probe beyond its window, which it must not get */
	TURN_RESET = 3,  /* the connection is lost */
};

/* Host order; the window as in the header. */
struct reply {
	__u32 seq;
	__u32 ack;
	__u32 window;
	__u32 tsval;
	__u32 tsecr;
	__u8 flags;
	__u8 has_ts;
};

static __always_inline __u16 fold(__u64 sum)
{
	for (int i = 0; i < 3; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

#define REPLY_TCP_BYTES (TCP_BYTES + 12) /* with timestamps */

/* Makes the frame a bare segment back to its sender and sends it. Frames with IP options or extension headers get none. */
static __noinline int turn_around(struct __sk_buff *skb, struct packet *p, struct reply *r)
{
	struct hf_control *c = get_control();
	struct hf_work *w = get_work();
	__u32 bytes = r->has_ts ? REPLY_TCP_BYTES : TCP_BYTES, ip_bytes = p->family == 6 ? IPV6_BYTES : IPV4_BYTES;
	__u32 pseudo[9]; /* the zeros of IPv4 do not count */

	if (!c || !w || p->l4 != ETH_BYTES + ip_bytes)
		return TC_ACT_SHOT;
	__builtin_memcpy(pseudo, p->daddr, 16);
	__builtin_memcpy(pseudo + 4, p->saddr, 16);
	pseudo[8] = bpf_htonl(IPPROTO_TCP << 16 | bytes);
	__u8 *ip = w->h, *tcp = w->h + IPV6_BYTES;
	__builtin_memset(w->h, 0, IPV6_BYTES + REPLY_TCP_BYTES);
	if (p->family == 6) {
		put32(ip, 0x60000000);
		put32(ip + 4, bytes << 16 | IPPROTO_TCP << 8 | 64);
		__builtin_memcpy(ip + 8, p->daddr, 16);
		__builtin_memcpy(ip + 24, p->saddr, 16);
	} else {
		put32(ip, 0x45U << 24 | (IPV4_BYTES + bytes));
		put32(ip + 4, 0x4000); /* don't fragment */
		put32(ip + 8, 64U << 24 | IPPROTO_TCP << 16);
		*(__u32 *)(ip + 12) = p->daddr[3];
		*(__u32 *)(ip + 16) = p->saddr[3];
		*(__u16 *)(ip + 10) = ~fold(bpf_csum_diff(0, 0, (void *)ip, IPV4_BYTES, 0));
	}
	*(__u16 *)tcp = p->dport;
	*(__u16 *)(tcp + 2) = p->sport;
	put32(tcp + 4, r->seq);
	put32(tcp + 8, r->ack);
	put32(tcp + 12, bytes << 26 | (__u32)r->flags << 16 | (r->window & 0xffff));
	if (r->has_ts) {
		put32(tcp + 20, 0x0101080a);
		put32(tcp + 24, r->tsval);
		put32(tcp + 28, r->tsecr);
	}
	__u64 sum = bpf_csum_diff(0, 0, pseudo, sizeof(pseudo), 0);
	if (checksum_partial(skb)) /* the device adds the rest, up to the frame's end */
		*(__u16 *)(tcp + 16) = fold(sum);
	else
		*(__u16 *)(tcp + 16) = ~fold(bpf_csum_diff(0, 0, (void *)tcp, REPLY_TCP_BYTES, sum));

	if (bpf_skb_change_tail(skb, ETH_BYTES + ip_bytes + bytes, 0) ||
	    bpf_skb_store_bytes(skb, 0, p->smac, 6, BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, 6, c->guest_mac, 6, BPF_F_RECOMPUTE_CSUM) ||
	    (p->family == 6 ? bpf_skb_store_bytes(skb, ETH_BYTES, ip, IPV6_BYTES, BPF_F_RECOMPUTE_CSUM) :
			      bpf_skb_store_bytes(skb, ETH_BYTES, ip, IPV4_BYTES, BPF_F_RECOMPUTE_CSUM)) ||
	    (r->has_ts ? bpf_skb_store_bytes(skb, ETH_BYTES + ip_bytes, tcp, REPLY_TCP_BYTES, BPF_F_RECOMPUTE_CSUM) :
			 bpf_skb_store_bytes(skb, ETH_BYTES + ip_bytes, tcp, TCP_BYTES, BPF_F_RECOMPUTE_CSUM)))
		return TC_ACT_SHOT;
	count(HF_STAT_ANSWERED);
	return to_wire(c);
}

/* A SYN that finds the flow table full: refused as by a service that does not listen, or left to be sent again. */
static __noinline int refuse(struct __sk_buff *skb, struct packet *p)
{
	struct hf_control *c = get_control();
	struct reply r = { .flags = TH_RST | TH_ACK, .ack = p->seq + 1 + p->len };

	count(HF_STAT_DROP_TABLE_FULL);
	return c && c->table_full == HF_TABLE_REFUSE ? turn_around(skb, p, &r) : TC_ACT_SHOT;
}

/*
 * Answers a segment of the flow as `turn` says. To acknowledge what is logged is safe, whoever consumes it later; and it is what
 * makes every client believe the closed window: BSD and older Linux take a smaller window only with a higher ACK, and with
 * their data unacknowledged they would go on to send it again, more and more rarely, and in the end give up.
 */
static __noinline int answer_client(struct __sk_buff *skb, struct packet *p, __u32 id, __u32 turn)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);
	struct reply r = { .flags = TH_RST, .seq = p->ack };

	if (!f)
		return TC_ACT_SHOT;
	if (turn == TURN_RESET)
		return p->flags & TH_ACK ? turn_around(skb, p, &r) : TC_ACT_SHOT;
	bpf_spin_lock(&f->lock);
	if (turn == TURN_HOLD && in_total(f) > f->in_acked)
		f->in_acked = in_total(f);
	if (turn == TURN_WINDOW && f->g_edge > f->in_acked)
		r.window = (f->g_edge - f->in_acked) >> shift_of(f->server.wscale);
	r.flags = TH_ACK;
	/* not out_acked: below what the client expects it would discard the whole segment */
	r.seq = out_seq(f, f->out_sent);
	r.ack = in_seq(f, f->in_acked);
	r.has_ts = f->client.flags & f->server.flags & HF_OPT_TS;
	r.tsval = f->s_tsval;
	r.tsecr = f->c_tsval;
	bpf_spin_unlock(&f->lock);
	if (r.window > 65535)
		r.window = 65535;
	return turn_around(skb, p, &r);
}

#endif
