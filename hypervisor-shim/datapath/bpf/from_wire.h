/* SPDX-License-Identifier: GPL-2.0 */
/* Client to guest: judge, log, deliver. */
#ifndef HF_FROM_WIRE_H
#define HF_FROM_WIRE_H
#include "handshake.h"
#include "input.h"

/* Under the flow's lock. Both directions have ended and both ends know: the flow is over. */
static __always_inline void close_if_done(struct hf_flow *f, __u64 now)
{
	if (f->state != HF_CLOSED && f->fin_in != HF_UNSET && f->fin_out != HF_UNSET && f->g_ack == f->fin_in + 1 &&
	    f->out_acked == f->fin_out + 1) {
		f->state = HF_CLOSED;
		f->closed_ns = now;
	}
}

/* What the judgement under the lock leaves to do outside it. */
struct admission {
	__u64 start; /* new input [start, end) at frame offset `from` */
	__u64 end;
	__u32 from;
	__u32 ifindex; /* 0: do not deliver */
	__s64 ack;
	__u32 mark;
	__s32 claim;
	__u8 slow;
	__u8 marked;
	__u8 translated;
	__u32 why; /* counter, if the frame is to be dropped at once */
};

static __always_inline void judge_client(struct hf_flow *f, struct packet *p, const struct hf_control *c,
					 struct admission *a, struct edit *e, __u64 now)
{
	__s64 start = in_position(f, p->seq), end = start + p->len;
	__s64 g_ack = f->g_ack, ack = out_position(f, p->ack);
	__u8 live = f->state == HF_TRACKED || f->state == HF_SPLICED || f->state == HF_CLOSED;

	a->why = 0;
	a->claim = -1;
	a->start = a->end = 0;
	a->ifindex = 0;
	a->marked = 0;
	a->translated = is_translated(f);
	if (live && in_current_epoch(c, f))
		a->ifindex = c->slots[f->owner & (HF_SLOTS - 1)].ifindex;
	if (f->state == HF_DIVERGED || f->state == HF_FREE) {
		a->why = HF_STAT_DROP_UNKNOWN;
		return;
	}
	f->packets_in++;
	f->last_in_ns = now;
	if (p->flags & TH_RST) {
		if (start == g_ack || start == (__s64)in_total(f)) {
			f->rst_in = 1;
			f->state = HF_CLOSED;
			f->closed_ns = now;
		}
	} else if (!(p->flags & TH_ACK) || ack > (__s64)f->out_sent) {
		a->why = HF_STAT_DROP_ACK;
		return;
	}
	/* F4: only a segment that the guest would take may move our idea of the client. */
	if (!(p->flags & TH_RST) && start <= (__s64)f->g_edge && end + 1 >= g_ack && ack >= 0 &&
	    ack + (1LL << 30) > (__s64)f->out_sent) {
		if (ack >= (__s64)f->out_acked) {
			f->out_acked = ack;
			f->c_window = p->window << shift_of(f->client.wscale);
		}
		if (p->has_ts && (__s32)(p->tsval - f->c_tsval) > 0)
			f->c_tsval = p->tsval;
		close_if_done(f, now);
	}
	if (a->translated) {
		__u64 seen = ack > (__s64)f->g_snd_nxt ? f->g_snd_nxt : ack;
		set_edit(e, p->seq, out_seq(f, seen) - f->d, p->window);
		e->ecr_add = -f->t;
		e->ecr_floor = f->g_tsval_first;
		e->floored = 1;
		e->sack_add = -f->d;
		e->sack_limit = out_seq(f, f->g_snd_nxt) - f->d;
	}
	if (p->flags & TH_RST)
		return; /* brings no input, and no FIN */
	if (start < g_ack)
		start = g_ack; /* L2: never below what the guest acknowledged */
	if (f->fin_in != HF_UNSET &&
	    ((p->len && end > (__s64)f->fin_in) || ((p->flags & TH_FIN) && end != (__s64)f->fin_in))) {
		a->why = HF_STAT_DROP_CONFLICT;
		return;
	}
	if (start < end) {
		if (end > (__s64)f->g_edge) {
			a->why = HF_STAT_DROP_WINDOW;
			return;
		}
		a->claim = claim(f, start, end);
		if (a->claim < 0) {
			a->why = HF_STAT_DROP_BUSY;
			return;
		}
		a->start = start;
		a->end = end;
		a->from = p->data + (__u32)(start - (end - p->len));
		a->slow = f->islands || start < (__s64)f->in_end;
		if (ack > (__s64)f->mark_out && end > (__s64)f->in_end) {
			f->mark_out = ack;
			a->mark = f->marks++;
			a->ack = ack;
			a->marked = 1;
		}
	} else if ((p->flags & TH_FIN) && f->fin_in == HF_UNSET && end >= g_ack && end <= (__s64)f->g_edge) {
		f->fin_in = end;
	}
}

/* Copies what is new to the log and publishes it. 0, or the counter of the drop. */
static __noinline int log_input(struct __sk_buff *skb, __u32 id, struct admission *a, __u32 fin)
{
	__u32 len = a->end - a->start;
	int why;

	if (a->slow)
		why = merge_input(skb, id, a->from, a->start, len);
	else
		why = store_input(skb, id, a->from, a->start, len) ? HF_STAT_DROP_LOG_FULL : 0;
	why = finish_input(id, a->claim, fin, why);
	if (a->marked)
		store_mark(id, a->mark, a->start, a->ack);
	return why;
}

SEC("tc")
int from_wire(struct __sk_buff *skb)
{
	struct hf_control *c = get_control();
	struct hf_work *w = get_work();
	struct packet p = {};
	struct admission a = {};
	struct hf_key key;
	struct hf_flow *f;
	__u32 id;
	__u64 now;

	if (!c || !w)
		return TC_ACT_SHOT;
	switch (parse(skb, &p)) {
	case PKT_OTHER:
		return pass_to_active(c);
	case PKT_BAD:
		return drop(HF_STAT_DROP_PARSE);
	case PKT_TCP:
		break;
	}
	if (!protected_port(c, p.dport))
		return pass_to_active(c);
	if (p.daddr != c->addr4)
		return drop(HF_STAT_DROP_PARSE);
	client_side_key(&key, p.saddr, p.sport, p.dport);
	if ((p.flags & (TH_SYN | TH_ACK)) == TH_SYN)
		return p.flags & TH_RST ? drop(HF_STAT_DROP_PARSE) : client_syn(skb, &p, &key);
	if (p.flags & TH_SYN)
		return drop(HF_STAT_DROP_PARSE);
	if (!checksum_vouched(skb) && !checksum_right(skb, p.l4, p.header + p.len))
		return drop(HF_STAT_DROP_CHECKSUM);
	f = find_flow(&key, &id);
	if (!f || f->state == HF_CLOSED) {
		int n = promote(&p, &key);
		if (n >= 0) {
			id = n;
			f = bpf_map_lookup_elem(&flows, &id);
		}
		if (!f)
			return drop(n < 0 ? -n : HF_STAT_DROP_UNKNOWN);
	}
	read_timestamps(skb, &p);
	now = bpf_ktime_get_coarse_ns();

	bpf_spin_lock(&f->lock);
	if (same_key(&f->key, &key))
		judge_client(f, &p, c, &a, &w->edit, now);
	else
		a.why = HF_STAT_DROP_UNKNOWN;
	bpf_spin_unlock(&f->lock);
	if (a.why)
		return drop(a.why);

	if (a.claim >= 0) {
		int why = log_input(skb, id, &a, p.flags & TH_FIN);
		if (why)
			return drop(why);
	}
	if (!a.ifindex)
		return drop(HF_STAT_HELD);
	if (a.translated && translate(skb, &p))
		return drop(HF_STAT_DROP_PARSE);
	return bpf_redirect(a.ifindex, 0);
}

#endif
