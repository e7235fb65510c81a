import { readdirSync, readFileSync } from 'node:fs';

/** What a process has got of its host so far. */
export interface Threads {
  /** By thread id. */
  tasks: Map<string, Thread>;
  /** Of each CPU, ms: the host's own hypervisor had it. Threads that ran there seem to have run on. */
  stolenMs: number[];
}

interface Thread {
  kind: 'vcpu' | 'main' | 'other';
  cpuMs: number;
  waitedMs: number;
  blocked: boolean;
}

/** libvirt lets QEMU name its threads: `CPU 0/KVM`, or `CPU 0/TCG`. */
const VCPU = /^(CPU \d+|ALL CPUs)\//;

/** From schedstat: time on a CPU and time waiting for one, ns. */
export function readThreads(pid: number | undefined): Threads {
  const threads: Threads = { tasks: new Map(), stolenMs: readStolen() };
  if (pid === undefined) return threads;
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const path = `/proc/${pid}/task/${task}`;
      const [cpu, waited] = readFileSync(`${path}/schedstat`, 'latin1').split(' ');
      const stat = readFileSync(`${path}/stat`, 'latin1');
      threads.tasks.set(task, {
        kind: VCPU.test(readFileSync(`${path}/comm`, 'latin1'))
          ? 'vcpu'
          : task === `${pid}`
            ? 'main'
            : 'other',
        cpuMs: Number(cpu) / 1e6,
        waitedMs: Number(waited) / 1e6,
        blocked: stat[stat.lastIndexOf(')') + 2] === 'D',
      });
    }
  } catch {
    // A thread or the process ended meanwhile; the end of the process has an event of its own.
  }
  return threads;
}

/** The eighth column of a CPU in /proc/stat, in hundredths of a second (proc(5)). */
function readStolen(): number[] {
  const lines = readFileSync('/proc/stat', 'latin1').match(/^cpu\d+ .*$/gm) ?? [];
  return lines.map(line => Number(line.split(' ')[8]) * 10);
}

export interface Usage {
  /** Of that vCPU which used the most, and of all other threads. */
  vcpuMs: number;
  emulatorMs: number;
  /** What the main thread, and the vCPU that waited the longest, waited for a CPU: a heartbeat needs both, and nobody else. */
  mainWaitedMs: number;
  vcpuWaitedMs: number;
  /** Of that CPU which was stolen for the longest. */
  stolenMs: number;
  /** Such a thread waits for the host's disk or memory. */
  blocked: boolean;
}

/** What was used between two readings: of each thread on its own, because threads come and go. */
export function usedSince(before: Threads, after: Threads): Usage {
  const stolenMs = Math.max(0, ...after.stolenMs.map((ms, cpu) => ms - (before.stolenMs[cpu] ?? ms)));
  const usage = { vcpuMs: 0, emulatorMs: 0, mainWaitedMs: 0, vcpuWaitedMs: 0, stolenMs, blocked: false };
  for (const [task, { kind, cpuMs, waitedMs, blocked }] of after.tasks) {
    const first = before.tasks.get(task);
    const used = cpuMs - (first?.cpuMs ?? 0);
    const waited = waitedMs - (first?.waitedMs ?? 0);
    if (kind === 'vcpu') usage.vcpuMs = Math.max(usage.vcpuMs, used);
    else usage.emulatorMs += used;
    if (kind === 'vcpu') usage.vcpuWaitedMs = Math.max(usage.vcpuWaitedMs, waited);
    if (kind === 'main') usage.mainWaitedMs = waited;
    if (kind !== 'other') usage.blocked ||= blocked;
  }
  return usage;
}
