import type { DataPath } from '../datapath/datapath.js';
import { resetsOfReplay } from '../datapath/frames.js';
import { type Flow, STATE } from '../datapath/layout.generated.js';

/** After this the guest has acknowledged all that it got before: longer than any delayed ACK. */
const QUIET_MS = 300;

/** The state of a flow in which its replay is under way, or was when its supervisor died. */
export const isHalfReplayed = (flow: Flow): boolean => flow.state === STATE.REPLAYING;

/**
 * Makes the guest forget the connections of a replay that nobody goes on with, so that it takes the next SYN for a new one. It
 * believes only the reset at exactly what it expects: its last ACK, or the start while its SYN-ACK is unanswered. Blocks.
 */
export function forgetHalfReplayed(
  path: DataPath,
  ends: Parameters<typeof resetsOfReplay>[1],
  send: (frame: Buffer) => void,
): void {
  const left = () =>
    [...path.flows()].filter(({ flow }) => isHalfReplayed(flow) && path.inCurrentEpoch(flow));
  if (left().length === 0) return;
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, QUIET_MS);
  for (const { flow } of left()) for (const frame of resetsOfReplay(flow, ends)) send(frame);
}
