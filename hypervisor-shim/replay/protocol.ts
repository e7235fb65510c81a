/** Messages between the supervisor and its replay worker. */

export interface WorkerSetup {
  pinDirectory: string;
  /** Network namespace of the replay sockets. */
  namespace: string;
  /** Service address, dotted IPv4. */
  address: string;
  guestMac: Uint8Array;
  masks: string[];
  /** Replays that may be unaccepted at once: below half the listener's backlog. */
  concurrency: number;
  wireIfindex: number;
}

export interface RecoverCommand {
  type: 'recover';
  slot: number;
  epoch: number;
  guestIfindex: number;
  deadlineMs: number;
  /** Nobody else replays: flows that an earlier replay into the same guest left half-way begin anew. */
  resume?: boolean;
}

/** Verdict of one flow. Times are ms since 1970, with fractions. */
export interface FlowVerdict {
  id: number;
  client: string;
  port: number;
  outcome: 'kept' | 'lost';
  reason: string;
  inputBytes: number;
  outputBytes: number;
  at: number;
}

export type WorkerMessage =
  | { type: 'ready' }
  | { type: 'verdict'; verdict: FlowVerdict }
  | { type: 'done'; fenced: boolean }
  | { type: 'error'; message: string };
