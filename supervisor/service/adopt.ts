import { existsSync } from 'node:fs';
import { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { CONST, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { now } from '../clock.js';
import { readInterrupted, verdictKey } from '../recovery/interrupted.js';
import { connectionStatus } from './flows.js';
import type { GuestVm } from './guest.js';
import { isHandedOver } from './hand-over.js';
import { keepConsole } from './keepsakes.js';
import { type ServiceNames, SLOTS } from './names.js';
import { orphaned } from './orphan.js';
import type { Protection } from './protection.js';
import type { SavedService } from './state-file.js';

/** The pinned data path. Throws `HF_SERVICE_ORPHANED` if there is none to go on with, `HF_PINS_VERSION` if it is another's. */
export function adoptDataPath(names: ServiceNames): DataPath {
  if (!existsSync(`${names.pins}/control`)) throw orphaned(names.service, 'its data path is not pinned');
  const path = DataPath.adopt(names.pins);
  if (path.control.version === CONST.LAYOUT_VERSION) return path;
  path.close();
  throw orphaned(names.service, 'its data path was not yet complete');
}

/**
 * Finds the guests that an earlier supervisor made, and who is who. The control map has the last word: the state file is written
 * after a takeover, the map at its first step. What is missing to a protected service the upkeep adds.
 */
export async function adoptGuests(p: Protection, saved: SavedService): Promise<void> {
  const { name } = p.config;
  const guests: { guest: GuestVm; role: string }[] = [];
  for (const { name: domain, slot, role } of saved.guests) {
    const guest = await p.maker.adopt(domain, slot);
    if (guest) guests.push({ guest, role });
  }
  const { active } = p.path.control;
  const activeEpoch = active === CONST.NO_SLOT ? 0 : p.path.control.slots(active).epoch;
  const wasPrimary = guests.find(({ role }) => role === 'primary')?.guest;
  const current = activeEpoch === 0 ? undefined : guests.find(({ guest }) => guest.slot === active);
  const primary = current?.guest ?? wasPrimary;
  if (!primary) throw orphaned(name, 'it has no primary that could be found');

  const flows = [...p.path.flows()].map(({ flow }) => flow);
  const slots = SLOTS.map(slot => p.path.control.slots(slot).epoch);
  p.epoch = flows.reduce((highest, flow) => Math.max(highest, flow.epoch), Math.max(saved.epoch, ...slots));
  p.generation = saved.generation;
  p.holder = guests.find(({ guest }) => guest.name === saved.holder)?.guest;
  p.migration = saved.migration;
  p.phase = saved.migration ? 'migrating' : 'unprotected';
  p.reason = 'taken over from an earlier supervisor';
  p.primary = primary;
  const formers: GuestVm[] = [];
  for (const { guest, role } of guests) {
    if (guest === primary) continue;
    // Of two that serve the other one is being left; one that is fenced has been left.
    const serves = p.path.control.slots(guest.slot).epoch !== 0;
    if (saved.migration && serves && !p.leaving) p.leaving = guest;
    else if (role === 'backup' || role === 'leaving') p.backup = guest;
    else formers.push(guest);
  }
  // The younger one: the primary of the state file, if another has taken over since.
  p.former = formers.find(guest => guest === wasPrimary) ?? formers[0];
  // Events are heard already: what is asked only now cannot be missed.
  await Promise.all(guests.map(({ guest }) => guest.look()));
  const isTakingOver = current?.role === 'backup' && !p.leaving;
  await settle(p, primary, isTakingOver, activeEpoch);
  // What is left over is no reason not to watch over the service.
  await tidy(
    p,
    guests.map(({ guest }) => guest),
    formers,
    wasPrimary,
  ).catch(error => {
    p.say('service.trouble', `leftovers of an earlier supervisor remain: ${(error as Error).message}`);
  });
  await recall(p, isTakingOver);
  // A takeover that was interrupted before the disk had moved may have left nothing else to do.
  p.lateFlows = isHandedOver(p) || [...p.path.flows()].some(({ flow }) => needsReplay(p, flow));
  p.save();
  p.say('service.adopted', `taken over: ${primary.name} is ${p.fault ? 'lost' : 'active'}`, {
    primary: primary.name,
    backup: p.backup?.name,
    epoch: p.epoch,
    fault: p.fault?.detail,
  });
}

/** Primary and backup, as they were found. */
async function settle(p: Protection, primary: GuestVm, takingOver: boolean, epoch: number): Promise<void> {
  const { backup, leaving } = p;
  if (backup?.failure !== undefined) p.backupFailed(backup);
  if (leaving?.failure !== undefined) p.leavingFailed(leaving, leaving.failure);
  else if (leaving) leaving.state = 'active';
  const { failure, state } = primary;
  if (failure !== undefined) {
    const cause = state === 'crashed' ? 'guest-panic' : 'guest-gone';
    p.primaryFailed(cause, `${primary.name}: ${failure}`, now());
  } else if (epoch === 0) {
    p.primaryFailed('guest-hang', `${primary.name} was fenced by an earlier supervisor`, now());
  } else if (takingOver) {
    // The takeover was interrupted, perhaps before its guest was told; to be told twice changes nothing.
    await primary.wake(epoch);
  } else {
    primary.state = 'active';
  }
}

/** The recovery that was under way: its report is owed, whole. `takingOver`: it had begun, perhaps before it was said. */
async function recall(p: Protection, takingOver: boolean): Promise<void> {
  const found = await readInterrupted(p.past(), p.config.name);
  if (found) p.unreported = found.verdicts;
  const at = now();
  const fault = { cause: 'guest-gone', detail: 'its recovery was interrupted' } as const;
  const begun = takingOver
    ? { fault: { ...fault, detectedAt: at, fencedAt: at, faultAt: undefined }, resumedAt: at, counted: false }
    : undefined;
  const interrupted = found?.interrupted ?? begun;
  if (interrupted) recallSpliced(p);
  // A guest that died again is recovered from first, and its report is that of both.
  if (p.fault) return;
  p.interrupted = interrupted;
  // The supervisor may have ended before it had saved this.
  const { cause, detail, detectedAt } = found?.interrupted.fault ?? {};
  if (cause && detail && detectedAt !== undefined && p.history.status().lastFault?.at !== detectedAt)
    p.history.failed(cause, detail, detectedAt);
}

/** Spliced in the moment before the kill: the flow table knows, the event log does not yet. */
function recallSpliced(p: Protection): void {
  for (const { id, flow } of p.path.flows()) {
    // Not of this recovery: opened since, or half replayed.
    if (flow.state !== STATE.SPLICED || flow.failovers === 0 || flow.epoch !== p.epoch) continue;
    const { client, port, inputBytes, outputSent: outputBytes, epoch } = connectionStatus(p, flow);
    const said = {
      client,
      port,
      code: 'spliced',
      reason: 'spliced',
      inputBytes,
      outputBytes,
      at: now(),
    } as const;
    const verdict = { ...said, id, outcome: 'kept' } as const;
    if (p.unreported.has(verdictKey(verdict))) continue;
    p.unreported.set(verdictKey(verdict), verdict);
    p.say('connection.kept', `${client} to port ${port}: spliced`, { flow: id, ...said, epoch });
  }
}

async function tidy(
  p: Protection,
  guests: GuestVm[],
  formers: GuestVm[],
  wasPrimary: GuestVm | undefined,
): Promise<void> {
  for (const former of formers) {
    // The earlier supervisor came to that of all others.
    if (former === wasPrimary) {
      await keepConsole(p, former).catch(error => {
        p.say('service.trouble', `the console of ${former.name} was not kept: ${(error as Error).message}`);
      });
    }
    await retire(p, former);
  }
  for (const slot of SLOTS) {
    if (!p.guestIn(slot)) p.path.detachGuest(slot);
  }
  await p.maker.sweep(guests.filter(guest => p.guestIn(guest.slot) === guest));
}

/** One failed primary is kept for diagnosis, older ones go. */
async function retire(p: Protection, former: GuestVm): Promise<void> {
  if (former !== p.former || p.config.recovery.former === 'destroy') {
    p.path.detachGuest(former.slot);
    await p.maker.unmake(former);
    if (former === p.former) p.former = undefined;
    return;
  }
  p.path.detachGuest(former.slot);
  if (former.failure !== undefined) return;
  if (p.config.recovery.former !== 'aside') await former.halt();
  former.state = (await former.runs()) ? 'aside' : 'crashed';
}

function needsReplay(p: Protection, flow: { state: number; epoch: number; owner: number }): boolean {
  if (flow.state === STATE.CLOSED || flow.state === STATE.DIVERGED) return false;
  return flow.state === STATE.REPLAYING || p.path.control.slots(flow.owner).epoch !== flow.epoch;
}
