/* SPDX-License-Identifier: GPL-2.0 */
/* Client to guest: judge, log, deliver. */
#ifndef HF_FROM_WIRE_H
#define HF_FROM_WIRE_H
#include "handshake.h"
#include "answer.h"
#include "icmp.h"
#include "input.h"
#include "unlogged.h"

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
	__u8 turn; /* how the frame is answered in the guest's place if it is not delivered: enum turn */
	__u8 release; /* give the log back what it holds of this flow */
	__u8 left;    /* it has just left the log */
	__u32 why; /* counter, if the frame is to be dropped at once */
};

/* What the client had acknowledged when it sent what lies at `start`, bytes or its FIN; stored outside the lock. */
static __always_inline void note_mark(struct hf_flow *f, struct admission *a, __s64 start, __s64 ack)
{
	if (ack > (__s64)f->mark_out)
		f->mark_out = ack;
	if (start > (__s64)f->mark_in)
		f->mark_in = start;
	a->start = start;
	a->mark = f->marks++;
	a->marked = 1;
}

#define PAWS_SILENCE_NS (24ULL * 86400 * 1000000000) /* then the clock may have wrapped */

/* A guest would discard it (RFC 7323, 5; as in Linux one tick is nothing), so it may neither enter the log nor move anything. */
static __always_inline int is_old(const struct hf_flow *f, const struct packet *p, __u64 now)
{
	return p->has_ts && f->client.flags & f->server.flags & HF_OPT_TS && f->ts_recent &&
	       (__s32)(f->ts_recent - p->tsval) > 1 && now - f->last_in_ns < PAWS_SILENCE_NS;
}

/*
 * Input begins that no output has been sent after yet, and all before it was answered and acknowledged: a new exchange, as far as can be
 * told here. User space, which has the log to read, says whether it is one before it lets go of what was before.
 */
static __always_inline int begins_anew(const struct hf_flow *f, __s64 start)
{
	return f->state != HF_CLOSED && start == (__s64)f->in_end && f->g_ack == f->in_end && f->head_in == f->in_end &&
	       f->out_acked == f->out_sent && !f->islands && !f->claim_used[0] && !f->claim_used[1];
}

static __always_inline void judge_client(struct hf_flow *f, struct packet *p, const struct hf_control *c,
					 struct admission *a, struct edit *e, __u64 now)
{
	__s64 start = in_position(f, p->seq), end = start + p->len;
	__s64 g_ack = f->g_ack, ack = out_position(f, p->ack);
	__u8 live = f->state == HF_TRACKED || f->state == HF_SPLICED || f->state == HF_CLOSED, old;

	a->why = 0;
	a->claim = -1;
	a->ack = ack < 0 ? 0 : ack;
	a->start = a->end = 0;
	a->ifindex = 0;
	a->marked = 0;
	a->turn = TURN_NOT;
	a->release = a->left = 0;
	a->translated = is_translated(f);
	if (live && in_current_epoch(c, f))
		a->ifindex = c->slots[f->owner & (HF_SLOTS - 1)].ifindex;
	if (f->state == HF_DIVERGED || f->state == HF_FREE ||
	    (f->state == HF_CLOSED && (f->lost || (!a->ifindex && !ended_properly(f))))) {
		a->why = HF_STAT_DROP_UNKNOWN;
		if (f->state != HF_FREE && !(p->flags & TH_RST))
			a->turn = TURN_RESET; /* RFC 5961: where the client says that it would believe it */
		return;
	}
	old = !(p->flags & TH_RST) && is_old(f, p, now);
	f->packets_in++;
	f->last_in_ns = now;
	if (p->flags & TH_RST) {
		if (start == g_ack || start == (__s64)in_total(f)) {
			f->rst_in = 1;
			f->state = HF_CLOSED;
			f->closed_ns = now;
		}
	} else if (!(p->flags & TH_ACK) || ack > (__s64)f->out_sent ||
		   ack < (__s64)f->out_acked - (65535LL << client_shift(f))) {
		a->why = HF_STAT_DROP_ACK; /* nor would the guest take it (RFC 5961, 5.2) */
		return;
	}
	/* F4: only a segment that the guest would take may move our idea of the client. */
	if (!(p->flags & TH_RST) && !old && start <= (__s64)f->g_edge && end + 1 >= g_ack) {
		if (ack >= (__s64)f->out_acked) {
			f->out_acked = ack;
			f->c_window = p->window << client_shift(f);
		}
		if (p->has_ts && (__s32)(p->tsval - f->c_tsval) > 0)
			f->c_tsval = p->tsval;
		if (p->has_ts && start <= (__s64)f->in_acked && (__s32)(p->tsval - f->ts_recent) > 0)
			f->ts_recent = p->tsval;
		close_if_done(f, now);
	}
	if (a->translated) {
		__u64 seen = ack > (__s64)f->g_snd_nxt ? f->g_snd_nxt : ack;
		__u32 window = p->window << client_shift(f) >> client_shift_at_guest(f);
		set_edit(e, p->seq, out_seq(f, seen) - f->d, window > 65535 ? 65535 : window);
		e->ecr_add = -f->t;
		e->ecr_floor = f->g_tsval_first;
		e->floored = 1;
		e->sack_add = -f->d;
		e->sack_limit = out_seq(f, f->g_snd_nxt) - f->d;
	}
	if (p->flags & TH_RST)
		return; /* brings no input, and no FIN */
	/*
	 * What takes a place in the stream, and probes just below it, get an answer (RFC 9293, 3.10.7.4) from us if from no guest. Plain
	 * ACKs get none: two ends could go on like that for ever.
	 */
	if (!a->ifindex && !f->unlogged && (p->len || p->flags & TH_FIN || start < (__s64)f->in_acked))
		a->turn = TURN_HOLD;
	if (old && (p->len || p->flags & TH_FIN)) {
		a->why = HF_STAT_DROP_OLD;
		return;
	}
	if (start < g_ack)
		start = g_ack; /* L2: never below what the guest acknowledged */
	if (contradicts_input(f, end, p->len, p->flags & TH_FIN)) {
		a->why = HF_STAT_DROP_CONFLICT;
		return;
	}
	if (end > (__s64)f->g_edge && (start < end || p->flags & TH_FIN)) {
		a->why = HF_STAT_DROP_WINDOW;
		if (!a->turn && !f->unlogged)
			a->turn = TURN_WINDOW;
		return;
	}
	if (start < end) {
		if (c->flow_share && !f->unlogged && end - (__s64)f->in_base > (__s64)c->flow_share) {
			if (c->on_full != HF_UNPROTECTED || !a->ifindex) {
				f->share_used = 1;
				a->why = HF_STAT_DROP_SHARE;
				return;
			}
			f->unlogged = HF_LOG_SHARE;
			a->left = 1;
		}
		if (f->unlogged) {
			pass_unlogged(f, end, p->flags & TH_FIN);
			a->release = may_release(f);
			return;
		}
		if (f->leaves && a->ifindex && begins_anew(f, start)) {
			f->epoch = 0; /* held, until user space has looked at it */
			a->ifindex = 0;
			a->turn = TURN_HOLD;
		}
		a->claim = claim(f, start, end);
		if (a->claim < 0) {
			a->why = HF_STAT_DROP_BUSY;
			return;
		}
		__u32 limit = input_index(end - 1) + 1;
		if (f->in_limit < limit)
			f->in_limit = limit;
		a->start = start;
		a->end = end;
		a->from = p->data + (__u32)(start - (end - p->len));
		a->slow = f->islands || start < (__s64)f->in_end;
		/* what fills a hole below the last mark was sent with an ack of its own */
		if (end > (__s64)f->in_end && (ack > (__s64)f->mark_out || start < (__s64)f->mark_in))
			note_mark(f, a, start, ack);
	} else if ((p->flags & TH_FIN) && f->fin_in == HF_UNSET && end >= g_ack) {
		f->fin_in = end;
		if (ack > (__s64)f->mark_out && !f->unlogged)
			note_mark(f, a, end, ack);
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
	return finish_input(id, a->claim, fin, why);
}

/*
 * L7: the urgent byte is a position, the one before the pointer (RFC 6093; 0 is taken as 1, as Linux does). As in the guest, it
 * moves ahead only, and not into what was taken.
 */
static __noinline int log_urgent(struct __sk_buff *skb, __u32 id, struct packet *p, __u64 ack)
{
	struct hf_flow *f = bpf_map_lookup_elem(&flows, &id);
	__u32 mark = 0, fresh = 0;
	__u16 pointer = 0;
	__s64 at;

	if (!f || bpf_skb_load_bytes(skb, p->l4 + offsetof(struct tcphdr, urg_ptr), &pointer, sizeof(pointer)))
		return 0;
	bpf_spin_lock(&f->lock);
	at = in_position(f, p->seq) + (pointer ? bpf_ntohs(pointer) - 1 : 0);
	if (!f->unlogged && at >= (__s64)f->g_ack && at >= (__s64)f->urg_in) {
		f->urg_in = at + 1;
		mark = f->marks++;
		fresh = 1;
	}
	bpf_spin_unlock(&f->lock);
	return fresh ? store_mark(id, mark, at, ack, 1) : 0;
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
	int n;

	if (!c || !w)
		return TC_ACT_SHOT;
	switch (parse(skb, &p)) {
	case PKT_OTHER:
		return other_from_wire(skb, &p, c);
	case PKT_TCP:
		break;
	default:
		return drop(HF_STAT_DROP_PARSE);
	}
	if (!protected_port(c, p.dport))
		return pass_to_active(c);
	if (!is_service(c, &p, p.daddr))
		return drop(HF_STAT_DROP_PARSE);
	client_side_key(&key, p.family, p.saddr, p.sport, p.dport);
	if (p.flags & TH_SYN && p.flags & (TH_ACK | TH_RST))
		return drop(HF_STAT_DROP_PARSE);
	if (!checksum_vouched(skb) && !checksum_right(skb, p.l4, p.header + p.len, p.family))
		return drop(HF_STAT_DROP_CHECKSUM);
	if (p.flags & TH_SYN)
		return no_room(&key) ? refuse(skb, &p) : client_syn(skb, &p, &key);
	f = find_flow(&key, &id);
	if (!f || f->state == HF_CLOSED) {
		if ((p.flags & (TH_RST | TH_ACK)) == TH_RST && (n = give_up(&p, &key)) >= 0)
			return n;
		n = promote(&p, &key);
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
	if (a.left)
		count(HF_STAT_UNLOGGED_SHARE);
	if (a.release)
		release_input(id);
	if (!a.why && a.claim >= 0) {
		a.why = log_input(skb, id, &a, p.flags & TH_FIN);
		if (a.why == HF_STAT_DROP_LOG_FULL && a.ifindex && c->on_full == HF_UNPROTECTED && !room_is_made(c))
			a.why = leave_log(id, a.end, p.flags & TH_FIN);
	}
	if (a.marked)
		store_mark(id, a.mark, a.start, a.ack, 0);
	if (!a.why && (p.flags & (TH_URG | TH_RST)) == TH_URG)
		log_urgent(skb, id, &p, a.ack);
	if (!a.why && !a.ifindex)
		a.why = HF_STAT_HELD;
	if (a.why) {
		count(a.why);
		return a.turn ? answer_client(skb, &p, id, a.turn) : TC_ACT_SHOT;
	}
	if (a.translated && translate(skb, &p))
		return drop(HF_STAT_DROP_PARSE);
	return bpf_redirect(a.ifindex, 0);
}

#endif
