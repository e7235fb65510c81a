/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HF_PARSE_H
#define HF_PARSE_H
#include "maps.h"

#define ETH_BYTES 14
#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define FRAGMENT_BYTES 8 /* the header of an IPv6 fragment */
#define IPV6_EXTENSIONS 4 /* more headers than that in front of one segment are nobody's need */
#define TCP_BYTES 20
#define TCP_MAX_BYTES 60

#define TH_FIN 0x01
#define TH_SYN 0x02
#define TH_RST 0x04
#define TH_ACK 0x10
#define TH_URG 0x20
#define TH_ECE 0x40
#define TH_CWR 0x80

enum verdict { PKT_TCP, PKT_OTHER, PKT_BAD };

/* At `l4` of a later fragment there is no header of its protocol. */
enum fragment { FRAGMENT_NONE = 0, FRAGMENT_FIRST = 1, FRAGMENT_LATER = 2 };

/* A TCP segment as numbers in host order; `l4` and `data` are offsets from the frame's start. */
struct packet {
	__u16 smac[3];
	__u8 family;
	__u32 saddr[4]; /* network order; IPv4 in the last word, the others 0 */
	__u32 daddr[4];
	__u16 sport; /* network order */
	__u16 dport;
	__u32 seq;
	__u32 ack;
	__u32 l4;
	__u32 header; /* TCP header with options, bytes */
	__u32 data;
	__u32 len; /* payload bytes, from the IP header: frames are padded */
	__u32 window;
	__u32 tsval;
	__u32 tsecr;
	__u8 flags;
	__u8 has_ts;
	__u8 protocol; /* of what is no TCP; 0 for ARP */
	__u8 fragment; /* the same: enum fragment */
};

static __always_inline __u8 fragment_of_ipv4(const struct iphdr *ip)
{
	if (ip->frag_off & bpf_htons(0x1fff))
		return FRAGMENT_LATER;
	return ip->frag_off & bpf_htons(0x2000) ? FRAGMENT_FIRST : FRAGMENT_NONE;
}

/* Lengths and fields of a TCP header at `p->l4`, in a packet that ends at frame offset `end`. */
static __always_inline enum verdict read_tcp(struct __sk_buff *skb, struct packet *p, struct tcphdr *tcp, __u32 end)
{
	p->sport = tcp->source;
	p->dport = tcp->dest;
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->window = bpf_ntohs(tcp->window);
	p->flags = ((__u8 *)tcp)[13];
	p->header = tcp->doff * 4;
	if (p->header < TCP_BYTES || end < p->l4 + p->header || skb->len < end)
		return PKT_BAD;
	p->data = p->l4 + p->header;
	p->len = end - p->data;
	return PKT_TCP;
}

/*
 * IPv6: hop-by-hop and destination options are skipped over; a routing header, by which the packet's destination is not the
 * one it shows, and what hides its protocol make it bad. Fragments pass only if they say that they are no TCP: what the
 * first fragment says is what the receiver goes by (RFC 8200, 4.5).
 */
__noinline int parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr ip;
	struct tcphdr tcp;
	__u8 next, word[4];
	__u32 end;

	if (!p || bpf_skb_load_bytes(skb, ETH_BYTES, &ip, sizeof(ip)) || ip.version != 6)
		return PKT_BAD;
	next = ip.nexthdr;
	end = ETH_BYTES + IPV6_BYTES + bpf_ntohs(ip.payload_len);
	p->family = 6;
	p->l4 = ETH_BYTES + IPV6_BYTES;
	__builtin_memcpy(p->saddr, &ip.saddr, 16);
	__builtin_memcpy(p->daddr, &ip.daddr, 16);
	for (int i = 0; i < IPV6_EXTENSIONS; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS)
			break;
		if (bpf_skb_load_bytes(skb, p->l4, word, sizeof(word)))
			return PKT_BAD;
		next = word[0];
		p->l4 += (word[1] + 1) * 8;
	}
	if (next == IPPROTO_FRAGMENT) {
		/* also one that is the whole packet (RFC 6946): receivers skip the header, so what follows is judged as they read it */
		if (skb->len < p->l4 + FRAGMENT_BYTES || bpf_skb_load_bytes(skb, p->l4, word, sizeof(word)))
			return PKT_BAD;
		next = word[0] == IPPROTO_TCP ? IPPROTO_FRAGMENT : word[0];
		p->fragment = word[2] | (word[3] & 0xf8) ? FRAGMENT_LATER : FRAGMENT_FIRST;
		p->l4 += FRAGMENT_BYTES;
	}
	p->protocol = next;
	if (next == IPPROTO_ICMPV6 || next == IPPROTO_UDP)
		return PKT_OTHER;
	if (next != IPPROTO_TCP || bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)))
		return PKT_BAD;
	return read_tcp(skb, p, &tcp, end);
}

/*
 * Reads one frame. PKT_OTHER is what is no TCP (ARP, ICMP, UDP, neighbour discovery); PKT_BAD what must not pass, since TCP
 * could hide in it (rule F2). A VLAN tag is bad wherever it is: the service's VLAN ends at the bridge (`uplink.vlan`).
 */
static __always_inline enum verdict parse(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if (skb->vlan_present)
		return PKT_BAD;
	if (data + ETH_BYTES + IPV4_BYTES + TCP_BYTES > end) {
		if (skb->len < ETH_BYTES + IPV4_BYTES + TCP_BYTES) {
			/* too short for TCP over IPv4, unless it says that it is */
			if (data + ETH_BYTES + IPV4_BYTES > end)
				return PKT_BAD;
			__builtin_memcpy(p->smac, eth->h_source, 6);
			if (eth->h_proto != bpf_htons(ETH_P_IP))
				return eth->h_proto == bpf_htons(ETH_P_ARP) ? PKT_OTHER : PKT_BAD;
			struct iphdr *ip = (struct iphdr *)(eth + 1);
			p->family = 4;
			p->protocol = ip->protocol;
			p->fragment = fragment_of_ipv4(ip);
			p->l4 = ETH_BYTES + ip->ihl * 4;
			p->saddr[3] = ip->saddr;
			p->daddr[3] = ip->daddr;
			return ip->protocol == IPPROTO_TCP ? PKT_BAD : PKT_OTHER;
		}
		if (bpf_skb_pull_data(skb, ETH_BYTES + IPV4_BYTES + TCP_BYTES))
			return PKT_BAD;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + ETH_BYTES + IPV4_BYTES + TCP_BYTES > end)
			return PKT_BAD;
		eth = data;
	}
	__builtin_memcpy(p->smac, eth->h_source, 6);
	if (eth->h_proto != bpf_htons(ETH_P_IP)) {
		if (eth->h_proto == bpf_htons(ETH_P_IPV6))
			return parse_ipv6(skb, p);
		return eth->h_proto == bpf_htons(ETH_P_ARP) ? PKT_OTHER : PKT_BAD;
	}

	struct iphdr *ip = (struct iphdr *)(eth + 1);
	if (ip->version != 4)
		return PKT_BAD;
	__u32 ihl = ip->ihl * 4, total = bpf_ntohs(ip->tot_len);
	p->family = 4;
	p->l4 = ETH_BYTES + ihl;
	p->saddr[3] = ip->saddr;
	p->daddr[3] = ip->daddr;
	if (ip->protocol != IPPROTO_TCP) {
		p->protocol = ip->protocol;
		p->fragment = fragment_of_ipv4(ip);
		return PKT_OTHER;
	}
	if (ip->frag_off & bpf_htons(0x3fff))
		return PKT_BAD;
	struct tcphdr *tcp = (void *)ip + IPV4_BYTES;
	struct tcphdr copy;
	if (ihl != IPV4_BYTES) {
		if (ihl < IPV4_BYTES || bpf_skb_load_bytes(skb, p->l4, &copy, sizeof(copy)))
			return PKT_BAD;
		tcp = &copy;
	}
	return read_tcp(skb, p, tcp, ETH_BYTES + total);
}

static __always_inline __u32 get32(const __u8 *p)
{
	return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3];
}

static __always_inline void put32(__u8 *p, __u32 v)
{
	p[0] = v >> 24;
	p[1] = v >> 16;
	p[2] = v >> 8;
	p[3] = v;
}

#define HEADER_MASK 63 /* a header is at most 60 bytes; masked offsets are what the verifier can follow */

/* What becomes of a TCP header. Deltas are mod 2^32. */
struct edit {
	__u32 seq;
	__u32 ack;
	__u32 window;
	__u32 val_add;    /* TSval += */
	__u32 ecr_add;    /* TSecr += */
	__u32 val_cap;    /* TSval is at most this, if capped */
	__u32 ecr_floor;  /* TSecr is at least this, if floored */
	__u32 sack_add;   /* SACK edges += */
	__u32 sack_limit; /* an option with an edge beyond this is removed */
	__u8 capped;
	__u8 floored;
};

/* Only the fields that every edit has; no timestamp changes, no SACK edge changes or goes. */
static __always_inline void set_edit(struct edit *e, __u32 seq, __u32 ack, __u32 window)
{
	__builtin_memset(e, 0, sizeof(*e));
	e->seq = seq;
	e->ack = ack;
	e->window = window;
	e->sack_limit = ack + (1U << 30);
}

/* What is to become of a guest's segment. */
struct emission {
	__u64 start; /* output positions of the payload */
	__u64 end;
	__u64 capture_from;
	__u64 compare_end;
	__u64 head_start;
	__u64 salt;
	__u32 why;
	__u32 k;
	__u8 destination;
	__u8 translated;
};

/*
 * One TCP header being read or rewritten, with the offsets of its options (0: absent). Lies in a per-CPU map, not on
 * the stack: the verifier does not follow map contents, so the walk below costs it no state explosion.
 */
struct hf_work {
	__u8 old[64];
	__u8 h[128]; /* 64 and slack for masked offsets */
	__u32 at;
	__u32 n;
	__u32 blank; /* bytes of a hidden option still to become NOPs */
	__u8 mss;
	__u8 wscale;
	__u8 sack_ok;
	__u8 ts;
	__u8 sack;
	__u8 sack_blocks;
	struct edit edit; /* what to make of it */
	struct emission emission;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hf_work);
} work SEC(".maps");

static __always_inline struct hf_work *get_work(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&work, &zero);
}

/* TCP Fast Open before it had a number of its own (RFC 7413, appendix A; RFC 6994). */
static __always_inline int is_experimental_tfo(const __u8 *option, __u32 size)
{
	return (option[0] == 253 || option[0] == 254) && size >= 4 && option[2] == 0xf9 && option[3] == 0x89;
}

/* One option of the walk; a callback of bpf_loop is verified once. */
static long walk_option(__u32 i, struct hf_work **ctx)
{
	struct hf_work *w = *ctx;
	__u32 at = w->at & HEADER_MASK;

	if (w->blank && at < w->n) {
		w->blank--;
		w->h[at] = 1;
		w->at = at + 1;
		return 0;
	}
	if (at + 1 >= w->n)
		return 1;
	__u32 kind = w->h[at], size = w->h[at + 1];
	if (kind == 0)
		return 1;
	if (kind == 1) {
		w->at = at + 1;
		return 0;
	}
	if (size < 2 || at + size > w->n)
		return 1;
	w->at = at + size;
	if (kind == 2 && size == 4)
		w->mss = at;
	else if (kind == 3 && size == 3)
		w->wscale = at;
	else if (kind == 4 && size == 2)
		w->sack_ok = at;
	else if (kind == 8 && size == 10)
		w->ts = at;
	else if (kind == 5 && size >= 10 && size <= 34) {
		w->sack = at;
		w->sack_blocks = (size - 2) / 8;
	} else if (kind == 30 || kind == 34 || is_experimental_tfo(w->h + at, size)) {
		w->at = at;
		w->blank = size;
	}
	return 0;
}

/*
 * Loads a TCP header of `n` bytes and finds its options. Kinds that would hide state (MPTCP, TCP Fast Open) become
 * NOPs in the copy. Malformed options end the walk, as in the receivers.
 */
__noinline int load_header(struct __sk_buff *skb, __u32 l4, __u32 n)
{
	struct hf_work *w = get_work();

	if (!w || n < TCP_BYTES)
		return -1;
	barrier_var(n); /* two plain comparisons: the verifier of 6.1 can't follow the compiler's single one */
	if (n > TCP_MAX_BYTES || bpf_skb_load_bytes(skb, l4, w->old, n))
		return -1;
	__builtin_memcpy(w->h, w->old, sizeof(w->old));
	w->mss = w->wscale = w->sack_ok = w->ts = w->sack = w->sack_blocks = 0;
	w->at = TCP_BYTES;
	w->blank = 0;
	w->n = n;
	bpf_loop(40, walk_option, &w, 0);
	return 0;
}

/* Timestamps of a segment: the layout that every Linux sends first, any other by the walk. */
static __always_inline void read_timestamps(struct __sk_buff *skb, struct packet *p)
{
	__u8 *options = (void *)(long)skb->data + ETH_BYTES + IPV4_BYTES + TCP_BYTES;

	p->has_ts = 0;
	if (p->header == TCP_BYTES + 12 && p->data == ETH_BYTES + IPV4_BYTES + TCP_BYTES + 12 &&
	    (void *)options + 12 <= (void *)(long)skb->data_end && *(__u32 *)options == bpf_htonl(0x0101080a)) {
		p->tsval = bpf_ntohl(*(__u32 *)(options + 4));
		p->tsecr = bpf_ntohl(*(__u32 *)(options + 8));
		p->has_ts = 1;
	} else if (p->header >= TCP_BYTES + 10 && !load_header(skb, p->l4, p->header)) {
		struct hf_work *w = get_work();
		if (w && w->ts) {
			p->tsval = get32(w->h + (w->ts & HEADER_MASK) + 2);
			p->tsecr = get32(w->h + (w->ts & HEADER_MASK) + 6);
			p->has_ts = 1;
		}
	}
}

struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

static __always_inline __u8 ip_summed(struct __sk_buff *skb)
{
	return BPF_CORE_READ_BITFIELD_PROBED((struct sk_buff *)skb, ip_summed);
}

/* Its checksum field holds only the pseudo header's sum so far. */
static __always_inline int checksum_partial(struct __sk_buff *skb)
{
	return ip_summed(skb) == 3;
}

#endif
