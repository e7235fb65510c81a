// SPDX-License-Identifier: GPL-2.0
/* Compiled only for its type information: generate-layout.mjs reads it. */
#include <linux/types.h>
#include "crash.h"

struct {
	enum hf_crash_kind *kind;
	enum hf_crash_flag *flag;
	struct hf_crash crash;
} hf_types;
