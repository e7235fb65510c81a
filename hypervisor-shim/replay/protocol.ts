import type { ServiceAddresses } from '../datapath/addresses.js';

/** Messages between the supervisor and its replay worker. */

export interface WorkerSetup extends ServiceAddresses {
  pinDirectory: string;
  /** Network namespace of the replay sockets. */
  namespace: string;
  guestMac: Uint8Array;
  masks: string[];
  /** Replays that may be unaccepted at once: below half the listener's backlog. */
  concurrency: number;
  wireIfindex: number;
  /** Where input lies that is not in memory any more. */
  spillDirectory: string | undefined;
  /** One Int32, set to 1 when the worker is to end, in the middle of a recovery if need be. */
  stop: SharedArrayBuffer;
}

export interface RecoverCommand {
  type: 'recover';
  slot: number;
  epoch: number;
  guestIfindex: number;
  /** A replay that comes no nearer to its end for so long is given up. */
  deadlineMs: number;
  /** Nobody else replays: flows that an earlier replay into the same guest left half-way begin anew. */
  resume?: boolean;
  /** Not those that have left a guest which is well (`leaves`): who moves them says when. */
  gentle?: boolean;
}

/** Lets a worker look whether it is to end. */
export interface EndCommand {
  type: 'end';
}

/** Why a connection was kept or lost, for programs: bounded, so that metrics can be labelled with it. `reason` is for people. */
export const VERDICT_CODES = [
  'spliced',
  'closed',
  'client-reset',
  'diverged-content',
  'diverged-longer',
  'diverged-shorter',
  'log-missing',
  'deadline',
  'unprotected',
  'crash-loop',
] as const;
export type VerdictCode = (typeof VERDICT_CODES)[number];

/** Verdict of one flow. Times are ms since 1970, with fractions. */
export interface FlowVerdict {
  id: number;
  client: string;
  port: number;
  outcome: 'kept' | 'lost';
  code: VerdictCode;
  reason: string;
  inputBytes: number;
  outputBytes: number;
  at: number;
}

export type WorkerMessage =
  | { type: 'ready' }
  | { type: 'verdicts'; verdicts: FlowVerdict[] }
  | { type: 'done'; fenced: boolean }
  | { type: 'error'; message: string };
