import type { Image } from '../lib/image.js';
import { BRIDGE, Lab, SERVICE_ADDRESS, sweep } from '../lib/lab.js';
import { sleep } from '../lib/run.js';
import { Supervisor } from '../lib/supervisor.js';
import { CrowdClient } from './crowd-client.js';
import { type Gap, type Recovery, Trials } from './recovery-netns.js';
import { median } from './statistics.js';

const TAG = 'benchvr';
/** Asked for once: 64 KiB that the client has acknowledged when the fault comes. */
const PATH = '/small/64k';
const ACKNOWLEDGED = 15 * 65_536;
const COUNTS = [1, 100, 1000];
/** Long enough for the command line to start, the fault to be seen and the connection to go on. */
const WATCH_MS = 6000;

/**
 * Recoveries of real guests by the real supervisor, from the detection of a killed QEMU to the last splice. The baseline is what the guest
 * that runs at that time needs for as many new connections; it has taken over before, so is rather warmer than a fresh one.
 */
export async function vmRecovery(
  image: Image,
  runs: number,
  log: (line: string) => void,
): Promise<{ recovery: Record<string, Recovery>; gap: Gap }> {
  const lab = await Lab.create(TAG);
  const supervisor = new Supervisor(lab);
  const trials = new Trials();
  const gaps: number[] = [];
  const undisturbed: number[] = [];
  try {
    log('vm recovery: starting primary and backup');
    await supervisor.up({
      name: TAG,
      address: `${SERVICE_ADDRESS}/24`,
      ports: [80, 8080],
      source: { image: image.dir },
      uplink: { bridge: BRIDGE },
      recovery: { former: 'destroy' },
    });
    const crowd = CrowdClient.start(lab, 'http', 80, PATH);
    await crowd.open(COUNTS[0]!);
    await crowd.close();
    for (let i = 0; i < runs; i++) {
      for (const count of COUNTS) {
        const fresh = await crowd.open(count);
        const report = await supervisor.drill(TAG, 'vm-kill');
        if (report.lost > 0 || report.kept < count || report.lastSpliceAt === undefined)
          throw new Error(`vm recovery: ${report.kept} kept, ${report.lost} lost of ${count}`);
        await crowd.ask();
        await crowd.close();
        const took = report.lastSpliceAt - report.detectedAt;
        const { resumedAt, firstSpliceAt } = report;
        const [resumed, first] = [resumedAt, firstSpliceAt!].map(at => (at - report.detectedAt).toFixed(1));
        const phases = `resumed after ${resumed} ms, first splice after ${first} ms`;
        log(`vm ${i + 1}/${runs}: ${trials.add(count, took, fresh)}; ${phases}`);
        await supervisor.protectedAgain(TAG);
      }
      await crowd.open(1);
      for (let asked = 65_536; asked < ACKNOWLEDGED; asked += 65_536) await crowd.ask();
      undisturbed.push(await crowd.watch(WATCH_MS / 4, '/small/1k'));
      const watched = crowd.watch(WATCH_MS, '/small/1k');
      await sleep(50);
      const { faultAt, detectedAt } = await supervisor.drill(TAG, 'vm-kill');
      gaps.push((await watched) - (detectedAt - faultAt!));
      await crowd.close();
      log(
        `vm ${i + 1}/${runs}: gap ${gaps.at(-1)!.toFixed(1)} ms, undisturbed ${undisturbed.at(-1)!.toFixed(1)} ms`,
      );
      await supervisor.protectedAgain(TAG);
    }
    await crowd.stop();
    await supervisor.down();
  } catch (error) {
    await supervisor.command(['down'], true).catch(() => {});
    throw error;
  } finally {
    await lab.dispose();
    await sweep(TAG);
  }
  const gap = { ms: median(gaps), undisturbedMs: median(undisturbed), acknowledged: ACKNOWLEDGED, runs };
  return { recovery: trials.results(), gap };
}
