import type { FlowVerdict, Replayer } from '../../hypervisor-shim/replay/replayer.js';
import type { RecoveryReport, Verdict } from '../api/types.js';
import { now } from '../clock.js';
import type { NewEvent } from '../events/event-log.js';
import type { GuestVm } from '../service/guest.js';
import { handOver, isHandedOver } from '../service/hand-over.js';
import type { Fault, Protection } from '../service/protection.js';
import { verdictKey } from './interrupted.js';

/** Thrown when the guest that took over was lost in its turn: its fault is the next thing to act on. */
export class SecondFault extends Error {}

/**
 * The walk from a fenced primary to spliced connections. The fence itself was one store, made when the fault was seen.
 *
 *   activate(slot, epoch)   new connections queue in the backup's tap
 *   resume                  a few ms
 *   storage                 only if there is storage that lasts, see service/hand-over
 *   replay                  in the worker, which first waits until no program runs that still saw the old epoch
 *
 * Everything that can wait comes after the last step. Rejects with `SecondFault`, or with what ended the replay:
 * flows then stay held, and `lateFlows` makes the upkeep try again.
 */
export async function takeOver(
  p: Protection,
  fault: Fault,
  backup: GuestVm,
  replayer: Replayer,
): Promise<{ report: RecoveryReport; former: GuestVm | undefined }> {
  const former = p.primary;
  // One that was being left still has an epoch, and connections in it.
  const epoch = p.path.control.slots(backup.slot).epoch || p.nextEpoch();
  p.primary = backup;
  p.backup = undefined;
  p.fault = undefined;
  p.interrupted = undefined; // what was said of its connections is in `unreported`
  p.path.activate(backup.slot, epoch);
  p.path.setListening(backup.slot, !isHandedOver(p));
  const resumed = backup.wake(epoch);
  const verdicts = replay(p, replayer, backup, epoch);
  // It may fail while something else is awaited; whoever awaits it below learns of that.
  verdicts.catch(() => {});
  if (p.config.recovery.former !== 'aside') void former?.halt();
  p.say('recovery.started', `${fault.cause} (${fault.detail}): ${backup.name} takes over`, {
    cause: fault.cause,
    detectedAt: fault.detectedAt,
    fencedAt: fault.fencedAt,
    faultAt: fault.faultAt,
    epoch,
    from: former?.name,
    to: backup.name,
  });
  try {
    const resumedAt = await resumed.catch(error => {
      p.primaryFailed('guest-gone', `it could not be resumed: ${error}`, now());
      throw new SecondFault(`${backup.name} could not be resumed`, { cause: error });
    });
    verdicts.catch(error => {
      if (!(error instanceof SecondFault)) p.interrupted = { fault, resumedAt, counted: true };
    });
    return { report: makeReport(p, fault, epoch, resumedAt, await verdicts), former };
  } finally {
    // Nobody may be left waiting for a replay that went down with the guest.
    await verdicts.catch(() => {});
    p.history.recovered(fault.cause);
    p.save();
  }
}

/**
 * Replays flows that are held although their service runs: of a handshake that ended during a takeover, say; and those that a
 * replay which ended early (its supervisor was killed) left half-way in this guest. Resolves with the report that such a
 * replay did not come to.
 */
export async function replayLate(
  p: Protection,
  replayer: Replayer,
  guest: GuestVm,
): Promise<RecoveryReport | undefined> {
  const { epoch } = p.path.control.slots(guest.slot);
  const verdicts = await replay(p, replayer, guest, epoch, { resume: true });
  const { interrupted } = p;
  if (interrupted) {
    p.interrupted = undefined;
    if (!interrupted.counted) p.history.recovered(interrupted.fault.cause);
    p.save();
    return makeReport(p, interrupted.fault, epoch, interrupted.resumedAt, verdicts);
  }
  if (verdicts.length > 0) {
    p.say('recovery.late', `${count(verdicts)} that were still held`, { epoch, guest: guest.name });
  }
  return undefined;
}

/**
 * Replays into the guest that has them the flows that are held there because their processes died; its epoch, and all its other flows,
 * go on. Resolves with the report.
 */
export async function replayInPlace(
  p: Protection,
  crashed: Fault,
  replayer: Replayer,
  guest: GuestVm,
): Promise<RecoveryReport> {
  const { epoch } = p.path.control.slots(guest.slot);
  const { cause, detail, detectedAt, fencedAt, faultAt } = crashed;
  const resumedAt = now();
  p.say('recovery.started', `${cause} (${detail}): its connections are replayed in ${guest.name} itself`, {
    ...{ cause, detectedAt, fencedAt, faultAt, epoch },
    from: guest.name,
    to: guest.name,
  });
  const verdicts = await replay(p, replayer, guest, epoch);
  p.history.recovered(cause);
  p.save();
  return makeReport(p, crashed, epoch, resumedAt, verdicts);
}

/** Replays connections that have left another guest, which is well, into `guest`, where it stands in its epoch. */
export function replayMoved(p: Protection, replayer: Replayer, guest: GuestVm): Promise<FlowVerdict[]> {
  const { epoch } = p.path.control.slots(guest.slot);
  return replay(p, replayer, guest, epoch, { gentle: true }, 'connection.moved');
}

/** What the event log says of a verdict, and a later supervisor reads back (`interrupted`). */
export function verdictEvent(verdict: FlowVerdict, epoch: number, kept = 'connection.kept'): NewEvent {
  const { id: flow, client, port, outcome, code, reason, inputBytes, outputBytes, at } = verdict;
  return {
    type: outcome === 'kept' ? kept : 'connection.lost',
    message: `${client} to port ${port}: ${reason}`,
    data: { flow, client, port, code, reason, inputBytes, outputBytes, at, epoch },
  };
}

/** Each verdict becomes an event as it comes; what a second fault leaves open is judged by the next recovery. */
async function replay(
  p: Protection,
  replayer: Replayer,
  guest: GuestVm,
  epoch: number,
  how: { resume?: boolean; gentle?: boolean } = {},
  kept = 'connection.kept',
): Promise<FlowVerdict[]> {
  p.replaying = true;
  const said = p.unreported;
  replayer.on('verdicts', verdicts => {
    // The last word counts: a connection that was spliced to a guest that then died is judged again.
    for (const verdict of verdicts) said.set(verdictKey(verdict), verdict);
    p.sayAll(verdicts.map(verdict => verdictEvent(verdict, epoch, kept)));
  });
  try {
    // What was repeated into an empty directory would be lost.
    const [told] = await Promise.all([
      guest.isTold(epoch),
      handOver(p, guest).catch(error => {
        throw p.fault ? new SecondFault(error.message, { cause: error }) : error;
      }),
    ]);
    if (!told && !p.fault)
      p.say('guest.untold', `the agent of ${guest.name} does not answer: its clock may be late`, {
        guest: guest.name,
      });
    const { fenced } = await replayer.recover({
      slot: guest.slot,
      epoch,
      guestIfindex: guest.ifindex,
      deadlineMs: p.config.recovery.replayDeadlineMs,
      ...how,
    });
    if (fenced) throw new SecondFault(`${guest.name} was fenced while connections were replayed into it`);
    p.unreported = new Map();
    return [...said.values()];
  } finally {
    p.replaying = false;
  }
}

function makeReport(
  p: Protection,
  fault: Fault,
  epoch: number,
  resumedAt: number,
  flows: FlowVerdict[],
): RecoveryReport {
  const splices = flows
    .filter(flow => flow.reason === 'spliced')
    .map(flow => flow.at)
    .sort((a, b) => a - b);
  const verdicts = flows.map(
    ({ client, port, outcome, code, reason, inputBytes, outputBytes, at }): Verdict => ({
      client,
      port,
      outcome,
      code,
      reason,
      inputBytes,
      outputBytes,
      spliceMs: reason === 'spliced' ? at - fault.detectedAt : undefined,
    }),
  );
  const lost = flows.filter(flow => flow.outcome === 'lost').length;
  const report: RecoveryReport = {
    service: p.config.name,
    cause: fault.cause,
    epoch,
    faultAt: fault.faultAt,
    detectedAt: fault.detectedAt,
    fencedAt: fault.fencedAt,
    resumedAt,
    firstSpliceAt: splices[0],
    lastSpliceAt: splices.at(-1),
    kept: flows.length - lost,
    lost,
    verdicts,
  };
  const { verdicts: _, ...summary } = report;
  const took = ((report.lastSpliceAt ?? resumedAt) - fault.detectedAt).toFixed(0);
  p.say('recovery.done', `${count(flows)}, ${took} ms after detection`, summary);
  return report;
}

function count(flows: FlowVerdict[]): string {
  const lost = flows.filter(flow => flow.outcome === 'lost').length;
  return `${flows.length - lost} connections kept, ${lost} lost`;
}
