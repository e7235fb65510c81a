import type { ChildProcess } from 'node:child_process';
import { BodyCheck, type ExpectedBody } from './body-check.js';
import type { ClientNamespace, Lab } from './lab.js';
import { filePosition, openPorts } from './socket-ports.js';

export type ClientKind = 'curl' | 'wget' | 'upload' | 'keep-alive';

/** One client process: what it runs and what it must come back with. */
export interface ClientPlan {
  kind: ClientKind;
  /** For messages, such as `curl /files/03.bin`. */
  label: string;
  argv: string[];
  /** Bodies expected on standard output, in order. */
  bodies: ExpectedBody[];
  /** File the client sends, and its size: its read position is the progress. */
  upload?: { path: string; bytes: number };
  /** Standard output is read no faster than this: curl's own limit reads some 10 MB at once and then sleeps. */
  bytesPerSecond?: number;
  /** Killed after so long, ms; counts as lost. */
  timeoutMs: number;
}

export interface ClientResult {
  kind: ClientKind;
  label: string;
  /** Everything arrived, every byte right, exit status 0, one single connection. */
  ok: boolean;
  bytes: number;
  /** False as soon as one body differs; a body cut short is not `corrupt`, only not `ok`. */
  corrupt: boolean;
  sha256Ok: boolean;
  /** Transfers finished; 1 for downloads and uploads. */
  requests: number;
  localPorts: number[];
  exitCode: number | null;
  error: string | undefined;
  startedMs: number;
  endedMs: number;
}

/** Where a transfer stands. `left` counts from what the client's application has read or handed to its kernel. */
export interface Progress {
  moved: number;
  left: number;
}

/** curl's words about each transfer, on standard error, apart from its complaints. */
export const CURL_REPORT = '%{stderr}#T %{local_port} %{num_connects} %{http_code} %{size_download}\\n';

const PACE_SLACK_MS = 20;

/** A running client. `result` never rejects: what went wrong is in it. */
export class Client {
  readonly result: Promise<ClientResult>;
  ended = false;
  readonly #check: BodyCheck;
  readonly #child: ChildProcess;
  readonly #ports = new Set<number>();
  #errors = '';
  #timedOut = false;
  #dueMs = 0;
  readonly #startedMs = Date.now();

  constructor(
    readonly plan: ClientPlan,
    lab: Lab,
    namespace: ClientNamespace,
  ) {
    this.#check = new BodyCheck(plan.bodies);
    this.#child = lab.spawn(namespace.name, plan.argv);
    this.#child.stdout!.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
    const timer = setTimeout(() => {
      this.#timedOut = true;
      void lab.stop(this.#child, 500);
    }, plan.timeoutMs);
    this.result = new Promise(resolve => {
      this.#child.on('error', error => {
        this.#errors += error.message;
      });
      this.#child.on('close', code => {
        clearTimeout(timer);
        this.ended = true;
        resolve(this.#finish(code));
      });
    });
  }

  progress(): Progress {
    const { upload, bodies } = this.plan;
    if (this.#ports.size === 0 && this.#child.pid !== undefined)
      for (const port of openPorts(this.#child.pid)) this.#ports.add(port);
    if (upload !== undefined) {
      const read = this.#child.pid === undefined ? undefined : filePosition(this.#child.pid, upload.path);
      const moved = this.ended ? upload.bytes : (read ?? 0);
      return { moved, left: upload.bytes - moved };
    }
    const total = bodies.reduce((sum, body) => sum + body.bytes, 0);
    return { moved: this.#check.bytes, left: total - this.#check.bytes };
  }

  #read(chunk: Buffer): void {
    this.#check.push(chunk);
    const rate = this.plan.bytesPerSecond;
    if (rate === undefined) return;
    const now = performance.now();
    // no credit for time in which nothing came: after a stall the client goes on at its pace
    this.#dueMs = Math.max(this.#dueMs, now - PACE_SLACK_MS) + (chunk.length / rate) * 1000;
    if (this.#dueMs <= now) return;
    this.#child.stdout!.pause();
    setTimeout(() => this.#child.stdout!.resume(), this.#dueMs - now);
  }

  #finish(exitCode: number | null): ClientResult {
    const { plan } = this;
    const check = this.#check;
    const reports = [...this.#errors.matchAll(/^#T (\d+) (\d+) (\d+) (\d+)$/gm)].map(match =>
      match.slice(1).map(Number),
    );
    for (const [port] of reports) if (port) this.#ports.add(port);
    const connects = reports.reduce((sum, [, count]) => sum + count!, 0);
    const refused = reports.find(([, , status]) => status! < 200 || status! > 299);
    const complaints = this.#errors.replace(/^#T .*\n?/gm, '').trim();
    const error =
      (this.#timedOut && `not finished after ${plan.timeoutMs} ms`) ||
      (exitCode !== 0 && `exit status ${exitCode}: ${complaints.slice(0, 500)}`) ||
      (check.wrong.length > 0 && `body ${check.wrong[0]} of ${plan.bodies.length} differs`) ||
      (!check.complete && `${check.finished} of ${plan.bodies.length} bodies, ${check.bytes} bytes`) ||
      (refused !== undefined && `HTTP status ${refused[2]}`) ||
      (plan.kind !== 'wget' && connects !== 1 && `${connects} connections instead of 1`) ||
      undefined;
    return {
      kind: plan.kind,
      label: plan.label,
      ok: error === undefined,
      bytes: plan.upload === undefined ? check.bytes : plan.upload.bytes,
      corrupt: check.wrong.length > 0,
      sha256Ok: check.complete,
      requests: check.finished,
      localPorts: [...this.#ports],
      exitCode,
      error,
      startedMs: this.#startedMs,
      endedMs: Date.now(),
    };
  }
}
