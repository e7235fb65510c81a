/** Services that systemd runs, in a Debian of somebody's own. What is asked of systemd is asked here, by systemctl(1). */
import { execFile } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Cgroup } from './cgroup.js';
import type { ExitWatch } from './exit-watch.js';
import { type Exit, type ServiceSpec, startTime, stopRecord, type Watched } from './services.js';
import { EXIT_UNKNOWN } from './wire/control-page.js';

/** An entry of services.json for a unit of systemd's. */
export interface UnitSpec extends Omit<ServiceSpec, 'command' | 'watchdogMs'> {
  /** Such as `nginx.service`. */
  unit: string;
}

/** How often its main process is looked at, ms: that it ended the exit watch has told long before. */
const LOOK_MS = 50;
/** Until systemd has collected a process that is seen to have ended, ms, and how often it is asked. */
const COLLECT_MS = 20;
const COLLECT_TRIES = 10;
/** Of a unit that systemd could not start: as if a program had exited with 1. */
const NOT_STARTED = 1 << 8;

/** Values of ExecMainCode: si_code of waitid(2). */
const CLD_EXITED = 1;

/**
 * One unit. Its cgroup is systemd's, a new one at each start. An end of its main process is reported as any service's, whatever
 * systemd does about it (`Restart=`): what follows is the host's word, and `start` finds what systemd has started meanwhile.
 */
export class Unit implements Watched {
  pid = 0;
  #cgroup: Cgroup | undefined;

  constructor(
    readonly spec: UnitSpec,
    /** Its place in the list. */
    private readonly index: number,
    private readonly exitWatch: ExitWatch | undefined,
  ) {}

  /** Has systemd start it, unless it runs. Resolves when its main process is known and watched, or `onExit` was called. */
  async start(onExit: (exit: Exit) => void): Promise<void> {
    const ended = (status: number, pid = this.pid) => {
      this.pid = 0;
      if (!this.isStopped) onExit({ service: this.spec.name, pid, status });
    };
    try {
      await systemctl('start', this.spec.unit);
      const { MainPID, ControlGroup } = await this.#show('MainPID', 'ControlGroup');
      const pid = Number(MainPID);
      const since = startTime(pid);
      this.#cgroup = ControlGroup ? Cgroup.find(ControlGroup) : undefined;
      if (pid === 0 || since === undefined) throw new Error('it has no main process');
      this.pid = pid;
      this.#tell();
      void this.#end(pid, since).then(ended);
    } catch (error) {
      console.error(`holdfast: ${this.spec.unit}: ${(error as Error).message.trim()}`);
      ended(NOT_STARTED, 0);
    }
  }

  get isStopped(): boolean {
    return existsSync(stopRecord(this.spec));
  }

  async stop(): Promise<void> {
    writeFileSync(stopRecord(this.spec), '');
    this.#tell();
    await systemctl('stop', this.spec.unit);
    while (this.pid !== 0) await sleep(COLLECT_MS);
  }

  isBack(): void {
    rmSync(stopRecord(this.spec), { force: true });
    this.#tell();
  }

  async clear(): Promise<void> {
    await this.#cgroup?.clear();
  }

  others(): number[] {
    return this.#cgroup?.members().filter(pid => pid !== this.pid) ?? [];
  }

  /** Resolves when that process has ended, with its status as from wait(2); `EXIT_UNKNOWN` if systemd has started another meanwhile. */
  async #end(pid: number, since: string): Promise<number> {
    while (startTime(pid) === since) await sleep(LOOK_MS);
    for (let tries = 0; tries < COLLECT_TRIES; tries++) {
      const asked = await this.#show('MainPID', 'ExecMainPID', 'ExecMainCode', 'ExecMainStatus').catch(
        (): Record<string, string> => ({}),
      );
      if (Number(asked.ExecMainPID) !== pid) break;
      if (Number(asked.MainPID) !== pid) {
        const status = Number(asked.ExecMainStatus);
        return Number(asked.ExecMainCode) === CLD_EXITED ? status << 8 : status;
      }
      await sleep(COLLECT_MS);
    }
    return EXIT_UNKNOWN;
  }

  #tell(): void {
    if (this.#cgroup) this.exitWatch?.watch(this.#cgroup, this.index, this.pid, this.spec, this.isStopped);
  }

  async #show(...properties: string[]): Promise<Record<string, string | undefined>> {
    return parseProperties(await systemctl('show', `--property=${properties}`, this.spec.unit));
  }
}

async function systemctl(verb: string, ...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('systemctl', [verb, '--no-ask-password', ...args]);
  return stdout;
}

/** Lines `NAME=VALUE`. */
export function parseProperties(text: string): Record<string, string> {
  const lines = text.split('\n').filter(line => line.includes('='));
  return Object.fromEntries(
    lines.map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
}
