/* SPDX-License-Identifier: GPL-2.0 */
/* Guest to client, or, while a flow is replayed, to the replay socket: judge, compare, capture, translate. */
#ifndef HF_FROM_GUEST_H
#define HF_FROM_GUEST_H
#include "from_wire.h"
#include "honesty.h"
#include "output.h"

enum destination { TO_NOBODY = 0, TO_WIRE = 1, TO_REPLAY = 2, TO_BOTH = 3 };

/* Under the flow's lock. The backup's SYN-ACK to a replay fixes all deltas. */
static __always_inline int accept_replay(struct hf_flow *f, struct packet *p, const struct hf_options *o)
{
	if (f->answered)
		return p->seq == f->g_isn;
	if (p->ack != in_seq(f, f->in_base))
		return 0;
	f->answered = 1;
	f->g_isn = p->seq;
	f->guest = *o;
	f->d = out_seq(f, f->out_base) - (p->seq + 1);
	f->g_ack = f->in_base;
	f->g_edge = f->in_base + p->window;
	f->g_snd_nxt = f->out_base;
	f->g_tsval = f->g_tsval_first = p->tsval;
	f->t = f->s_tsval + 1 - p->tsval;
	if (o->wscale == HF_NO_WSCALE)
		f->replay_wscale = 0;
	return 1;
}

static __always_inline __u8 route_replayed(const struct hf_flow *f, const struct packet *p, __u64 start, __u64 end)
{
	if (p->flags & TH_RST || end <= f->out_acked || end == start)
		return TO_REPLAY;
	/* What the client has not acknowledged yet is for the client; waiting for the splice would cost it a timeout. */
	return start >= f->out_acked ? TO_WIRE : TO_BOTH;
}

/* P2 for the stream's end: a later guest must not end it sooner than an earlier one did, nor go on behind it. enum hf_divergence */
static __always_inline __u32 contradicts_end(const struct hf_flow *f, const struct packet *p, __u64 end)
{
	if (f->fin_out == HF_UNSET)
		return p->flags & TH_FIN && end < f->compare_end ? HF_DIFFERS_SHORTER : HF_DIFFERS_NOT;
	if ((p->len || p->flags & TH_FIN) && end > f->fin_out)
		return HF_DIFFERS_LONGER;
	return p->flags & TH_FIN && end != f->fin_out ? HF_DIFFERS_SHORTER : HF_DIFFERS_NOT;
}

/* Under the flow's lock. What has ended has its verdict. */
static __always_inline void note_divergence(struct hf_flow *f, __u32 how, __u64 position)
{
	if (f->state == HF_CLOSED)
		return;
	f->state = HF_DIVERGED;
	f->divergence = how;
	f->diverged_at = position;
}

static __always_inline void judge_guest(struct hf_flow *f, struct packet *p, const struct hf_control *c,
					struct emission *m, struct edit *e, __u64 now)
{
	__u32 visible = p->seq + f->d, ack_out = p->ack, window = p->window << shift_of(f->guest.wscale);
	__s64 start = out_position(f, visible), end = start + p->len;
	__s64 ack = in_position(f, p->ack);
	__u64 seq_end = end < 0 ? 0 : end + !!(p->flags & TH_FIN);
	__u32 acks = p->flags & TH_ACK;

	m->why = 0;
	m->translated = is_translated(f);
	/* It holds a broken-off replay still, and says at which place it would believe a reset: never below its start (L5). */
	if (f->state == HF_REPLAYING && !f->answered && acks && ack >= (__s64)f->in_base && ack <= (__s64)in_total(f))
		f->g_ack = ack;
	if (f->state == HF_DIVERGED || f->state == HF_FREE || (f->state == HF_REPLAYING && !f->answered)) {
		m->why = HF_STAT_DROP_ZOMBIE;
		return;
	}
	/* Its socket is gone, and a late ACK found none: one that was on its way, or ours after a splice. Its client is done, too. */
	if (p->flags & TH_RST && f->state == HF_CLOSED && ended_properly(f)) {
		m->why = HF_STAT_DROP_GUEST_RST;
		return;
	}
	/* start is -1 for keep-alive probes of a fresh connection; they bring nothing */
	if (start < -1 || (start < 0 && (end > 0 || p->flags & TH_FIN)) || (!acks && !(p->flags & TH_RST)) || (acks && (ack < 0 || ack > (__s64)in_total(f))) ||
	    end - (__s64)f->out_sent > 1LL << 30) {
		m->why = HF_STAT_DROP_GUEST_LIE;
		return;
	}
	__u32 divergence = f->failovers ? contradicts_end(f, p, end) : HF_DIFFERS_NOT;
	if (divergence) {
		note_divergence(f, divergence, divergence == HF_DIFFERS_LONGER ? f->fin_out : end);
		m->why = HF_STAT_DIVERGED;
		return;
	}
	f->packets_out++;
	if (p->flags & TH_ACK && !(p->flags & TH_RST)) {
		__u64 edge = ack + (__u64)window;
		if (ack > (__s64)f->g_ack)
			f->g_ack = ack;
		if (edge > f->g_edge)
			f->g_edge = edge;
	}
	if (p->has_ts && (__s32)(p->tsval - f->g_tsval) > 0)
		f->g_tsval = p->tsval;
	if (seq_end > f->g_snd_nxt)
		f->g_snd_nxt = seq_end;
	if (p->flags & TH_FIN && f->fin_out == HF_UNSET)
		f->fin_out = end;
	m->start = start < 0 ? 0 : start;
	m->end = end;
	m->compare_end = f->compare_end;
	m->capture_from = f->unlogged ? HF_UNSET : f->out_sent > m->start ? f->out_sent : m->start;
	m->salt = c->seed ^ ((__u64)f->c_isn << 32 | f->s_isn);
	m->k = f->k;
	m->destination = f->state == HF_REPLAYING ? route_replayed(f, p, start, seq_end) : TO_WIRE;
	if (seq_end > f->out_sent) {
		if (f->in_end > f->head_in || f->out_sent == 0) {
			f->head_start = f->out_sent;
			f->head_in = f->in_end;
		}
		if (m->destination & TO_WIRE)
			f->out_sent = seq_end;
	}
	m->head_start = f->head_start;
	if (m->destination & TO_WIRE) {
		__u32 tsval = p->tsval + f->t;
		if (p->has_ts && (__s32)(tsval - f->s_tsval) > 0)
			f->s_tsval = tsval;
		if (acks && ack < (__s64)f->in_acked) {
			__u32 raised = (__u32)(f->in_acked - ack);
			ack_out = in_seq(f, f->in_acked); /* what was acknowledged stays so: it is in the log */
			window = window > raised ? window - raised : 0; /* the window's edge stays where the guest put it */
		} else if (acks)
			f->in_acked = ack;
		if (p->flags & TH_RST) {
			f->state = HF_CLOSED;
			f->closed_ns = now;
		}
		close_if_done(f, now);
	}
	if (m->translated) {
		/*
		 * What the client has acknowledged to an earlier guest may lie ahead of this one: an ACK from there would be
		 * old to it, and ignored. Probes, which ask for an answer by being old, start lower.
		 */
		if (start == (__s64)f->g_snd_nxt && seq_end == (__u64)start && start < (__s64)f->out_acked)
			visible = out_seq(f, f->out_acked);
		window >>= shift_of(f->server.wscale);
		set_edit(e, visible, p->flags & TH_ACK ? ack_out : p->ack, window > 65535 ? 65535 : window);
		e->val_add = f->t;
	}
}

/* P2: compares what was sent before, captures what was not. 0, or 1 on divergence. */
static __noinline int check_output(struct __sk_buff *skb, struct emission *m, __u32 id, __u32 from, __u32 full)
{
	struct output_span o = { .skb = skb, .id = id, .salt = m->salt };

	if (m->start < m->compare_end) {
		o.start = m->start;
		o.from = from;
		o.end = m->end < m->compare_end ? m->end : m->compare_end;
		o.compare = 1;
		bpf_loop(SAMPLE_BLOCKS_PER_FRAME, sample_block, &o, 0);
		if (!o.differs)
			bpf_loop(BYTE_BLOCKS_PER_FRAME, byte_block, &o, 0);
		if (o.differs)
			return 1;
	}
	if (m->capture_from >= m->end || !(m->destination & TO_WIRE))
		return 0;
	o.start = m->capture_from;
	o.from = from + (m->capture_from - m->start);
	o.end = m->end;
	o.compare = 0;
	o.ki = 0;
	if (!full) {
		bpf_loop(SAMPLE_BLOCKS_PER_FRAME, sample_block, &o, 0);
		if (o.start >= m->head_start + HF_HEAD_BYTES)
			return 0;
		if (o.end > m->head_start + HF_HEAD_BYTES)
			o.end = m->head_start + HF_HEAD_BYTES;
	}
	bpf_loop(BYTE_BLOCKS_PER_FRAME, byte_block, &o, 0);
	return 0;
}

static __noinline int diverged(struct hf_flow *f, __u64 position)
{
	bpf_spin_lock(&f->lock);
	note_divergence(f, HF_DIFFERS_CONTENT, position);
	bpf_spin_unlock(&f->lock);
	return drop(HF_STAT_DIVERGED);
}

/* Into the replay namespace: its own MAC, and the timestamps it knows. */
static __noinline int to_replay(struct __sk_buff *skb, struct packet *p, struct hf_control *c, __u32 k)
{
	struct hf_work *w = get_work();
	struct edit for_wire;

	if (!w)
		return -1;
	for_wire = w->edit;
	set_edit(&w->edit, p->seq, p->ack, p->window);
	w->edit.ecr_add = -k;
	if (p->has_ts && translate(skb, p))
		return -1;
	w->edit = for_wire;
	return bpf_skb_store_bytes(skb, 0, c->replay_mac, 6, 0);
}

/* Whether a RST refuses a SYN of the client's that was not answered otherwise. */
static __noinline int refuses(struct packet *p, struct hf_key *key)
{
	struct hf_pending *h;

	if ((p->flags & (TH_SYN | TH_RST)) != TH_RST)
		return 0;
	h = bpf_map_lookup_elem(&pending, key);
	return h && p->ack == h->c_isn + 1 && !h->answered;
}

/* TCP of a protected port that belongs to no flow: an answer to a handshake, or nothing we know. */
static __always_inline int guest_without_flow(struct __sk_buff *skb, struct packet *p, struct hf_key *key,
					      struct hf_control *c, __u32 slot)
{
	if ((p->flags & (TH_SYN | TH_ACK | TH_RST)) == (TH_SYN | TH_ACK))
		return guest_answer(skb, p, key, slot);
	if ((p->flags & (TH_SYN | TH_RST)) == TH_RST && slot == c->active) {
		const struct hf_slot *s = &c->slots[slot & (HF_SLOTS - 1)];
		if (!s->epoch || !s->listening)
			return drop(HF_STAT_DROP_GUEST_RST);
		if (refuses(p, key)) {
			bpf_map_delete_elem(&pending, key);
			return to_wire(c);
		}
	}
	return drop(HF_STAT_DROP_ZOMBIE);
}

static __always_inline __u32 slot_of(const struct hf_control *c, __u32 ifindex)
{
	for (__u32 i = 0; i < HF_SLOTS; i++)
		if (c->slots[i].ifindex == ifindex)
			return i;
	return HF_NO_SLOT;
}

/*
 * The guest has not had the ACK that made the flow (lost on its leg, or its accept queue was full) and says its SYN-ACK
 * again: the client's answer to it is an ACK. Where the server speaks first nothing else would bring one.
 */
static __noinline int repeats_answer(struct hf_flow *f, struct packet *p, struct hf_control *c, __u32 slot, struct edit *e)
{
	int repeated = 0;

	bpf_spin_lock(&f->lock);
	if ((f->state == HF_TRACKED || f->state == HF_SPLICED) && f->owner == slot && in_current_epoch(c, f) &&
	    p->seq == f->g_isn && p->ack == in_seq(f, f->in_base)) {
		set_edit(e, p->seq + f->d, p->ack, p->window);
		e->val_add = f->t;
		repeated = 1;
	}
	bpf_spin_unlock(&f->lock);
	return repeated;
}

/* A guest may not speak as another host. */
static __always_inline int own_mac(const struct packet *p, const struct hf_control *c)
{
	const __u16 *own = (const void *)c->guest_mac;

	return p->smac[0] == own[0] && p->smac[1] == own[1] && p->smac[2] == own[2];
}

SEC("tc")
int from_guest(struct __sk_buff *skb)
{
	struct hf_control *c = get_control();
	struct packet p = {};
	struct hf_work *w = get_work();
	struct emission *m;
	struct hf_options answer = {};
	struct hf_key key;
	struct hf_flow *f;
	enum verdict kind;
	__u32 id, slot, k = 0;

	if (!c || !w)
		return TC_ACT_SHOT;
	m = &w->emission; /* not on the stack: kernel 6.1 has 512 bytes for the whole chain of calls */
	slot = slot_of(c, skb->ifindex);
	if (slot >= HF_SLOTS)
		return drop(HF_STAT_DROP_OTHER);
	kind = parse(skb, &p);
	if (kind != PKT_TCP && kind != PKT_OTHER)
		return drop(HF_STAT_DROP_PARSE);
	if (!own_mac(&p, c))
		return drop(HF_STAT_DROP_GUEST_LIE);
	if (kind == PKT_OTHER || !protected_port(c, p.sport)) {
		if (!c->slots[slot].epoch || (slot != c->active && (kind == PKT_TCP || !is_discovery(skb, &p))))
			return drop(HF_STAT_DROP_OTHER);
		if (kind == PKT_TCP ? !is_service(c, &p, p.saddr) : !is_honest(skb, &p, c))
			return drop(HF_STAT_DROP_GUEST_LIE);
		count(HF_STAT_PASSED_OTHER);
		return to_wire(c);
	}
	if (!is_service(c, &p, p.saddr))
		return drop(HF_STAT_DROP_GUEST_LIE);
	client_side_key(&key, p.family, p.daddr, p.dport, p.sport);
	f = find_flow(&key, &id);
	if (f && (p.flags & (TH_SYN | TH_ACK | TH_RST)) == (TH_SYN | TH_ACK) && repeats_answer(f, &p, c, slot, &w->edit))
		return translate(skb, &p) ? drop(HF_STAT_DROP_PARSE) : to_wire(c);
	/* A tuple that is used again belongs to its new handshake: the record of the old connection knows nothing of it. */
	if (!f || (p.flags & TH_SYN && f->state != HF_REPLAYING) || (f->state == HF_CLOSED && refuses(&p, &key)))
		return guest_without_flow(skb, &p, &key, c, slot);
	if (p.flags & TH_RST && !c->slots[slot].listening)
		return drop(HF_STAT_DROP_GUEST_RST);
	if (p.flags & TH_SYN) {
		int ok = 0;
		if (handshake_options(skb, &p, &answer))
			return drop(HF_STAT_DROP_PARSE);
		bpf_spin_lock(&f->lock);
		if (f->owner == slot && in_current_epoch(c, f) && f->state == HF_REPLAYING && p.flags & TH_ACK)
			ok = accept_replay(f, &p, &answer);
		k = f->k;
		bpf_spin_unlock(&f->lock);
		if (!ok || to_replay(skb, &p, c, k))
			return drop(HF_STAT_DROP_ZOMBIE);
		return bpf_redirect(c->replay_ifindex, 0);
	}
	read_timestamps(skb, &p);

	__u64 now = bpf_ktime_get_coarse_ns();
	bpf_spin_lock(&f->lock);
	if (f->owner == slot && in_current_epoch(c, f) && same_key(&f->key, &key))
		judge_guest(f, &p, c, m, &w->edit, now);
	else
		m->why = HF_STAT_DROP_ZOMBIE;
	bpf_spin_unlock(&f->lock);
	if (m->why)
		return drop(m->why);
	if (p.len && (m->start < m->compare_end || m->capture_from < m->end) &&
	    check_output(skb, m, id, p.data, c->compare == HF_COMPARE_FULL))
		return diverged(f, m->start);
	if (m->destination == TO_REPLAY) {
		if (to_replay(skb, &p, c, m->k))
			return drop(HF_STAT_DROP_PARSE);
		return bpf_redirect(c->replay_ifindex, 0);
	}
	if (m->destination == TO_BOTH) {
		/* The clone shares the header until it is written: translate for the client last. */
		__u8 mac[6];
		bpf_skb_load_bytes(skb, 0, mac, 6);
		if (to_replay(skb, &p, c, m->k) || bpf_clone_redirect(skb, c->replay_ifindex, 0))
			return drop(HF_STAT_DROP_PARSE);
		bpf_skb_store_bytes(skb, 0, mac, 6, 0);
		w->edit.ecr_add = m->k; /* undo what to_replay did */
	}
	if (m->translated && translate(skb, &p))
		return drop(HF_STAT_DROP_PARSE);
	return to_wire(c);
}

#endif
