/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The data path without its work: frames move as they do through the SSW, and nothing else happens. What this costs against
 * the bridge is the price of the way; what the SSW costs against this is the price of judging, logging and comparing.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* TAP and PORT: interface indices, given on the compiler's command line. */

SEC("tc")
int to_guest(struct __sk_buff *skb)
{
	return bpf_redirect(TAP, 0);
}

SEC("tc")
int to_wire(struct __sk_buff *skb)
{
	return bpf_redirect(PORT, BPF_F_INGRESS);
}

char LICENSE[] SEC("license") = "GPL";
