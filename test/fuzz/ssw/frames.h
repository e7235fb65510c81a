/* SPDX-License-Identifier: GPL-2.0 */
/* Frames that an input asks for: near to what the connection's ends would send, or bytes as they come. */
#ifndef HF_FUZZ_FRAMES_H
#define HF_FUZZ_FRAMES_H

static const __u8 *script, *script_end;

static __u8 next8(void)
{
	return script < script_end ? *script++ : 0;
}

static __u16 next16(void)
{
	__u16 high = next8();

	return high << 8 | next8();
}

static __u32 next32(void)
{
	__u32 high = next16();

	return high << 16 | next16();
}

/* Small most of the time, either way. */
static __s32 next_distance(void)
{
	__u8 b = next8();

	return b < 192 ? (__s8)(b < 96 ? b >> 2 : -((b - 96) >> 2)) : (__s16)next16();
}

static const __u16 LENGTHS[16] = { 0, 0, 0, 1, 2, 7, 100, 100, 536, 1024, 1460, 2047, 2049, 4000, 16384, 40000 };
static const __u8 FLAGS[16] = { TH_ACK, TH_ACK, TH_ACK, TH_ACK | 8, TH_ACK | TH_FIN, TH_ACK | TH_FIN, TH_RST, TH_RST | TH_ACK,
				TH_SYN, TH_SYN | TH_ACK, TH_ACK | TH_URG, TH_SYN | TH_ECE | TH_CWR, TH_FIN, 0, TH_SYN | TH_FIN, 0xff };
static const __u32 ISNS[4] = { 1000, 0, 0xffffff00, 0x7ffffff0 };

static void add_timestamps(struct segment *s, __u32 value, __u32 echo)
{
	put32(s->options + s->options_bytes, 0x0101080a);
	put32(s->options + s->options_bytes + 4, value);
	put32(s->options + s->options_bytes + 8, echo);
	s->options_bytes += 12;
}

/* What SYNs carry: from nothing to everything, and what is to be taken out. */
static void add_offer(struct segment *s, __u8 how, __u32 clock)
{
	static const __u8 MSS[4] = { 2, 4, 5, 180 }, SCALE[4] = { 1, 3, 3, 7 }, SACK_OK[4] = { 1, 1, 4, 2 }, MPTCP[4] = { 30, 4, 0, 0 };

	s->options_bytes = 0;
	if (how & 1) {
		memcpy(s->options, MSS, 4);
		s->options_bytes = 4;
	}
	if (how & 2)
		add_timestamps(s, clock, 0);
	const __u8 *others[3] = { SCALE, SACK_OK, MPTCP };
	for (int i = 0; i < 3; i++)
		if (how & 4 << i) {
			memcpy(s->options + s->options_bytes, others[i], 4);
			s->options_bytes += 4;
		}
}

static void add_options(struct segment *s, const struct hf_flow *f, __u32 value, __u32 echo)
{
	__u8 how = next8();

	if (f && f->client.flags & f->server.flags & HF_OPT_TS ? how % 8 != 7 : how % 8 == 7)
		add_timestamps(s, value + (how % 8 == 6 ? next_distance() : 0), echo + (how % 8 == 5 ? next_distance() : 0));
	if (how >> 3 & 1) {
		__u32 blocks = 1 + (how >> 4) % 3;
		put32(s->options + s->options_bytes, 0x01010500 | (2 + 8 * blocks));
		for (__u32 i = 0; i < 2 * blocks; i++)
			put32(s->options + s->options_bytes + 4 + 4 * i, s->ack + next_distance());
		s->options_bytes += 4 + 8 * blocks;
	}
	if (how == 0xff) /* garbage of a layout of its own */
		for (s->options_bytes = 0; s->options_bytes < 40; s->options_bytes++)
			s->options[s->options_bytes] = next8();
}

/* A place in the input, or in the output, that means something to the flow. */
static __s64 next_place(const struct hf_flow *f, int up)
{
	__u8 b = next8();
	__u64 in[8] = { f->in_end, f->in_end, f->g_ack, f->g_edge, f->in_acked, f->fin_in, f->ooo[0].end, f->in_base };
	__u64 out[8] = { f->out_sent, f->out_sent, f->g_snd_nxt, f->out_acked, f->compare_end, f->fin_out, f->out_base, f->g_snd_nxt };
	__u64 place = up ? in[b & 7] : out[b & 7];

	if (place == HF_UNSET)
		place = up ? f->in_end : f->out_sent;
	return (__s64)place + (b & 0x80 ? next_distance() : 0);
}

static void plan_rest(struct segment *s, __u8 shape)
{
	s->flags = FLAGS[shape & 15];
	if (s->flags == 0xff)
		s->flags = next8();
	s->n = LENGTHS[shape >> 4];
	if (s->flags & TH_URG)
		s->urgent = next8();
	s->window = s->flags & TH_SYN ? 0xfaf0 : 512;
	if (s->n >= 2 && !(next8() & 15)) /* seldom */ {
		s->variant = next8();
		s->window = next16();
	}
}

/* A frame from the client, the replay socket (`up`), or the guest of a slot. */
static void plan(struct segment *s, __u32 connection, int up, int replay)
{
	struct hf_key key = key_of(connection);
	__u32 id;
	struct hf_flow *f = flow_of_key(&key, &id);
	struct hf_pending *h = pending_of_key(&key);
	__u8 shape = next8();

	memset(s, 0, sizeof(*s));
	s->connection = connection;
	s->up = up;
	plan_rest(s, shape);
	if (s->flags & TH_SYN && !replay) {
		__u8 how = next8();
		__u32 isn = ISNS[how >> 6] + (up ? 0 : 5000000);
		s->seq = h && how & 32 ? (up ? h->c_isn : h->s_isn) : isn;
		s->ack = up ? 0 : h && !(how & 16 && f) ? h->c_isn + 1 : f ? in_seq(f, f->in_base) : 0;
		if (f && !up && how & 32 && (!h || how & 16))
			s->seq = f->g_isn;
		add_offer(s, how & 1 ? next8() : 15, up ? 7000 : 9000);
	} else if (f && (is_live(f) || !h)) {
		__s64 here = next_place(f, up), there = next_place(f, !up);
		__u32 delta = up && !replay ? 0 : f->d;
		s->position = here;
		s->seq = up ? in_seq(f, here) : out_seq(f, here) - delta;
		s->ack = up ? out_seq(f, there) - delta : in_seq(f, there);
		if (replay && s->flags & TH_SYN) {
			s->seq = in_seq(f, f->in_base) - 1;
			s->ack = 0;
			add_offer(s, 15, 100);
		} else if (!up && s->flags == (TH_SYN | TH_ACK)) {
			s->ack = in_seq(f, f->in_base);
			add_offer(s, 15, 9000);
		} else
			add_options(s, f, replay ? 200 : up ? f->c_tsval : f->g_tsval, up ? f->s_tsval : f->c_tsval);
	} else {
		s->seq = h ? (up ? h->c_isn : h->s_isn) + 1 : next32();
		s->ack = h ? (up ? h->s_isn : h->c_isn) + 1 : next32();
		add_options(s, 0, 7000, 9000);
	}
}

/* Changes a few bytes; a frame that no device vouches for must then have a right checksum all the same, or is dropped at once. */
static void damage(struct __sk_buff *skb, __u8 how)
{
	for (int i = 0; i < (how & 3) && skb->len; i++)
		skb->bytes[next8() % skb->len] = next8();
	if (how & 4)
		skb->len = next16() % (skb->len + 1);
	if (how & 8 && skb->len + 8 <= FRAME_ROOM) {
		memset(skb->bytes + skb->len, 0, 8); /* Ethernet's padding */
		skb->len += 8;
	}
}

/* Puts an IPv6 extension header, or IPv4 options, before TCP. */
static void lengthen(struct __sk_buff *skb, __u8 kind)
{
	int six = skb->bytes[14] >> 4 == 6;
	__u8 *ip = skb->bytes + ETH_BYTES, *l4 = ip + (six ? IPV6_BYTES : IPV4_BYTES);
	__u32 old = at16(ip + (six ? 4 : 2));
	static const __u8 KINDS[4] = { IPPROTO_HOPOPTS, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_ROUTING };

	if (skb->len < 74 || skb->len + 8 > FRAME_ROOM)
		return;
	memmove(l4 + 8, l4, skb->bytes + skb->len - l4);
	skb->len += 8;
	memset(l4, 0, 8);
	if (six) {
		l4[0] = ip[6];
		l4[2] = kind & 8 ? next8() : 0;
		l4[3] = kind & 8 ? next8() : 0;
		ip[6] = KINDS[kind & 3];
	} else {
		memset(l4, 1, 8);
		ip[0] += 2;
	}
	old += 8;
	ip[six ? 4 : 2] = old >> 8;
	ip[six ? 5 : 3] = old;
}

#endif
