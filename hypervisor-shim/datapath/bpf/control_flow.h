/* SPDX-License-Identifier: GPL-2.0 */
/* Changes of flows by user space (rule F5): compare-and-set under the flow's lock, never a whole value. */
#ifndef HF_CONTROL_FLOW_H
#define HF_CONTROL_FLOW_H
#include "handshake.h"
#include "unlogged.h"

/* Gives the flow to another guest and makes it ready for a replay from its trim point. */
static __always_inline __u32 begin_replay(struct hf_flow *f, const struct hf_request *r)
{
	if ((f->state != HF_TRACKED && f->state != HF_SPLICED && f->state != HF_REPLAYING) || f->unlogged)
		return HF_STALE;
	if (f->epoch != r->epoch)
		f->failovers++; /* another try with the same guest is none */
	f->state = HF_REPLAYING;
	f->owner = r->slot & (HF_SLOTS - 1);
	f->epoch = r->epoch;
	f->answered = 0;
	f->replay_wscale = 0;
	f->k = 0;
	f->leaves = 0;
	if (f->out_sent > f->compare_end)
		f->compare_end = f->out_sent;
	return HF_DONE;
}

/*
 * The guest has lost this one flow (its process died) and serves the others: held from here on, until it is replayed. No guest
 * has epoch 0, so it is not its owner's current one. A frame that was judged just before may still go to the guest; none comes back,
 * for the guest says no more of it.
 */
static __always_inline __u32 hold(struct hf_flow *f, const struct hf_request *r)
{
	if ((f->state != HF_TRACKED && f->state != HF_SPLICED && f->state != HF_REPLAYING) || f->owner != r->slot ||
	    !r->epoch || f->epoch != r->epoch)
		return HF_STALE;
	f->epoch = 0;
	f->leaves = 0;
	return HF_DONE;
}

/*
 * A connection leaves a guest that is well, at a place where nothing is under way: all that was said is acknowledged both ways, and no end
 * has come. Held from here on, and what was said until here is not repeated. A frame that a CPU is still copying is under way, too: it
 * would go to the guest that is left, and once more to the next.
 */
static __always_inline __u32 yield(struct hf_flow *f, const struct hf_request *r)
{
	if (f->in_end != r->in_end || f->g_ack != r->in_end || f->out_sent != r->out || f->out_acked != r->out || f->islands ||
	    f->claim_used[0] || f->claim_used[1] || f->fin_in != HF_UNSET || f->fin_out != HF_UNSET || f->unlogged)
		return HF_MORE_INPUT;
	if (hold(f, r) != HF_DONE)
		return HF_STALE;
	f->in_base = r->in_end;
	f->out_base = r->out;
	f->share_used = 0;
	return HF_AGAIN; /* what it frees comes after */
}

/* The guest stands where the client believes it to stand: let them speak to each other. */
static __always_inline __u32 splice(struct hf_flow *f, const struct hf_control *c, const struct hf_request *r, __u64 now)
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
	f->in_acked = f->g_ack; /* user space tells the client at once */
	close_if_done(f, now);
	return HF_DONE;
}

/*
 * Whether input segments [first, first + count), copied to the spill file, may be freed. What the guest has acknowledged is
 * read by a replay only, and a replay begins behind a fence and a grace period: so nobody reads or writes here.
 */
static __always_inline __u32 may_spill(const struct hf_flow *f, const struct hf_control *c, const struct hf_request *r)
{
	__u64 done = f->g_ack < f->in_end ? f->g_ack : f->in_end;

	if ((f->state != HF_TRACKED && f->state != HF_SPLICED) || f->unlogged || f->in_first != r->first)
		return HF_STALE;
	if (!in_current_epoch(c, f))
		return HF_FENCED;
	if (!r->count || r->count > HF_SPILL_AT_ONCE || r->first + r->count > input_index(done))
		return HF_WAIT_INPUT;
	for (int i = 0; i < HF_CLAIMS; i++) {
		/* a CPU that compares a repeated segment, which was not acknowledged yet when it came */
		if (f->claim_used[i] && input_index(f->claims[i].start) < r->first + r->count)
			return HF_WAIT_INPUT;
	}
	return HF_AGAIN; /* to be freed outside the lock */
}

/* Gives captured segments back, newest first. */
static __always_inline __u32 free_captured(struct hf_flow *f, __u32 id)
{
	for (int i = 0; i < SEGMENTS_PER_CALL; i++) {
		__u32 address = f->segments;
		if (!address)
			return HF_DONE;
		__u8 *segment = segment_at(address);
		if (!segment)
			return HF_STALE;
		struct hf_seg_header *header = (void *)segment;
		struct hf_seg_key key = { id, header->kind_index };
		f->segments = header->next;
		f->captured--;
		bpf_map_delete_elem(&segments, &key);
		give_back(address, 0);
	}
	return HF_AGAIN;
}

/* Makes one free thing: flow id, or segment. Highest first, so that low ones are used first. */
static long fill_one(__u32 i, struct hf_request *r)
{
	__u32 value = r->first + (r->count - 1 - i) * r->stride;

	if (r->which == 0)
		bpf_map_push_elem(&free_flows, &value, 0);
	else
		give_back(value, r->which == 2);
	return 0;
}

static __always_inline __u32 change_flow(struct hf_flow *f, const struct hf_control *c, const struct hf_request *r, __u64 now)
{
	if (f->generation != r->generation || f->state == HF_FREE)
		return HF_STALE;
	switch (r->op) {
	case HF_OP_REPLAY:
		return begin_replay(f, r);
	case HF_OP_SPLICE:
		return splice(f, c, r, now);
	case HF_OP_TRIM:
		if (r->in_end > f->g_ack || r->in_end > f->in_end || r->in_end < f->in_base || r->out > f->out_acked ||
		    r->out < f->out_base)
			return HF_STALE;
		f->in_base = r->in_end;
		f->out_base = r->out;
		f->share_used = 0;
		return HF_AGAIN; /* published; what it frees comes after */
	case HF_OP_SPILL:
		return may_spill(f, c, r);
	case HF_OP_HOLD:
		return hold(f, r);
	case HF_OP_YIELD:
		return yield(f, r);
	case HF_OP_LEAVE:
		if (f->owner != r->slot || f->epoch != r->epoch)
			return HF_STALE;
		f->leaves = r->count != 0;
		return HF_DONE;
	case HF_OP_LOSE:
		f->lost = 1;
		/* fallthrough */
	case HF_OP_CLOSE:
		f->state = HF_CLOSED;
		f->closed_ns = now;
		return HF_DONE;
	case HF_OP_REAP:
		return f->state == HF_CLOSED ? HF_AGAIN : HF_STALE;
	}
	return HF_STALE;
}

/* Frees a closed flow's record and what it holds. The caller reaps late enough after the closing. */
static __noinline __u32 reap_flow(__u32 id)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);
	struct hf_key key;
	__u32 *indexed, result;

	if (!f)
		return HF_STALE;
	key = f->key;
	indexed = bpf_map_lookup_elem(&wire_index, &key);
	if (indexed && *indexed == id)
		bpf_map_delete_elem(&wire_index, &key); /* first: nobody finds it any more */
	result = free_input(f, id, ~0U);
	if (result == HF_DONE)
		result = free_captured(f, id);
	if (result == HF_DONE) {
		f->generation++;
		f->state = HF_FREE;
		bpf_map_push_elem(&free_flows, &id, 0);
		count(HF_STAT_CLOSED);
	}
	return result;
}

/* Gives back the input segments that lie wholly below the trim point. */
static __noinline __u32 trim_input(__u32 id)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);

	return f ? free_input(f, id, input_index(f->in_base)) : HF_STALE;
}

/* Gives back the input segments below index `until`, which are in the spill file. */
static __noinline __u32 spill_input(__u32 id, __u32 until)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);

	return f ? free_input(f, id, until) : HF_STALE;
}

/*
 * Run by user space with a request in place of a frame (BPF_PROG_TEST_RUN). A SEC("syscall") program would be the plain
 * form, but those sleep, and 6.1 lets no sleepable program take a spin lock.
 */
SEC("tc")
int control_flow(struct __sk_buff *skb)
{
	struct hf_control *c = get_control();
	struct hf_request r;
	struct hf_flow *f;
	__u32 id;

	if (!c || bpf_skb_load_bytes(skb, 0, &r, sizeof(r)))
		return TC_ACT_SHOT;
	if (r.op == HF_OP_FILL) {
		bpf_loop(r.count, fill_one, &r, 0);
		r.result = HF_DONE;
	} else {
		__u64 now = bpf_ktime_get_ns();
		id = r.flow;
		f = bpf_map_lookup_elem(&flows, &id);
		r.result = HF_STALE;
		if (f) {
			bpf_spin_lock(&f->lock);
			r.result = change_flow(f, c, &r, now);
			bpf_spin_unlock(&f->lock);
			if (r.op == HF_OP_REAP && r.result == HF_AGAIN)
				r.result = reap_flow(id);
			if ((r.op == HF_OP_TRIM || r.op == HF_OP_YIELD) && r.result == HF_AGAIN)
				r.result = trim_input(id);
			if (r.op == HF_OP_SPILL && r.result == HF_AGAIN)
				r.result = spill_input(id, r.first + r.count);
		}
	}
	bpf_skb_store_bytes(skb, 0, &r, sizeof(r), 0);
	return TC_ACT_OK;
}

#endif
