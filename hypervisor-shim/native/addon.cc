/* SPDX-License-Identifier: Apache-2.0 */
/* Thin: each export is one kernel facility that Node lacks. What they are for stands in native.ts. */
#include "common.h"

static Napi::Object init(Napi::Env env, Napi::Object exports)
{
	exportBpf(env, exports);
	exportSockets(env, exports);
	exportKernel(env, exports);
	exportLink(env, exports);
	return exports;
}

NODE_API_MODULE(holdfast, init)
