/* SPDX-License-Identifier: GPL-2.0 */
/* A guest may claim no address but its own, neither as a source nor in ARP and neighbour discovery (promise S2). */
#ifndef HF_HONESTY_H
#define HF_HONESTY_H
#include "handshake.h"

#define ND_ROUTER_SOLICIT 133
#define ND_ROUTER_ADVERT 134
#define ND_REDIRECT 137
#define ND_OPTIONS 4

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

static __always_inline int is_guests6(const struct hf_control *c, const __u32 *address)
{
	return (c->addr6[0] && same_address(address, c->addr6)) || same_address(address, c->link_local);
}

static __always_inline int honest_arp(struct __sk_buff *skb, const struct hf_control *c)
{
	struct {
		__u8 head[8]; /* hardware type, protocol, lengths of their addresses, operation */
		__u8 mac[6];
		__u8 address[4];
	} arp;
	__u32 address;

	if (bpf_skb_load_bytes(skb, ETH_BYTES, &arp, sizeof(arp)) || arp.head[4] != 6 || arp.head[5] != 4)
		return 0;
	__builtin_memcpy(&address, arp.address, 4);
	return same_mac(arp.mac, c->guest_mac) && (address == c->addr4 || address == 0); /* 0: a probe, RFC 5227 */
}

/* Link-layer addresses in a neighbour discovery message's options from frame offset `at` on. */
static __always_inline int honest_options(struct __sk_buff *skb, const struct hf_control *c, __u32 at)
{
	__u8 option[8];

	for (int i = 0; i < ND_OPTIONS; i++) {
		if (at == skb->len)
			return 1;
		if (bpf_skb_load_bytes(skb, at, option, sizeof(option)) || option[1] == 0)
			return 0;
		if (option[0] <= 2 && !same_mac(option + 2, c->guest_mac))
			return 0;
		at += option[1] * 8;
	}
	return at == skb->len;
}

static __always_inline int honest_discovery(struct __sk_buff *skb, const struct packet *p, const struct hf_control *c)
{
	__u32 target[4];
	__u8 type;

	if (p->fragment == FRAGMENT_LATER)
		return 1; /* of no use without the first, which says the type */
	if (bpf_skb_load_bytes(skb, p->l4, &type, 1))
		return 0;
	switch (type) {
	case ND_ROUTER_ADVERT:
	case ND_REDIRECT:
		return 0; /* a guest is no router */
	case ND_ROUTER_SOLICIT:
		return !p->fragment && honest_options(skb, c, p->l4 + 8);
	case ND_NEIGHBOUR_ADVERT:
		if (bpf_skb_load_bytes(skb, p->l4 + 8, target, sizeof(target)) || !is_guests6(c, target))
			return 0;
		return !p->fragment && honest_options(skb, c, p->l4 + 24);
	case ND_NEIGHBOUR_SOLICIT:
		return !p->fragment && honest_options(skb, c, p->l4 + 24);
	}
	return 1;
}

/* What is no TCP. The unspecified IPv6 address belongs to a guest that joins groups or probes for duplicates. */
static __noinline int is_honest(struct __sk_buff *skb, struct packet *p, struct hf_control *c)
{
	if (p->family == 0)
		return honest_arp(skb, c);
	if (p->family == 4)
		return p->saddr[3] == c->addr4;
	if (!is_guests6(c, p->saddr) && (p->saddr[0] | p->saddr[1] | p->saddr[2] | p->saddr[3]))
		return 0;
	return p->protocol != IPPROTO_ICMPV6 || honest_discovery(skb, p, c);
}

#endif
