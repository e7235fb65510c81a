import { get } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { now } from '../clock.js';
import type { ServiceConfig } from '../config/config.js';
import type { Fault } from '../service/protection.js';

export type ProbeConfig = NonNullable<ServiceConfig['detect']['probe']>;

/** What a prober looks after. */
export interface ProbeCharge {
  readonly primary: { name: string; state: string } | undefined;
  readonly fault: Fault | undefined;
  /** A recovery in the same guest is under way: its service may not listen. */
  readonly crashed: Fault | undefined;
  readonly replaying: boolean;
  /** Stopped on purpose: they may answer nothing. */
  readonly stoppedServices: readonly string[];
  readonly stopped: AbortSignal;
  readonly config: { address: string; detect: { probe?: ProbeConfig | undefined } };
  primaryFailed(cause: Fault['cause'], detail: string, detectedAt: number): void;
  say(type: string, message: string, data?: Record<string, unknown>): void;
}

/** An answer need not be read any further. */
const MOST_READ = 64 << 10;
/** The host has no way to the service, which says nothing of the service. */
const NO_WAY = ['EHOSTUNREACH', 'ENETUNREACH', 'EADDRNOTAVAIL', 'EACCES'];

/**
 * Speaks to the service as a client of this host does, through bridge and data path, and calls it wedged when it does not answer
 * `failures` times in a row. A guest whose kernel, agent and other connections are well may have a service that is not.
 *
 * It counts only what a guest that has answered before does not answer: a probe that never succeeded (a wrong path, a firewall, a
 * request that wedges every guest) proves nothing. From when on it counts, or why not, is told once for each guest.
 */
export class Prober {
  #guest: unknown;
  #answered = false;
  #failures = 0;
  #told = false;

  constructor(private readonly p: ProbeCharge) {}

  /** Until the service is stopped. Does nothing unless a probe is configured. */
  async run(): Promise<void> {
    const { stopped, config } = this.p;
    const { probe } = config.detect;
    if (!probe) return;
    const host = config.address.split('/')[0]!;
    while (!stopped.aborted) {
      await sleep(probe.intervalMs, undefined, { signal: stopped, ref: false }).catch(() => {});
      if (this.#isCalm()) await this.#round(probe, host);
    }
  }

  #isCalm(): boolean {
    const { primary, fault, crashed, replaying, stoppedServices, stopped } = this.p;
    const isServed = primary?.state === 'active' && !fault && !crashed && !replaying;
    return isServed && stoppedServices.length === 0 && !stopped.aborted;
  }

  async #round(probe: ProbeConfig, host: string): Promise<void> {
    const guest = this.p.primary;
    if (this.#guest !== guest) this.#begin(guest);
    const error = await ask(probe, host).then(
      () => undefined,
      error => error as Error,
    );
    // A recovery, or a stop, in between explains everything.
    if (!this.#isCalm() || this.p.primary !== guest) {
      this.#failures = 0;
      return;
    }
    if (!error) {
      if (!this.#answered)
        this.p.say('probe.answered', `detect.probe is answered by ${guest!.name}, and counts from now on`);
      this.#answered = true;
      this.#failures = 0;
      return;
    }
    if (!this.#answered || NO_WAY.includes((error as NodeJS.ErrnoException).code ?? ''))
      this.#tell(probe, error);
    else if (++this.#failures >= probe.failures) {
      const asked = probe.http === undefined ? `TCP port ${probe.port}` : `GET ${probe.http}`;
      const detail = `${guest!.name}: ${asked} has failed ${this.#failures} times, at last: ${error.message}`;
      this.p.primaryFailed('service-wedged', detail, now());
    }
  }

  #begin(guest: unknown): void {
    this.#guest = guest;
    this.#answered = this.#told = false;
    this.#failures = 0;
  }

  #tell(probe: ProbeConfig, error: Error): void {
    if (this.#told) return;
    this.#told = true;
    const { primary, say } = this.p;
    const message = `detect.probe proves nothing: ${error.message}, and it has never succeeded with ${primary?.name}`;
    say.call(this.p, 'probe.trouble', message, { port: probe.port, guest: primary?.name });
  }
}

/** Rejects unless the service answers as expected within `timeoutMs`. */
export function ask(probe: ProbeConfig, host: string): Promise<void> {
  return probe.http === undefined ? askTcp(probe, host) : askHttp(probe, host, probe.http);
}

function askTcp({ port, timeoutMs }: ProbeConfig, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, timeout: timeoutMs });
    socket.once('timeout', () => socket.destroy(new Error(`no connection within ${timeoutMs} ms`)));
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.end(); // and a service that does not end its side is left after the same time
      socket.resume();
      resolve();
    });
  });
}

function askHttp({ port, status, timeoutMs }: ProbeConfig, host: string, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(timeoutMs);
    const late = () => reject(new Error(`no answer within ${timeoutMs} ms`));
    signal.addEventListener('abort', late);
    const request = get({ host, port, path, signal, agent: false }, response => {
      let bytes = 0;
      response.on('data', (data: Buffer) => {
        bytes += data.length;
        if (bytes > MOST_READ) request.destroy();
      });
      response.on('error', () => {});
      const { statusCode = 0 } = response;
      if (status === undefined ? statusCode < 500 : statusCode === status) resolve();
      else reject(new Error(`it answered ${statusCode}, expected ${status ?? 'less than 500'}`));
    });
    request.once('error', reject);
  });
}
