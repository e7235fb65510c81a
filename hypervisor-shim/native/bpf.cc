/* SPDX-License-Identifier: Apache-2.0 */
#include "common.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>
#include <vector>

static std::string lastLog; /* libbpf's own words on a failed load: the only place where the verifier's reason stands */

static int keepLog(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[1024];
	if (level == LIBBPF_DEBUG)
		return 0;
	vsnprintf(line, sizeof line, format, args);
	lastLog += line;
	if (lastLog.size() > 8192)
		lastLog.erase(0, lastLog.size() - 8192);
	return 0;
}

/* bpfLoad(object, pinDirectory, { map: maxEntries }): loads, pins every map and program under its name. */
static Napi::Value bpfLoad(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	std::string path = stringArg(info, 0), dir = stringArg(info, 1);
	Napi::Object sizes = info[2].As<Napi::Object>();

	lastLog.clear();
	libbpf_set_print(keepLog);
	struct bpf_object *object = bpf_object__open_file(path.c_str(), nullptr);
	if (!object)
		throwErrno(env, ("open " + path).c_str(), errno);
	struct bpf_map *map;
	bpf_object__for_each_map(map, object)
	{
		const char *name = bpf_map__name(map);
		if (sizes.Has(name))
			bpf_map__set_max_entries(map, sizes.Get(name).As<Napi::Number>().Uint32Value());
	}
	struct bpf_program *program;
	bpf_object__for_each_program(program, object)
	{
		if (std::string(bpf_program__section_name(program)) == "tc")
			bpf_program__set_type(program, BPF_PROG_TYPE_SCHED_CLS);
	}
	int err = bpf_object__load(object);
	if (!err) {
		bpf_object__for_each_map(map, object)
		{
			if (!err && !bpf_map__is_internal(map))
				err = bpf_map__pin(map, (dir + "/" + bpf_map__name(map)).c_str());
		}
		bpf_object__for_each_program(program, object)
		{
			if (!err)
				err = bpf_program__pin(program, (dir + "/" + bpf_program__name(program)).c_str());
		}
	}
	bpf_object__close(object); /* the pins keep what was made */
	if (err)
		throwErrno(env, ("load " + path + "\n" + lastLog).c_str(), -err);
	return env.Undefined();
}

static Napi::Value bpfGet(const Napi::CallbackInfo &info)
{
	std::string path = stringArg(info, 0);
	int fd = bpf_obj_get(path.c_str());
	if (fd < 0)
		throwErrno(info.Env(), ("bpf_obj_get " + path).c_str(), errno);
	return Napi::Number::New(info.Env(), fd);
}

/* mapLookup(fd, key, value, flags): fills `value`; false if there is no such key. */
static Napi::Value mapLookup(const Napi::CallbackInfo &info)
{
	if (!bpf_map_lookup_elem_flags(intArg(info, 0), bytesArg(info, 1).Data(), bytesArg(info, 2).Data(), uintArg(info, 3)))
		return Napi::Boolean::New(info.Env(), true);
	if (errno != ENOENT)
		throwErrno(info.Env(), "bpf_map_lookup_elem", errno);
	return Napi::Boolean::New(info.Env(), false);
}

/* mapNextKey(fd, key | undefined, next): fills `next`; false at the end. */
static Napi::Value mapNextKey(const Napi::CallbackInfo &info)
{
	const void *key = info[1].IsUndefined() ? nullptr : bytesArg(info, 1).Data();
	if (!bpf_map_get_next_key(intArg(info, 0), key, bytesArg(info, 2).Data()))
		return Napi::Boolean::New(info.Env(), true);
	if (errno != ENOENT)
		throwErrno(info.Env(), "bpf_map_get_next_key", errno);
	return Napi::Boolean::New(info.Env(), false);
}

/*
 * arrayScan(fd, first, bytes, at, flags, ids: Uint32Array): of the elements [first, first + ids.length) of an array map, each of
 * `bytes`, those whose byte `at` is not 0, back to back in a new buffer; their indices in `ids`.
 */
static Napi::Value arrayScan(const Napi::CallbackInfo &info)
{
	__u32 first = uintArg(info, 1), bytes = uintArg(info, 2), at = uintArg(info, 3), before = first - 1, next = 0;
	Napi::Uint32Array ids = info[5].As<Napi::Uint32Array>();
	__u32 count = ids.ElementLength(), found = 0;
	std::vector<__u32> keys(count);
	std::vector<uint8_t> values((size_t)count * bytes);
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = uintArg(info, 4));
	if (bpf_map_lookup_batch(intArg(info, 0), first ? &before : nullptr, &next, keys.data(), values.data(), &count,
				 &opts) && errno != ENOENT) /* ENOENT: the array's end */
		throwErrno(info.Env(), "bpf_map_lookup_batch", errno);
	for (__u32 i = 0; i < count; i++) {
		if (!values[(size_t)i * bytes + at])
			continue;
		memmove(&values[(size_t)found * bytes], &values[(size_t)i * bytes], bytes);
		ids[found++] = keys[i];
	}
	return Napi::Buffer<uint8_t>::Copy(info.Env(), values.data(), (size_t)found * bytes);
}

static Napi::Value mapInfo(const Napi::CallbackInfo &info)
{
	struct bpf_map_info m = {};
	__u32 length = sizeof m;
	check(info.Env(), "bpf_obj_get_info_by_fd", bpf_obj_get_info_by_fd(intArg(info, 0), &m, &length));
	Napi::Object o = Napi::Object::New(info.Env());
	o.Set("maxEntries", m.max_entries);
	o.Set("valueSize", m.value_size);
	o.Set("keySize", m.key_size);
	return o;
}

/* programRun(fd, request): runs a tc program once with `request` as its frame; what it makes of it is written back. */
static Napi::Value programRun(const Napi::CallbackInfo &info)
{
	Napi::Uint8Array request = bytesArg(info, 1);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = request.Data(), .data_out = request.Data(),
		    .data_size_in = (__u32)request.ByteLength(), .data_size_out = (__u32)request.ByteLength(), .repeat = 1);
	int err = bpf_prog_test_run_opts(intArg(info, 0), &opts);
	if (err)
		throwErrno(info.Env(), "BPF_PROG_TEST_RUN", -err);
	return Napi::Number::New(info.Env(), opts.retval);
}

/* programTest(fd, frame, ifindex, repeat): runs a tc program over one frame; { action, frame, ns }. */
static Napi::Value programTest(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	Napi::Uint8Array frame = bytesArg(info, 1);
	Napi::Buffer<uint8_t> out = Napi::Buffer<uint8_t>::New(env, frame.ByteLength() + 256);
	struct __sk_buff skb = {};
	skb.ifindex = uintArg(info, 2);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame.Data(), .data_out = out.Data(),
		    .data_size_in = (__u32)frame.ByteLength(), .data_size_out = (__u32)out.ByteLength(), .ctx_in = &skb,
		    .ctx_size_in = sizeof skb, .repeat = intArg(info, 3));
	int err = bpf_prog_test_run_opts(intArg(info, 0), &opts);
	if (err)
		throwErrno(env, "BPF_PROG_TEST_RUN", -err);
	Napi::Object o = Napi::Object::New(env);
	o.Set("action", Napi::Number::New(env, opts.retval));
	o.Set("frame", Napi::Buffer<uint8_t>::Copy(env, out.Data(), opts.data_size_out));
	o.Set("ns", Napi::Number::New(env, opts.duration));
	return o;
}

/* tcAttach(ifindex, programFd, egress): at clsact ingress or egress, replacing an earlier one of ours. */
static Napi::Value tcAttach(const Napi::CallbackInfo &info)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = intArg(info, 0),
		    .attach_point = info[2].ToBoolean() ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = intArg(info, 1), .flags = BPF_TC_F_REPLACE, .handle = 1, .priority = 1);
	libbpf_set_print(keepLog);
	int err = bpf_tc_hook_create(&hook);
	if (err && err != -EEXIST)
		throwErrno(info.Env(), "clsact", -err);
	err = bpf_tc_attach(&hook, &opts);
	if (err)
		throwErrno(info.Env(), "tc attach", -err);
	return info.Env().Undefined();
}

static Napi::Value programStats(const Napi::CallbackInfo &info)
{
	struct bpf_prog_info p = {};
	__u32 length = sizeof p;
	check(info.Env(), "bpf_obj_get_info_by_fd", bpf_obj_get_info_by_fd(intArg(info, 0), &p, &length));
	Napi::Object o = Napi::Object::New(info.Env());
	o.Set("runs", Napi::Number::New(info.Env(), p.run_cnt));
	o.Set("ns", Napi::Number::New(info.Env(), p.run_time_ns));
	return o;
}

/* enableStats(): the kernel measures BPF run times while the returned descriptor is open. */
static Napi::Value enableStats(const Napi::CallbackInfo &info)
{
	return Napi::Number::New(info.Env(), check(info.Env(), "BPF_ENABLE_STATS", bpf_enable_stats(BPF_STATS_RUN_TIME)));
}

void exportBpf(Napi::Env env, Napi::Object exports)
{
	exports.Set("bpfLoad", Napi::Function::New(env, bpfLoad));
	exports.Set("bpfGet", Napi::Function::New(env, bpfGet));
	exports.Set("mapLookup", Napi::Function::New(env, mapLookup));
	exports.Set("mapNextKey", Napi::Function::New(env, mapNextKey));
	exports.Set("arrayScan", Napi::Function::New(env, arrayScan));
	exports.Set("mapInfo", Napi::Function::New(env, mapInfo));
	exports.Set("programRun", Napi::Function::New(env, programRun));
	exports.Set("programTest", Napi::Function::New(env, programTest));
	exports.Set("tcAttach", Napi::Function::New(env, tcAttach));
	exports.Set("programStats", Napi::Function::New(env, programStats));
	exports.Set("enableStats", Napi::Function::New(env, enableStats));
}
