/* SPDX-License-Identifier: GPL-2.0 */
/* Changes of flows by user space (rule F5): compare-and-set under the flow's lock, never a whole value. */
#ifndef HF_CONTROL_FLOW_H
#define HF_CONTROL_FLOW_H
#include "handshake.h"
#include "log.h"

/* Gives the flow to another guest and makes it ready for a replay from its trim point. */
static __always_inline __u32 begin_replay(struct hf_flow *f, const struct hf_request *r)
{
	if (f->state != HF_TRACKED && f->state != HF_SPLICED && f->state != HF_REPLAYING)
		return HF_STALE;
	f->state = HF_REPLAYING;
	f->owner = r->slot & (HF_SLOTS - 1);
	f->epoch = r->epoch;
	f->answered = 0;
	f->replay_wscale = 0;
	f->k = 0;
	f->failovers++;
	if (f->out_sent > f->compare_end)
		f->compare_end = f->out_sent;
	for (int i = 0; i < HF_CLAIMS; i++)
		f->claim_used[i] = 0; /* no CPU can still be copying: the caller waited for a grace period */
	return HF_DONE;
}

/* The guest stands where the client believes it to stand: let them speak to each other. */
static __always_inline __u32 splice(struct hf_flow *f, const struct hf_control *c, const struct hf_request *r)
{
	if (f->state != HF_REPLAYING)
		return HF_STALE;
	if (!in_current_epoch(c, f))
		return HF_FENCED;
	if (f->in_end != r->in_end)
		return HF_MORE_INPUT;
	if (!f->answered || f->g_ack != in_total(f))
		return HF_WAIT_INPUT;
	if (f->g_snd_nxt < f->out_acked)
		return HF_WAIT_OUTPUT;
	f->state = HF_SPLICED;
	return HF_DONE;
}

/* Gives the flow's segments back, newest first; at most 64 in one call. */
static __always_inline __u32 reap(struct hf_flow *f, __u32 id)
{
	for (int i = 0; i < 64; i++) {
		__u32 address = f->segments;
		if (!address)
			return HF_DONE;
		__u8 *segment = segment_at(address);
		if (!segment)
			return HF_STALE;
		struct hf_seg_header *header = (void *)segment;
		struct hf_seg_key key = { id, header->kind_index };
		f->segments = header->next;
		bpf_map_delete_elem(&segments, &key);
		give_back(address, header->large);
	}
	return f->segments ? HF_AGAIN : HF_DONE;
}

/* Fills one of the stacks of free things; highest last, so that low ones are used first. */
static __always_inline __u32 fill(const struct hf_request *r)
{
	for (__u32 i = 0; i < 4096; i++) {
		if (i >= r->count)
			break;
		__u32 value = r->first + (r->count - 1 - i) * r->stride;
		long failed = r->which == 0   ? bpf_map_push_elem(&free_flows, &value, 0)
			      : r->which == 1 ? bpf_map_push_elem(&free_small, &value, 0)
					      : bpf_map_push_elem(&free_large, &value, 0);
		if (failed)
			return HF_FULL;
	}
	return HF_DONE;
}

SEC("syscall")
int control_flow(struct hf_request *r)
{
	struct hf_control *c = get_control();
	__u32 id = r->flow, result = HF_STALE;
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);
	struct hf_request in = *r;
	__u64 now = bpf_ktime_get_ns();

	if (in.op == HF_OP_FILL) {
		r->result = fill(&in);
		return 0;
	}
	if (!c || !f) {
		r->result = HF_STALE;
		return 0;
	}
	bpf_spin_lock(&f->lock);
	if (f->generation == in.generation && f->state != HF_FREE) {
		switch (in.op) {
		case HF_OP_REPLAY:
			result = begin_replay(f, &in);
			break;
		case HF_OP_SPLICE:
			result = splice(f, c, &in);
			break;
		case HF_OP_TRIM:
			if (in.in_end <= f->in_end && in.in_end >= f->in_base && in.out <= f->out_acked &&
			    in.out >= f->out_base) {
				f->in_base = in.in_end;
				f->out_base = in.out;
				result = HF_DONE;
			}
			break;
		case HF_OP_CLOSE:
			f->state = HF_CLOSED;
			f->closed_ns = now;
			result = HF_DONE;
			break;
		case HF_OP_REAP:
			if (f->state == HF_CLOSED)
				result = HF_AGAIN;
			break;
		}
	}
	bpf_spin_unlock(&f->lock);
	if (in.op == HF_OP_REAP && result == HF_AGAIN) {
		/* Out of the index first: nobody finds it any more, and the caller reaps late enough after closing. */
		struct hf_key key = f->key;
		__u32 *indexed = bpf_map_lookup_elem(&wire_index, &key);
		if (indexed && *indexed == id)
			bpf_map_delete_elem(&wire_index, &key);
		result = reap(f, id);
		if (result == HF_DONE) {
			f->generation++;
			f->state = HF_FREE;
			bpf_map_push_elem(&free_flows, &id, 0);
			count(HF_STAT_CLOSED);
		}
	}
	r->result = result;
	return 0;
}

#endif
