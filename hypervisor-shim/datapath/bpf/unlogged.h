/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Flows that went on without the log because it was full (`onFull: unprotected`). Their input passes; `in_end` is then the end of
 * what was delivered. The next fault ends them. What the log holds of them is no use any more: each further segment gives some back.
 */
#ifndef HF_UNLOGGED_H
#define HF_UNLOGGED_H
#include "log.h"

#define SEGMENTS_PER_CALL 64

/* Gives input segments below index `until` back; HF_AGAIN when more are left than one call does. */
static __always_inline __u32 free_input(struct hf_flow *f, __u32 id, __u32 until)
{
	for (int i = 0; i < SEGMENTS_PER_CALL; i++) {
		__u32 index = f->in_first;
		if (index >= until || index >= f->in_limit)
			return HF_DONE;
		struct hf_seg_key key = { id, kind_index(HF_INPUT, index) };
		__u32 address = find_segment(id, key.kind_index);
		/* two CPUs may be at it: the one that takes it out of the index gives it back */
		if (address && !bpf_map_delete_elem(&segments, &key))
			give_back(address, index != 0);
		f->in_first = index + 1;
	}
	return HF_AGAIN;
}

/* Whether segments are being spilled: there will be room in a moment. */
static __always_inline int room_is_made(const struct hf_control *c)
{
	return (__u32)(bpf_ktime_get_ns() >> HF_LEASE_SHIFT) < c->spill_until;
}

/* Under the flow's lock: input that is delivered and not logged. */
static __always_inline void pass_unlogged(struct hf_flow *f, __u64 end, __u32 fin)
{
	if (end > f->in_end)
		f->in_end = end;
	if (f->islands) {
		/* what lies ahead of it was delivered, too */
		for (int i = 0; i < HF_OOO; i++) {
			volatile struct hf_range *r = &f->ooo[i];
			if (r->end > f->in_end)
				f->in_end = r->end;
			r->end = 0;
		}
		f->islands = 0;
	}
	if (fin && f->fin_in == HF_UNSET)
		f->fin_in = end;
}

/* Under the flow's lock: no CPU is copying into its segments, and none will again. */
static __always_inline int may_release(const struct hf_flow *f)
{
	return f->in_first < f->in_limit && !f->claim_used[0] && !f->claim_used[1];
}

__noinline int release_input(__u32 id)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);

	return f ? free_input(f, id, ~0U) : 0;
}

/* No room for what ends at `end`: from here on the flow is not logged. 0: deliver. */
__noinline int leave_log(__u32 id, __u64 end, __u32 fin)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);
	__u32 was;

	if (!f)
		return HF_STAT_DROP_LOG_FULL;
	bpf_spin_lock(&f->lock);
	was = f->unlogged;
	f->unlogged = HF_LOG_FULL;
	pass_unlogged(f, end, fin);
	bpf_spin_unlock(&f->lock);
	if (was == HF_LOGGED)
		count(HF_STAT_UNLOGGED);
	return 0;
}

#endif
