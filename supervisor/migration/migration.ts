import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { MigrationPlan, MigrationReport, MigrationRequest } from '../api/types.js';
import { now } from '../clock.js';
import { replayMoved } from '../recovery/recovery.js';
import type { GuestVm } from '../service/guest.js';
import type { Protection } from '../service/protection.js';
import { type Gone, letGo, owned, stay } from './let-go.js';

/** How often it is looked who can go now, ms: a client whose next request has been held waits for it. */
const ROUND_MS = 10;
/** How often the event log tells how far it is, ms. */
const TELL_MS = 1000;
const POLL_MS = 20;

/**
 * The walk of a planned change, one step of the upkeep after the other. Both guests are well, and each serves its own connections:
 *
 *   switchOver   new connections go to the next guest from here on; one store to the control map
 *   drain        again and again: who stands between two exchanges is held and replayed into the next guest, with nothing to repeat; at
 *                the deadline, what the policy says
 *   settle       nobody is left: the guest that was left is fenced, and waits suspended as the next backup
 *
 * A fault on the way needs nothing of its own. If the next guest fails, the one that was left takes over (`fallBack`): it has not lost what
 * it still had. If that one fails, its connections are held and replayed like those that moved (`Protection.leavingFailed`).
 */
export async function switchOver(p: Protection, plan: MigrationPlan, to: GuestVm): Promise<void> {
  const from = p.primary!;
  const epoch = p.nextEpoch();
  // Before anything changes: a successor must know what it finds.
  p.save();
  const why = await ready(to, epoch);
  const isWanted = p.migration === plan; // it may have been aborted meanwhile
  if (!isWanted || why !== undefined || p.fault || p.primary !== from || p.backup !== to) {
    if (isWanted) end(p, plan, 'failed', why ?? 'a fault came first');
    // The upkeep suspends it, unless it is about to take over.
    if (p.backup === to && !p.fault && to.failure === undefined) to.state = 'ready';
    return;
  }
  p.path.setListening(to.slot, true);
  p.path.activate(to.slot, epoch);
  p.primary = to;
  p.leaving = from;
  p.backup = undefined;
  p.save();
  p.become('migrating', `new connections go to ${to.name}; ${from.name} finishes what it has begun`);
  p.say('migration.switched', `new connections go to ${to.name}`, { from: from.name, to: to.name, epoch });
}

/** Wakes the next guest. Why it cannot serve, or undefined. */
async function ready(to: GuestVm, epoch: number): Promise<string | undefined> {
  try {
    await to.wake(epoch);
  } catch (error) {
    return `${to.name} could not be resumed: ${(error as Error).message}`;
  }
  if (!(await to.isTold(epoch))) return `the agent of ${to.name} does not answer`;
  const { application } = to.report();
  return application === 'listening' ? undefined : `the service in ${to.name} is ${application}`;
}

/** Looks once who can go, and stays with those that do; ends the migration when nobody is left. */
export async function drain(p: Protection, plan: MigrationPlan, leaving: GuestVm): Promise<void> {
  if (now() >= plan.deadlineAt && plan.policy === 'abort') {
    turnBack(p, plan, 'its deadline came first');
    return;
  }
  let gone = look(p, plan, leaving);
  if (gone.moved + gone.replayed > 0) {
    await p.withReplayer(async replayer => {
      if (p.fault || !p.primary) return;
      let replaying = true;
      const verdicts = replayMoved(p, replayer, p.primary).finally(() => {
        replaying = false;
      });
      // More of them come meanwhile, and need not wait for the next round.
      for (; replaying; await sleep(ROUND_MS)) if (p.leaving === leaving) gone = look(p, plan, leaving);
      plan.lost += (await verdicts).filter(({ outcome }) => outcome === 'lost').length;
    });
  } else if (gone.left > 0) await p.nap(ROUND_MS);
  // It may have failed meanwhile, or be the one that all go back to.
  const isLeft = p.leaving === leaving && gone.left === 0 && owned(p, leaving) === 0;
  if (isLeft && !p.fault) settle(p, plan, leaving);
}

function look(p: Protection, plan: MigrationPlan, leaving: GuestVm): Gone {
  const all = now() >= plan.deadlineAt && plan.policy === 'replay';
  const gone = letGo(p, leaving, all ? 'all' : 'between');
  plan.moved += gone.moved;
  plan.replayed += gone.replayed;
  tell(p, plan, gone.left);
  return gone;
}

/** Last words about each migration. */
const told = new WeakMap<MigrationPlan, { at: number; left: number }>();

function tell(p: Protection, plan: MigrationPlan, left: number): void {
  const last = told.get(plan);
  if (last && (last.left === left || now() < last.at + TELL_MS)) return;
  told.set(plan, { at: now(), left });
  const { from, moved, replayed } = plan;
  p.say('migration.progress', `${moved} moved, ${replayed} replayed; ${from} still has ${left}`, {
    ...{ moved, replayed, left },
  });
}

/** What was the primary is the backup. */
function settle(p: Protection, plan: MigrationPlan, leaving: GuestVm): void {
  p.path.fence(leaving.slot);
  p.leaving = undefined;
  p.backup = leaving;
  leaving.state = 'ready'; // the upkeep suspends it
  end(p, plan, plan.why === undefined ? 'done' : 'aborted', plan.why);
}

/** New connections go to the guest that was being left again, and the others follow. */
export function turnBack(p: Protection, plan: MigrationPlan, why: string): void {
  const { primary, leaving } = p;
  if (!primary || !leaving) {
    end(p, plan, 'aborted', why);
    return;
  }
  p.path.activate(leaving.slot, p.path.control.slots(leaving.slot).epoch);
  stay(p, leaving);
  p.primary = leaving;
  p.leaving = primary;
  const startedAt = now();
  const deadlineAt = startedAt + plan.deadlineAt - plan.startedAt;
  const back = { from: primary.name, to: leaving.name, startedAt, deadlineAt };
  p.migration = { ...plan, ...back, policy: 'replay', why };
  p.save();
  p.say('migration.turned', `${why}: back to ${leaving.name}`, { from: primary.name, to: leaving.name });
}

/** The next guest has failed: the one that was being left takes over, as any backup does. */
export function fallBack(p: Protection, leaving: GuestVm): void {
  stay(p, leaving);
  p.leaving = undefined;
  p.backup = leaving;
  if (p.migration) end(p, p.migration, 'failed', p.fault?.detail);
}

/** The guest that was being left is gone, or the backup before it could begin. */
export function endWithoutOther(p: Protection, plan: MigrationPlan): void {
  if (p.primary?.name === plan.to) end(p, plan, 'done', `${plan.from} was lost before all had left it`);
  else end(p, plan, 'failed', 'there is no backup any more');
}

/** Whatever its end is. */
function end(p: Protection, plan: MigrationPlan, outcome: MigrationReport['outcome'], why?: string): void {
  const report: MigrationReport = { ...plan, outcome, why, endedAt: now() };
  p.migration = undefined;
  p.migrated = report;
  p.save();
  const { to, from, moved, replayed, lost } = plan;
  const counts = `${moved} connections moved, ${replayed} replayed, ${lost} lost`;
  const what = outcome === 'failed' ? `${from} was not left for ${to}` : `${to} has all connections`;
  p.say(`migration.${outcome}`, `${what}${why === undefined ? '' : ` (${why})`}: ${counts}`, { ...report });
}

/** Makes the backup the primary; resolves when that has ended, one way or the other. */
export function migrate(p: Protection, request: MigrationRequest): Promise<MigrationReport> {
  beginMigration(p, request);
  return ended(p);
}

/** As `migrate`, without waiting. Throws `HF_MIGRATE_STORAGE`, `HF_SERVICE_BUSY`. */
export function beginMigration(p: Protection, request: MigrationRequest): void {
  const { primary, backup } = p;
  if (p.config.storage.mode === 'handed-over') {
    throw new HoldfastError(
      'HF_MIGRATE_STORAGE',
      `the storage of ${p.config.name} is handed over: two guests cannot serve at once`,
      'Use storage shared or none, or let the backup take over as at a fault (`holdfast drill`).',
    );
  }
  if (p.phase !== 'protected' || p.migration || !primary || !backup) throw busy(p);
  const startedAt = now();
  p.migration = {
    ...{ from: primary.name, to: backup.name, startedAt, deadlineAt: startedAt + request.drainMs },
    ...{ policy: request.policy, moved: 0, replayed: 0, lost: 0 },
  };
  p.wake();
}

/** Turns a migration that is under way; resolves when its connections are back. */
export function abortMigration(p: Protection): Promise<MigrationReport> {
  const { migration } = p;
  if (!migration) {
    throw new HoldfastError(
      'HF_MIGRATE_NONE',
      `no migration of ${p.config.name} is under way`,
      'To go back to the former primary, migrate once more: it is the backup now.',
    );
  }
  if (migration.why === undefined) turnBack(p, migration, 'aborted by the operator');
  p.wake();
  return p.migration ? ended(p) : Promise.resolve(p.migrated!);
}

async function ended(p: Protection): Promise<MigrationReport> {
  p.migrated = undefined;
  while (!p.migrated) {
    p.stopped.throwIfAborted();
    await sleep(POLL_MS);
  }
  return p.migrated;
}

function busy(p: Protection): HoldfastError {
  const { name } = p.config;
  return new HoldfastError(
    'HF_SERVICE_BUSY',
    `${name} is ${p.phase}${p.reason ? ` (${p.reason})` : ''}`,
    `Wait until \`holdfast status ${name}\` says protected.`,
  );
}
