/* SPDX-License-Identifier: GPL-2.0 */
/* Positions (64 bit) and sequence numbers (32 bit): one is derived from the other near a known position. */
#ifndef HF_POSITION_H
#define HF_POSITION_H
#include "layout.h"

static __always_inline __u32 in_seq(const struct hf_flow *f, __u64 position)
{
	return f->c_isn + 1 + (__u32)position;
}

static __always_inline __u32 out_seq(const struct hf_flow *f, __u64 position)
{
	return f->s_isn + 1 + (__u32)position;
}

/* Signed: a segment may start before the first byte (keep-alive probes of a fresh connection). */
static __always_inline __s64 in_position(const struct hf_flow *f, __u32 seq)
{
	return (__s64)f->in_end + (__s32)(seq - in_seq(f, f->in_end));
}

static __always_inline __s64 out_position(const struct hf_flow *f, __u32 client_visible_seq)
{
	return (__s64)f->out_sent + (__s32)(client_visible_seq - out_seq(f, f->out_sent));
}

static __always_inline __u8 shift_of(__u8 wscale)
{
	return wscale == HF_NO_WSCALE ? 0 : wscale > 14 ? 14 : wscale;
}

/* The scale of the client's windows: RFC 7323 scales if both ends said so. */
static __always_inline __u8 client_shift(const struct hf_flow *f)
{
	return f->server.wscale == HF_NO_WSCALE ? 0 : shift_of(f->client.wscale);
}

/* The scale in which the present guest reads them. */
static __always_inline __u8 client_shift_at_guest(const struct hf_flow *f)
{
	return f->guest.wscale == HF_NO_WSCALE ? 0 : client_shift(f);
}

static __always_inline int in_current_epoch(const struct hf_control *c, const struct hf_flow *f)
{
	return f->epoch && c->slots[f->owner & (HF_SLOTS - 1)].epoch == f->epoch;
}

/* Whether the guest's sequence numbers or clock differ from what the client knows; also true of what such a flow leaves. */
static __always_inline int is_translated(const struct hf_flow *f)
{
	return f->state == HF_SPLICED || f->state == HF_REPLAYING ||
	       (f->state == HF_CLOSED && (f->failovers || f->d || f->t));
}

/* Both ends have said that they are done, and the client has heard it: what it still sends needs an ACK. Else it needs a reset. */
static __always_inline int ended_properly(const struct hf_flow *f)
{
	return f->fin_in != HF_UNSET && f->fin_out != HF_UNSET && f->out_acked == f->fin_out + 1;
}

/* All input, FIN included: what the guest's acknowledgement reaches when it has consumed everything. */
static __always_inline __u64 in_total(const struct hf_flow *f)
{
	return f->fin_in == f->in_end ? f->in_end + 1 : f->in_end;
}

#endif
