/* SPDX-License-Identifier: GPL-2.0 */
/* What may leave, and where to: rules F1, F2, F6, promises P1, P2, P3, S2. */
#ifndef HF_FUZZ_EMISSIONS_H
#define HF_FUZZ_EMISSIONS_H

enum program { FROM_WIRE, FROM_GUEST, FROM_REPLAY };
static enum program running[CPUS];
static __u8 interrupted; /* this step: what the record says may be newer than what the program went by */

static int is_served_by(const struct hf_flow *f, __u32 slot)
{
	const struct hf_control *c = the_control();

	return f->owner == slot && f->epoch && c->slots[slot].epoch == f->epoch;
}

static int is_live(const struct hf_flow *f)
{
	return f->state != HF_FREE && f->state != HF_CLOSED;
}

static int is_present(const struct hf_flow *f, __s64 position)
{
	if (position < (__s64)f->in_end)
		return 1;
	for (int i = 0; i < HF_OOO; i++)
		if (f->ooo[i].end && position >= (__s64)f->ooo[i].start && position < (__s64)f->ooo[i].end)
			return 1;
	return 0;
}

/* P1: what a guest is given, and may acknowledge, is in the log, byte by byte. */
static void check_logged(const struct __sk_buff *skb, const struct view *v, const struct hf_flow *f, __u32 id)
{
	__s64 position = in_position(f, v->seq);
	const __u8 *segment = 0;
	__u32 known = ~0U;

	if (f->unlogged)
		return;
	for (__u32 at = v->data; at < v->end; at++, position++) {
		if (position < (__s64)f->g_ack || position < (__s64)f->in_base)
			continue; /* the guest has it, and takes it no more */
		REQUIRE(position < (__s64)f->g_edge, "L2: byte %lld was delivered, the window ends at %llu", position, f->g_edge);
		REQUIRE(is_present(f, position), "P1: byte %lld was delivered and is not in the log", position);
		__u32 index = input_index(position);
		if (index < f->in_first)
			continue;
		if (index != known) {
			struct hf_seg_key key = { id, kind_index(HF_INPUT, index) };
			__s64 i = slot_in(map_of(&segments), &key);
			REQUIRE(i >= 0, "P1: byte %lld has no segment", position);
			segment = (__u8 *)map_of(&slabs)->values;
			__u32 address = ((__u32 *)map_of(&segments)->values)[i];
			segment += (address / UNITS_PER_SLAB) * sizeof(struct hf_slab) + (address % UNITS_PER_SLAB) * 64 + HF_SEG_HEADER;
			known = index;
		}
		REQUIRE(segment[input_offset(position)] == skb->bytes[at], "P1: byte %lld was delivered as another than is logged", position);
	}
	if (v->flags & TH_FIN)
		REQUIRE(position < (__s64)f->g_ack || f->fin_in == (__u64)position, "L7: a FIN at %lld was delivered", position);
}

static int is_ours(const struct view *v, const __u32 *address)
{
	return v->family == 4 ? address[3] == SERVICE4 : same_address(address, service6);
}

/* TCP in pieces, or in a VLAN, has no business on either side (F2). */
static void check_default_deny(const struct view *v)
{
	REQUIRE(!v->tagged, "F2: a VLAN tag passed");
	REQUIRE(v->protocol != IPPROTO_TCP || v->is_tcp, "F2: TCP passed that is no whole segment");
}

static void check_to_guest(const struct __sk_buff *skb, const struct view *v, __u32 slot)
{
	const struct hf_control *c = the_control();
	struct hf_key key = key_in_view(v, 1);
	__u32 id;

	check_default_deny(v);
	REQUIRE(c->slots[slot].epoch, "P3: a frame to a fenced guest");
	if (!v->is_tcp || v->dport != bpf_htons(SERVICE_PORT))
		return;
	REQUIRE(is_ours(v, v->daddr), "F2: another's frame");
	struct hf_flow *f = flow_of_key(&key, &id);
	if (f && (is_live(f) || !(v->flags & (TH_SYN | TH_RST))) && !interrupted) {
		REQUIRE(is_served_by(f, slot), "F1: a frame to slot %u, which does not own the flow", slot);
		REQUIRE(running[cpu] != FROM_REPLAY || f->state == HF_REPLAYING, "a replay socket spoke on a flow in state %u", f->state);
	}
	if (f && running[cpu] == FROM_WIRE && !(v->flags & (TH_SYN | TH_RST)))
		check_logged(skb, v, f, id);
	if (v->flags & TH_SYN && running[cpu] == FROM_WIRE)
		REQUIRE(c->slots[slot].listening, "F6: a SYN to a guest that does not listen");
}

/* S2: whatever a guest says, it says as itself. */
static void check_honesty(const struct __sk_buff *skb, const struct view *v)
{
	const __u8 *f = skb->bytes, *m = f + v->l4;

	REQUIRE(!memcmp(f + 6, GUEST_MAC, 6), "S2: another's MAC");
	if (v->family == 0) {
		if (at16(f + 12) == ETH_P_ARP && skb->len >= 42)
			REQUIRE(!memcmp(f + 22, GUEST_MAC, 6) && (!memcmp(f + 28, &the_control()->addr4, 4) || !memcmp(f + 28, "\0\0\0", 4)),
				"S2: ARP for another");
		return;
	}
	static const __u32 none[4];
	REQUIRE(is_ours(v, v->saddr) || (v->family == 6 && (same_address(v->saddr, local6) || same_address(v->saddr, none))),
		"S2: another's address");
	if (v->family == 6 && v->protocol == IPPROTO_ICMPV6 && v->fragment < 2 && v->l4 + 24 <= v->end) {
		REQUIRE(*m != ND_ROUTER_ADVERT && *m != ND_REDIRECT, "S2: a guest as a router");
		REQUIRE(*m != ND_NEIGHBOUR_ADVERT || !memcmp(m + 8, service6, 16) || !memcmp(m + 8, local6, 16), "S2: an advertisement for another");
		if (*m == ND_NEIGHBOUR_ADVERT && v->l4 + 32 <= v->end && m[24] == 2 && m[25] == 1)
			REQUIRE(!memcmp(m + 26, GUEST_MAC, 6), "S2: an advertisement of another's MAC");
	}
}

/* P2 under `compare: full`: what was said once is said again, whoever says it. */
#define REMEMBERED 8192
static struct {
	__u8 any, byte[REMEMBERED], known[REMEMBERED];
} said[FLOWS];

static void forget_free(void)
{
	for (__u32 id = 0; id < FLOWS; id++)
		if (said[id].any && flow_record(id)->state == HF_FREE)
			memset(&said[id], 0, sizeof(said[id]));
}

static __u64 uncovered(void)
{
	const __u64 *n = (const __u64 *)map_of(&stats)->values;

	return n[HF_STAT_UNCOVERED] + n[HF_STAT_MAX + HF_STAT_UNCOVERED];
}

static __u64 sent_before[FLOWS]; /* out_sent as the step began */

/* `delta` is what the frame's sequence numbers lack to those that the client knows. */
static void check_repeated(const struct __sk_buff *skb, const struct view *v, const struct hf_flow *f, __u32 id, __u32 delta)
{
	__s64 position = out_position(f, v->seq + delta);

	if (the_control()->compare != HF_COMPARE_FULL || interrupted || f->unlogged)
		return;
	for (__u32 at = v->data; at < v->end; at++, position++) {
		if (position < 0 || position >= REMEMBERED)
			continue;
		if (position >= (__s64)sent_before[id]) {
			said[id].any = 1;
			said[id].byte[position] = skb->bytes[at];
			said[id].known[position] = uncovered() == 0;
		} else if (position < (__s64)f->compare_end && said[id].known[position])
			REQUIRE(said[id].byte[position] == skb->bytes[at], "P2: byte %lld of the output is another than before", position);
	}
}

static void check_to_client(const struct __sk_buff *skb, const struct view *v)
{
	const struct hf_control *c = the_control();
	__u32 slot = skb->ifindex - TAP_IF, id;
	struct hf_key key = key_in_view(v, 0);
	struct hf_flow *f;

	check_default_deny(v);
	if (running[cpu] == FROM_GUEST) {
		REQUIRE(slot < HF_SLOTS && c->slots[slot].epoch, "P3: a fenced guest spoke");
		check_honesty(skb, v);
	}
	if (!v->is_tcp || v->sport != bpf_htons(SERVICE_PORT)) {
		REQUIRE(running[cpu] == FROM_GUEST && slot == c->active, "P3: other frames of a guest that is not active");
		return;
	}
	f = flow_of_key(&key, &id);
	if (!f)
		return;
	if (running[cpu] == FROM_GUEST && is_live(f) && !interrupted)
		REQUIRE(is_served_by(f, slot), "F1: slot %u spoke on a flow that it does not own", slot);
	if (!is_live(f) || v->flags & (TH_SYN | TH_RST) || f->unlogged)
		return;
	REQUIRE(!(v->flags & TH_ACK) || in_position(f, v->ack) <= (__s64)in_total(f), "P1: the client was acknowledged what is not logged");
	if (running[cpu] == FROM_GUEST)
		check_repeated(skb, v, f, id, 0);
}

static void check_to_replay(const struct __sk_buff *skb, const struct view *v)
{
	struct hf_key key = key_in_view(v, 0);
	__u32 id;
	struct hf_flow *f = flow_of_key(&key, &id);

	REQUIRE(running[cpu] == FROM_GUEST && v->is_tcp && f, "a frame into the replay namespace");
	REQUIRE(is_served_by(f, skb->ifindex - TAP_IF), "F1: a guest that does not own the flow spoke to its replay");
	if (!(v->flags & (TH_SYN | TH_RST)))
		check_repeated(skb, v, f, id, f->d);
}

static void check_emission(const struct __sk_buff *skb, __u32 ifindex, __u64 flags)
{
	struct view v;

	if (!look_at(&v, skb))
		return;
	if (ifindex == PORT_IF)
		check_to_client(skb, &v);
	else if (ifindex == REPLAY_IF)
		check_to_replay(skb, &v);
	else {
		REQUIRE(ifindex >= TAP_IF && ifindex < TAP_IF + HF_SLOTS, "a frame to device %u", ifindex);
		check_to_guest(skb, &v, ifindex - TAP_IF);
	}
}

#endif
