import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { type ClientNamespace, type Lab, SERVICE_ADDRESS, SERVICE_ADDRESS6 } from '../lib/lab.js';
import { sleep, waitFor } from '../lib/run.js';

/** What tcpdump says of a segment from the service: to which client's port, and its flags. */
const SEGMENT = /> (\S+): Flags \[([^\]]+)\]/;

/**
 * Counts and prints the resets that the service's address sends to a client, for hours: only they, and where connections begin and
 * end, are captured. A reset after the service's FIN is none: it answers a doubled last ACK, and the client has all by then.
 */
export class ResetWatch {
  #resets = 0;
  readonly #ended = new Set<string>();

  private constructor(
    private readonly lab: Lab,
    private readonly child: ChildProcess,
  ) {
    createInterface({ input: child.stdout! }).on('line', line => this.#take(line));
  }

  static async start(lab: Lab, client: ClientNamespace): Promise<ResetWatch> {
    // FIN, SYN, RST; libpcap knows `tcp[]` over IPv4 only, and the guests' kernels send no extension headers before TCP.
    const filter = [
      `(src host ${SERVICE_ADDRESS} and tcp[tcpflags] & 7 != 0)`,
      `(src host ${SERVICE_ADDRESS6} and ip6[6] = 6 and ip6[53] & 7 != 0)`,
    ].join(' or ');
    const child = lab.spawn(client.name, ['tcpdump', '-i', client.dev, '-n', '-l', '-Z', 'root', filter]);
    let errors = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
    });
    await waitFor('tcpdump to listen', 10_000, () => (/listening on/.test(errors) ? true : undefined));
    return new ResetWatch(lab, child);
  }

  #take(line: string): void {
    const [, client, flags] = SEGMENT.exec(line) ?? [];
    if (client === undefined || flags === undefined) return;
    if (flags.includes('S')) this.#ended.delete(client);
    if (flags.includes('F')) this.#ended.add(client);
    if (!flags.includes('R') || this.#ended.has(client)) return;
    this.#resets++;
    process.stderr.write(`RESET ${line}\n`);
  }

  async stop(): Promise<number> {
    // the kernel hands packets over in blocks, a partly filled one after up to a second
    await sleep(1200);
    const gone = once(this.child, 'close');
    await this.lab.stop(this.child);
    await gone;
    return this.#resets;
  }
}
