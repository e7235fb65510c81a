import { setTimeout as sleep } from 'node:timers/promises';
import { DRILL_FAULTS } from '../../supervisor/api/schemas.js';
import type { DrillFault } from '../../supervisor/api/types.js';
import { waitFor } from '../lib/run.js';
import { daemonPid, killDaemon } from '../lib/stage.js';
import { guestOf, type Supervisor } from '../lib/supervisor.js';

/** Longest absence of a supervisor that was killed, ms. */
const MAX_ABSENCE_MS = 4000;
const REPLAY_BEGINS_MS = 30_000;

/** What a fault acts on, and a random number of its own. */
export interface Target {
  service: string;
  supervisor: Supervisor;
  random: number;
}

const drill =
  (fault: DrillFault) =>
  async ({ service, supervisor }: Target): Promise<void> => {
    await supervisor.drill(service, fault);
  };

/** The supervisor is killed and comes back some time later. */
async function supervisorKill({ supervisor, random }: Target): Promise<void> {
  await killDaemon(supervisor);
  await sleep(random % MAX_ABSENCE_MS);
  await supervisor.command(['up']);
}

/** The backup is killed while nothing is wrong with the primary. */
async function backupKill({ service, supervisor }: Target): Promise<void> {
  const { name, pid } = guestOf(await supervisor.status(service), 'backup');
  process.kill(pid!, 'SIGKILL');
  await noticed(supervisor, 'guest.gone', name);
}

/** Two faults at once: the guest that takes over is killed while connections are replayed into it. */
async function replayKill({ service, supervisor, random }: Target): Promise<void> {
  const { pid } = guestOf(await supervisor.status(service), 'backup');
  const before = (await supervisor.events()).at(-1)?.seq ?? 0;
  const report = supervisor.drill(service, 'guest-panic').catch(() => undefined);
  await waitFor('the recovery to begin', REPLAY_BEGINS_MS, async () => {
    const events = await supervisor.events();
    return events.some(event => event.seq > before && event.type === 'recovery.started') || undefined;
  });
  await sleep(random % 300);
  process.kill(pid!, 'SIGKILL');
  await report;
}

/** The supervisor is killed in the middle of a recovery. */
async function recoveryKill({ service, supervisor, random }: Target): Promise<void> {
  const pid = await daemonPid(supervisor);
  const report = supervisor.drill(service, 'guest-panic').catch(() => undefined);
  await sleep(random % 500);
  process.kill(pid, 'SIGKILL');
  await report;
  await supervisor.command(['up']);
}

async function noticed(supervisor: Supervisor, type: string, guest: string): Promise<void> {
  await waitFor(`${type} of ${guest}`, REPLAY_BEGINS_MS, async () => {
    const events = await supervisor.events();
    return events.some(event => event.type === type && event.message.includes(guest)) || undefined;
  });
}

const DRILLS = Object.fromEntries(DRILL_FAULTS.map(fault => [fault, drill(fault)])) as {
  [fault in DrillFault]: ReturnType<typeof drill>;
};

/** Every kind of fault so far. Each resolves when the fault has happened; the campaign waits for protection itself. */
export const FAULTS = {
  ...DRILLS,
  'supervisor-kill': supervisorKill,
  'backup-kill': backupKill,
  'replay-kill': replayKill,
  'recovery-kill': recoveryKill,
} satisfies Record<string, (target: Target) => Promise<void>>;

export type FaultKind = keyof typeof FAULTS;
export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[];
