// SPDX-License-Identifier: GPL-2.0
/*
 * South-side wrapper (SSW): the data path of one protected service.
 *
 *   client --- bridge --- port [from_wire] -> tap of the flow's owner
 *   client <-- bridge <-- port <- [from_guest] tap
 *   replay namespace --- rp [from_replay] -> tap
 *   replay namespace <-- rp <- [from_guest] tap
 *
 * A client byte's way in: parse -> find the flow -> judge it under the flow's lock -> copy it to the log ->
 * publish it -> translate -> redirect to the owner's tap. A frame that stops on the way is dropped and counted,
 * and the client's TCP sends it again; so what the guest gets, and may acknowledge, is in the log (promise P1).
 *
 * A flow is delivered only to its owner in the owner's current epoch (rule F1). Fencing a guest is one store to its
 * slot; every flow of it is held from then on. User space changes a flow only through `control_flow` below.
 *
 * Limits: no VLAN tags, no IPv6 routing headers; payload of at most 64 KiB a frame (GSO frames of up to 65,536 bytes).
 */
#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/stddef.h>
#include <linux/tcp.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"
#include "maps.h"
#include "parse.h"
#include "position.h"
#include "input.h"
#include "output.h"
#include "translate.h"
#include "handshake.h"
#include "answer.h"
#include "unlogged.h"
#include "from_wire.h"
#include "from_guest.h"
#include "from_replay.h"
#include "control_flow.h"

char LICENSE[] SEC("license") = "GPL";
