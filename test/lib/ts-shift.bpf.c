/*
 * Makes a client's TCP timestamp clock differ from everybody else's by DELTA (RFC 7323), as that of a client on another
 * machine does: in a laboratory on one kernel, host and clients would share one clock and hide errors in the
 * translation of timestamps.
 *
 * egress:  TSval += DELTA     ingress:  TSecr -= DELTA
 *
 * Linux puts the option at an even offset; elsewhere the 16-bit checksum arithmetic would need swapped bytes, and such
 * a packet is dropped rather than let through unshifted.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef DELTA
#error "compile with -DDELTA=<u32>"
#endif

#define OPT_NOP 1
#define OPT_TIMESTAMP 8
#define OPT_TIMESTAMP_LEN 10
#define TSVAL_OFFSET 2
#define TSECR_OFFSET 6

/* Offset of the TCP header, or 0 for what is not TCP. */
static __always_inline __u32 tcp_offset(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP ||
		    (ip.frag_off & bpf_htons(0x1fff)))
			return 0;
		return ETH_HLEN + ip.ihl * 4;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip6, sizeof(ip6)) || ip6.nexthdr != IPPROTO_TCP)
			return 0;
		return ETH_HLEN + sizeof(ip6);
	}
	return 0;
}

static __always_inline int shift(struct __sk_buff *skb, __u32 field, __u32 delta, int needs_ack)
{
	__u32 tcp_at = tcp_offset(skb);
	struct tcphdr tcp;
	__u32 at, end;

	if (!tcp_at || bpf_skb_load_bytes(skb, tcp_at, &tcp, sizeof(tcp)))
		return TC_ACT_OK;
	/* without ACK the echo field is not in use (RFC 7323, 3.2) */
	if (needs_ack && !tcp.ack)
		return TC_ACT_OK;
	at = tcp_at + sizeof(tcp);
	end = tcp_at + tcp.doff * 4;
	for (int i = 0; i < 40 && at < end; i++) {
		__u8 option[2];
		__be32 old, new;

		if (bpf_skb_load_bytes(skb, at, option, 1) || option[0] == 0)
			return TC_ACT_OK;
		if (option[0] == OPT_NOP) {
			at++;
			continue;
		}
		if (bpf_skb_load_bytes(skb, at, option, 2) || option[1] < 2)
			return TC_ACT_OK;
		if (option[0] != OPT_TIMESTAMP || option[1] != OPT_TIMESTAMP_LEN) {
			at += option[1];
			continue;
		}
		at += field;
		if ((at - tcp_at) & 1)
			return TC_ACT_SHOT;
		if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
			return TC_ACT_SHOT;
		new = bpf_htonl(bpf_ntohl(old) + delta);
		/* no BPF_F_PSEUDO_HDR: a full checksum is corrected, a partial one covers only the pseudo header */
		if (bpf_l4_csum_replace(skb, tcp_at + __builtin_offsetof(struct tcphdr, check), old, new, 4) ||
		    bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0))
			return TC_ACT_SHOT;
		return TC_ACT_OK;
	}
	return TC_ACT_OK;
}

SEC("egress")
int ts_egress(struct __sk_buff *skb)
{
	return shift(skb, TSVAL_OFFSET, (__u32)(DELTA), 0);
}

SEC("ingress")
int ts_ingress(struct __sk_buff *skb)
{
	return shift(skb, TSECR_OFFSET, -(__u32)(DELTA), 1);
}

char _license[] SEC("license") = "Dual BSD/GPL";
