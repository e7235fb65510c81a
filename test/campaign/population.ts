import type { Client, ClientResult } from '../lib/client.js';
import { sleep } from '../lib/run.js';
import type { Traffic, UploadBody } from '../lib/traffic.js';

const KINDS = ['download', 'upload', 'loop', 'download', 'loop'] as const;
/** A client this far into its work, and this far from its end, is busy: a fault meets it in the middle. */
const MOVED_BYTES = 64 << 10;
const LEFT_BYTES = 1 << 20;
const LEFT_REQUESTS = 20;

const DOWNLOAD_RATE = 500_000;
const UPLOAD_RATE = 400_000;
const REQUESTS = 400;
const REQUESTS_PER_SECOND = 8;

export interface Outcome {
  result: ClientResult;
  /** Numbers of the faults that it lived through. */
  faults: number[];
}

/** A crowd of constant size: for each client that ends, another begins, until `finish`. */
export class Population {
  readonly ended: Outcome[] = [];
  readonly #live = new Map<Client, number[]>();
  #started = 0;
  #finishing = false;

  constructor(
    private readonly traffic: Traffic,
    private readonly upload: UploadBody,
    private readonly files: string[],
    size: number,
  ) {
    for (let i = 0; i < size; i++) this.#start();
  }

  /** Resolves when at least `count` clients are busy; rejects at the deadline. */
  async busy(count: number, timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const busy = [...this.#live.keys()].filter(isBusy).length;
      if (busy >= count) return;
      if (performance.now() > deadline) throw new Error(`${busy} of ${count} clients are busy`);
      await sleep(50);
    }
  }

  /** Notes that fault `n` is about to meet all who live; how many they are, and how many of them are busy. */
  meet(n: number): { open: number; busy: number } {
    for (const faults of this.#live.values()) faults.push(n);
    return { open: this.#live.size, busy: [...this.#live.keys()].filter(isBusy).length };
  }

  /** Starts no more clients, and waits for those that live. */
  async finish(): Promise<Outcome[]> {
    this.#finishing = true;
    await Promise.all([...this.#live.keys()].map(client => client.result));
    return this.ended;
  }

  #start(): void {
    const n = this.#started++;
    const kind = KINDS[n % KINDS.length];
    const { traffic } = this;
    const client =
      kind === 'upload'
        ? traffic.upload(this.upload, UPLOAD_RATE)
        : kind === 'loop'
          ? traffic.keepAlive(REQUESTS, REQUESTS_PER_SECOND)
          : traffic.curl(this.files[n % this.files.length]!, DOWNLOAD_RATE);
    const faults: number[] = [];
    this.#live.set(client, faults);
    void client.result.then(result => {
      this.#live.delete(client);
      this.ended.push({ result, faults });
      if (!this.#finishing) this.#start();
    });
  }
}

function isBusy(client: Client): boolean {
  const { moved, left } = client.progress();
  if (client.plan.kind === 'keep-alive') return moved > 0 && left > LEFT_REQUESTS;
  return moved >= MOVED_BYTES && left >= LEFT_BYTES;
}
