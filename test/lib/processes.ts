import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { cleanEnv, sleep } from './run.js';

/**
 * Processes this laboratory started, each the leader of a process group of its own, so that stopping one also stops what
 * it forked, and nothing else: a group is only signalled while its leader is our unreaped child, so the id cannot
 * have been reused.
 */
export class ProcessGroups {
  readonly #alive = new Set<ChildProcess>();

  spawn(
    argv: readonly string[],
    options: { env?: NodeJS.ProcessEnv; cwd?: string; stdio?: StdioOptions } = {},
  ): ChildProcess {
    const child = spawn(argv[0]!, argv.slice(1), {
      cwd: options.cwd,
      env: options.env ?? cleanEnv(),
      stdio: options.stdio ?? ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    this.#alive.add(child);
    const forget = () => this.#alive.delete(child);
    child.on('exit', forget);
    child.on('error', forget);
    return child;
  }

  owns(pid: number): boolean {
    for (const child of this.#alive) if (child.pid === pid) return true;
    return false;
  }

  /** SIGTERM to the group, SIGKILL after `graceMs`; resolves when the leader is gone. */
  async stop(child: ChildProcess, graceMs = 2000): Promise<void> {
    if (!this.#alive.has(child)) return;
    const gone = once(child, 'exit');
    this.#signal(child, 'SIGTERM');
    const timer = setTimeout(() => this.#signal(child, 'SIGKILL'), graceMs);
    await gone;
    clearTimeout(timer);
  }

  async stopAll(graceMs = 2000): Promise<void> {
    await Promise.all([...this.#alive].map(child => this.stop(child, graceMs)));
  }

  /** For the process's own `exit` event, where nothing can be awaited. */
  killAllNow(): void {
    for (const child of this.#alive) this.#signal(child, 'SIGKILL');
  }

  #signal(child: ChildProcess, signal: NodeJS.Signals): void {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    signalQuietly(-child.pid, signal);
  }
}

export function signalQuietly(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // gone meanwhile
  }
}

/** Start time of a process in clock ticks since boot: with the pid it names a process for good. */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** SIGTERM, a grace, then SIGKILL for processes that are not our children (they were found in our own namespace). */
export async function endProcesses(pids: () => Promise<number[]>, graceMs = 2000): Promise<void> {
  const first = new Map((await pids()).map(pid => [pid, startTime(pid)]));
  for (const pid of first.keys()) signalQuietly(pid, 'SIGTERM');
  const deadline = performance.now() + graceMs;
  while (performance.now() < deadline && (await pids()).length > 0) await sleep(50);
  for (const pid of await pids()) signalQuietly(pid, 'SIGKILL');
  for (let i = 0; i < 40 && (await pids()).length > 0; i++) await sleep(50);
}

/** All processes that mention `text` on their command line or have a mount from below it. */
export function processesOf(text: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => pid > 0 && pid !== process.pid)
    .filter(pid => {
      try {
        const said =
          readFileSync(`/proc/${pid}/cmdline`, 'latin1') + readFileSync(`/proc/${pid}/mountinfo`, 'latin1');
        return said.includes(text);
      } catch {
        return false;
      }
    });
}
