import { setTimeout as sleep } from 'node:timers/promises';
import type { DrillFault } from '../../supervisor/api/types.js';
import type { Image } from '../lib/image.js';
import { Lab, sweep } from '../lib/lab.js';
import { serviceConfig } from '../lib/scenario.js';
import { Supervisor } from '../lib/supervisor.js';
import { HeldDownload } from './held-download.js';

const TAG = 'benchf';
const SIZES_MIB = [5, 10, 15, 20, 25, 30];
const FIRST_BYTES = 10_000;
/** In the same guest: the service starts again; or goes on, with one worker less, which is no recovery as in the papers, but as quick as one can be. */
const IN_PLACE: DrillFault[] = ['app-kill', 'app-segv', 'app-worker'];
const BY_BACKUP: DrillFault[] = ['vm-kill', 'guest-panic', 'guest-hang'];
/** A restart that follows another within so much time is no restart. */
const WINDOW_MS = 1000;
/** Buffers between the data path and a client that does not read: what lies in them counts as received. */
const RECEIVE_BUFFER = { first: 8192, half: 262_144 };

/** A recovery of one download. Times in ms. */
export interface FaultTrial {
  fault: DrillFault;
  where: 'same guest' | 'backup';
  mib: number;
  at: 'first' | 'half';
  /** What of it the client had acknowledged, and so was regenerated. */
  acknowledged: number;
  /** From the fault to its detection, and to the splice. */
  detectedMs: number;
  splicedMs: number;
}

/** Recoveries of single downloads, of several sizes and broken off at two places, in the same guest and by the backup: the papers' figures 20 and 21. */
export async function faultTrials(
  image: Image,
  runs: { same: number; backup: number },
  log: (line: string) => void,
): Promise<FaultTrial[]> {
  const lab = await Lab.create(TAG);
  const supervisor = new Supervisor(lab);
  const trials: FaultTrial[] = [];
  try {
    log('faults: starting primary and backup');
    const recovery = { former: 'destroy', onApplicationExit: 'restart', restartWindowMs: WINDOW_MS };
    await supervisor.up(serviceConfig(TAG, image, { recovery }));
    const plan = [...planOf('same guest', runs.same, IN_PLACE), ...planOf('backup', runs.backup, BY_BACKUP)];
    for (const [i, { where, fault, mib, at }] of plan.entries()) {
      const trial = await tryOne(lab, supervisor, image, { where, fault, mib, at });
      trials.push(trial);
      log(
        `faults ${i + 1}/${plan.length}: ${fault}, ${mib} MiB, ${at}: detected after ${trial.detectedMs.toFixed(1)} ms, spliced after ${trial.splicedMs.toFixed(1)} ms`,
      );
      await supervisor.protectedAgain(TAG);
      if (where === 'same guest') await sleep(WINDOW_MS);
    }
    await supervisor.down();
    return trials;
  } catch (error) {
    await supervisor.command(['down'], true).catch(() => {});
    throw error;
  } finally {
    await lab.dispose();
    await sweep(TAG);
  }
}

type Plan = Pick<FaultTrial, 'where' | 'fault' | 'mib' | 'at'>;

/** Each size and place `runs` times; faults in turn. */
function planOf(where: Plan['where'], runs: number, faults: DrillFault[]): Plan[] {
  const cases = SIZES_MIB.flatMap(mib => (['first', 'half'] as const).map(at => ({ mib, at })));
  const each = Array.from({ length: runs }, (_, run) => cases.map((one, i) => ({ ...one, turn: run + i })));
  return each.flat().map(({ mib, at, turn }) => ({ where, mib, at, fault: faults[turn % faults.length]! }));
}

async function tryOne(lab: Lab, supervisor: Supervisor, image: Image, plan: Plan): Promise<FaultTrial> {
  const { mib, at, fault } = plan;
  const path = `/files/${`${mib}`.padStart(2, '0')}.bin`;
  const body = image.files.get(path)!;
  const buffer = RECEIVE_BUFFER[at];
  await lab.exec(lab.clients[0]!.name, ['sysctl', '-qw', `net.ipv4.tcp_rmem=4096 ${buffer} ${buffer}`]);
  const download = await HeldDownload.start(lab, path, body, at === 'first' ? FIRST_BYTES : body.bytes / 2);
  const [connection] = (await supervisor.connections(TAG)).filter(({ state }) => state !== 'closed');
  const report = await supervisor.drill(TAG, fault);
  const { faultAt, detectedAt, lastSpliceAt, kept, lost, epoch } = report;
  if (kept !== 1 || lost > 0 || lastSpliceAt === undefined)
    throw new Error(`${fault}: ${kept} kept, ${lost} lost of one`);
  if ((epoch === connection!.epoch) !== (plan.where === 'same guest'))
    throw new Error(
      `${fault}: recovered in epoch ${epoch}, it was ${connection!.epoch}: ${await why(supervisor)}`,
    );
  await download.finish();
  return {
    ...plan,
    acknowledged: connection!.outputAcked,
    detectedMs: detectedAt - faultAt!,
    splicedMs: lastSpliceAt - faultAt!,
  };
}

/** What the supervisor said last. */
async function why(supervisor: Supervisor): Promise<string> {
  return (await supervisor.events())
    .slice(-20)
    .map(({ type, message }) => `${type}: ${message}`)
    .join('; ');
}
