import { z } from 'zod';
import { BACKUP_OPERATIONS } from '../../guest-agent/wire/control-page.js';
import { VERDICT_CODES } from '../../hypervisor-shim/replay/protocol.js';

/**
 * What the supervisor says to its clients, defined once: the server checks requests against it, the clients' types follow
 * from it, and the OpenAPI document states it. Times are ms since 1970 where they name a moment (`at`), ms where they end
 * in `Ms`. The `id` of a schema is its name in the document.
 */

/**
 * `guest-hang`: every vCPU halts with interrupts off; `guest-spin`: real-time threads take every vCPU, the kernel still answers;
 * `link-cut`: the guest's tap goes down; `reboot`: at once; `poweroff`: in good order, from inside. Those of the application, on the first
 * service of the image with a protected port: `app-kill`: SIGKILL to its process group; `app-segv`: SIGSEGV to its main process;
 * `app-worker`: SIGKILL to one worker, the busiest; `app-stop`: SIGTERM to its main process, as by an operator's mistake.
 */
export const DRILL_FAULTS = [
  'guest-panic',
  'vm-kill',
  'guest-hang',
  'guest-spin',
  'link-cut',
  'reboot',
  'poweroff',
  'app-kill',
  'app-segv',
  'app-worker',
  'app-stop',
] as const;
export const CAUSES = [
  'guest-panic',
  'guest-gone',
  'guest-hang',
  'guest-shutdown',
  'link-cut',
  'service-wedged',
  'application-exit',
  'operator',
] as const;

const count = z.int().min(0);
const moment = z.number().describe('ms since 1970, with fractions');
const recoveryCause = z.enum(CAUSES);

export const servicePhase = z.enum([
  'starting',
  'protected',
  'unprotected',
  'recovering',
  'migrating',
  'stopping',
  'failed',
]);

const guestState = z
  .enum(['booting', 'ready', 'active', 'suspended', 'crashed', 'aside', 'off'])
  .describe('`aside`: failed, cut off from the service network, and runs on for diagnosis');

/** `leaving`: in a migration the primary of before, which finishes what it has begun; `former`: failed. */
export const GUEST_ROLES = ['primary', 'backup', 'leaving', 'former'] as const;

const guestStatus = z
  .object({
    name: z.string().describe('libvirt domain name'),
    role: z.enum(GUEST_ROLES).describe('what it is, or, while it boots, is to become'),
    state: guestState,
    bootId: z.string().optional(),
    vcpuMs: z.number().describe('vCPU time used so far'),
    vcpuMsAtSuspend: z.number().optional().describe('of a backup: what it had used when it was suspended'),
    serialLog: z.string(),
    managementAddress: z.string().describe('with prefix; there it is reached from this host, active or not'),
    pid: z.int().optional(),
    residentBytes: count.optional().describe("of the host's memory, by the process that runs it"),
  })
  .meta({ id: 'GuestStatus' });

export const backupOperation = z.enum(BACKUP_OPERATIONS);

export const backupStatus = z
  .object({
    service: z.string(),
    phase: servicePhase,
    reason: z.string().optional(),
    guest: z.string().optional().describe('libvirt domain name; absent while there is none'),
    state: guestState.optional(),
    awake: z.boolean().describe('it runs for maintenance until it is suspended, or takes over'),
    vcpuMs: z.number().optional(),
    residentBytes: count.optional(),
    managementAddress: z.string().optional(),
    furtherAddress: z.string().optional().describe('the one that `address` has given it'),
  })
  .meta({ id: 'BackupStatus' });

export const grant = z
  .object({
    service: z.string(),
    operations: z.array(backupOperation).describe('what its active guest may ask for'),
  })
  .meta({ id: 'Grant' });

const fault = z
  .object({ cause: recoveryCause, detail: z.string(), at: moment.describe('when it was detected') })
  .meta({ id: 'Fault' });

/** What becomes of connections that are in the midst of an exchange when the deadline of a migration comes. */
export const DEADLINE_POLICIES = ['replay', 'wait', 'abort'] as const;

export const migrationPlan = z
  .object({
    from: z.string().describe('the guest that is left'),
    to: z.string(),
    startedAt: moment,
    deadlineAt: moment,
    policy: z
      .enum(DEADLINE_POLICIES)
      .describe('for connections that still are in the midst of an exchange at `deadlineAt`'),
    moved: count.describe('connections that went between two exchanges'),
    replayed: count.describe('those of which an exchange was begun again, at the deadline or after a fault'),
    lost: count,
    why: z.string().optional().describe('it goes back, and why'),
  })
  .meta({ id: 'Migration', description: 'A planned change of the active guest, while both serve.' });

export const migrationStatus = migrationPlan.extend({
  left: count.describe('connections that the guest that is left still has'),
});

export const migrationReport = migrationPlan
  .extend({
    outcome: z
      .enum(['done', 'aborted', 'failed'])
      .describe(
        '`aborted`: connections went back; `failed`: by a fault, which is recovered from as any other',
      ),
    endedAt: moment,
  })
  .meta({ id: 'MigrationReport' });

export const migrationRequest = z.strictObject({
  drainMs: z.int().min(0).max(86_400_000).describe('until the deadline'),
  policy: z.enum(DEADLINE_POLICIES),
});

export const serviceStatus = z
  .object({
    name: z.string(),
    phase: servicePhase,
    reason: z.string().optional().describe('why it is not `protected`'),
    address: z.string(),
    ports: z.array(z.int().min(1).max(65535)),
    stoppedServices: z
      .array(z.string())
      .describe('services of the image that somebody stopped on purpose, inside the active guest'),
    accel: z.enum(['kvm', 'tcg', 'xen']),
    epoch: count,
    connections: z.object({
      ...{ tracked: count, held: count, spliced: count, closed: count },
      unprotected: count.describe('also counted where they belong: they go on, but the next fault ends them'),
    }),
    recoveries: count.describe('over the life of the service, whichever supervisor made them'),
    recoveriesByCause: z.partialRecord(recoveryCause, count),
    startedAt: moment.optional().describe('when the service was first protected'),
    lastFault: fault.optional(),
    lastRecoveryAt: moment.optional().describe('when the last recovery ended'),
    storage: z.object({
      mode: z.enum(['none', 'handed-over', 'shared']),
      holder: z
        .string()
        .optional()
        .describe(
          'the guest that alone may write to storage that lasts: it has the disk, or is about to get it',
        ),
      volatileBytes: count.describe(
        "with `none`: bytes by which the active guest's own disk, which dies with it, has grown since it is active",
      ),
    }),
    guests: z.array(guestStatus),
    migration: migrationStatus.optional().describe('only while one is under way'),
    log: z.object({
      ...{ segmentsFree: count, segmentsTotal: count },
      usedBytes: count.describe('of the stretches of its memory that are in use'),
      onFull: z.enum(['backpressure', 'unprotected']).optional(),
      full: z.boolean().describe('some input found no room, and less than a tenth of it has been free since'),
      spill: z
        .object({
          directory: z.string(),
          fileBytes: count.describe('of the files, now'),
          limitBytes: count.describe('log.spill.sizeMiB'),
          movedBytes: count.describe(
            'of input, moved from memory to files since this supervisor looks after it',
          ),
          full: z.boolean().describe('the files have no room for what should be moved'),
          error: z.string().optional().describe('what the file system said to the last try'),
        })
        .optional()
        .describe('only if the log is spilled to files'),
    }),
  })
  .meta({ id: 'ServiceStatus' });

export const connectionStatus = z
  .object({
    service: z.string(),
    client: z.string().describe('address:port'),
    port: z.int(),
    state: z.string(),
    guest: z.string(),
    epoch: count,
    inputBytes: z.number().describe('bytes logged from the client'),
    outputSent: z.number().describe('end of what was sent to the client, a position from 0'),
    outputAcked: z.number().describe('end of what the client has acknowledged'),
    failovers: count,
    unprotected: z.string().optional().describe('why the next fault ends it'),
  })
  .meta({ id: 'ConnectionStatus' });

const verdict = z
  .object({
    client: z.string(),
    port: z.int(),
    outcome: z.enum(['kept', 'lost']),
    code: z.enum(VERDICT_CODES),
    reason: z.string(),
    inputBytes: z.number(),
    outputBytes: z.number(),
    spliceMs: z.number().optional(),
  })
  .meta({ id: 'Verdict', description: 'What became of one connection in a recovery (promise P6).' });

export const recoveryReport = z
  .object({
    service: z.string(),
    cause: recoveryCause,
    epoch: count,
    faultAt: moment.optional().describe('only where a drill injected it'),
    detectedAt: moment,
    fencedAt: moment,
    resumedAt: moment,
    firstSpliceAt: moment.optional(),
    lastSpliceAt: moment.optional(),
    kept: count,
    lost: count,
    verdicts: z.array(verdict),
  })
  .meta({ id: 'RecoveryReport' });

/** What becomes of a fault: `superseded` by one of its successor before it was recovered from; `abandoned`: the service was ended. */
export const INCIDENT_OUTCOMES = ['open', 'recovered', 'superseded', 'abandoned'] as const;

const timeline = z.object({
  faultAt: moment.optional().describe('only where a drill injected it'),
  detectedAt: moment,
  fencedAt: moment,
  takeoverAt: moment.optional().describe('a backup was there to take over'),
  resumedAt: moment.optional(),
  firstSpliceAt: moment.optional(),
  lastSpliceAt: moment.optional(),
  recoveredAt: moment.optional().describe('each connection had its verdict'),
  protectedAt: moment.optional().describe('the next backup was ready'),
});

export const incident = z
  .object({
    id: z.int().min(1).describe('sequence number of the event that tells of the fault'),
    service: z.string(),
    cause: recoveryCause,
    detail: z.string().describe('what showed it'),
    guest: z.string().optional().describe('the machine that failed'),
    successor: z.string().optional().describe('the one that took over'),
    epoch: count.optional().describe("the successor's"),
    outcome: z.enum(INCIDENT_OUTCOMES),
    supersededBy: z
      .int()
      .optional()
      .describe('the incident whose report has the connections of this one, too'),
    timeline,
    evidence: z
      .array(z.object({ at: moment, type: z.string(), message: z.string() }))
      .describe('events about the failed machine'),
    kept: count,
    lost: count,
    consoleFile: z.string().optional().describe("end of the failed machine's console, if it is still kept"),
    dumpFile: z.string().optional().describe('its memory, an ELF core, if it is still kept'),
  })
  .meta({
    id: 'Incident',
    description: 'A fault of a primary, from its detection until the service is protected again.',
  });

export const incidentDetail = incident
  .extend({ verdicts: z.array(verdict) })
  .meta({ id: 'IncidentDetail', description: 'An incident with what became of each connection.' });

export const holdfastEvent = z
  .object({
    seq: z.int().min(1),
    at: moment,
    type: z.string().describe('a dotted name: service.protected, guest.panicked, recovery.done, ...'),
    service: z.string().optional(),
    message: z.string(),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'Event' });

export const daemonStatus = z
  .object({
    pid: z.int(),
    version: z.string(),
    stateDir: z.string(),
    startedAt: moment,
    lastEvent: count.describe('sequence number of the newest event, 0 for none'),
    metricsListen: z.string().optional().describe('address on which metrics are also served over TCP'),
  })
  .meta({ id: 'DaemonStatus' });

export const apiError = z
  .object({
    code: z
      .string()
      .regex(/^HF_[A-Z0-9_]+$/)
      .describe('stable'),
    message: z.string().describe('what was wrong, naming the field or object'),
    remedy: z.string().describe('what to do next'),
  })
  .meta({ id: 'Error' });
