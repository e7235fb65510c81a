/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HF_TRANSLATE_H
#define HF_TRANSLATE_H
#include "parse.h"

static __always_inline void edit_timestamps(__u8 *ts, const struct edit *e)
{
	__u32 val = get32(ts + 2) + e->val_add, ecr = get32(ts + 6) + e->ecr_add;

	if (e->capped && (__s32)(val - e->val_cap) > 0)
		val = e->val_cap;
	if (e->floored && (__s32)(ecr - e->ecr_floor) < 0)
		ecr = e->ecr_floor;
	put32(ts + 2, val);
	put32(ts + 6, ecr);
}

static __always_inline void edit_sack(struct hf_work *w, const struct edit *e)
{
	__u8 *sack = w->h + (w->sack & HEADER_MASK);
	int beyond = 0;

	for (int i = 0; i < 8; i++) {
		if (i >= 2 * w->sack_blocks)
			break;
		__u32 edge = get32(sack + 2 + 4 * i) + e->sack_add;
		if ((__s32)(edge - e->sack_limit) > 0)
			beyond = 1;
		put32(sack + 2 + 4 * i, edge);
	}
	if (!beyond)
		return;
	for (int i = 0; i < 34; i++)
		if (i < 2 + 8 * w->sack_blocks)
			sack[i] = 1;
}

/* Writes the changed header back; the checksum follows by difference, so partial ones stay right. */
__noinline int write_header(struct __sk_buff *skb, __u32 l4, __u32 n)
{
	struct hf_work *w = get_work();

	n &= ~3U;
	if (!w || n < TCP_BYTES)
		return -1;
	barrier_var(n);
	if (n > TCP_MAX_BYTES)
		return -1;
	__s64 diff = bpf_csum_diff((void *)w->old, n, (void *)w->h, n, 0);
	if (diff < 0 || bpf_skb_store_bytes(skb, l4, w->h, n, 0))
		return -1;
	return bpf_l4_csum_replace(skb, l4 + 16, 0, diff, 0);
}

/* Applies this CPU's edit to an established connection's segment. */
static __noinline int translate(struct __sk_buff *skb, struct packet *p)
{
	struct hf_work *w = get_work();
	struct edit *e;

	if (!w || load_header(skb, p->l4, p->header))
		return -1;
	e = &w->edit;
	put32(w->h + 4, e->seq);
	put32(w->h + 8, e->ack);
	w->h[14] = e->window >> 8;
	w->h[15] = e->window;
	if (w->ts)
		edit_timestamps(w->h + (w->ts & HEADER_MASK), e);
	if (w->sack)
		edit_sack(w, e);
	return write_header(skb, p->l4, p->header);
}

/* Reads a SYN's or SYN-ACK's options; on the way MPTCP and TFO are removed from the frame. */
static __noinline int handshake_options(struct __sk_buff *skb, struct packet *p, struct hf_options *out)
{
	struct hf_work *w = get_work();
	__u64 changed = 0;

	if (!w || load_header(skb, p->l4, p->header))
		return -1;
	out->mss = 536; /* RFC 9293: what a peer assumes that sent none */
	out->wscale = HF_NO_WSCALE;
	out->flags = 0;
	if (w->mss) {
		__u8 *mss = w->h + (w->mss & HEADER_MASK);
		out->mss = (__u16)mss[2] << 8 | mss[3];
	}
	if (w->wscale)
		out->wscale = w->h[(w->wscale & HEADER_MASK) + 2];
	if (w->sack_ok)
		out->flags |= HF_OPT_SACK;
	if (w->ts) {
		out->flags |= HF_OPT_TS;
		p->tsval = get32(w->h + (w->ts & HEADER_MASK) + 2);
		p->tsecr = get32(w->h + (w->ts & HEADER_MASK) + 6);
		p->has_ts = 1;
	}
	if ((p->flags & (TH_ECE | TH_CWR)) == (TH_ECE | TH_CWR))
		out->flags |= HF_OPT_ECN;
	for (int i = 0; i < 8; i++)
		changed |= *(__u64 *)(w->h + 8 * i) ^ *(__u64 *)(w->old + 8 * i);
	return changed ? write_header(skb, p->l4, p->header) : 0;
}

/*
 * Makes the replay socket's SYN offer what the client's SYN offered. Options that the client had not become NOPs;
 * Linux offers all of them, so none has to be added.
 */
static __noinline int mirror_syn(struct __sk_buff *skb, struct packet *p, struct hf_options *client, __u32 tsval)
{
	struct hf_work *w = get_work();

	if (!w || load_header(skb, p->l4, p->header))
		return -1;
	if (w->mss) {
		__u8 *mss = w->h + (w->mss & HEADER_MASK);
		mss[2] = client->mss >> 8;
		mss[3] = client->mss;
	}
	if (w->wscale) {
		__u8 *wscale = w->h + (w->wscale & HEADER_MASK);
		if (client->wscale == HF_NO_WSCALE)
			wscale[0] = wscale[1] = wscale[2] = 1;
		else
			wscale[2] = client->wscale;
	}
	if (w->sack_ok && !(client->flags & HF_OPT_SACK)) {
		__u8 *sack_ok = w->h + (w->sack_ok & HEADER_MASK);
		sack_ok[0] = sack_ok[1] = 1;
	}
	if (w->ts) {
		__u8 *ts = w->h + (w->ts & HEADER_MASK);
		if (client->flags & HF_OPT_TS)
			put32(ts + 2, tsval);
		else
			for (int i = 0; i < 10; i++)
				ts[i] = 1;
	}
	w->h[13] &= ~(TH_ECE | TH_CWR);
	if (client->flags & HF_OPT_ECN)
		w->h[13] |= TH_ECE | TH_CWR;
	return write_header(skb, p->l4, p->header);
}

#endif
