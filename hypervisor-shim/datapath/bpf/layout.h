/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Layouts shared by the data path and user space: the one definition. `make build` reads them back
 * from the compiled object's BTF and writes layout.generated.ts, so the two sides can't drift apart.
 *
 * Glossary of sequence variables (the same names in C and TypeScript)
 *
 *   position     64-bit offset in one direction's byte stream; 0 is the first byte after the SYN. A FIN takes a
 *                position. Positions never wrap; sequence numbers on the wire are derived from them.
 *   c_isn        initial sequence number (ISN) of the client; the input direction is never translated
 *   s_isn        ISN of the server as the client knows it: the ISN of the first guest that owned the flow
 *   in_end       end of the contiguous logged input ("end64" in the theory of operation)
 *   in_base      input before it is trimmed: replay starts here
 *   out_base     output before it is trimmed: what the guest sends first in a replay has this position
 *   out_sent     end of what was ever sent to the client ("s_sent")
 *   out_acked    end of what the client has acknowledged ("A")
 *   g_ack        end of the input that the present guest has acknowledged (its rcv_nxt, as last heard)
 *   g_edge       right edge of the present guest's receive window
 *   g_snd_nxt    end of what the present guest has sent, as an output position
 *   in_acked     end of the input that was acknowledged to the client, by whichever guest, or for a held flow by us
 *   d            client-visible server seq = guest seq + d            (mod 2^32)
 *   t            client-visible server TSval = guest TSval + t        (mod 2^32)
 *   k            TSval that the guest sees = replay socket's TSval + k (mod 2^32)
 */
#ifndef HF_LAYOUT_H
#define HF_LAYOUT_H

#define HF_UNSET (~0ULL)

enum hf_const {
	HF_LAYOUT_VERSION = 9, /* raise it with every change of a pinned layout */
	HF_NO_WSCALE = 0xff,
	HF_SLOTS = 4,   /* guests that one service can have attached at once */
	HF_NO_SLOT = 0x7fffffff,
	HF_OOO = 8,     /* islands of out-of-order input that a flow can hold */
	HF_CLAIMS = 2,  /* CPUs that may be copying input of one flow at once */

	/*
	 * The log: slabs (elements of an mmapable array) hold segments; a segment's address counts 64-byte
	 * units. The pad lets the verifier bound a copy that starts near the slab's end; it is never written.
	 */
	HF_UNIT_SHIFT = 6,
	HF_SLAB_SHIFT = 21,
	HF_SLAB_BYTES = 1 << HF_SLAB_SHIFT,
	HF_SLAB_PAD = 32768,
	HF_SEG_HEADER = 64,
	HF_SMALL_SHIFT = 11, /* small segments: data, then a presence bitmap */
	HF_SMALL_BYTES = 1 << HF_SMALL_SHIFT,
	HF_SMALL_STRIDE = HF_SEG_HEADER + HF_SMALL_BYTES + HF_SMALL_BYTES / 8,
	HF_LARGE_SHIFT = 14,
	HF_LARGE_BYTES = 1 << HF_LARGE_SHIFT,
	HF_LARGE_STRIDE = HF_SEG_HEADER + HF_LARGE_BYTES,

	HF_HEAD_BYTES = 1024, /* captured at the start of each reply */
	HF_SAMPLE_BYTES = 32, /* captured in each sample block, at a secret place */
	HF_SAMPLE_BLOCK_SHIFT = 14,
	HF_SAMPLE_BLOCK = 1 << HF_SAMPLE_BLOCK_SHIFT,
	HF_MARK_BYTES = 32,
	HF_PORT_BYTES = 8192,
	HF_LEASE_SHIFT = 30, /* 1.07 s; 32 bits of it do not wrap */
	HF_SPILL_AT_ONCE = 32, /* segments that one HF_OP_SPILL frees at most */
};

enum hf_role { HF_CLIENT_SIDE = 1, HF_SERVER_SIDE = 2 };

enum hf_state {
	HF_FREE = 0,
	HF_TRACKED = 1,   /* the guest that accepted it serves it; no translation */
	HF_REPLAYING = 2, /* the replay socket plays the client */
	HF_SPLICED = 3,   /* the client speaks to a later guest, translated */
	HF_CLOSED = 4,
	HF_DIVERGED = 5,  /* the guest's output is not what the client already has */
	/* "held" is no state: it is any flow whose epoch is not its owner's current one */
};

enum hf_kind { HF_INPUT = 1, HF_OUTPUT = 2, HF_SAMPLES = 3, HF_MARKS = 4 };

enum hf_option { HF_OPT_SACK = 1, HF_OPT_TS = 2, HF_OPT_ECN = 4 };

/* What becomes of a flow whose input finds no room in the log. */
enum hf_on_full { HF_BACKPRESSURE = 0, HF_UNPROTECTED = 1 };

/* Why a flow is not in the log any more: at the next fault it is lost with that reason. */
enum hf_unlogged { HF_LOGGED = 0, HF_LOG_FULL = 1, HF_LOG_SHARE = 2 };

/* What becomes of a SYN that finds the flow table full. */
enum hf_table_full { HF_TABLE_WAIT = 0, HF_TABLE_REFUSE = 1 };

/* How a guest's output differs from what an earlier one sent. */
enum hf_divergence { HF_DIFFERS_NOT = 0, HF_DIFFERS_CONTENT = 1, HF_DIFFERS_LONGER = 2, HF_DIFFERS_SHORTER = 3 };

enum hf_compare { HF_COMPARE_SAMPLED = 0, HF_COMPARE_FULL = 1 };

struct hf_key {
	__u32 raddr[4]; /* network order; IPv4 in the last word, the others 0 */
	__u16 rport;    /* network order */
	__u16 lport;
	__u8 role;
	__u8 family; /* 4 or 6 */
	__u16 laddr; /* which of the service's addresses of that family */
};

struct hf_options {
	__u16 mss;
	__u8 wscale; /* HF_NO_WSCALE: not offered */
	__u8 flags;  /* enum hf_option */
};

struct hf_range {
	__u64 start;
	__u64 end;
};

/* A handshake: made by a SYN, answered by the guest's SYN-ACK, promoted to a flow by the client's ACK. */
struct hf_pending {
	__u32 c_isn;
	__u32 s_isn;
	struct hf_options client;
	struct hf_options server;
	struct hf_options guest; /* of the present answer, where a second guest answers the same SYN */
	__u32 slot;
	__u32 epoch;
	__u32 answered;
	__u32 window; /* of the SYN-ACK, bytes */
	__u32 c_tsval;
	__u32 s_tsval;
	__u32 g_tsval;
	__u32 d;
	__u32 t;
};

/*
 * Grouped by who writes: the client's frames and the guest's are often handled on different CPUs at once, and each line that
 * one has written costs the other a miss.
 */
struct hf_flow {
	struct bpf_spin_lock lock;
	__u32 generation;
	struct hf_key key;
	__u8 state;
	__u8 owner; /* slot */
	__u8 rst_in;
	__u8 unlogged; /* enum hf_unlogged */
	__u32 epoch;
	__u32 c_isn;
	__u32 s_isn;
	struct hf_options client;
	struct hf_options server; /* as the client knows it */
	struct hf_options guest;  /* as the present guest answered */
	__u32 d;

	/* what the client's frames move */
	__u64 in_end;
	__u64 out_acked;
	__u64 mark_out;
	__u64 last_in_ns; /* last frame of the client */
	__u64 packets_in;
	__u32 c_window; /* bytes */
	__u32 c_tsval;
	__u32 ts_recent; /* newest TSval of a segment that began where the client was acknowledged (RFC 7323, 4.3) */
	__u32 marks;
	__u32 islands; /* of `ooo` in use */
	__u32 share_used; /* input was held back because it is beyond `flow_share` */
	__u32 claim_used[HF_CLAIMS];

	/* what the guest's frames move */
	__u64 g_ack;
	__u64 g_edge;
	__u64 g_snd_nxt;
	__u64 out_sent;
	__u64 in_acked;
	__u64 packets_out;
	__u64 head_in;
	__u32 g_tsval;
	__u32 s_tsval;

	/* what seldom moves */
	__u64 fin_in; /* position of the client's FIN, HF_UNSET until it came */
	__u64 fin_out;
	__u64 compare_end; /* output below it was sent by an earlier guest: compare */
	__u64 head_start;
	__u32 t;
	__u32 k;
	__u32 g_tsval_first;
	__u32 failovers;
	__u64 in_base;
	__u64 out_base;

	struct hf_range claims[HF_CLAIMS];
	__u32 segments; /* newest of the list of captured segments, 0: none */
	__u32 in_first; /* input segments below this index were given back, or lie in the spill file */
	__u32 in_limit; /* no input segment at or above this index was ever made */
	__u32 room;     /* scratch of publish() */
	__u32 g_isn;
	__u32 answered; /* the present guest's SYN-ACK to the replay was seen */
	__u8 c_mac[8]; /* the client's, or its gateway's: where frames that we make for it go */
	struct hf_range ooo[HF_OOO];
	__u64 opened_ns;
	__u64 closed_ns;
	__u64 mark_in; /* highest input position of a causal mark */
	__u64 urg_in;  /* behind the newest urgent byte */
	__u32 diverged_at; /* low 32 bits of the position, for the report */
	__u32 divergence; /* enum hf_divergence */
	__u32 lost; /* closed because it could not be kept: what the client still sends is answered by a reset */
	__u32 replay_wscale;
	__u32 captured; /* segments in that list */
	__u32 leaves;   /* it is to leave its guest, as soon as a new exchange begins */
};

struct hf_slot {
	__u32 ifindex;
	__u32 epoch; /* 0: fenced. A flow is served only if its epoch is this one */
	__u32 listening;
	__u32 pad;
};

/* One element, mapped by the supervisor. A single aligned store changes the path or fences a guest. */
struct hf_control {
	__u32 version;
	__u32 active; /* slot that takes new flows, HF_NO_SLOT: none */
	__u32 wire_ifindex; /* inner end of the service's veth */
	__u32 port_ifindex; /* its peer, the port of the bridge */
	__u32 replay_ifindex;
	__u32 addr4; /* network order */
	__u32 addr6[4]; /* network order; first word 0: the service has none */
	__u32 link_local[4]; /* the guests', made from their MAC (RFC 4291, appendix A) */
	__u64 seed;
	__u64 flow_share; /* bytes of input that the log holds of one flow, and as much of captured output; 0: no limit */
	__u32 compare;
	__u8 guest_mac[8];
	__u8 replay_mac[8];
	struct hf_slot slots[HF_SLOTS];
	__u8 ports[HF_PORT_BYTES]; /* one bit for each TCP port */

	/* what frames move: away from what every frame reads */
	__u8 apart[64];
	__u64 order; /* last place given in the service's global order of causal marks */
	__u32 flow_high; /* no flow id at or above it was ever used */
	__u32 small_free; /* segments of each class that are free */
	__u32 large_free;
	__u32 small_reserve; /* captures leave so many small segments to the input: losing coverage is better than stalling */
	__u32 on_full; /* enum hf_on_full */
	__u32 table_full; /* enum hf_table_full */
	__u32 spill_until; /* full or not, somebody makes room until then (ktime >> HF_LEASE_SHIFT): hold back, leave nobody unlogged */
};

struct hf_seg_key {
	__u32 flow;
	__u32 kind_index; /* kind << 28 | index; 2^28 segments of 16 KiB are 4 TiB */
};

struct hf_seg_header {
	__u32 next; /* older captured segment of the same flow, 0: none; input segments are found by their index */
	__u32 flow;
	__u32 kind_index;
	__u32 pad;
};

/* Before sending the input byte at `in`, the client had acknowledged output up to `out`. */
struct hf_mark {
	__u64 in;
	__u64 out;
	__u64 order;
	__u64 urgent; /* the byte at `in` is urgent data */
};

enum hf_op { HF_OP_FILL = 1, HF_OP_REPLAY = 2, HF_OP_SPLICE = 3, HF_OP_CLOSE = 4, HF_OP_REAP = 5, HF_OP_TRIM = 6, HF_OP_LOSE = 7, HF_OP_SPILL = 8, HF_OP_HOLD = 9, HF_OP_YIELD = 10, HF_OP_LEAVE = 11 };

enum hf_result {
	HF_DONE = 0,
	HF_STALE = 1,       /* another generation or state than the caller thought */
	HF_MORE_INPUT = 2,  /* in_end has moved on: feed it first */
	HF_WAIT_INPUT = 3,  /* the guest has not acknowledged all input */
	HF_WAIT_OUTPUT = 4, /* the guest has not produced all the client has */
	HF_FENCED = 5,      /* the guest lost its epoch meanwhile */
	HF_AGAIN = 6,       /* not finished within the bounds of one call */
};

/* A request to the control program: every change of a flow by user space goes through it (rule F5). */
struct hf_request {
	__u32 op;
	__u32 result;
	__u32 flow;
	__u32 generation;
	__u32 slot;
	__u32 epoch;
	__u64 in_end; /* compare-and-set operand of HF_OP_SPLICE and, with `out`, of HF_OP_YIELD; trim point of HF_OP_TRIM */
	__u64 out;
	/* HF_OP_FILL; of HF_OP_SPILL the first segment and their number: compare-and-set on in_first; of HF_OP_LEAVE 1, or 0: it stays */
	__u32 first;
	__u32 count;
	__u32 stride;
	__u32 which; /* 0: flow ids, 1: small segments, 2: large segments */
};

enum hf_stat {
	HF_STAT_PASSED_OTHER,   /* not TCP of a protected port, to or from the active guest */
	HF_STAT_DROP_OTHER,     /* the same, of an inactive guest */
	HF_STAT_DROP_PARSE,     /* not fully understood: fragments, VLAN, routing headers, lying lengths */
	HF_STAT_DROP_UNKNOWN,   /* no such flow and no SYN */
	HF_STAT_DROP_NO_GUEST,  /* SYN while no guest listens */
	HF_STAT_DROP_WINDOW,    /* payload outside the guest's window */
	HF_STAT_DROP_CHECKSUM,
	HF_STAT_DROP_CONFLICT,  /* duplicate with other content */
	HF_STAT_DROP_BUSY,      /* another CPU was copying the same bytes, or too many islands */
	HF_STAT_DROP_LOG_FULL,
	HF_STAT_DROP_TABLE_FULL,
	HF_STAT_DROP_ACK,       /* ACK of what was never sent */
	HF_STAT_HELD,           /* logged or judged, not delivered */
	HF_STAT_DROP_ZOMBIE,    /* from a guest that does not own the flow in its epoch */
	HF_STAT_DROP_GUEST_RST, /* F6 */
	HF_STAT_DROP_GUEST_LIE, /* forged source, ACK of what was never logged */
	HF_STAT_DROP_ICMP,      /* an error that quotes nothing in flight of a flow that is served */
	HF_STAT_DROP_REPLAY,    /* from the replay namespace, not allowed there */
	HF_STAT_DIVERGED,
	HF_STAT_UNCOVERED,      /* output that the comparator could not capture: no room */
	HF_STAT_OPENED,
	HF_STAT_CLOSED,
	HF_STAT_ANSWERED,       /* frames of clients that were answered in a guest's place, beside the counter that says why */
	HF_STAT_UNLOGGED,       /* flows that went on without the log because it was full */
	HF_STAT_UNLOGGED_SHARE, /* the same, because they had used up their share of it */
	HF_STAT_DROP_SHARE,     /* input beyond the flow's share of the log */
	HF_STAT_DROP_OLD,       /* older than what the guest has taken, by its timestamp (RFC 7323, 5) */
	HF_STAT_MAX,
};

#endif
