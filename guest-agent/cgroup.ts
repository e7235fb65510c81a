import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const ROOT = '/sys/fs/cgroup';
const POLL_MS = 5;

/** A cgroup (v2) of one service: all its processes, however they were started, and nothing else. systemd's come and go with each start. */
export class Cgroup {
  private constructor(
    readonly path: string,
    /** As BPF programs know it. */
    readonly id: bigint,
  ) {}

  /** Makes it, or finds it; undefined where cgroups of version 2 are not mounted. */
  static of(service: string): Cgroup | undefined {
    const path = `${ROOT}/holdfast.${service}`;
    try {
      readFileSync(`${ROOT}/cgroup.procs`);
      mkdirSync(path, { recursive: true });
      return new Cgroup(path, statSync(path, { bigint: true }).ino);
    } catch {
      return undefined;
    }
  }

  /** The one of that name, such as /system.slice/nginx.service; undefined if there is none. */
  static find(name: string): Cgroup | undefined {
    const path = `${ROOT}${name}`;
    const id = inodeOf(path);
    return id === undefined ? undefined : new Cgroup(path, id);
  }

  /** Pids of its processes. */
  members(): number[] {
    return this.#read('cgroup.procs').split('\n').filter(Boolean).map(Number);
  }

  /** Whether a process is in it, or below it; false if it has ended. */
  has(pid: number): boolean {
    try {
      const own = readFileSync(`/proc/${pid}/cgroup`, 'latin1');
      const place = /^0::(.*)$/m.exec(own)?.[1];
      const wanted = this.path.slice(ROOT.length);
      return place === wanted || place?.startsWith(`${wanted}/`) === true;
    } catch {
      return false;
    }
  }

  /** Tells all that is in it to end; resolves with whether nothing is, `withinMs` later at most. */
  async stop(withinMs: number): Promise<boolean> {
    for (const pid of this.members()) {
      try {
        process.kill(pid, 'SIGTERM');
      } catch {
        // it has ended meanwhile
      }
    }
    for (const deadline = performance.now() + withinMs; !this.#isEmpty(); await sleep(POLL_MS)) {
      if (performance.now() > deadline) return false;
    }
    return true;
  }

  /** Kills all that is in it; resolves when nothing is. */
  async clear(): Promise<void> {
    if (inodeOf(this.path) !== this.id) return;
    writeFileSync(`${this.path}/cgroup.kill`, '1');
    while (!this.#isEmpty()) await sleep(POLL_MS);
  }

  #isEmpty(): boolean {
    return !this.#read('cgroup.events').includes('populated 1');
  }

  /** Nothing if it has been removed. */
  #read(file: string): string {
    try {
      return inodeOf(this.path) === this.id ? readFileSync(`${this.path}/${file}`, 'latin1') : '';
    } catch {
      return '';
    }
  }
}

const inodeOf = (path: string): bigint | undefined =>
  statSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
