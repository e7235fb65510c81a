/* SPDX-License-Identifier: Apache-2.0 */
#include "common.h"
#include <fcntl.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static Napi::Value mapped(Napi::Env env, int fd, size_t bytes)
{
	void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		throwErrno(env, "mmap", errno);
	/* The kernel would copy the page tables of the whole log for each program that we start: 20 ms for 512 MiB. */
	madvise(p, bytes, MADV_DONTFORK);
	return Napi::ArrayBuffer::New(env, p, bytes, [](Napi::Env, void *at, size_t *n) {
		munmap(at, *n);
		delete n;
	}, new size_t(bytes));
}

/* mapFd(fd, bytes): shared mapping of an mmapable BPF map. */
static Napi::Value mapFd(const Napi::CallbackInfo &info)
{
	return mapped(info.Env(), intArg(info, 0), info[1].As<Napi::Number>().Int64Value());
}

/* mapFile(path, bytes): shared mapping of a file, made and grown as needed. */
static Napi::Value mapFile(const Napi::CallbackInfo &info)
{
	std::string path = stringArg(info, 0);
	int64_t bytes = info[1].As<Napi::Number>().Int64Value();
	int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat s;
	if (fd < 0)
		throwErrno(info.Env(), ("open " + path).c_str(), errno);
	if (fstat(fd, &s) || (s.st_size < bytes && ftruncate(fd, bytes))) {
		int err = errno;
		close(fd);
		throwErrno(info.Env(), ("resize " + path).c_str(), err);
	}
	try {
		Napi::Value v = mapped(info.Env(), fd, bytes);
		close(fd);
		return v;
	} catch (...) {
		close(fd);
		throw;
	}
}

/* enterNetns(path): this thread's sockets are made there from now on. */
static Napi::Value enterNetns(const Napi::CallbackInfo &info)
{
	std::string path = stringArg(info, 0);
	int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		throwErrno(info.Env(), ("open " + path).c_str(), errno);
	int rc = setns(fd, CLONE_NEWNET), err = errno;
	close(fd);
	if (rc)
		throwErrno(info.Env(), ("setns " + path).c_str(), err);
	return info.Env().Undefined();
}

/*
 * gracePeriod(): returns when every BPF program that ran at the call has ended: membarrier is synchronize_rcu(), whose wait for
 * all CPUs to pass by themselves takes 10 to 30 ms. Expedited, which is for the whole kernel, it asks them and takes less than 0.1 ms.
 */
static Napi::Value gracePeriod(const Napi::CallbackInfo &info)
{
	int fd = open("/sys/kernel/rcu_expedited", O_RDWR | O_CLOEXEC);
	char before[16];
	ssize_t n = -1;

	if (fd >= 0 && !flock(fd, LOCK_EX)) /* whoever else does this puts back what was there */
		n = pread(fd, before, sizeof before, 0);
	if (n > 0 && pwrite(fd, "1", 1, 0) != 1)
		n = -1;
	long rc = syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	int err = errno;
	if (n > 0 && pwrite(fd, before, n, 0) != n)
		n = -1; /* the kernel stays as it is: grace periods are quick from now on */
	if (fd >= 0)
		close(fd);
	if (rc)
		throwErrno(info.Env(), "membarrier", err);
	return info.Env().Undefined();
}

static Napi::Value closeFd(const Napi::CallbackInfo &info)
{
	close(intArg(info, 0));
	return info.Env().Undefined();
}

void exportKernel(Napi::Env env, Napi::Object exports)
{
	exports.Set("mapFd", Napi::Function::New(env, mapFd));
	exports.Set("mapFile", Napi::Function::New(env, mapFile));
	exports.Set("enterNetns", Napi::Function::New(env, enterNetns));
	exports.Set("gracePeriod", Napi::Function::New(env, gracePeriod));
	exports.Set("closeFd", Napi::Function::New(env, closeFd));
}
