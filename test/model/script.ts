/** A script for data path and model: plain values, so that it can be printed, shortened and run again. */
import { stream } from '../fixtures/lib/stream.js';
import type { Change } from './control-flow.js';
import type { Segment } from './state.js';

/** Payload: bytes of a direction's endless stream, one of them wrong perhaps. */
export interface Piece {
  of: 'input' | 'output';
  at: number;
  n: number;
  wrong?: number;
}

export type Packet = Omit<Segment, 'data'> & { data: Piece };

export type Step =
  | { at: 'wire' | 'replay'; packet: Packet }
  | { at: 'guest'; slot: number; packet: Packet }
  | { at: 'control'; change: Omit<Change, 'epoch'> }
  /** The flow has found no room, and went on without the log. */
  | { at: 'log'; does: 'leave'; port: number }
  | { at: 'host'; does: 'fence' | 'takeOver' | 'steer' | 'listen' | 'stopListening'; slot: number };

export interface Script {
  compare: 'sampled' | 'full';
  /** Frames go over the devices instead of test runs: slower, but it shows where they come out. */
  carried: boolean;
  steps: Step[];
}

export function segmentOf({ data, ...rest }: Packet): Segment {
  const bytes = data.at < 0 ? Buffer.alloc(data.n) : stream(data.at, data.n, data.of === 'input' ? 1 : 2);
  if (data.wrong !== undefined && data.wrong < bytes.length) bytes[data.wrong]! ^= 0x55;
  return { ...rest, data: bytes };
}
