import type { CrashList } from './crash-list.js';
import type { ServiceWord } from './service-words.js';

/**
 * What the host and a guest's agent tell each other, whatever carries it: an ivshmem page (QEMU), a granted page (Xen).
 * Everything read here was written by a hostile guest: implementations validate and never throw for content.
 */
export interface GuestReport {
  /** Beats of the agent's heart, a real-time process; stands still when the guest's kernel does. */
  heartbeat: bigint;
  /** Beats of the agent's ordinary event loop. */
  userHeartbeat: bigint;
  /** How many hearts and how many agents the guest has had since its boot. */
  heartStarts: number;
  agentStarts: number;
  /** Kernel boot id, 16 bytes as a UUID string; undefined until the agent wrote it. */
  bootId: string | undefined;
  /**
   * `listening` means: every declared service port has a listener; `waiting`: for the disk that is handed over; `stopping`: the
   * machine shuts down in good order.
   */
  application: 'unknown' | 'starting' | 'listening' | 'exited' | 'waiting' | 'stopping';
  /** Pid and wait status of the service when `exited`. */
  pid: number;
  exitStatus: number;
  /** The last epoch the agent has acknowledged. */
  epoch: number;
}

/** One request of a guest's. Its bytes are a copy, and may be anything. */
export interface GuestRequest {
  /** Counted from 1; wraps. */
  id: number;
  bytes: Uint8Array;
  /** Requests before it that the guest wrote over before they were read. */
  skipped: number;
}

export interface GuestRequests {
  /** The oldest without an answer, the same until it has one. */
  next(): GuestRequest | undefined;
  /** Answers the request that `next` gave; other than printable ASCII becomes `?`, and what is too long is cut off. */
  answer(text: string): void;
}

export interface GuestChannel {
  read(): GuestReport;
  /** What it tells of its first `count` services, in the order of the image. */
  services(count: number): ServiceWord[];
  /** What the exit watch has told since the last call, by this supervisor or an earlier one. One load from memory if it is nothing. */
  takeCrashes(): CrashList;
  /** Tells the guest it is (again) the active one: its epoch, and the wall clock, ns since 1970. */
  activate(epoch: number, wallClockNs: bigint): void;
  /** What the guest asks for. */
  readonly requests: GuestRequests;
  /** Lets a guest that reports `stopping` go on: nothing that it sends gets out any more. */
  acknowledgeStop(): void;
  close(): void;
}
