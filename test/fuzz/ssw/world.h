/* SPDX-License-Identifier: GPL-2.0 */
/* One service on small resources, so that a short script uses them up; and the frames that its ends send. */
#ifndef HF_FUZZ_WORLD_H
#define HF_FUZZ_WORLD_H

enum { PORT_IF = 2, REPLAY_IF = 3, TAP_IF = 10 }; /* the tap of slot n is TAP_IF + n */
enum { CONNECTIONS = 4, FLOWS = 3, SMALL = 20, LARGE = 6, SERVICE_PORT = 80, CLIENT_PORT = 1000 };

static const __u8 GUEST_MAC[6] = { 2, 'H', 'F', 0, 0, 1 }, CLIENT_MAC[6] = { 2, 'H', 'F', 0, 0, 2 };
static __u32 last_epoch;
static __u32 service6[4], client6[4], local6[4];
#define SERVICE4 0x0100090a /* 10.9.0.1, network order */
#define CLIENT4 0x0200090a

static void make_world(void)
{
	MAKE_MAP(control, 1);
	MAKE_MAP(flows, FLOWS);
	MAKE_MAP(wire_index, FLOWS);
	MAKE_MAP(pending, 3);
	MAKE_STACK(free_flows, FLOWS);
	MAKE_STACK(free_small, SMALL);
	MAKE_STACK(free_large, LARGE);
	MAKE_MAP(slabs, 2);
	MAKE_MAP(segments, SMALL + LARGE);
	MAKE_MAP(scratch, 1);
	MAKE_MAP(stats, HF_STAT_MAX);
	MAKE_MAP(work, 1);
	service6[0] = client6[0] = bpf_htonl(0xfd090000);
	service6[3] = bpf_htonl(1);
	client6[3] = bpf_htonl(2);
	local6[0] = bpf_htonl(0xfe800000);
	local6[3] = bpf_htonl(3);
}

#define UNITS_PER_SLAB (1U << (HF_SLAB_SHIFT - HF_UNIT_SHIFT))

static void fill_stack(const void *stack, __u32 first, __u32 stride)
{
	struct map *m = map_of(stack);

	for (m->n = 0; m->n < m->max; m->n++)
		((__u32 *)m->values)[m->n] = first + (m->max - 1 - m->n) * stride;
}

static struct hf_control *the_control(void)
{
	return (void *)map_of(&control)->values;
}

static struct hf_flow *flow_record(__u32 id)
{
	return (struct hf_flow *)map_of(&flows)->values + id;
}

static void activate(__u32 slot)
{
	struct hf_control *c = the_control();

	if (c->active < HF_SLOTS)
		c->slots[c->active].epoch = 0;
	c->slots[slot].epoch = ++last_epoch;
	c->slots[slot].listening = 1;
	c->active = slot;
}

static void start_world(__u8 how)
{
	struct hf_control *c = the_control();

	for (struct map *m = maps; m->definition; m++)
		empty_map(m);
	fill_stack(&free_flows, 0, 1);
	fill_stack(&free_small, 1, HF_SMALL_STRIDE >> HF_UNIT_SHIFT);
	fill_stack(&free_large, UNITS_PER_SLAB, HF_LARGE_STRIDE >> HF_UNIT_SHIFT);
	clock_ns = 1000000000;
	last_epoch = cpu = interrupt_in = locks[0] = locks[1] = 0;
	c->version = HF_LAYOUT_VERSION;
	c->active = HF_NO_SLOT;
	c->port_ifindex = PORT_IF;
	c->replay_ifindex = REPLAY_IF;
	c->addr4 = SERVICE4;
	memcpy(c->addr6, service6, 16);
	memcpy(c->link_local, local6, 16);
	c->seed = 0x5eed;
	memcpy(c->guest_mac, GUEST_MAC, 6);
	c->ports[SERVICE_PORT >> 3] |= 1 << (SERVICE_PORT & 7);
	c->slots[0].ifindex = TAP_IF;
	c->slots[1].ifindex = TAP_IF + 1;
	c->small_free = SMALL;
	c->large_free = LARGE;
	c->small_reserve = SMALL / 4;
	c->compare = how & 1 ? HF_COMPARE_SAMPLED : HF_COMPARE_FULL;
	c->on_full = how & 2 ? HF_UNPROTECTED : HF_BACKPRESSURE;
	c->table_full = how & 4 ? HF_TABLE_REFUSE : HF_TABLE_WAIT;
	c->flow_share = how & 8 ? 16384 : 0;
	activate(0);
}

/* Connection n: IPv6 if odd. */
static __u8 family_of(__u32 n)
{
	return n & 1 ? 6 : 4;
}

static struct hf_key key_of(__u32 n)
{
	struct hf_key key;
	__u32 raddr[4] = { 0, 0, 0, CLIENT4 };

	client_side_key(&key, family_of(n), n & 1 ? client6 : raddr, bpf_htons(CLIENT_PORT + (n >> 1)), bpf_htons(SERVICE_PORT));
	return key;
}

/* Without a helper's call: nothing interrupts those who look on. */
static struct hf_flow *flow_of_key(const struct hf_key *key, __u32 *id)
{
	struct map *m = map_of(&wire_index);
	__s64 i = slot_in(m, key);

	if (i < 0)
		return 0;
	*id = ((__u32 *)m->values)[i];
	return flow_record(*id);
}

static struct hf_pending *pending_of_key(const struct hf_key *key)
{
	struct map *m = map_of(&pending);
	__s64 i = slot_in(m, key);

	return i < 0 ? 0 : (struct hf_pending *)m->values + i;
}

/* Byte `position` of a connection's stream; `variant` 0 is what its end always says there. */
static __u8 content(__u32 connection, int up, __s64 position, __u8 variant)
{
	return (position * 167 ^ position >> 8 ^ connection * 29 ^ up * 91) + variant;
}

struct segment {
	__u32 connection, seq, ack, window, n;
	__s64 position; /* of the first of its `n` bytes */
	__u16 urgent;
	__u8 up, flags, variant, options_bytes;
	__u8 options[40];
};

static __u16 tcp_checksum(const __u8 *ip, const __u8 *tcp, __u32 n, __u8 family)
{
	__u64 sum = sum16(family == 6 ? ip + 8 : ip + 12, family == 6 ? 32 : 8, bpf_htons(6) + (__u64)bpf_htons(n));

	sum = sum16(tcp, n, sum);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void build(struct __sk_buff *skb, const struct segment *s)
{
	__u8 family = family_of(s->connection), *ip = skb->bytes + ETH_BYTES;
	__u32 ip_bytes = family == 6 ? IPV6_BYTES : IPV4_BYTES, header = TCP_BYTES + (s->options_bytes & ~3);
	struct hf_key key = key_of(s->connection);
	__u8 *tcp = ip + ip_bytes;

	skb->vlan_present = 0;
	skb->ip_summed = 3; /* from a stack of this host */
	memset(skb->bytes, 0, ETH_BYTES + ip_bytes + header);
	memcpy(skb->bytes, s->up ? GUEST_MAC : CLIENT_MAC, 6);
	memcpy(skb->bytes + 6, s->up ? CLIENT_MAC : GUEST_MAC, 6);
	*(__u16 *)(skb->bytes + 12) = bpf_htons(family == 6 ? ETH_P_IPV6 : ETH_P_IP);
	if (family == 6) {
		put32(ip, 0x60000000);
		put32(ip + 4, (header + s->n) << 16 | IPPROTO_TCP << 8 | 64);
		memcpy(ip + 8, s->up ? client6 : service6, 16);
		memcpy(ip + 24, s->up ? service6 : client6, 16);
	} else {
		__u32 from = s->up ? CLIENT4 : SERVICE4, to = s->up ? SERVICE4 : CLIENT4;
		put32(ip, 0x45000000 | (ip_bytes + header + s->n));
		put32(ip + 8, 64U << 24 | IPPROTO_TCP << 16);
		memcpy(ip + 12, &from, 4);
		memcpy(ip + 16, &to, 4);
	}
	memcpy(tcp, s->up ? &key.rport : &key.lport, 2);
	memcpy(tcp + 2, s->up ? &key.lport : &key.rport, 2);
	put32(tcp + 4, s->seq);
	put32(tcp + 8, s->ack);
	put32(tcp + 12, header << 26 | (__u32)s->flags << 16 | (s->window & 0xffff));
	put32(tcp + 16, s->urgent);
	memcpy(tcp + TCP_BYTES, s->options, header - TCP_BYTES);
	for (__u32 i = 0; i < s->n; i++)
		tcp[header + i] = content(s->connection, s->up, s->position + i, s->variant);
	*(__u16 *)(tcp + 16) = tcp_checksum(ip, tcp, header + s->n, family);
	skb->len = ETH_BYTES + ip_bytes + header + s->n;
}

#endif
