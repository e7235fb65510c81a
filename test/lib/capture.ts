import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.js';
import { sleep, waitFor } from './run.js';
import { type Trace, traceConnections } from './tcp-trace.js';

/** Headers only: Ethernet 14 + VLAN 4 + IPv6 40 + TCP 60 fit. */
const SNAP_LENGTH = 128;
const KERNEL_BUFFER_KIB = 128 * 1024;

/** A network device in a namespace: a client's, or a guest's tap. */
export interface CapturePoint {
  name: string;
  dev: string;
}

/** tcpdump of TCP at a network device. The stamps are the kernel's wall clock, comparable with a RecoveryReport. */
export class Capture {
  readonly file: string;
  #errors = '';

  private constructor(
    readonly point: CapturePoint,
    readonly lab: Lab,
    readonly child: ChildProcess,
    file: string,
  ) {
    this.file = file;
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
  }

  /** Resolves when tcpdump listens: packets sent from now on are in the file. */
  static async start(lab: Lab, point: CapturePoint): Promise<Capture> {
    const file = join(lab.dir, `${point.name}-${point.dev}-${Date.now()}.pcap`);
    const child = lab.spawn(point.name, [
      ...['tcpdump', '-i', point.dev, '-n', '-s', `${SNAP_LENGTH}`, '-B', `${KERNEL_BUFFER_KIB}`],
      ...['-Z', 'root', '-w', file, 'tcp'],
    ]);
    const capture = new Capture(point, lab, child, file);
    await waitFor('tcpdump to listen', 10_000, () => {
      if (child.exitCode !== null) throw new Error(`tcpdump: ${capture.#errors}`);
      return /listening on/.test(capture.#errors) ? true : undefined;
    });
    return capture;
  }

  /** Ends the capture; rejects if the kernel dropped a packet, for then no count can be trusted. */
  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null)
      throw new Error(`tcpdump: ${this.#errors}`);
    // the kernel hands packets over in blocks, a partly filled one after up to a second
    await sleep(1200);
    const gone = once(this.child, 'close');
    this.child.kill('SIGINT');
    await gone;
    const dropped = /(\d+) packets? dropped by kernel/.exec(this.#errors)?.[1];
    if (dropped !== '0') throw new Error(`capture is not complete: ${this.#errors.trim()}`);
  }

  /** Connections to `serverPorts` in the finished capture. */
  trace(serverPorts: readonly number[]): Trace {
    return traceConnections(readFileSync(this.file), serverPorts);
  }
}
