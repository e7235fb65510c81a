import type { FlowVerdict, Replayer } from '../../hypervisor-shim/replay/replayer.js';
import type { RecoveryReport, Verdict } from '../api/types.js';
import { now } from '../clock.js';
import type { GuestVm } from '../service/guest.js';
import type { Fault, Protection } from '../service/protection.js';

/** Thrown when the guest that took over was lost in its turn: its fault is the next thing to act on. */
export class SecondFault extends Error {}

/**
 * The walk from a fenced primary to spliced connections. The fence itself was one store, made when the fault was seen.
 *
 *   activate(slot, epoch)   new connections queue in the backup's tap
 *   resume                  a few ms
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
  const epoch = p.nextEpoch();
  p.primary = backup;
  p.backup = undefined;
  p.fault = undefined;
  p.path.activate(backup.slot, epoch);
  p.path.setListening(backup.slot, true);
  const resumed = backup.wake(epoch);
  const verdicts = replay(p, replayer, backup, epoch);
  // It may fail while something else is awaited; whoever awaits it below learns of that.
  verdicts.catch(() => {});
  void former?.halt();
  p.say('recovery.started', `${fault.cause} (${fault.detail}): ${backup.name} takes over`, {
    cause: fault.cause,
    detectedAt: fault.detectedAt,
    epoch,
    from: former?.name,
    to: backup.name,
  });
  try {
    const resumedAt = await resumed.catch(error => {
      p.primaryFailed('guest-gone', `it could not be resumed: ${error}`, now());
      throw new SecondFault(`${backup.name} could not be resumed`, { cause: error });
    });
    return { report: makeReport(p, fault, epoch, resumedAt, await verdicts), former };
  } finally {
    // Nobody may be left waiting for a replay that went down with the guest.
    await verdicts.catch(() => {});
    p.recoveries++;
    p.save();
  }
}

/**
 * Replays flows that are held although their service runs: of a handshake that ended during a takeover, say; and those that a
 * replay which ended early (its supervisor was killed) left half-way in this guest.
 */
export async function replayLate(p: Protection, replayer: Replayer, guest: GuestVm): Promise<void> {
  const { epoch } = p.path.control.slots(guest.slot);
  const verdicts = await replay(p, replayer, guest, epoch, true);
  if (verdicts.length > 0) {
    p.say('recovery.late', `${count(verdicts)} that were still held`, { epoch, guest: guest.name });
  }
}

/** Each verdict becomes an event as it comes; what a second fault leaves open is judged by the next recovery. */
async function replay(
  p: Protection,
  replayer: Replayer,
  guest: GuestVm,
  epoch: number,
  resume = false,
): Promise<FlowVerdict[]> {
  p.replaying = true;
  const said = p.unreported;
  replayer.on('verdict', verdict => {
    // The last word counts: a connection that was spliced to a guest that then died is judged again.
    said.set(`${verdict.id} ${verdict.client}`, verdict);
    const { client, port, outcome, reason, inputBytes, outputBytes, at } = verdict;
    const text = `${client} to port ${port}: ${reason}`;
    p.say(`connection.${outcome}`, text, { client, port, reason, inputBytes, outputBytes, at, epoch });
  });
  try {
    const { fenced } = await replayer.recover({
      slot: guest.slot,
      epoch,
      guestIfindex: guest.ifindex,
      deadlineMs: p.config.recovery.replayDeadlineMs,
      resume,
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
  const splices = flows.filter(flow => flow.reason === 'spliced').map(flow => flow.at);
  const verdicts = flows.map(
    ({ client, port, outcome, reason, inputBytes, outputBytes, at }): Verdict => ({
      client,
      port,
      outcome,
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
    firstSpliceAt: splices.length > 0 ? Math.min(...splices) : undefined,
    lastSpliceAt: splices.length > 0 ? Math.max(...splices) : undefined,
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
