/* SPDX-License-Identifier: GPL-2.0 */
/* Which input a flow holds: a contiguous part, islands beyond it, and claims of CPUs that are copying (rule L3). */
#ifndef HF_INPUT_H
#define HF_INPUT_H
#include "log.h"
#include "position.h"

/* Under the flow's lock. Reserves [start, end) for this CPU's copy; -1 if another CPU is at those bytes. */
static __always_inline int claim(struct hf_flow *f, __u64 start, __u64 end)
{
	int mine = -1;

	for (int i = 0; i < HF_CLAIMS; i++) {
		if (!f->claim_used[i])
			mine = i;
		else if (start < f->claims[i].end && f->claims[i].start < end)
			return -1;
	}
	if (mine >= 0) {
		f->claim_used[mine & (HF_CLAIMS - 1)] = 1;
		f->claims[mine & (HF_CLAIMS - 1)].start = start;
		f->claims[mine & (HF_CLAIMS - 1)].end = end;
	}
	return mine;
}

/*
 * Under the flow's lock. Makes claim `c` present; -1 if there is no room for one more island. The union of islands is
 * built in the claim itself: what lies in a map costs the verifier no states, what lies in registers does.
 */
static __always_inline int publish(struct hf_flow *f, volatile struct hf_range *claimed)
{
	volatile __u32 *room = &f->room;

	*room = HF_OOO;
	if (claimed->start <= f->in_end || f->unlogged) {
		if (claimed->end > f->in_end)
			f->in_end = claimed->end;
		if (!f->islands)
			return 0;
		/* islands neither touch nor overlap: one pass in any order takes in all that are reached */
		for (int i = 0; i < HF_OOO; i++) {
			volatile struct hf_range *r = &f->ooo[i];
			if (!r->end || r->start > f->in_end)
				continue;
			if (r->end > f->in_end)
				f->in_end = r->end;
			r->end = 0;
			f->islands--;
		}
		return 0;
	}
	for (int i = 0; i < HF_OOO; i++) {
		volatile struct hf_range *r = &f->ooo[i];
		if (r->end && claimed->start <= r->end && r->start <= claimed->end) {
			/* grow: take the neighbour in and write the union to the room it leaves */
			if (r->start < claimed->start)
				claimed->start = r->start;
			if (r->end > claimed->end)
				claimed->end = r->end;
			r->end = 0;
			f->islands--;
		}
		if (!r->end)
			*room = i;
	}
	if (*room >= HF_OOO)
		return -1;
	f->ooo[*room & (HF_OOO - 1)].start = claimed->start;
	f->ooo[*room & (HF_OOO - 1)].end = claimed->end;
	f->islands++;
	return 0;
}

/* L7: the stream ends at one place; nothing lies behind it. Of a segment that ends at `end`. */
static __always_inline int contradicts_input(const struct hf_flow *f, __s64 end, __u32 len, __u32 fin)
{
	__s64 last = f->in_end;

	if (f->fin_in != HF_UNSET)
		return (len && end > (__s64)f->fin_in) || (fin && end != (__s64)f->fin_in);
	if (!fin)
		return 0;
	for (int i = 0; i < HF_OOO && f->islands; i++)
		if ((__s64)f->ooo[i].end > last)
			last = f->ooo[i].end;
	return end < last;
}

/* After the copy (`why` is 0) or its failure: publishes, notes a FIN behind the bytes, releases the claim. */
__noinline int finish_input(__u32 id, __u32 claimed, __u32 fin, __u32 why)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);

	if (!f || claimed >= HF_CLAIMS)
		return HF_STAT_DROP_BUSY;
	bpf_spin_lock(&f->lock);
	__u64 end = f->claims[claimed].end; /* publish makes a union of it */
	if (!why && contradicts_input(f, end, 1, fin))
		why = HF_STAT_DROP_CONFLICT; /* another CPU published since it was judged */
	if (!why && publish(f, &f->claims[claimed]))
		why = HF_STAT_DROP_BUSY;
	if (!why && fin)
		f->fin_in = end;
	f->claim_used[claimed] = 0;
	bpf_spin_unlock(&f->lock);
	return why;
}

/*
 * How many bytes from `position` on, at most `len`, are alike: all present (the result has bit 31 set), or all not.
 * Reads without the lock: a claim keeps other CPUs away from these bytes.
 */
__noinline __u32 alike(__u32 id, __u64 position, __u32 len)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);
	__u64 until = position + len;
	__u32 present = 0;

	if (!f)
		return 0;
	if (position < f->in_end) {
		present = 1U << 31;
		if (f->in_end < until)
			until = f->in_end;
	} else {
		for (int i = 0; i < HF_OOO; i++) {
			__u64 start = f->ooo[i].start, end = f->ooo[i].end;
			if (!end || end <= position)
				continue;
			__u64 bound = start <= position ? end : start;
			if (start <= position)
				present = 1U << 31;
			if (bound < until)
				until = bound;
		}
	}
	return (__u32)(until - position) | present;
}

/*
 * Stores what is new of [position, position + len) and compares what is not: the first writer wins (rule L2).
 * Returns 0, or the counter that says why the frame must be dropped.
 */
__noinline int merge_input(struct __sk_buff *skb, __u32 id, __u32 from, __u64 position, __u32 len)
{
	for (int i = 0; i < 2 * HF_OOO + 2 && len; i++) {
		__u32 run = alike(id, position, len), n = run & ~(1U << 31);
		if (n == 0 || n > len)
			return HF_STAT_DROP_BUSY;
		if (run >> 31) {
			if (verify_input(skb, id, from, position, n))
				return HF_STAT_DROP_CONFLICT;
		} else if (store_input(skb, id, from, position, n)) {
			return HF_STAT_DROP_LOG_FULL;
		}
		from += n;
		position += n;
		len -= n;
	}
	return len ? HF_STAT_DROP_BUSY : 0;
}

#define CHECKSUM_CHUNK 512 /* what bpf_csum_diff of 6.1 takes at most */

struct checksum_walk {
	struct __sk_buff *skb;
	__u8 *scratch;
	__u32 at;
	__u32 left;
	__s64 sum;
};

static long checksum_chunk(__u32 i, struct checksum_walk *w)
{
	__u32 n = w->left > CHECKSUM_CHUNK ? CHECKSUM_CHUNK : w->left;

	__u32 padded = (n + 3) & ~3U;
	BOUND(padded, CHECKSUM_CHUNK, 1);
	*(__u32 *)(w->scratch + padded - 4) = 0;
	BOUND(n, CHECKSUM_CHUNK, 1);
	if (bpf_skb_load_bytes(w->skb, w->at, w->scratch, n))
		return 1;
	w->sum = bpf_csum_diff(0, 0, (void *)w->scratch, padded, w->sum);
	w->at += n;
	w->left -= n;
	return 0;
}

/* TCP checksum of a frame that no hardware and no local stack vouches for. 1: right. */
__noinline int checksum_right(struct __sk_buff *skb, __u32 l4, __u32 bytes, __u32 family)
{
	__u32 zero = 0;
	struct hf_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct checksum_walk w = { .skb = skb, .at = l4, .left = bytes };
	struct {
		__u32 addresses[8];
		__u8 zero, protocol;
		__u16 length; /* IPv6 has 32 bits for it, which add up to the same */
	} pseudo = { .protocol = IPPROTO_TCP, .length = bpf_htons(bytes) };

	if (!s || (family == 4 ? bpf_skb_load_bytes(skb, ETH_BYTES + 12, &pseudo, 8) :
				 bpf_skb_load_bytes(skb, ETH_BYTES + 8, &pseudo, 32)))
		return 0;
	w.scratch = s->bytes;
	w.sum = bpf_csum_diff(0, 0, (void *)&pseudo, sizeof(pseudo), 0);
	bpf_loop(65536 / CHECKSUM_CHUNK + 1, checksum_chunk, &w, 0);
	__u64 sum = w.sum;
	for (int i = 0; i < 3; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return w.left == 0 && (__u16)sum == 0xffff;
}

/* Hardware has verified it (1), or it comes from a local stack that has not made one yet (3). */
static __always_inline int checksum_vouched(struct __sk_buff *skb)
{
	__u8 summed = ip_summed(skb);

	return summed == 1 || summed == 3;
}

#endif
