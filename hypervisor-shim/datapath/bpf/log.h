/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The log: position-addressed segments in host kernel memory.
 *
 *   (flow, kind, index) --segments--> address --slabs--> | header | bytes ............ | presence bits |
 *
 * HF_INPUT    what the client sent: a small segment for the first 2 KiB, large ones behind it
 * HF_OUTPUT   captured output (heads of replies, or everything), small segments, with presence bits
 * HF_SAMPLES  32 bytes of every 16 KiB of output, 64 samples a segment, with presence bits
 * HF_MARKS    causal marks, 64 a segment
 *
 * Functions that are not static are verified once, by themselves: that is what keeps the loops cheap to verify.
 */
#ifndef HF_LOG_H
#define HF_LOG_H
#include "maps.h"

#define UNITS_PER_SLAB_MASK ((1U << (HF_SLAB_SHIFT - HF_UNIT_SHIFT)) - 1)

static __always_inline __u8 *segment_at(__u32 address)
{
	__u32 slab = address >> (HF_SLAB_SHIFT - HF_UNIT_SHIFT);
	struct hf_slab *s = bpf_map_lookup_elem(&slabs, &slab);

	return s ? s->bytes + ((address & UNITS_PER_SLAB_MASK) << HF_UNIT_SHIFT) : 0;
}

#define INDEX_MASK 0xfffffff

static __always_inline __u32 kind_index(__u32 kind, __u32 index)
{
	return kind << 28 | (index & INDEX_MASK);
}

/* Address of a segment that exists, or 0. */
static __always_inline __u32 find_segment(__u32 flow, __u32 ki)
{
	struct hf_seg_key key = { flow, ki };
	__u32 *address = bpf_map_lookup_elem(&segments, &key);

	return address ? *address : 0;
}

static __always_inline void give_back(__u32 address, __u32 large)
{
	__u32 zero = 0;
	struct hf_control *c = bpf_map_lookup_elem(&control, &zero);

	if (large)
		bpf_map_push_elem(&free_large, &address, 0);
	else
		bpf_map_push_elem(&free_small, &address, 0);
	if (c)
		__sync_fetch_and_add(large ? &c->large_free : &c->small_free, 1);
}

/* Finds or makes a segment and notes it in its flow. Returns its address; 0 when the log is full. */
__noinline __u32 obtain_segment(__u32 id, __u32 ki, __u32 large)
{
	__u32 address = find_segment(id, ki);
	struct hf_seg_key key = { id, ki };
	__u32 zero = 0;
	struct hf_control *c = bpf_map_lookup_elem(&control, &zero);

	if (address || !c)
		return address;
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);
	if (!f)
		return 0;
	if (ki >> 28 != HF_INPUT &&
	    (c->small_free <= c->small_reserve || (c->flow_share && f->captured >= c->flow_share >> HF_SMALL_SHIFT)))
		return 0;
	if (large ? bpf_map_pop_elem(&free_large, &address) : bpf_map_pop_elem(&free_small, &address))
		return 0;
	__sync_fetch_and_add(large ? &c->large_free : &c->small_free, -1);
	__u8 *segment = segment_at(address);
	if (!segment)
		return 0;
	struct hf_seg_header *header = (void *)segment;
	header->flow = id;
	header->kind_index = ki;
	if (!large)
		__builtin_memset(segment + HF_SEG_HEADER + HF_SMALL_BYTES, 0, HF_SMALL_BYTES / 8);
	if (bpf_map_update_elem(&segments, &key, &address, BPF_NOEXIST)) {
		give_back(address, large); /* another CPU was first, or the index is full */
		return find_segment(id, ki);
	}
	if (ki >> 28 != HF_INPUT) {
		bpf_spin_lock(&f->lock);
		header->next = f->segments;
		f->segments = address;
		f->captured++;
		bpf_spin_unlock(&f->lock);
	}
	return address;
}

/* Where an input position lives: segment index, offset in it, and its size. */
static __always_inline __u32 input_index(__u64 position)
{
	return position < HF_SMALL_BYTES ? 0 : 1 + ((position - HF_SMALL_BYTES) >> HF_LARGE_SHIFT);
}

static __always_inline __u32 input_offset(__u64 position)
{
	return position < HF_SMALL_BYTES ? position : (position - HF_SMALL_BYTES) & (HF_LARGE_BYTES - 1);
}

/* Copies `len` payload bytes at frame offset `from` to input position `position`. 0, or -1 when the log is full. */
__noinline int store_input(struct __sk_buff *skb, __u32 id, __u32 from, __u64 position, __u32 len)
{
	for (int i = 0; i < 8 && len; i++) {
		__u32 index = input_index(position), offset = input_offset(position);
		__u32 size = index ? HF_LARGE_BYTES : HF_SMALL_BYTES;
		__u32 n = size - offset;
		if (n > len)
			n = len;
		__u32 address = obtain_segment(id, kind_index(HF_INPUT, index), index != 0);
		if (!address)
			return -1;
		__u8 *segment = segment_at(address);
		if (!segment)
			return -1;
		BOUND(n, HF_LARGE_BYTES, -1);
		barrier_var(offset);
		if (offset >= HF_LARGE_BYTES)
			return -1;
		if (bpf_skb_load_bytes(skb, from, segment + HF_SEG_HEADER + offset, n))
			return -1;
		from += n;
		position += n;
		len -= n;
	}
	return len ? -1 : 0;
}

struct scratch_walk {
	__u8 *segment;
	__u8 *scratch;
	__u32 n;
	__u32 differs;
};

static long scratch_word(__u32 i, struct scratch_walk *w)
{
	if (i >= HF_SMALL_BYTES / 8)
		return 1;
	__u64 x = *(__u64 *)(w->scratch + 8 * i) ^ *(__u64 *)(w->segment + 8 * i);
	if (w->n - 8 * i < 8)
		x <<= (8 - (w->n - 8 * i)) * 8; /* little endian: the first bytes are the low ones */
	w->differs = x != 0;
	return w->differs;
}

/* Whether the first `n` bytes of this CPU's scratch differ from a segment's bytes at `offset`. */
__noinline int scratch_differs(__u32 address, __u32 offset, __u32 n)
{
	__u32 zero = 0;
	struct hf_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	__u8 *segment = segment_at(address);
	struct scratch_walk w = { .n = n };

	if (!s || !segment || offset >= HF_LARGE_BYTES || n > HF_SMALL_BYTES)
		return 1;
	w.segment = segment + HF_SEG_HEADER + offset;
	w.scratch = s->bytes;
	bpf_loop(n + 7 >> 3, scratch_word, &w, 0);
	return w.differs;
}

/* Whether `n` payload bytes at frame offset `from` differ from a segment's at `offset`. */
__noinline int input_differs(struct __sk_buff *skb, __u32 address, __u32 from, __u32 offset, __u32 n)
{
	__u32 zero = 0;
	struct hf_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!s)
		return 1;
	BOUND(n, HF_SMALL_BYTES, 1);
	if (bpf_skb_load_bytes(skb, from, s->bytes, n))
		return 1;
	return scratch_differs(address, offset, n);
}

/*
 * Whether an input segment lies in the spill file. An earlier guest had acknowledged what it holds: only while a replay feeds
 * it to the next one can it come from the wire again, and then it is delivered to nobody.
 */
static __noinline int is_spilled(__u32 id, __u32 index)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);

	return f && index < f->in_first;
}

/* Whether payload equals what is logged at `position` already, as far as that is in memory. 0 equal, 1 not. */
__noinline int verify_input(struct __sk_buff *skb, __u32 id, __u32 from, __u64 position, __u32 len)
{
	for (int i = 0; i < 72 && len; i++) {
		__u32 index = input_index(position), offset = input_offset(position);
		__u32 n = (index ? HF_LARGE_BYTES : HF_SMALL_BYTES) - offset;
		if (n > len)
			n = len;
		if (n > HF_SMALL_BYTES)
			n = HF_SMALL_BYTES;
		__u32 address = find_segment(id, kind_index(HF_INPUT, index));
		if (address ? input_differs(skb, address, from, offset, n) : !is_spilled(id, index))
			return 1;
		from += n;
		position += n;
		len -= n;
	}
	return len != 0;
}

/*
 * Appends causal mark number `n`. Marks are advisory: a full log costs order, never a byte. A presence byte tells the mark that is
 * there from one that found no room, in whose place an earlier flow's bytes lie.
 */
__noinline int store_mark(__u32 id, __u32 n, __u64 in, __u64 out, __u32 urgent)
{
	__u32 zero = 0;
	struct hf_control *c = bpf_map_lookup_elem(&control, &zero);
	__u32 address = obtain_segment(id, kind_index(HF_MARKS, n >> (HF_SMALL_SHIFT - 5)), 0);
	__u8 *segment = segment_at(address);

	if (!c || !address || !segment)
		return -1;
	struct hf_mark *m = (void *)(segment + HF_SEG_HEADER + ((n << 5) & (HF_SMALL_BYTES - 1)));
	m->in = in;
	m->out = out;
	m->urgent = urgent;
	m->order = __sync_fetch_and_add(&c->order, 1);
	segment[HF_SEG_HEADER + HF_SMALL_BYTES + (n & (HF_SMALL_BYTES / HF_MARK_BYTES - 1))] = 1;
	return 0;
}

#endif
