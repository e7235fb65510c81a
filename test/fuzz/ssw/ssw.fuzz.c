// SPDX-License-Identifier: GPL-2.0
/*
 * The SSW under a coverage-guided fuzzer (libFuzzer): its programs, compiled for this machine, over a double of the kernel.
 *
 *   kernel.h, maps-double.h   helpers and maps, a second CPU
 *   world.h                   one service, two guests, four clients; frames
 *   view.h                    how a receiver reads a frame, written without looking at the SSW's parser
 *   invariants.h              what has to be true after each step, and of each frame that leaves
 *   frames.h, host.h          what the ends and user space do
 *   steps.h                   what an input means: a script of that
 *
 * An input is bytes; whatever they are they mean something. `ssw FILE` plays one, SSW_TALK=1 with a word on each step.
 */
#include "kernel.h"
#include "../../../hypervisor-shim/datapath/bpf/ssw.bpf.c"
#include "world.h"
#include "view.h"
#include "invariants.h"
#include "steps.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	talk = getenv("SSW_TALK") != 0;
	make_world();
	return 0;
}

int LLVMFuzzerTestOneInput(const __u8 *bytes, size_t n)
{
	script = bytes;
	script_end = bytes + n;
	start_world(next8());
	for (int i = 0; i < STEPS_AT_MOST && script < script_end; i++)
		step();
	return 0;
}
