/** Worker thread of a proof: enters a network namespace, and does there what the supervisor will do in its own. */
import { parentPort, workerData } from 'node:worker_threads';
import { DataPath } from '../datapath/datapath.js';
import { native } from '../native/native.js';

export type ProofJob =
  | { kind: 'data-path'; namespace: string; pins: string; wire: number; port: number }
  | { kind: 'replay'; namespace: string; service: string };

const job = workerData as ProofJob;
native.enterNetns(job.namespace);
if (job.kind === 'data-path') {
  const path = DataPath.create({
    pinDirectory: job.pins,
    address: Uint8Array.of(192, 0, 2, 1),
    ports: [80],
    guestMac: Uint8Array.of(2, 0, 0, 0, 0, 1),
    compare: 'sampled',
    logMiB: 1,
    maxFlows: 16,
  });
  path.attachWire(job.wire, job.port);
  path.close();
} else {
  // Nobody answers: that the kernel lets a socket send such a SYN is the point.
  const fd = native.replayConnect('198.51.100.7', 40_000, job.service, 80, 0x1234_5678, 1 << 20);
  native.closeSilently(fd);
}
parentPort?.postMessage('proved');
