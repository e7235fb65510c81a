/* SPDX-License-Identifier: GPL-2.0 */
/* Replay socket to guest: the guest must take it for the client. */
#ifndef HF_FROM_REPLAY_H
#define HF_FROM_REPLAY_H
#include "handshake.h"

/* TSvals of the replay start this far below the client's last one, so that round trips can be measured. */
#define REPLAY_TS_ROOM 20000

/*
 * Never acknowledge beyond what the client has: clamp the ack, and round the window up. (A window clamp alone
 * deadlocks: the last bytes before the clamp would need a window of less than one scaled unit.)
 */
static __always_inline void clamp_ack(const struct hf_flow *f, const struct packet *p, struct edit *e)
{
	__u32 limit = out_seq(f, f->out_acked) - f->d;
	__u32 shift = client_shift_at_guest(f);
	__u64 window = (__u64)p->window << f->replay_wscale, room = f->client.mss;

	__u32 ack = p->ack;

	if ((__s32)(ack - limit) > 0)
		ack = limit;
	room += (__u32)(limit - ack);
	if (window > room)
		window = room;
	window = (window + (1U << shift) - 1) >> shift;
	set_edit(e, p->seq, ack, window > 65535 ? 65535 : window);
	e->sack_limit = limit;
}

SEC("tc")
int from_replay(struct __sk_buff *skb)
{
	struct hf_control *c = get_control();
	struct packet p = {};
	struct hf_work *w = get_work();
	struct hf_options offered;
	struct hf_key key;
	struct hf_flow *f;
	__u32 id, ifindex = 0, tsval = 0;

	if (!c || !w)
		return TC_ACT_SHOT;
	if (parse(skb, &p) != PKT_TCP || !is_service(c, &p, p.daddr) || !protected_port(c, p.dport) || p.flags & TH_RST)
		return drop(HF_STAT_DROP_REPLAY);
	client_side_key(&key, p.family, p.saddr, p.sport, p.dport);
	f = find_flow(&key, &id);
	if (!f)
		return drop(HF_STAT_DROP_REPLAY);
	if (p.flags & TH_SYN) {
		struct hf_options client;
		if (handshake_options(skb, &p, &offered))
			return drop(HF_STAT_DROP_REPLAY);
		bpf_spin_lock(&f->lock);
		if (f->state == HF_REPLAYING && in_current_epoch(c, f) && p.seq == in_seq(f, f->in_base) - 1) {
			f->replay_wscale = shift_of(offered.wscale);
			if (!f->k)
				f->k = f->c_tsval - REPLAY_TS_ROOM - p.tsval;
			tsval = p.tsval + f->k;
			ifindex = c->slots[f->owner & (HF_SLOTS - 1)].ifindex;
		}
		/* what the two agreed on: the client uses no option that the first guest refused */
		client = f->client;
		client.flags &= f->server.flags | HF_OPT_ECN;
		if (f->server.wscale == HF_NO_WSCALE)
			client.wscale = HF_NO_WSCALE;
		bpf_spin_unlock(&f->lock);
		if (!ifindex || mirror_syn(skb, &p, &client, tsval))
			return drop(HF_STAT_DROP_REPLAY);
		return bpf_redirect(ifindex, 0);
	}
	bpf_spin_lock(&f->lock);
	if (f->state == HF_REPLAYING && f->answered && in_current_epoch(c, f)) {
		__u64 end = in_position(f, p.seq) + p.len;
		clamp_ack(f, &p, &w->edit);
		w->edit.val_add = f->k;
		w->edit.val_cap = f->c_tsval;
		w->edit.capped = 1;
		/* L7: a FIN only where the client's own stands; the ACKs behind it have no more than its number */
		if (end <= (p.len ? f->in_end : in_total(f)) && (!(p.flags & TH_FIN) || end == f->fin_in))
			ifindex = c->slots[f->owner & (HF_SLOTS - 1)].ifindex;
	}
	bpf_spin_unlock(&f->lock);
	if (!ifindex || translate(skb, &p))
		return drop(HF_STAT_DROP_REPLAY);
	return bpf_redirect(ifindex, 0);
}

#endif
