import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { EXIT_UNKNOWN } from './wire/control-page.js';

/** One entry of /etc/holdfast/services.json. A command in one string is given to /bin/sh. */
export interface ServiceSpec {
  name: string;
  command: string | string[];
  ports: number[];
}

export interface Exit {
  service: string;
  pid: number;
  /** As from wait(2): exit code << 8, or the signal; `EXIT_UNKNOWN` for an adopted process. */
  status: number;
}

const RUN = '/run/holdfast';

/**
 * Starts the service, or adopts the process that an earlier agent started: the death of the agent must not disturb
 * the service. `onExit` is called once. Returns the pid.
 */
export function startService(spec: ServiceSpec, onExit: (exit: Exit) => void): number {
  mkdirSync(RUN, { recursive: true });
  const record = `${RUN}/${spec.name}.pid`;
  const running = adoptable(record);
  if (running !== undefined) {
    watch(running, () => onExit({ service: spec.name, pid: running.pid, status: EXIT_UNKNOWN }));
    return running.pid;
  }
  const [file = '/bin/sh', ...args] =
    typeof spec.command === 'string' ? ['/bin/sh', '-c', `exec ${spec.command}`] : spec.command;
  // The agent is not to be killed for want of memory; what it starts may be.
  const killable = ['-c', 'echo 0 >/proc/self/oom_score_adj; exec "$@"', 'sh', file, ...args];
  const child = spawn('/bin/sh', killable, { stdio: ['ignore', 'inherit', 'inherit'], detached: true });
  const pid = child.pid ?? 0;
  child.once('error', error => {
    console.error(`holdfast: ${spec.name}: ${error.message}`);
    if (pid === 0) onExit({ service: spec.name, pid, status: 127 << 8 });
  });
  child.once('exit', (code, signal) => {
    const status = signal === null ? (code ?? 0) << 8 : constants.signals[signal];
    onExit({ service: spec.name, pid, status });
  });
  if (pid !== 0) writeFileSync(record, JSON.stringify({ pid, startTime: startTime(pid) }));
  return pid;
}

interface Process {
  pid: number;
  startTime: string | undefined;
}

/** Pid numbers are used again, so a process counts as the recorded one only with the same start time. */
function adoptable(record: string): Process | undefined {
  try {
    const process = JSON.parse(readFileSync(record, 'utf8')) as Process;
    return process.startTime !== undefined && startTime(process.pid) === process.startTime
      ? process
      : undefined;
  } catch {
    return undefined;
  }
}

/** Only a parent is told of an exit; the process of an earlier agent is polled. */
function watch(process: Process, ended: () => void): void {
  const timer = setInterval(() => {
    if (startTime(process.pid) === process.startTime) return;
    clearInterval(timer);
    ended();
  }, 50);
}

/** Field 22 of /proc/pid/stat; undefined when there is no such process, or only its zombie. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
