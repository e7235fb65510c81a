/**
 * What the supervisor says to its clients (CLI, HTTP API, tests). Times are ms since 1970 where they name a moment
 * (`at`), ms where they end in `Ms`.
 */

export type ServicePhase = 'starting' | 'protected' | 'unprotected' | 'recovering' | 'stopping' | 'failed';

export interface GuestStatus {
  /** Libvirt domain name. */
  name: string;
  role: 'primary' | 'backup' | 'former';
  state: 'booting' | 'ready' | 'active' | 'suspended' | 'crashed' | 'off';
  bootId: string | undefined;
  /** vCPU time used so far, ms; for a suspended backup also what it had used when it was suspended. */
  vcpuMs: number;
  vcpuMsAtSuspend: number | undefined;
  serialLog: string;
  pid: number | undefined;
}

export interface ServiceStatus {
  name: string;
  phase: ServicePhase;
  /** Why it is not `protected`, in words an operator understands. */
  reason: string | undefined;
  address: string;
  ports: number[];
  accel: 'kvm' | 'tcg' | 'xen';
  epoch: number;
  connections: { tracked: number; held: number; spliced: number; closed: number };
  recoveries: number;
  guests: GuestStatus[];
  log: { segmentsFree: number; segmentsTotal: number };
}

export interface ConnectionStatus {
  service: string;
  client: string;
  port: number;
  state: string;
  guest: string;
  epoch: number;
  /** Bytes logged from the client, and the highest server byte sent and acknowledged, positions from 0. */
  inputBytes: number;
  outputSent: number;
  outputAcked: number;
  failovers: number;
}

/** What became of one connection in a recovery (promise P6). */
export interface Verdict {
  client: string;
  port: number;
  outcome: 'kept' | 'lost';
  /** Why it was lost, or `spliced` / `closed by the client` for a kept one. */
  reason: string;
  inputBytes: number;
  outputBytes: number;
  spliceMs: number | undefined;
}

export interface RecoveryReport {
  service: string;
  cause: 'guest-panic' | 'guest-gone' | 'guest-hang' | 'operator';
  epoch: number;
  /** Moments, ms since 1970 with fractions. `faultAt` only where a drill injected it. */
  faultAt: number | undefined;
  detectedAt: number;
  fencedAt: number;
  resumedAt: number;
  firstSpliceAt: number | undefined;
  lastSpliceAt: number | undefined;
  kept: number;
  lost: number;
  verdicts: Verdict[];
}

/** One line of the event log. `type` is a dotted name: `service.protected`, `guest.panicked`, `recovery.done`, ... */
export interface HoldfastEvent {
  seq: number;
  at: number;
  type: string;
  service: string | undefined;
  message: string;
  data: Record<string, unknown>;
}

export type DrillFault = 'guest-panic' | 'vm-kill';

/** Operations behind the control socket; each rejects with `HoldfastError`. */
export interface SupervisorOperations {
  /** Starts to protect the service of this configuration text (YAML); resolves when it is `protected`. */
  protect(configYaml: string, source: string): Promise<ServiceStatus>;
  status(): Promise<ServiceStatus[]>;
  connections(service?: string): Promise<ConnectionStatus[]>;
  /** Injects a fault into the primary and waits for the recovery's end. */
  drill(service: string, fault: DrillFault): Promise<RecoveryReport>;
  /** Past events from `since` (sequence number) on, then, if `follow`, new ones until `signal` aborts. */
  events(since: number, follow: boolean, signal: AbortSignal): AsyncIterable<HoldfastEvent>;
  /** Stops one service, or all: guests destroyed, taps, pins and shm files removed. */
  down(service?: string): Promise<void>;
}

/** The daemon itself, as against the services it protects. */
export interface DaemonStatus {
  pid: number;
  version: string;
  stateDir: string;
  startedAt: number;
  /** Sequence number of the newest event, 0 for none. */
  lastEvent: number;
}

/** What the control socket offers: the supervisor's operations and those of the daemon around it. */
export interface ControlOperations extends SupervisorOperations {
  daemon(): Promise<DaemonStatus>;
  /** Ends the daemon; guests, connections and data path stay as they are (promise P5). */
  shutdown(): Promise<void>;
}
