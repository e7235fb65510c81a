// The part of the guest agent that must neither wait for an event loop nor end with one: a real-time process that beats on
// the control page, follows the host's epoch and carries out its command word, or passes on what is the event loop's to do.
//
//   holdfast-heart agent=PID page=FILE lock=FILE commands=FIFO haltModule=FILE NAME=NUMBER...
//
// The numbers are those of heart.ts, which has them from wire/control-page.ts.
// One heart beats: the one that holds the lock (process name heart-beating). The next waits for its end, as its agent's child,
// and ends with that agent; the one that beats outlives agents.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BEAT_PRIORITY 50
#define SPIN_PRIORITY 99

static struct {
	uint32_t heartbeat, epochEcho, commandEcho, clockEcho, starts;
	uint32_t activationSeq, epoch, wallClockNs, command, commandId;
	uint32_t panic, halt, spin, reboot, poweroff;
	uint32_t beatMs, backupBeatMs, clockToleranceMs, powerOffSignal;
} at;
static volatile uint8_t *page;
static int sysrq, halt_module, commands;

static volatile uint32_t *u32(uint32_t offset) { return (volatile uint32_t *)(page + offset); }
static volatile uint64_t *u64(uint32_t offset) { return (volatile uint64_t *)(page + offset); }

static void die(const char *what)
{
	fprintf(stderr, "holdfast-heart: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void follow_epoch(void)
{
	const uint32_t seq = *u32(at.activationSeq);
	atomic_thread_fence(memory_order_acquire);
	const uint32_t epoch = *u32(at.epoch);
	const int64_t wall = (int64_t)*u64(at.wallClockNs);
	atomic_thread_fence(memory_order_acquire);
	// A torn read is tried again at the next beat.
	if ((seq & 1) || *u32(at.activationSeq) != seq || seq == *u32(at.clockEcho))
		return;
	const int64_t off = now_ns(CLOCK_REALTIME) - wall;
	const int64_t tolerance = at.clockToleranceMs * 1000000LL;
	if (wall > 0 && (off > tolerance || off < -tolerance)) {
		const struct timespec t = {wall / 1000000000LL, wall % 1000000000LL};
		clock_settime(CLOCK_REALTIME, &t);
	}
	*u32(at.clockEcho) = seq;
	// The host replays connections once it reads this: the clock is right by then.
	atomic_thread_fence(memory_order_release);
	*u32(at.epochEcho) = epoch;
}

static void *spin(void *unused)
{
	for (volatile uint32_t i = 0;; i = i + 1) {
	}
	return unused;
}

static void start_spinner(int cpu)
{
	pthread_attr_t attr;
	pthread_t thread;
	const struct sched_param param = {SPIN_PRIORITY};
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_attr_init(&attr);
	pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
	pthread_attr_setschedparam(&attr, &param);
	pthread_attr_setstacksize(&attr, 64 << 10);
	pthread_attr_setaffinity_np(&attr, sizeof set, &set);
	pthread_create(&thread, &attr, spin, NULL);
}

// From the last CPU to the first: the one that we run on goes on until its spinner is there.
static void spin_everywhere(void)
{
	const int throttle = open("/proc/sys/kernel/sched_rt_runtime_us", O_WRONLY | O_CLOEXEC);
	if (throttle < 0 || write(throttle, "-1", 2) != 2)
		return;
	const int self = sched_getcpu();
	for (int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1; cpu >= 0; cpu--)
		if (cpu != self)
			start_spinner(cpu);
	start_spinner(self);
}

static void obey(void)
{
	const uint32_t id = *u32(at.commandId);
	if (id == *u32(at.commandEcho))
		return;
	atomic_thread_fence(memory_order_acquire);
	const uint32_t command = *u32(at.command);
	// Echoed first: the next boot on the same page must not carry it out again.
	*u32(at.commandEcho) = id;
	if (command == at.panic && write(sysrq, "c", 1) != 1)
		return;
	if (command == at.halt)
		syscall(SYS_finit_module, halt_module, "", 0);
	if (command == at.spin)
		spin_everywhere();
	if (command == at.reboot)
		reboot(RB_AUTOBOOT);
	if (command == at.poweroff)
		kill(1, at.powerOffSignal);
	// What lies in the FIFO while no agent lives is the next one's: every heart has it open.
	if (command > at.poweroff && write(commands, &command, sizeof command) < 0)
		perror("holdfast-heart: pass on a command");
}

static void beat(void)
{
	struct timespec next;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		*u64(at.heartbeat) += 1;
		follow_epoch();
		obey();
		next.tv_nsec += (*u32(at.epochEcho) == 0 ? at.backupBeatMs : at.beatMs) * 1000000L;
		if (next.tv_nsec >= 1000000000L)
			next.tv_sec += 1, next.tv_nsec -= 1000000000L;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
		// After a long pause do not make up for the beats that were missed.
		if (now_ns(CLOCK_MONOTONIC) - (next.tv_sec * 1000000000LL + next.tv_nsec) > 1000000000LL)
			clock_gettime(CLOCK_MONOTONIC, &next);
	}
}

// Until this process holds it, it ends with its agent. The lock is never given back: it goes with the process.
static void wait_for_lock(const char *file, pid_t agent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != agent)
		exit(0);
	const int lock = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0)
		die(file);
	while (flock(lock, LOCK_EX) != 0)
		if (errno != EINTR)
			die(file);
	prctl(PR_SET_PDEATHSIG, 0);
	prctl(PR_SET_NAME, "heart-beating");
}

static void map_page(const char *file)
{
	struct stat is;
	const int fd = open(file, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &is) != 0)
		die(file);
	page = mmap(NULL, is.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		die(file);
	close(fd);
}

static const char *word(char **argv, const char *name)
{
	const size_t length = strlen(name);
	for (char **arg = argv + 1; *arg; arg++)
		if (strncmp(*arg, name, length) == 0 && (*arg)[length] == '=')
			return *arg + length + 1;
	fprintf(stderr, "holdfast-heart: no %s=\n", name);
	exit(2);
}

int main(int argc, char **argv)
{
	(void)argc;
#define READ(name) at.name = strtoul(word(argv, #name), NULL, 10)
	READ(heartbeat), READ(epochEcho), READ(commandEcho), READ(clockEcho), READ(starts);
	READ(activationSeq), READ(epoch), READ(wallClockNs), READ(command), READ(commandId);
	READ(panic), READ(halt), READ(spin), READ(reboot), READ(poweroff);
	READ(beatMs), READ(backupBeatMs), READ(clockToleranceMs), READ(powerOffSignal);
	map_page(word(argv, "page"));
	sysrq = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
	halt_module = open(word(argv, "haltModule"), O_RDONLY | O_CLOEXEC);
	commands = open(word(argv, "commands"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (commands < 0)
		die("commands");
	// Small and static, so all of it stays in memory, whatever others need.
	if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
		die("mlockall");
	const struct sched_param priority = {BEAT_PRIORITY};
	if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0)
		die("sched_setscheduler");
	wait_for_lock(word(argv, "lock"), strtol(word(argv, "agent"), NULL, 10));
	*u32(at.starts) += 1;
	beat();
}
