/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The comparator: what was sent is captured once, and whatever is sent again at the same position is compared.
 * Bytes whose presence bit is clear are not compared; user space masks a protocol's free fields that way.
 */
#ifndef HF_OUTPUT_H
#define HF_OUTPUT_H
#include "log.h"

/* Presence bits of one word of 8 bytes at `low` that lie in [from, to). */
static __always_inline __u32 word_bits(__u32 low, __u32 from, __u32 to)
{
	__u32 bits = 0xff;

	if (low < from)
		bits &= 0xff << (from - low);
	if (to - low < 8)
		bits &= 0xff >> (8 - (to - low));
	return bits & 0xff;
}

/* Bit j of `bits` to all of byte j. */
static __always_inline __u64 spread(__u32 bits)
{
	__u64 b = bits * 0x0101010101010101ULL & 0x8040201008040201ULL;

	b = (((b & 0x7f7f7f7f7f7f7f7fULL) + 0x7f7f7f7f7f7f7f7fULL) | b) & 0x8080808080808080ULL;
	return (b >> 7) * 0xff;
}

/* One walk over the words of [offset, end) in a small segment. A callback of bpf_loop is verified once. */
struct word_walk {
	__u8 *segment; /* behind its header */
	__u8 *scratch;
	__u32 offset;
	__u32 end;
	__u32 differs;
};

/* Sets the presence bits of 64 bytes of the stream at once. */
static long mark_word(__u32 i, struct word_walk *w)
{
	__u32 word = (w->offset >> 6) + i, low = word << 6;
	__u64 bits = ~0ULL;

	if (word >= HF_SMALL_BYTES / 64)
		return 1;
	if (low < w->offset)
		bits &= ~0ULL << (w->offset - low);
	if (w->end - low < 64)
		bits &= ~0ULL >> (64 - (w->end - low));
	*(__u64 *)(w->segment + HF_SMALL_BYTES + 8 * word) |= bits;
	return 0;
}

static long compare_word(__u32 i, struct word_walk *w)
{
	__u32 word = (w->offset >> 3) + i;

	if (word >= HF_SMALL_BYTES / 8)
		return 1;
	__u32 bits = w->segment[HF_SMALL_BYTES + word] & word_bits(word << 3, w->offset, w->end);
	__u64 x = *(__u64 *)(w->scratch + 8 * word) ^ *(__u64 *)(w->segment + 8 * word);
	w->differs = (x & spread(bits)) != 0;
	return w->differs;
}

/* Copies `n` payload bytes into a small segment and sets their presence bits. */
__noinline int capture_bytes(struct __sk_buff *skb, __u32 address, __u32 from, __u32 offset, __u32 n)
{
	__u8 *segment = segment_at(address);
	struct word_walk w = { .offset = offset, .end = offset + n };

	if (!segment || offset >= HF_SMALL_BYTES || w.end > HF_SMALL_BYTES)
		return -1;
	w.segment = segment + HF_SEG_HEADER;
	BOUND(n, HF_SMALL_BYTES, -1);
	if (bpf_skb_load_bytes(skb, from, w.segment + offset, n))
		return -1;
	bpf_loop((w.end + 63 >> 6) - (offset >> 6), mark_word, &w, 0);
	return 0;
}

/* Compares payload with a small segment where its bits are set. 0 equal, 1 not. */
__noinline int compare_bytes(struct __sk_buff *skb, __u32 address, __u32 from, __u32 offset, __u32 n)
{
	__u32 zero = 0;
	struct hf_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	__u8 *segment = segment_at(address);
	struct word_walk w = { .offset = offset, .end = offset + n };

	if (!s || !segment || offset >= HF_SMALL_BYTES || w.end > HF_SMALL_BYTES)
		return 0;
	w.segment = segment + HF_SEG_HEADER;
	w.scratch = s->bytes;
	BOUND(n, HF_SMALL_BYTES, 0);
	if (bpf_skb_load_bytes(skb, from, s->bytes + offset, n))
		return 1;
	bpf_loop((w.end + 7 >> 3) - (offset >> 3), compare_word, &w, 0);
	return w.differs;
}

/* Output [start, end), whose first byte lies at frame offset `from`: to be captured, or compared. */
struct output_span {
	struct __sk_buff *skb;
	__u64 start;
	__u64 end;
	__u64 salt;
	__u32 id;
	__u32 from;
	__u32 compare;
	__u32 differs;
	__u32 ki; /* of the segment last found, and its address */
	__u32 address;
};

/* Where in its block a sample lies: secret, the same each time. */
static __always_inline __u64 sample_start(__u64 salt, __u64 block)
{
	__u64 h = (block ^ salt) * 0x9e3779b97f4a7c15ULL;

	h ^= h >> 29;
	h *= 0xbf58476d1ce4e5b9ULL;
	return (block << HF_SAMPLE_BLOCK_SHIFT) + ((h >> 40) * (HF_SAMPLE_BLOCK - HF_SAMPLE_BYTES) >> 24);
}

/* Captures or compares `n` bytes of a span that live at `offset` of one small segment. 1: they differ. */
static __always_inline int touch(struct output_span *o, __u32 ki, __u32 from, __u32 offset, __u32 n)
{
	if (ki != o->ki) {
		o->ki = ki;
		o->address = o->compare ? find_segment(o->id, ki) : obtain_segment(o->id, ki, 0);
	}
	if (!o->address) {
		if (!o->compare)
			count(HF_STAT_UNCOVERED); /* no room: the comparator covers less, no byte is lost */
		return 0;
	}
	if (!o->compare)
		capture_bytes(o->skb, o->address, from, offset, n);
	else if (compare_bytes(o->skb, o->address, from, offset, n))
		return o->differs = 1;
	return 0;
}

static long sample_block(__u32 i, struct output_span *o)
{
	__u64 block = (o->start >> HF_SAMPLE_BLOCK_SHIFT) + i;

	if (block << HF_SAMPLE_BLOCK_SHIFT >= o->end)
		return 1;
	__u64 base = sample_start(o->salt, block), start = base, end = base + HF_SAMPLE_BYTES;
	if (start < o->start)
		start = o->start;
	if (end > o->end)
		end = o->end;
	if (start >= end)
		return 0;
	return touch(o, kind_index(HF_SAMPLES, block >> 6), o->from + (start - o->start),
		     (block & 63) * HF_SAMPLE_BYTES + (start - base), end - start);
}

static long byte_block(__u32 i, struct output_span *o)
{
	__u64 block = (o->start >> HF_SMALL_SHIFT) + i, start = block << HF_SMALL_SHIFT, end = start + HF_SMALL_BYTES;

	if (start >= o->end)
		return 1;
	if (start < o->start)
		start = o->start;
	if (end > o->end)
		end = o->end;
	return touch(o, kind_index(HF_OUTPUT, block), o->from + (start - o->start), start & (HF_SMALL_BYTES - 1),
		     end - start);
}

#define SAMPLE_BLOCKS_PER_FRAME (65536 / HF_SAMPLE_BLOCK + 2)
#define BYTE_BLOCKS_PER_FRAME (65536 / HF_SMALL_BYTES + 2)

#endif
