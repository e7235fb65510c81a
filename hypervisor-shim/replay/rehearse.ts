import { clientEndpoint } from '../datapath/addresses.js';
import type { DataPath } from '../datapath/datapath.js';
import { forgedAcks, openWindow } from '../datapath/frames.js';
import { CONST, Flow, KIND } from '../datapath/layout.generated.js';
import { UNSET } from '../datapath/positions.js';
import { native } from '../native/native.js';
import { FlowReplay, RECEIVE_BUFFER } from './flow-replay.js';
import { maskSegments } from './masks.js';

/** So often that the engine has compiled it. */
const ROUNDS = 200;
const CONNECTIONS = 20;
/** Nobody listens there: each connection is refused. */
const LOOPBACK = '127.0.0.1';
const HEAD = 'HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n';

/**
 * Goes through what a recovery does, on made-up data and without effect: code that runs for the first time at the fault costs the
 * first connection ten times what it costs the others.
 */
export function rehearse(path: DataPath, ends: Parameters<typeof forgedAcks>[1], masks: string[]): void {
  const segment = {
    kind: KIND.OUTPUT,
    index: 0,
    bytes: Buffer.from(HEAD.padEnd(CONST.SMALL_BYTES)),
    present: new Uint8Array(CONST.SMALL_BYTES / 8),
  };
  const flow = new Flow();
  // no record has this generation before it was freed so often: whatever is asked for such a flow, the answer is STALE
  const stranger = new Flow();
  stranger.generation = 0xffff_ffff;
  stranger.fin_in = UNSET;
  for (let i = 0; i < ROUNDS; i++) {
    segment.present.fill(0xff, 0, CONST.SMALL_BYTES / 16);
    maskSegments([segment], 0n, masks);
    forgedAcks(flow, ends);
    openWindow(flow, ends);
    clientEndpoint(flow);
    path.log.captured(flow);
    path.log.input(0, 0n, 1n);
    path.log.marks(0, 1);
    const replay = new FlowReplay(path, 0, stranger, ends);
    replay.begin(0, 0);
    replay.readable();
    replay.writable();
    if (replay.isRipe) replay.trySplice();
    if (i < CONNECTIONS)
      native.closeSilently(native.replayConnect(LOOPBACK, 1 + i, LOOPBACK, 1, 1, RECEIVE_BUFFER));
  }
}
