/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HF_MAPS_H
#define HF_MAPS_H
#include "layout.h"

/* Sizes marked "set by the loader" come from the service's budget. All maps are pinned by name. */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hf_control);
} control SEC(".maps");

/* Flow records by id, dense from 0 (free ids are a stack). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024); /* set by the loader */
	__type(key, __u32);
	__type(value, struct hf_flow);
} flows SEC(".maps");

/* Ids by the tuple on the wire. Server-side flows, whose tuple in the guest differs, will have a second index. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* set by the loader */
	__type(key, struct hf_key);
	__type(value, __u32);
} wire_index SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH); /* a SYN flood evicts handshakes, never flows */
	__uint(max_entries, 16384);
	__type(key, struct hf_key);
	__type(value, struct hf_pending);
} pending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1024); /* set by the loader */
	__type(value, __u32);
} free_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1024); /* set by the loader */
	__type(value, __u32);
} free_small SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1024); /* set by the loader */
	__type(value, __u32);
} free_large SEC(".maps");

struct hf_slab {
	__u8 bytes[HF_SLAB_BYTES + HF_SLAB_PAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set by the loader */
	__type(key, __u32);
	__type(value, struct hf_slab);
} slabs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* set by the loader */
	__type(key, struct hf_seg_key);
	__type(value, __u32);
} segments SEC(".maps");

struct hf_scratch {
	__u8 bytes[4 * HF_SMALL_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hf_scratch);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HF_STAT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} stats SEC(".maps");

/* Makes 1 <= n <= max plain to the verifier (that of 6.1 learns nothing from n != 0); else returns `failed`. */
#define BOUND(n, max, failed)                                                                                       \
	do {                                                                                                        \
		__u32 less = (n) - 1;                                                                               \
		barrier_var(less);                                                                                  \
		if (less >= (max))                                                                                  \
			return failed;                                                                              \
		(n) = less + 1;                                                                                     \
	} while (0)

__noinline int count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&stats, &which);
	if (n)
		(*n)++;
	return 0;
}

/* Drops the frame and says why: every drop has a counter. */
static __always_inline int drop(__u32 why)
{
	count(why);
	return TC_ACT_SHOT;
}

#endif
