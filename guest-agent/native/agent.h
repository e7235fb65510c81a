// What the addon's parts share.
#pragma once
#include <errno.h>
#include <napi.h>
#include <string.h>

#include <string>

inline void fail(Napi::Env env, const std::string &what, int error = errno) {
  Napi::Error::New(env, what + ": " + strerror(error)).ThrowAsJavaScriptException();
}

void export_exit_watch(Napi::Env env, Napi::Object exports);
void export_notify(Napi::Env env, Napi::Object exports);
