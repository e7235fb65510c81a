/* SPDX-License-Identifier: GPL-2.0 */
/* Runs frames through the programs; and what user space does, with the frames that its replays bring about. */
#ifndef HF_FUZZ_HOST_H
#define HF_FUZZ_HOST_H
#include "frames.h"

static struct __sk_buff frames[CPUS];
static int talk;

static void run(enum program program, __u32 ifindex, const char *what)
{
	struct __sk_buff *skb = &frames[cpu];
	struct view v;
	struct hf_key key;
	int action;

	running[cpu] = program;
	skb->ifindex = ifindex;
	skb->data = (unsigned long)skb->bytes;
	skb->data_end = skb->data + skb->len;
	if (look_at(&v, skb) && v.is_tcp) {
		key = key_in_view(&v, program != FROM_GUEST);
		touch_key(&key);
	}
	__u32 seq = v.seq, ack = v.ack, flags = v.flags, n = v.end - v.data;
	action = program == FROM_WIRE ? from_wire(skb) : program == FROM_GUEST ? from_guest(skb) : from_replay(skb);
	if (talk)
		fprintf(stderr, "%s%s on %u: %u bytes, tcp %d flags %02x seq %u ack %u n %u -> %s %u\n", cpu ? "  meanwhile " : "", what,
			ifindex, skb->len, v.is_tcp, flags, seq, ack, n, action == 7 ? "to" : "dropped", redirected_to[cpu]);
	if (action == 7)
		check_emission(skb, redirected_to[cpu], redirect_flags[cpu]);
}

static void send_segment(const struct segment *s, enum program program, __u32 slot)
{
	build(&frames[cpu], s);
	run(program, program == FROM_WIRE ? PORT_IF : program == FROM_GUEST ? TAP_IF + slot : REPLAY_IF, "segment");
}

static void open_connection(__u32 connection)
{
	struct segment s = { .connection = connection, .up = 1, .flags = TH_SYN, .seq = ISNS[connection], .window = 0xfaf0 };
	__u32 slot = the_control()->active;

	if (slot >= HF_SLOTS)
		return;
	add_offer(&s, 15, 7000);
	send_segment(&s, FROM_WIRE, 0);
	s.up = 0;
	s.flags |= TH_ACK;
	s.seq = 5000000 + (connection << 30);
	s.ack = ISNS[connection] + 1;
	add_offer(&s, 15, 9000);
	send_segment(&s, FROM_GUEST, slot);
	s.up = 1;
	s.flags = TH_ACK;
	s.ack = s.seq + 1;
	s.seq = ISNS[connection] + 1;
	s.options_bytes = 0;
	add_timestamps(&s, 7000, 9000);
	send_segment(&s, FROM_WIRE, 0);
}

/* As native.programRun of user space. */
static __u32 request(struct hf_request *r)
{
	struct __sk_buff *skb = &frames[0];

	memcpy(skb->bytes, r, sizeof(*r));
	skb->len = sizeof(*r);
	touched_id = r->flow;
	control_flow(skb);
	memcpy(r, skb->bytes, sizeof(*r));
	if (talk)
		fprintf(stderr, "request %u for flow %u: %u\n", r->op, r->flow, r->result);
	return r->result;
}

static void begin_replay_of(struct hf_flow *f, __u32 id)
{
	const struct hf_control *c = the_control();
	struct hf_request r = { .op = HF_OP_REPLAY, .flow = id, .generation = f->generation, .slot = c->active };

	if (c->active < HF_SLOTS && !is_served_by(f, c->active)) {
		r.epoch = c->slots[c->active].epoch;
		request(&r);
	}
}

/* The replay's handshake with the new guest, which takes in and puts out again all that there was: what is left is the splice. */
static void replay(struct hf_flow *f, __u32 id, __u32 connection)
{
	struct segment s = { .connection = connection, .up = 1, .flags = TH_SYN, .window = 0xfaf0 };
	__u32 guest_isn = next8() << 24 | 77;

	begin_replay_of(f, id);
	if (f->state != HF_REPLAYING || f->answered)
		return;
	s.seq = in_seq(f, f->in_base) - 1;
	add_offer(&s, 15, 100);
	send_segment(&s, FROM_REPLAY, 0);
	s.up = 0;
	s.flags = TH_SYN | TH_ACK;
	s.ack = s.seq + 1;
	s.seq = guest_isn;
	add_offer(&s, 15, 600000);
	send_segment(&s, FROM_GUEST, f->owner);
	s.flags = TH_ACK;
	s.options_bytes = 0;
	add_timestamps(&s, 600001, 100);
	for (int i = 0; i < 16 && f->state == HF_REPLAYING && f->g_snd_nxt < f->out_acked; i++) {
		s.position = f->g_snd_nxt;
		s.n = f->out_acked - f->g_snd_nxt < 1460 ? f->out_acked - f->g_snd_nxt : 1460;
		s.seq = out_seq(f, s.position) - f->d;
		s.ack = in_seq(f, in_total(f));
		send_segment(&s, FROM_GUEST, f->owner);
	}
	s.n = 0;
	s.seq = out_seq(f, f->g_snd_nxt) - f->d;
	s.ack = in_seq(f, in_total(f));
	send_segment(&s, FROM_GUEST, f->owner);
}

static void splice_it(struct hf_flow *f, __u32 id)
{
	struct hf_request r = { .op = HF_OP_SPLICE, .flow = id, .generation = f->generation, .in_end = f->in_end };

	request(&r);
}

static void any_request(__u32 id)
{
	static const __u8 OPS[8] = { HF_OP_SPLICE, HF_OP_CLOSE, HF_OP_REAP, HF_OP_TRIM, HF_OP_LOSE, HF_OP_SPILL, HF_OP_REAP, HF_OP_YIELD };
	struct hf_flow *f = flow_record(id);
	__u8 how = next8();
	struct hf_request r = { .op = OPS[how & 7], .flow = id, .generation = f->generation + (how >> 6 == 3), .first = f->in_first,
		.slot = f->owner, .epoch = f->epoch };

	r.in_end = how & 8 ? f->g_ack : f->in_end - next8();
	r.out = how & 16 ? f->out_acked : f->out_base + next8();
	r.count = how & 32 ? next8() : 1;
	request(&r);
}

#endif
