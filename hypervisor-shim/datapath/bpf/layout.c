// SPDX-License-Identifier: GPL-2.0
/* Compiled only for its type information: generate-layout.mjs reads it. Every type that user space needs is named. */
#include <linux/bpf.h>
#include "layout.h"

struct {
	enum hf_const *constants;
	enum hf_role *role;
	enum hf_state *state;
	enum hf_kind *kind;
	enum hf_option *option;
	enum hf_on_full *on_full;
	enum hf_unlogged *unlogged;
	enum hf_table_full *table_full;
	enum hf_divergence *divergence;
	enum hf_compare *compare;
	enum hf_op *op;
	enum hf_result *result;
	enum hf_stat *stat;
	struct hf_flow flow;
	struct hf_control control;
	struct hf_request request;
	struct hf_seg_key seg_key;
	struct hf_seg_header seg_header;
	struct hf_mark mark;
} hf_types;
