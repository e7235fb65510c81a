import type { z } from 'zod';
import type * as schemas from './schemas.js';

/** The types of what `schemas.ts` defines, and the operations on them. */

export type ServicePhase = z.infer<typeof schemas.servicePhase>;
export type ServiceStatus = z.infer<typeof schemas.serviceStatus>;
export type GuestStatus = ServiceStatus['guests'][number];
export type GuestRole = (typeof schemas.GUEST_ROLES)[number];
export type DeadlinePolicy = (typeof schemas.DEADLINE_POLICIES)[number];
export type MigrationRequest = z.infer<typeof schemas.migrationRequest>;
/** A planned change of the active guest, as the state file has it: a successor of the supervisor goes on with it. */
export type MigrationPlan = z.infer<typeof schemas.migrationPlan>;
export type MigrationReport = z.infer<typeof schemas.migrationReport>;
export type BackupStatus = z.infer<typeof schemas.backupStatus>;
export type BackupOperation = z.infer<typeof schemas.backupOperation>;
/** What the active guest of a service may ask for. */
export type Grant = z.infer<typeof schemas.grant>;
export type ConnectionStatus = z.infer<typeof schemas.connectionStatus>;
export type RecoveryReport = z.infer<typeof schemas.recoveryReport>;
export type RecoveryCause = RecoveryReport['cause'];
/** What became of one connection in a recovery (promise P6). */
export type Verdict = RecoveryReport['verdicts'][number];
export type Incident = z.infer<typeof schemas.incident>;
export type IncidentDetail = z.infer<typeof schemas.incidentDetail>;
/** One line of the event log. */
export type HoldfastEvent = z.infer<typeof schemas.holdfastEvent>;
export type DrillFault = (typeof schemas.DRILL_FAULTS)[number];
/** The daemon itself, as against the services it protects. */
export type DaemonStatus = z.infer<typeof schemas.daemonStatus>;
/** An error as it travels: in the body of a failed request, or as the last line of an event stream. */
export type ErrorBody = z.infer<typeof schemas.apiError> & { code: `HF_${string}` };

export interface BackupCommand {
  operation: BackupOperation;
  /** With `address`: IPv4 with prefix. */
  address?: string | undefined;
  /** With `boot`: in place of the one that there is. */
  fresh?: boolean | undefined;
}

/** Operations behind the control socket; each rejects with `HoldfastError`. */
export interface SupervisorOperations {
  /** Starts to protect the service of this configuration text (YAML); resolves when it is `protected`. */
  protect(configYaml: string, source: string): Promise<ServiceStatus>;
  status(): Promise<ServiceStatus[]>;
  connections(service?: string): Promise<ConnectionStatus[]>;
  /** Injects a fault into the primary and waits for the recovery's end. */
  drill(service: string, fault: DrillFault): Promise<RecoveryReport>;
  /** Makes the backup the primary while both are well; resolves when that has ended, one way or the other. */
  migrate(service: string, request: MigrationRequest): Promise<MigrationReport>;
  /** Takes a migration that is under way back. */
  abortMigration(service: string): Promise<MigrationReport>;
  /** One of the operations on a backup; resolves with how it is then. */
  backup(service: string, command: BackupCommand): Promise<BackupStatus>;
  /** Of one service, or of all that run. */
  grants(service?: string): Promise<Grant[]>;
  /** Gives, or takes back, grants of a service's active guest; resolves with those that it has then. */
  grant(service: string, operations: readonly BackupOperation[], granted: boolean): Promise<Grant>;
  /** Faults of one service, or of all, oldest first; also of services that are down. */
  incidents(service?: string): Promise<Incident[]>;
  incident(service: string, id: number): Promise<IncidentDetail>;
  /** Past events from `since` (sequence number) on, then, if `follow`, new ones until `signal` aborts. */
  events(since: number, follow: boolean, signal: AbortSignal): AsyncIterable<HoldfastEvent>;
  /** Stops one service, or all: guests destroyed, taps, pins and shm files removed. */
  down(service?: string): Promise<void>;
}

/** What the control socket offers: the supervisor's operations and those of the daemon around it. */
export interface ControlOperations extends SupervisorOperations {
  daemon(): Promise<DaemonStatus>;
  /** All metrics in Prometheus' text format. */
  metrics(): Promise<string>;
  /** Ends the daemon; guests, connections and data path stay as they are (promise P5). */
  shutdown(): Promise<void>;
}
