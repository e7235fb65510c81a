import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type {
  ConnectionStatus,
  DrillFault,
  GuestStatus,
  HoldfastEvent,
  RecoveryReport,
  ServiceStatus,
} from '../../supervisor/api/types.js';
import type { Lab } from './lab.js';
import { cleanEnv, type RunResult, repositoryRoot, waitFor } from './run.js';

/** Longest an operation on emulated guests may take, ms. */
const OPERATION_MS = 5 * 60_000;

/** The real `holdfast` command, run in a laboratory's host namespace with state directory and socket of its own. */
export class Supervisor {
  readonly stateDir: string;
  readonly socket: string;

  constructor(readonly lab: Lab) {
    this.stateDir = join(lab.dir, 'state');
    this.socket = join(lab.dir, 'control.sock');
  }

  /** Writes the configuration, starts the daemon and resolves when the service is protected. */
  async up(config: { name: string } & Record<string, unknown>): Promise<ServiceStatus> {
    mkdirSync(this.stateDir, { recursive: true });
    const file = join(this.lab.dir, `${config.name}.yaml`);
    writeFileSync(file, stringify(config));
    await this.command(['up', '--state-dir', this.stateDir, file]);
    return this.protectedAgain(config.name);
  }

  /** Resolves when the service is `protected`: after `up`, or again after a recovery. */
  protectedAgain(service: string, timeoutMs = OPERATION_MS): Promise<ServiceStatus> {
    return waitFor(
      `${service} to be protected`,
      timeoutMs,
      async () => {
        const status = await this.status(service);
        if (status.phase === 'failed') throw new Error(`${service} has failed: ${status.reason}`);
        return status.phase === 'protected' ? status : undefined;
      },
      250,
    );
  }

  async status(service: string): Promise<ServiceStatus> {
    const list = await this.#json<ServiceStatus[]>(['status', service]);
    return list[0]!;
  }

  connections(service: string): Promise<ConnectionStatus[]> {
    return this.#json(['connections', service]);
  }

  /** Also resolves for a recovery that lost connections: the report says so. */
  drill(service: string, fault: DrillFault): Promise<RecoveryReport> {
    return this.#json(['drill', service, '--fault', fault], true);
  }

  async events(): Promise<HoldfastEvent[]> {
    const { stdout } = await this.command(['events']);
    return stdout
      .split('\n')
      .filter(Boolean)
      .map(line => JSON.parse(line) as HoldfastEvent);
  }

  /** All services down, the daemon ended. */
  async down(): Promise<void> {
    await this.command(['down']);
  }

  command(words: string[], allowFailure = false): Promise<RunResult> {
    const argv = [join(repositoryRoot(), 'supervisor/holdfast'), ...words, '--json'];
    return this.lab.exec(this.lab.host, argv, {
      env: cleanEnv({ HOLDFAST_SOCKET: this.socket, HOLDFAST_STATE: this.stateDir }),
      timeoutMs: OPERATION_MS,
      allowFailure,
    });
  }

  async #json<T>(words: string[], allowFailure = false): Promise<T> {
    const { stdout, stderr } = await this.command(words, allowFailure);
    if (stdout.trim() === '') throw new Error(`holdfast ${words.join(' ')}: ${stderr.trim()}`);
    return JSON.parse(stdout) as T;
  }
}

export function guestOf(status: ServiceStatus, role: GuestStatus['role']): GuestStatus {
  const guest = status.guests.find(candidate => candidate.role === role);
  if (guest === undefined) throw new Error(`${status.name} has no ${role}: ${JSON.stringify(status.guests)}`);
  return guest;
}
