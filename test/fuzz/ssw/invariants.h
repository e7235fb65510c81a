/* SPDX-License-Identifier: GPL-2.0 */
/* What has to be true: of the flow table and the log after each step, of each frame when it leaves, of each write to the log. */
#ifndef HF_FUZZ_INVARIANTS_H
#define HF_FUZZ_INVARIANTS_H
#include "emissions.h"

static struct hf_flow before[FLOWS]; /* the step */

/* Connections that the step's frames speak of; no other flow may change. */
static struct hf_key touched[4];
static __u32 touched_n, touched_id;

static void begin_step(void)
{
	memcpy(before, flow_record(0), sizeof(before));
	for (__u32 id = 0; id < FLOWS; id++)
		sent_before[id] = before[id].out_sent;
	forget_free();
	touched_n = 0;
	touched_id = FLOWS;
}

static void touch_key(const struct hf_key *key)
{
	if (touched_n < 4)
		touched[touched_n++] = *key;
}

static int is_touched(const struct hf_flow *f)
{
	for (__u32 i = 0; i < touched_n; i++)
		if (same_key(&touched[i], &f->key))
			return 1;
	return 0;
}

static __u64 furthest_island(const struct hf_flow *f)
{
	__u64 furthest = 0;

	for (int i = 0; i < HF_OOO; i++)
		if (f->ooo[i].end > furthest)
			furthest = f->ooo[i].end;
	return furthest;
}

static void check_islands(const struct hf_flow *f)
{
	__u32 n = 0;

	for (int i = 0; i < HF_OOO; i++) {
		const struct hf_range *r = &f->ooo[i];
		if (!r->end)
			continue;
		n++;
		REQUIRE(r->start > f->in_end && r->start < r->end, "L3: island %llu..%llu at in_end %llu", r->start, r->end, f->in_end);
		for (int j = 0; j < i; j++)
			REQUIRE(!f->ooo[j].end || r->end < f->ooo[j].start || f->ooo[j].end < r->start, "L3: islands touch");
	}
	REQUIRE(n == f->islands, "L3: %u islands, %u counted", n, f->islands);
}

/* What is said to be logged has a place in the log. */
static void check_presence(const struct hf_flow *f, __u32 id)
{
	for (__u32 index = f->in_first; f->in_end > f->in_base && index <= input_index(f->in_end - 1); index++) {
		struct hf_seg_key key = { id, kind_index(HF_INPUT, index) };
		if (index >= input_index(f->in_base))
			REQUIRE(slot_in(map_of(&segments), &key) >= 0, "P1: segment %u of the input is not in the log", index);
	}
}

static void check_flow(const struct hf_flow *f, __u32 id)
{
	REQUIRE(!f->claim_used[0] && !f->claim_used[1], "L3: a claim was not given back");
	check_islands(f);
	if (!f->unlogged) {
		REQUIRE(f->fin_in == HF_UNSET || (f->fin_in >= f->in_end && f->fin_in >= furthest_island(f)),
			"L7: FIN at %llu, input up to %llu", f->fin_in, f->in_end);
		if (f->state != HF_CLOSED)
			check_presence(f, id);
		REQUIRE(f->in_acked <= in_total(f) && f->g_ack <= in_total(f), "P1: %llu acknowledged of %llu", f->in_acked, in_total(f));
	}
	REQUIRE(f->out_acked <= f->out_sent, "F4: A is %llu of %llu", f->out_acked, f->out_sent);
	REQUIRE(f->out_base <= f->out_acked && f->in_base <= f->in_end, "L5: trimmed beyond what there is");
}

/* A record goes through its life in one direction, and so do its positions. */
static void check_progress(const struct hf_flow *was, const struct hf_flow *f)
{
	if (was->state == HF_FREE || was->generation != f->generation)
		return;
	REQUIRE(same_key(&was->key, &f->key) && was->c_isn == f->c_isn && was->s_isn == f->s_isn, "a flow became another's");
	REQUIRE(was->state != HF_CLOSED || f->state == HF_CLOSED, "a closed flow is in state %u", f->state);
	REQUIRE(f->in_end >= was->in_end && f->in_acked >= was->in_acked && f->in_base >= was->in_base && f->in_first >= was->in_first,
		"input went back");
	REQUIRE(f->out_sent >= was->out_sent && f->out_acked >= was->out_acked && f->out_base >= was->out_base, "output went back");
	REQUIRE(was->fin_in == HF_UNSET || f->fin_in == was->fin_in || f->unlogged, "L7: the FIN moved");
	REQUIRE(!was->unlogged || f->unlogged, "an unlogged flow is in the log again");
}

/* Each segment is free, or has one owner who knows it. */
static void check_log(void)
{
	struct map *index = map_of(&segments), *small = map_of(&free_small), *large = map_of(&free_large);
	__u32 in_use[2] = { 0, 0 }, captured[FLOWS] = { 0 };

	for (__u32 i = 0; i < index->n; i++) {
		struct hf_seg_key *key = (struct hf_seg_key *)index->keys + i;
		__u32 address = ((__u32 *)index->values)[i], kind = key->kind_index >> 28;
		if (!index->used[i])
			continue;
		struct hf_seg_header *header = (void *)segment_at(address);
		REQUIRE(key->flow < FLOWS && flow_record(key->flow)->state != HF_FREE, "segment of a free flow");
		REQUIRE(header->flow == key->flow && header->kind_index == key->kind_index, "segment of two flows");
		in_use[address >= UNITS_PER_SLAB]++;
		if (kind != HF_INPUT)
			captured[key->flow]++;
	}
	REQUIRE(in_use[0] + small->n == SMALL && in_use[1] + large->n == LARGE, "segments lost: %u + %u small, %u + %u large",
		in_use[0], small->n, in_use[1], large->n);
	REQUIRE(the_control()->small_free == small->n && the_control()->large_free == large->n, "free segments are miscounted");
	for (__u32 id = 0; id < FLOWS; id++)
		REQUIRE(flow_record(id)->state == HF_FREE || flow_record(id)->captured == captured[id], "captures are miscounted");
}

static void check_table(void)
{
	struct map *index = map_of(&wire_index);
	__u32 used = 0;

	for (__u32 id = 0; id < FLOWS; id++)
		used += flow_record(id)->state != HF_FREE;
	REQUIRE(used + map_of(&free_flows)->n == FLOWS, "records lost: %u used, %u free", used, map_of(&free_flows)->n);
	for (__u32 i = 0; i < index->n; i++) {
		struct hf_flow *f = flow_record(((__u32 *)index->values)[i]);
		if (index->used[i])
			REQUIRE(f->state != HF_FREE && !memcmp(&f->key, index->keys + i * sizeof(struct hf_key), sizeof(struct hf_key)),
				"a tuple leads to another's flow");
	}
}

static void end_step(void)
{
	for (__u32 id = 0; id < FLOWS; id++) {
		const struct hf_flow *f = flow_record(id);
		if (memcmp(f, &before[id], sizeof(*f))) {
			REQUIRE(id == touched_id || is_touched(f) || f->state == HF_FREE, "a frame of another connection changed flow %u", id);
			check_progress(&before[id], f);
		}
		if (f->state != HF_FREE)
			check_flow(f, id);
	}
	check_table();
	check_log();
}

/* The one way in which a frame's bytes get into the log; and what is there already stays (L2, first writer wins). */
static void check_log_write(const __u8 *to, __u32 n)
{
	struct map *m = map_of(&slabs);

	if (to < m->values || to >= m->values + (size_t)m->max * m->value_bytes)
		return;
	__u64 at = to - m->values;
	__u32 large = at >= m->value_bytes, stride = large ? HF_LARGE_STRIDE : HF_SMALL_STRIDE;
	__u64 first = large ? m->value_bytes : 1 << HF_UNIT_SHIFT, segment = (at - first) / stride;
	struct hf_seg_header *header = (void *)(m->values + first + segment * stride);
	__u32 offset = to - (__u8 *)header - HF_SEG_HEADER, index = header->kind_index & INDEX_MASK;

	REQUIRE(at >= first && offset + n <= (large ? HF_LARGE_BYTES : HF_SMALL_BYTES), "a write of %u bytes across segments", n);
	REQUIRE(header->flow < FLOWS && is_touched(flow_record(header->flow)), "a write to another connection's log");
	if (header->kind_index >> 28 != HF_INPUT)
		return;
	const struct hf_flow *f = flow_record(header->flow);
	if (f->unlogged)
		return; /* since it was claimed; nobody will read it */
	__u64 start = offset + (index ? HF_SMALL_BYTES + ((__u64)(index - 1) << HF_LARGE_SHIFT) : 0);
	REQUIRE(start >= f->in_end, "L2: input at %llu is written again, in_end %llu", start, f->in_end);
	for (int i = 0; i < HF_OOO; i++)
		REQUIRE(!f->ooo[i].end || start + n <= f->ooo[i].start || start >= f->ooo[i].end, "L2: an island is written again");
}

#endif
