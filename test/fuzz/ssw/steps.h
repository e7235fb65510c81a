/* SPDX-License-Identifier: GPL-2.0 */
/* A script's steps. The first byte of each says which, and for which connection and slot. */
#ifndef HF_FUZZ_STEPS_H
#define HF_FUZZ_STEPS_H
#include "host.h"

#define STEPS_AT_MOST 200
#define MS 1000000ULL

/* One frame of whoever `head` says. */
static void frame_step(__u8 head, int raw)
{
	struct __sk_buff *skb = &frames[cpu];
	__u32 connection = head & 3, slot = head >> 2 & 1;
	enum program program = head >> 3 & 3 ? (head >> 3 & 3) - 1 : FROM_WIRE;
	struct segment s;

	if (raw) {
		skb->len = next8();
		for (__u32 i = 0; i < skb->len; i++)
			skb->bytes[i] = next8();
		skb->vlan_present = 0;
		skb->ip_summed = 1;
	} else {
		plan(&s, connection, program != FROM_GUEST, program == FROM_REPLAY);
		build(skb, &s);
		if (head & 0x20) {
			__u8 how = next8();
			if (how & 0x40)
				lengthen(skb, how >> 2);
			damage(skb, how);
			skb->ip_summed = how & 0x10 ? 0 : 1;
			skb->vlan_present = how == 0xff;
		}
	}
	run(program, program == FROM_WIRE ? PORT_IF : program == FROM_GUEST ? TAP_IF + slot : REPLAY_IF, raw ? "bytes" : "frame");
}

/* What the other CPU does meanwhile: one frame of a client or a guest. */
static void interrupt(void)
{
	interrupted = 1;
	frame_step(next8() & 0x2f, 0);
}

static void step(void)
{
	__u8 what = next8() & 15, head = next8();
	struct hf_key key = key_of(head & 3);
	__u32 id = FLOWS;
	struct hf_flow *f = flow_of_key(&key, &id);

	clock_ns += MS;
	interrupted = 0;
	begin_step();
	switch (what) {
	case 0:
		open_connection(head & 3);
		break;
	case 1:
		if (head & 0x80)
			the_control()->slots[head >> 2 & 1].listening ^= 1;
		else if (head & 0x40)
			the_control()->slots[head >> 2 & 1].epoch = 0;
		else
			activate(the_control()->active == 0);
		break;
	case 2:
		if (f)
			replay(f, id, head & 3);
		break;
	case 3:
		if (f)
			splice_it(f, id);
		break;
	case 4:
		any_request((head >> 2) % FLOWS);
		break;
	case 5:
		clock_ns += 1ULL << (head & 63) % 56;
		break;
	case 6:
		/* a second active guest, as while an upgrade drains: the first keeps its epoch */
		the_control()->active = head >> 2 & 1;
		if (!the_control()->slots[head >> 2 & 1].epoch)
			the_control()->slots[head >> 2 & 1].epoch = ++last_epoch;
		the_control()->slots[head >> 2 & 1].listening = 1;
		break;
	case 7:
		frame_step(head, 1);
		break;
	case 8:
	case 9:
		interrupt_in = 1 + next8() % 64;
		frame_step(head & 0x2f, 0);
		interrupt_in = 0;
		break;
	default:
		frame_step(head, 0);
	}
	end_step();
}

#endif
