import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { BodyCheck, type ExpectedBody } from '../lib/body-check.js';
import { type Lab, SERVICE_ADDRESS } from '../lib/lab.js';
import { waitFor } from '../lib/run.js';

/** A download of which the client takes so much, and then no more until it is told to. */
export class HeldDownload {
  readonly #check: BodyCheck;
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown[]>;

  private constructor(lab: Lab, path: string, body: ExpectedBody, bytes: number) {
    this.#check = new BodyCheck([body]);
    const argv = ['curl', '-q', '-s', '--fail', '-N', '-o', '-', `http://${SERVICE_ADDRESS}${path}`];
    this.#child = lab.spawn(lab.clients[0]!.name, argv);
    this.#closed = once(this.#child, 'close');
    this.#child.stdout!.on('data', (chunk: Buffer) => {
      const before = this.#check.bytes;
      this.#check.push(chunk);
      if (before < bytes && this.#check.bytes >= bytes) this.#child.stdout!.pause();
    });
  }

  /** Resolves when it has `bytes` of it; some more are on their way, in what buffers there are. */
  static async start(lab: Lab, path: string, body: ExpectedBody, bytes: number): Promise<HeldDownload> {
    const download = new HeldDownload(lab, path, body, bytes);
    await waitFor(`${bytes} bytes of ${path}`, 30_000, () => download.#check.bytes >= bytes || undefined, 5);
    return download;
  }

  /** Takes the rest; rejects unless all of it came, and each byte is right. */
  async finish(): Promise<void> {
    this.#child.stdout!.resume();
    const [code] = await this.#closed;
    if (code !== 0 || !this.#check.complete)
      throw new Error(`a download ended with ${code} after ${this.#check.bytes} bytes`);
  }
}
