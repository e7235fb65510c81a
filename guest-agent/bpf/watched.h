/* SPDX-License-Identifier: GPL-2.0 */
/* What the exit watch shares with the agent's addon alone: the values of its maps. */
#ifndef HF_WATCHED_H
#define HF_WATCHED_H

#define HF_PORT_BYTES 8192

/* A service, by the id of its cgroup. */
struct hf_watched {
	__u32 main;      /* pid of its main process, 0: not started yet */
	__u32 service;   /* place in the image's list */
	__u32 announced; /* it is being stopped on purpose: closes are closes */
	__u32 clean_exit_crashes; /* exit status 0 of a process that is not the main one is a crash, too */
	__u64 doomed_until; /* ns: until then each close is taken for the work of what is about to kill it; the past: none */
};

/* The one element of `settings`. */
struct hf_settings {
	__u32 armed; /* something has crashed: the egress program has to look */
	__u32 lost;  /* crashes that found no room in the ring */
	__u8 ports[HF_PORT_BYTES]; /* protected ones, one bit each */
	__u8 deaf[HF_PORT_BYTES];  /* those whose listener died with its process: the kernel's refusals stay here */
};

#endif
