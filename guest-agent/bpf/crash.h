/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the exit watch tells, the one definition of it: the BPF programs write it, the agent's addon copies it to the control page as
 * it is, and the host reads it there through crash.generated.ts, which `make build` makes from this file.
 */
#ifndef HF_CRASH_H
#define HF_CRASH_H

enum hf_crash_kind {
	HF_CRASH_CONNECTION = 1, /* its process died, or was about to; nothing more of it leaves the guest */
	HF_CRASH_PROCESS = 2,    /* one process of a service ended badly */
	HF_CRASH_SERVICE = 3,    /* a service's main process ended, or was told to by somebody outside */
};

/* Behind HF_CRASH_SERVICE's wait status: it has not ended yet, this signal is about to end it. */
enum hf_crash_flag { HF_CRASH_TOLD_TO_STOP = 1 };

struct hf_crash {
	__u32 kind;    /* enum hf_crash_kind */
	__u32 service; /* place in the image's list of services */
	__u32 pid;
	__u32 status;   /* as from wait(2) */
	__u32 raddr[4]; /* network order; IPv4 in the last word, the others 0 */
	__u16 rport;    /* network order */
	__u16 lport;
	__u8 family; /* 4 or 6 */
	__u8 state;  /* of the socket before it was closed, as in the kernel */
	__u16 flags; /* enum hf_crash_flag */
	__u32 rcv_nxt; /* sequence number at which the guest's socket, if any is left, believes a reset */
	__u32 pad;
	__u64 at; /* ns of the guest's CLOCK_MONOTONIC */
	__u64 reserved;
};

#endif
