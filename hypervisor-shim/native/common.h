/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <cerrno>
#include <cstring>
#include <napi.h>
#include <string>

/* Throws a JS Error with `errno` and `syscall`, as Node's own calls do. */
[[noreturn]] inline void throwErrno(Napi::Env env, const char *what, int err)
{
	Napi::Error e = Napi::Error::New(env, std::string(what) + ": " + strerror(err));
	e.Set("errno", Napi::Number::New(env, err));
	e.Set("syscall", Napi::String::New(env, what));
	throw e;
}

inline int check(Napi::Env env, const char *what, int rc)
{
	if (rc < 0)
		throwErrno(env, what, errno);
	return rc;
}

inline int intArg(const Napi::CallbackInfo &info, size_t i) { return info[i].As<Napi::Number>().Int32Value(); }
inline uint32_t uintArg(const Napi::CallbackInfo &info, size_t i) { return info[i].As<Napi::Number>().Uint32Value(); }
inline std::string stringArg(const Napi::CallbackInfo &info, size_t i) { return info[i].As<Napi::String>().Utf8Value(); }
inline Napi::Uint8Array bytesArg(const Napi::CallbackInfo &info, size_t i) { return info[i].As<Napi::Uint8Array>(); }

void exportBpf(Napi::Env env, Napi::Object exports);
void exportSockets(Napi::Env env, Napi::Object exports);
void exportKernel(Napi::Env env, Napi::Object exports);
void exportLink(Napi::Env env, Napi::Object exports);
