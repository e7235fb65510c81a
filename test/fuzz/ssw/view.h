/* SPDX-License-Identifier: GPL-2.0 */
/* A frame as its receiver reads it (RFC 791, 8200, 9293), lenient as the most lenient one. Not the SSW's parser on purpose. */
#ifndef HF_FUZZ_VIEW_H
#define HF_FUZZ_VIEW_H

struct view {
	__u8 family; /* 0: no IP */
	__u8 tagged;
	__u8 fragment; /* 1: the first of a packet, or the only one; 2: a later one */
	__u8 protocol; /* behind all extension headers that were there to be followed */
	__u8 is_tcp;   /* with a whole header, in one piece */
	__u8 flags;
	__u32 saddr[4], daddr[4];
	__u16 sport, dport; /* network order */
	__u32 seq, ack;
	__u32 l4, data, end; /* frame offsets */
};

static __u32 at16(const __u8 *p)
{
	return p[0] << 8 | p[1];
}

static int follow_ipv6(struct view *v, const __u8 *frame)
{
	v->protocol = frame[20];
	v->l4 = 54;
	for (int i = 0; i < 32; i++) {
		__u8 kind = v->protocol;
		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_DSTOPTS && kind != IPPROTO_ROUTING && kind != IPPROTO_FRAGMENT)
			return 1;
		if (v->l4 + 8 > v->end)
			return 0;
		v->protocol = frame[v->l4];
		if (kind == IPPROTO_FRAGMENT) {
			v->fragment = at16(frame + v->l4 + 2) & 0xfff8 ? 2 : 1;
			v->l4 += 8;
			if (v->fragment == 2)
				return 1;
		} else
			v->l4 += (frame[v->l4 + 1] + 1) * 8;
	}
	return 0;
}

/* 0: nobody takes it for anything. */
static int look_at(struct view *v, const struct __sk_buff *skb)
{
	const __u8 *f = skb->bytes, *tcp;
	__u32 type, n = skb->len;

	memset(v, 0, sizeof(*v));
	if (n < ETH_BYTES)
		return 0;
	type = at16(f + 12);
	v->tagged = type == 0x8100 || type == 0x88a8 || skb->vlan_present;
	if (type == ETH_P_IPV6 && n >= 54 && f[14] >> 4 == 6) {
		v->family = 6;
		v->end = 54 + at16(f + 18);
		memcpy(v->saddr, f + 22, 16);
		memcpy(v->daddr, f + 38, 16);
		if (v->end > n || !follow_ipv6(v, f))
			return 0;
	} else if (type == ETH_P_IP && n >= 34 && f[14] >> 4 == 4 && (f[14] & 15) >= 5) {
		v->family = 4;
		v->end = 14 + at16(f + 16);
		v->l4 = 14 + (f[14] & 15) * 4;
		v->protocol = f[23];
		memcpy(v->saddr + 3, f + 26, 4);
		memcpy(v->daddr + 3, f + 30, 4);
		if (v->end > n || v->end < v->l4)
			return 0;
		if (at16(f + 20) & 0x3fff)
			v->fragment = at16(f + 20) & 0x1fff ? 2 : 1;
	} else
		return 1;
	if (v->protocol != IPPROTO_TCP || v->fragment || v->l4 + TCP_BYTES > v->end)
		return 1;
	tcp = f + v->l4;
	v->data = v->l4 + (tcp[12] >> 4) * 4;
	if (v->data < v->l4 + TCP_BYTES || v->data > v->end)
		return 1;
	v->is_tcp = 1;
	memcpy(&v->sport, tcp, 2);
	memcpy(&v->dport, tcp + 2, 2);
	v->seq = get32(tcp + 4);
	v->ack = get32(tcp + 8);
	v->flags = tcp[13];
	return 1;
}

static struct hf_key key_in_view(const struct view *v, int up)
{
	struct hf_key key;

	client_side_key(&key, v->family, up ? v->saddr : v->daddr, up ? v->sport : v->dport, up ? v->dport : v->sport);
	return key;
}

#endif
