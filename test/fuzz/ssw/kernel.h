/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel as the SSW sees it, in user space: frames, helpers, maps. Small, and stricter than the real one: a helper that is called
 * under a spin lock, or a write to the log that is in no segment, ends the run.
 *
 * A second CPU: at any helper that is called without a lock, `interrupt` may run another frame from beginning to end. So every
 * order of two programs is reached in which one runs within the other.
 */
#ifndef HF_FUZZ_KERNEL_H
#define HF_FUZZ_KERNEL_H

#define __sk_buff uapi_sk_buff /* its `data` has 32 bits, of which the verifier makes a pointer */
#include <linux/bpf.h>
#undef __sk_buff
#include <linux/if_ether.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libbpf's headers are for programs that the kernel loads. */
#define __BPF_HELPERS__
#define __BPF_CORE_READ_H__
#define SEC(name)
#define __noinline __attribute__((noinline))
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define barrier_var(v) asm volatile("" : "+r"(v))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) __typeof__(value) *name
#define BPF_CORE_READ_BITFIELD_PROBED(skb, field) (((struct __sk_buff *)(skb))->field)

#define FRAME_ROOM 65536

struct __sk_buff {
	__u32 len;
	__u32 ifindex;
	__u32 vlan_present;
	__u8 ip_summed;
	unsigned long data;
	unsigned long data_end;
	__u8 bytes[FRAME_ROOM];
};

/* Says what went wrong and stops; libFuzzer keeps the input. */
#define REQUIRE(condition, ...)                          \
	do {                                             \
		if (!(condition)) {                      \
			fprintf(stderr, "BROKEN: " __VA_ARGS__); \
			fputc('\n', stderr);             \
			abort();                         \
		}                                        \
	} while (0)

#define CPUS 2
static __u32 cpu;      /* 1: within an interrupt */
static __u32 locks[CPUS];
static __u64 clock_ns;
static __u32 interrupt_in; /* helper calls until the interrupt; 0: none */
static void interrupt(void);

static inline void helper_called(void)
{
	REQUIRE(!locks[cpu], "helper under a spin lock");
	if (cpu == 0 && interrupt_in && --interrupt_in == 0) {
		cpu = 1;
		interrupt();
		cpu = 0;
	}
}

static inline void bpf_spin_lock(struct bpf_spin_lock *lock)
{
	helper_called();
	REQUIRE(!lock->val, "lock taken twice");
	lock->val = locks[cpu] = 1;
}

static inline void bpf_spin_unlock(struct bpf_spin_lock *lock)
{
	REQUIRE(lock->val, "lock was not taken");
	lock->val = locks[cpu] = 0;
}

static inline __u64 bpf_ktime_get_ns(void)
{
	helper_called();
	return clock_ns;
}
#define bpf_ktime_get_coarse_ns bpf_ktime_get_ns

#define bpf_loop(n, callback, context, flags) run_loop(n, (long (*)(__u32, void *))(callback), context)
static inline long run_loop(__u32 n, long (*callback)(__u32, void *), void *context)
{
	__u32 i = 0;

	helper_called();
	while (i < n && !callback(i, context))
		i++;
	return i;
}

/* Frames. */

static void check_log_write(const __u8 *to, __u32 n); /* invariants.h */

static inline long bpf_skb_load_bytes(const struct __sk_buff *skb, __u32 offset, void *to, __u32 n)
{
	helper_called();
	if (offset > skb->len || n > skb->len - offset) {
		memset(to, 0, n);
		return -1;
	}
	check_log_write(to, n);
	memcpy(to, skb->bytes + offset, n);
	return 0;
}

static inline long bpf_skb_store_bytes(struct __sk_buff *skb, __u32 offset, const void *from, __u32 n, __u64 flags)
{
	helper_called();
	if (offset > skb->len || n > skb->len - offset)
		return -1;
	memcpy(skb->bytes + offset, from, n);
	return 0;
}

static inline long bpf_skb_pull_data(struct __sk_buff *skb, __u32 n)
{
	helper_called();
	if (n > skb->len)
		return -1;
	skb->data_end = skb->data + n;
	return 0;
}

static inline long bpf_skb_change_tail(struct __sk_buff *skb, __u32 n, __u64 flags)
{
	helper_called();
	if (n > FRAME_ROOM)
		return -1;
	if (n > skb->len)
		memset(skb->bytes + skb->len, 0, n - skb->len);
	skb->len = n;
	skb->data_end = skb->data + n;
	return 0;
}

static inline __u32 sum16(const void *bytes, __u32 n, __u64 sum)
{
	for (__u32 i = 0; i < n; i += 2) {
		__u16 word = 0;
		memcpy(&word, (const __u8 *)bytes + i, n - i < 2 ? n - i : 2);
		sum += word;
	}
	while (sum >> 32)
		sum = (__u32)sum + (sum >> 32);
	return sum;
}

static inline __s64 bpf_csum_diff(const void *from, __u32 from_bytes, const void *to, __u32 to_bytes, __u32 seed)
{
	helper_called();
	REQUIRE(!(from_bytes & 3) && !(to_bytes & 3) && from_bytes + to_bytes <= 512, "csum_diff of %u, %u", from_bytes, to_bytes);
	__u64 sum = seed;
	for (__u32 i = 0; i < from_bytes; i += 4)
		sum += (__u32) ~*(const __u32 *)((const __u8 *)from + i);
	for (__u32 i = 0; i < to_bytes; i += 4)
		sum += *(const __u32 *)((const __u8 *)to + i);
	while (sum >> 32)
		sum = (__u32)sum + (sum >> 32);
	return sum;
}

static inline long bpf_l4_csum_replace(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags)
{
	__u16 sum;

	helper_called();
	if (offset + 2 > skb->len)
		return -1;
	if (skb->ip_summed == 3)
		return 0; /* without BPF_F_PSEUDO_HDR partial ones stay */
	memcpy(&sum, skb->bytes + offset, 2);
	__u64 all = (__u16)~sum;
	all += flags & 15 ? (__u64)(__u32)~(__u32)from + (__u32)to : (__u32)to;
	while (all >> 16)
		all = (all & 0xffff) + (all >> 16);
	sum = ~all;
	memcpy(skb->bytes + offset, &sum, 2);
	return 0;
}

/* Where frames go. */

static void check_emission(const struct __sk_buff *skb, __u32 ifindex, __u64 flags); /* invariants.h */
static __u32 redirected_to[CPUS];
static __u64 redirect_flags[CPUS];

static inline long bpf_redirect(__u32 ifindex, __u64 flags)
{
	helper_called();
	redirected_to[cpu] = ifindex;
	redirect_flags[cpu] = flags;
	return 7; /* TC_ACT_REDIRECT */
}

static inline long bpf_clone_redirect(struct __sk_buff *skb, __u32 ifindex, __u64 flags)
{
	helper_called();
	check_emission(skb, ifindex, flags);
	return 0;
}

#include "maps-double.h"
#endif
