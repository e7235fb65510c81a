/** Worker thread: watches the log's room, and moves input to files while there is little. */
import { parentPort, workerData } from 'node:worker_threads';
import { DataPath } from '../datapath/datapath.js';
import { Evictor, type SpillState } from './evictor.js';

export interface SpillSetup {
  pinDirectory: string;
  directory: string;
  limitBytes: number;
  /** One word, not 0 when the thread is to end. */
  stop: SharedArrayBuffer;
}

/** Between two looks at the log's room: while it is taken, when there was need a moment ago, and else. */
const PACE_MS = { busy: 1, watchful: 2, calm: 20 };
const CALM_AFTER_MS = 2000;
const SWEEP_MS = 500;
const TELL_MS = 100;
/** After a failure of the file system. */
const RETRY_MS = 1000;

const { pinDirectory, directory, limitBytes, stop } = workerData as SpillSetup;
const stopped = new Int32Array(stop);
const path = DataPath.adopt(pinDirectory);
const evictor = new Evictor(path, path.spillFiles(directory), limitBytes);
let told = '';
let toldAt = 0;

function tell(at: number): void {
  const { state } = evictor;
  const text = JSON.stringify(state);
  if (text === told || at - toldAt < TELL_MS) return;
  told = text;
  toldAt = at;
  parentPort!.postMessage(state satisfies SpillState);
}

tell(performance.now());
let sweptAt = 0;
let busyAt = Number.NEGATIVE_INFINITY;
while (Atomics.load(stopped, 0) === 0) {
  const at = performance.now();
  if (at - sweptAt > SWEEP_MS) {
    evictor.sweep();
    sweptAt = at;
  }
  const result = evictor.round();
  const now = performance.now();
  if (result === 'moved') busyAt = now;
  tell(now);
  const idle = now - busyAt < CALM_AFTER_MS ? PACE_MS.watchful : PACE_MS.calm;
  // A round in vain went through the whole flow table.
  const stuck = Math.max(idle, 10 * (now - at));
  const pause = { calm: idle, moved: PACE_MS.busy, stuck, failed: RETRY_MS };
  Atomics.wait(stopped, 0, 0, pause[result]);
}
path.close();
