/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Handshakes live in `pending`, apart from the flows: a SYN flood evicts handshakes, never a connection.
 * SYN -> pending; SYN-ACK -> answered; the client's ACK -> promoted to a flow (rule F3).
 *
 * If the guest dies after its SYN-ACK and the client sends its SYN again, the next guest answers it, and its answer is
 * translated to the ISN that the client may know already: the flow is born spliced.
 */
#ifndef HF_HANDSHAKE_H
#define HF_HANDSHAKE_H
#include "maps.h"
#include "position.h"
#include "translate.h"

static __always_inline struct hf_control *get_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

/* To the client: into the bridge, as if it had arrived over the veth. */
static __always_inline int to_wire(const struct hf_control *c)
{
	return bpf_redirect(c->port_ifindex, BPF_F_INGRESS);
}

static __always_inline int protected_port(const struct hf_control *c, __u16 port)
{
	__u32 n = bpf_ntohs(port);

	return c->ports[(n >> 3) & (HF_PORT_BYTES - 1)] >> (n & 7) & 1;
}

static __always_inline int same_address(const __u32 *a, const __u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/* Whether an address of a packet is the service's. */
static __always_inline int is_service(const struct hf_control *c, const struct packet *p, const __u32 *address)
{
	if (p->family == 4)
		return address[3] == c->addr4;
	return c->addr6[0] && same_address(address, c->addr6);
}

static __always_inline void client_side_key(struct hf_key *k, __u8 family, const __u32 *raddr, __u16 rport, __u16 lport)
{
	__builtin_memset(k, 0, sizeof(*k));
	__builtin_memcpy(k->raddr, raddr, sizeof(k->raddr));
	k->rport = rport;
	k->lport = lport;
	k->role = HF_CLIENT_SIDE;
	k->family = family;
}

static __always_inline int same_key(const struct hf_key *a, const struct hf_key *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

static __always_inline struct hf_flow *find_flow(struct hf_key *key, __u32 *id)
{
	__u32 *found = bpf_map_lookup_elem(&wire_index, key);

	if (!found)
		return 0;
	*id = *found;
	return bpf_map_lookup_elem(&flows, id);
}

/* What is not TCP of a protected port belongs to the active guest. */
static __always_inline int pass_to_active(struct hf_control *c)
{
	__u32 slot = c->active;

	if (slot >= HF_SLOTS || !c->slots[slot].epoch)
		return drop(HF_STAT_DROP_OTHER);
	count(HF_STAT_PASSED_OTHER);
	return bpf_redirect(c->slots[slot].ifindex, 0);
}

#define ND_NEIGHBOUR_SOLICIT 135
#define ND_NEIGHBOUR_ADVERT 136

/* ARP, or neighbour solicitation and advertisement. */
static __always_inline int is_discovery(struct __sk_buff *skb, const struct packet *p)
{
	__u8 type;

	if (p->family == 0)
		return 1;
	return p->protocol == IPPROTO_ICMPV6 && !p->fragment && !bpf_skb_load_bytes(skb, p->l4, &type, 1) &&
	       (type == ND_NEIGHBOUR_SOLICIT || type == ND_NEIGHBOUR_ADVERT);
}

/* A guest that is not active and serves what it still has (a planned change) must find its clients, too. Copies of `skb` to all such. */
static __always_inline void copy_to_leaving(struct __sk_buff *skb, const struct hf_control *c)
{
	for (__u32 i = 0; i < HF_SLOTS; i++)
		if (i != c->active && c->slots[i].epoch)
			bpf_clone_redirect(skb, c->slots[i].ifindex, 0);
}

static __always_inline int is_unicast6(__u32 first_word)
{
	__u32 w = bpf_ntohl(first_word);

	return w >> 24 != 0 && w >> 24 != 0xff && w >> 22 != 0xfe80 >> 6;
}

/* A SYN of the client: remembered, and given to the guest that takes new flows. */
static __noinline int client_syn(struct __sk_buff *skb, struct packet *p, struct hf_key *key)
{
	struct hf_control *c = get_control();
	struct hf_pending fresh = {}, *known;
	__u32 id, slot;
	struct hf_flow *f;

	if (!c)
		return TC_ACT_SHOT;
	/* An address of one link only, or of none, is no address that a replay could bind (fe80::/10, ff00::/8, ::/8). */
	if (p->family == 6 && !is_unicast6(p->saddr[0]))
		return drop(HF_STAT_DROP_PARSE);
	slot = c->active;
	f = find_flow(key, &id);
	if (f && f->state != HF_CLOSED) {
		/* A SYN on a live tuple changes nothing: only the owner may judge it. */
		if (!in_current_epoch(c, f) || f->state == HF_REPLAYING)
			return drop(HF_STAT_HELD);
		slot = f->owner;
	}
	if (slot >= HF_SLOTS || !c->slots[slot].epoch || !c->slots[slot].listening)
		return drop(HF_STAT_DROP_NO_GUEST);
	known = bpf_map_lookup_elem(&pending, key);
	if (known && known->c_isn == p->seq)
		fresh = *known;
	if (handshake_options(skb, p, &fresh.client))
		return drop(HF_STAT_DROP_PARSE);
	fresh.c_isn = p->seq;
	fresh.c_tsval = p->tsval;
	if (!fresh.answered)
		fresh.slot = slot;
	bpf_map_update_elem(&pending, key, &fresh, BPF_ANY);
	return bpf_redirect(c->slots[slot].ifindex, 0);
}

/*
 * Whether a SYN-ACK on the tuple of a connection may go out: its owner alone may accept another one there, and knows the old one no
 * more then. Whoever else takes new flows may not (F1).
 */
static __noinline int let_go(struct hf_flow *f, __u32 slot, __u32 c_isn)
{
	struct hf_control *c = get_control();
	__u64 now = bpf_ktime_get_ns();
	int allowed = 1;

	if (!c || !f)
		return 0;
	bpf_spin_lock(&f->lock);
	if (f->state != HF_CLOSED && f->state != HF_FREE) {
		allowed = f->owner == slot && in_current_epoch(c, f);
		if (allowed && f->c_isn != c_isn) {
			f->state = HF_CLOSED;
			f->closed_ns = now;
		}
	}
	bpf_spin_unlock(&f->lock);
	return allowed;
}

/* The guest's SYN-ACK. */
static __noinline int guest_answer(struct __sk_buff *skb, struct packet *p, struct hf_key *key, __u32 slot)
{
	struct hf_control *c = get_control();
	struct hf_pending *h = bpf_map_lookup_elem(&pending, key);
	struct hf_options answer;
	struct hf_flow *former;
	__u32 id;

	if (!c || slot >= HF_SLOTS)
		return TC_ACT_SHOT;
	if (!h || p->ack != h->c_isn + 1)
		return drop(HF_STAT_DROP_UNKNOWN);
	/* F1: only the guest that the SYN was given to, or the one that has taken over since */
	if (!c->slots[slot].epoch || (slot != h->slot && slot != c->active))
		return drop(HF_STAT_DROP_ZOMBIE);
	former = find_flow(key, &id);
	if (former && !let_go(former, slot, h->c_isn))
		return drop(HF_STAT_DROP_ZOMBIE);
	if (handshake_options(skb, p, &answer))
		return drop(HF_STAT_DROP_PARSE);
	if (!h->answered) {
		h->s_isn = p->seq;
		h->server = answer;
		h->s_tsval = p->tsval;
		h->d = h->t = 0;
	} else {
		if (h->epoch != c->slots[slot].epoch)
			h->t = h->s_tsval + 1 - p->tsval;
		h->d = h->s_isn - p->seq;
		if ((__s32)(p->tsval + h->t - h->s_tsval) > 0)
			h->s_tsval = p->tsval + h->t; /* what the client may have heard last */
	}
	h->guest = answer;
	h->g_tsval = p->tsval;
	h->window = p->window;
	h->slot = slot;
	h->epoch = c->slots[slot].epoch;
	h->answered = 1;
	if (h->d || h->t) {
		struct hf_work *w = get_work();
		if (!w)
			return TC_ACT_SHOT;
		set_edit(&w->edit, h->s_isn, p->ack, p->window);
		w->edit.val_add = h->t;
		if (translate(skb, p))
			return drop(HF_STAT_DROP_PARSE);
	}
	return to_wire(c);
}

static __always_inline void raise_flow_high(struct hf_control *c, __u32 id)
{
	for (int i = 0; i < 8; i++) {
		__u32 high = c->flow_high;
		if (high > id || __sync_val_compare_and_swap(&c->flow_high, high, id + 1) == high)
			break;
	}
}

/*
 * The client gives a handshake up, by a RST without ACK at the one place that it knows: it had forgotten its SYN when the answer
 * came. The guest drops its half-open connection, too. Returns a verdict, or -1 if there is no such handshake.
 */
static __noinline int give_up(struct packet *p, struct hf_key *key)
{
	struct hf_control *c = get_control();
	struct hf_pending *h = bpf_map_lookup_elem(&pending, key);
	struct hf_slot *slot;
	__u32 epoch;

	if (!c || !h || p->seq != h->c_isn + 1)
		return -1;
	slot = &c->slots[h->slot & (HF_SLOTS - 1)];
	epoch = h->answered ? h->epoch : slot->epoch;
	bpf_map_delete_elem(&pending, key);
	if (!epoch || slot->epoch != epoch)
		return drop(HF_STAT_HELD);
	return bpf_redirect(slot->ifindex, 0);
}

/* Whether a SYN finds the flow table full. One on a live tuple needs no record: it is for the owner to judge. */
static __noinline int no_room(struct hf_key *key)
{
	struct hf_flow *f;
	__u32 id;

	if (!bpf_map_peek_elem(&free_flows, &id))
		return 0;
	f = find_flow(key, &id);
	return !f || f->state == HF_CLOSED;
}

/* The client's ACK of an answered handshake makes the flow. Returns its id, or a negative counter. */
static __noinline int promote(struct packet *p, struct hf_key *key)
{
	struct hf_control *c = get_control();
	struct hf_pending *found = bpf_map_lookup_elem(&pending, key), h;
	struct hf_flow *f;
	__u32 id, old;

	if (!c || !found || !found->answered || !(p->flags & TH_ACK) || p->ack != found->s_isn + 1 ||
	    p->seq - found->c_isn - 1 >= 1U << 20)
		return -HF_STAT_DROP_UNKNOWN;
	h = *found;
	if (bpf_map_pop_elem(&free_flows, &id))
		return -HF_STAT_DROP_TABLE_FULL; /* the handshake stays: the client sends again */
	if (bpf_map_delete_elem(&pending, key)) {
		bpf_map_push_elem(&free_flows, &id, 0);
		return find_flow(key, &id) ? (int)id : -HF_STAT_DROP_UNKNOWN; /* another CPU was first */
	}
	f = bpf_map_lookup_elem(&flows, &id);
	if (!f)
		return -HF_STAT_DROP_TABLE_FULL;
	__builtin_memset((void *)f + offsetof(struct hf_flow, key), 0, sizeof(*f) - offsetof(struct hf_flow, key));
	f->key = *key;
	__builtin_memcpy(f->c_mac, p->smac, 6);
	f->owner = h.slot;
	f->epoch = h.epoch;
	f->c_isn = h.c_isn;
	f->s_isn = h.s_isn;
	f->client = h.client;
	f->server = h.server;
	f->guest = h.guest;
	f->fin_in = f->fin_out = HF_UNSET;
	f->g_edge = h.window;
	f->g_isn = h.s_isn - h.d;
	f->d = h.d;
	f->t = h.t;
	f->c_tsval = f->ts_recent = h.c_tsval;
	f->s_tsval = h.s_tsval;
	f->g_tsval = f->g_tsval_first = h.g_tsval;
	f->c_window = p->window << client_shift(f);
	f->opened_ns = bpf_ktime_get_ns();
	f->state = h.d || h.t ? HF_SPLICED : HF_TRACKED;
	raise_flow_high(c, id);
	struct hf_flow *former = find_flow(key, &old);
	if (former) {
		bpf_spin_lock(&former->lock);
		former->state = HF_CLOSED; /* the guest accepted a new connection on this tuple */
		former->closed_ns = f->opened_ns;
		bpf_spin_unlock(&former->lock);
	}
	if (bpf_map_update_elem(&wire_index, key, &id, BPF_ANY)) {
		f->state = HF_FREE;
		bpf_map_push_elem(&free_flows, &id, 0);
		return -HF_STAT_DROP_TABLE_FULL;
	}
	count(HF_STAT_OPENED);
	return id;
}

#endif
