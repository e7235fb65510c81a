import type { Image } from '../lib/image.js';
import { BRIDGE, Lab, SERVICE_ADDRESS, sweep } from '../lib/lab.js';
import { Supervisor } from '../lib/supervisor.js';
import { CrowdClient } from './crowd-client.js';
import { COUNTS, type Recovery, Trials } from './recovery-netns.js';

const TAG = 'benchvr';
/** Asked for once: 64 KiB that the client has acknowledged when the fault comes. */
const PATH = '/small/64k';

/**
 * Recoveries of real guests by the real supervisor, from the detection of a killed QEMU to the last splice. The baseline is what the guest
 * that runs at that time needs for as many new connections; it has taken over before, so is rather warmer than a fresh one.
 */
export async function vmRecovery(
  image: Image,
  runs: number,
  log: (line: string) => void,
): Promise<Record<string, Recovery>> {
  const lab = await Lab.create(TAG);
  const supervisor = new Supervisor(lab);
  const trials = new Trials();
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
        log(`vm ${i + 1}/${runs}: ${trials.add(count, took, fresh)}`);
        await supervisor.protectedAgain(TAG);
      }
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
  return trials.medians();
}
