import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Cgroup } from './cgroup.js';
import type { ExitWatch } from './exit-watch.js';
import type { Notices } from './notices.js';
import { EXIT_UNKNOWN } from './wire/control-page.js';

/** One entry of /etc/holdfast/services.json, see also units.ts. A command in one string is given to /bin/sh. */
export interface ServiceSpec {
  name: string;
  command: string | string[];
  ports: number[];
  /** What an end with status 0 is, of a process that is not the main one: that of a session, say. Default `close`. */
  cleanExit?: 'close' | 'crash';
  /** It gives signs of life (sd_notify's WATCHDOG=1), at most so long apart, ms. Default: it need not. */
  watchdogMs?: number;
}

export interface Exit {
  service: string;
  pid: number;
  /** As from wait(2): exit code << 8, or the signal; `EXIT_UNKNOWN` for an adopted process. */
  status: number;
}

/** One service, whoever runs it. */
export interface Watched {
  readonly spec: Pick<ServiceSpec, 'name' | 'ports'>;
  /** Of its main process; 0 while it has none. */
  readonly pid: number;
  /** Somebody has stopped it on purpose: its end is no fault. True until `isBack`, also for the next agent. */
  readonly isStopped: boolean;
  /** Has it run; resolves when its main process is known. `onExit` is called once, at its end, unless it was stopped. */
  start(onExit: (exit: Exit) => void): Promise<void>;
  /** Stops it on purpose: what it closes now, it closes. Resolves when nothing of it is left. */
  stop(): Promise<void>;
  /** It was started again, and listens: from now on its end is a fault. */
  isBack(): void;
  /** Ends what its main process has left behind: it holds ports and connections. */
  clear(): Promise<void>;
  /** Pids of all its processes but the main one. */
  others(): number[];
}

const RUN = '/run/holdfast';
/** What a service may take to end when it is stopped, ms: as long as the exit watch waits for one that was told to. */
const STOP_MS = 10_000;
const EXIT_POLL_MS = 5;

/** Is there while the service is stopped on purpose. */
export const stopRecord = ({ name }: Pick<ServiceSpec, 'name'>): string => `${RUN}/${name}.stopped`;

/** One service of the image, in a cgroup of its own. */
export class Service implements Watched {
  pid = 0;
  readonly #cgroup: Cgroup | undefined;

  constructor(
    readonly spec: ServiceSpec,
    /** Its place in the image's list. */
    private readonly index: number,
    private readonly exitWatch: ExitWatch | undefined,
    private readonly notices: Notices | undefined,
  ) {
    this.#cgroup = Cgroup.of(spec.name);
    if (this.#cgroup) notices?.hear(spec, index, this.#cgroup);
  }

  get isStopped(): boolean {
    return existsSync(stopRecord(this.spec));
  }

  /** Without a cgroup nobody could tell what is left of it. */
  async stop(): Promise<void> {
    const cgroup = this.#cgroup;
    if (cgroup === undefined) throw new Error('it has no cgroup');
    writeFileSync(stopRecord(this.spec), '');
    this.#tell(this.pid);
    if (!(await cgroup.stop(STOP_MS))) await cgroup.clear();
    // The news of its end comes a little later, and must not be taken for that of the next one.
    while (this.pid !== 0) await sleep(EXIT_POLL_MS);
  }

  isBack(): void {
    rmSync(stopRecord(this.spec), { force: true });
    this.#tell(this.pid);
  }

  /** Starts the main process, or adopts the one that an earlier agent started: the death of the agent must not disturb the service. */
  async start(onExit: (exit: Exit) => void): Promise<void> {
    mkdirSync(RUN, { recursive: true });
    const record = `${RUN}/${this.spec.name}.pid`;
    const ended = (status: number, pid = this.pid) => {
      this.pid = 0;
      if (!this.isStopped) onExit({ service: this.spec.name, pid, status });
    };
    const running = adoptable(record);
    if (running !== undefined) {
      this.pid = running.pid;
      this.#tell(this.pid);
      watch(running, () => ended(EXIT_UNKNOWN));
      return;
    }
    this.#tell(0);
    const told = this.notices?.begin(this.index);
    const child = spawn('/bin/sh', this.#command(told !== undefined), {
      env: { ...process.env, ...told },
      stdio: ['ignore', 'inherit', 'inherit'],
      detached: true,
    });
    this.pid = child.pid ?? 0;
    this.#tell(this.pid);
    child.once('error', error => {
      console.error(`holdfast: ${this.spec.name}: ${error.message}`);
      if (child.pid === undefined) ended(127 << 8);
    });
    child.once('exit', (code, signal) =>
      ended(signal === null ? (code ?? 0) << 8 : constants.signals[signal]),
    );
    if (this.pid !== 0)
      writeFileSync(record, JSON.stringify({ pid: this.pid, startTime: startTime(this.pid) }));
  }

  async clear(): Promise<void> {
    await this.#cgroup?.clear();
  }

  others(): number[] {
    return this.#cgroup?.members().filter(pid => pid !== this.pid) ?? [];
  }

  #command(isWatched: boolean): string[] {
    const { command } = this.spec;
    const [file = '/bin/sh', ...args] =
      typeof command === 'string' ? ['/bin/sh', '-c', `exec ${command}`] : command;
    // The agent is not to be killed for want of memory; what it starts may be.
    const steps = ['echo 0 >/proc/self/oom_score_adj', 'exec "$@"'];
    // sd_watchdog_enabled(3): the variables of the watchdog are meant for this process alone.
    if (isWatched) steps.unshift('export WATCHDOG_PID=$$');
    if (this.#cgroup) steps.unshift(`echo 0 >${this.#cgroup.path}/cgroup.procs`);
    return ['-c', steps.join('; '), 'sh', file, ...args];
  }

  #tell(main: number): void {
    if (this.#cgroup) this.exitWatch?.watch(this.#cgroup, this.index, main, this.spec, this.isStopped);
  }
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
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
