import { NetnsBed } from '../netns/lib/bed.js';
import { servePeer } from '../netns/lib/clients.js';
import { CHAT } from '../netns/lib/peer.js';
import { CrowdClient } from './crowd-client.js';
import { type Cost, withCosts } from './measure.js';
import { median } from './statistics.js';

/** Time of a recovery beside that of its baseline, medians. */
export interface Recovery {
  /** Decision to last splice. */
  ms: number;
  /** A fresh warm guest accepts as many new connections of the same client and answers a request on each. */
  baselineMs: number;
  ratio: number;
  runs: number;
}

export const COUNTS = [1, 100];
/** A connection has had 16 answers of 4 KiB, 64 KiB in all, when the fault comes. */
const ANSWER_BYTES = 4096;
const ANSWERS = 16;

/** The times measured so far, by number of connections. */
export class Trials {
  private readonly all = new Map<number, { ms: number[]; baseline: number[] }>(
    COUNTS.map(count => [count, { ms: [], baseline: [] }]),
  );

  add(count: number, ms: number, baseline: number): string {
    const trial = this.all.get(count)!;
    trial.ms.push(ms);
    trial.baseline.push(baseline);
    return `recovery of ${count}: ${ms.toFixed(1)} ms, baseline ${baseline.toFixed(1)} ms`;
  }

  medians(): Record<string, Recovery> {
    const of = ({ ms, baseline }: { ms: number[]; baseline: number[] }): Recovery => ({
      ms: median(ms),
      baselineMs: median(baseline),
      ratio: median(ms) / median(baseline),
      runs: ms.length,
    });
    return Object.fromEntries([...this.all].map(([count, trial]) => [count, of(trial)]));
  }
}

/** Recoveries and their baseline in turn, each time with a guest that has served nobody before. */
export async function netnsRecovery(
  runs: number,
  log: (line: string) => void,
): Promise<{ recovery: Record<string, Recovery>; from_replay: Cost }> {
  const bed = await NetnsBed.create('benchrec', { ports: [CHAT], logMiB: 128 });
  try {
    const serve = (slot: number) => servePeer(bed, slot, [CHAT]);
    await serve(0);
    await serve(1);
    const crowd = CrowdClient.start(bed.lab, 'chat', CHAT, `${ANSWER_BYTES}`);
    const trials = new Trials();
    const recover = async (count: number) => {
      await crowd.open(count);
      let bytes = 0;
      for (let i = 1; i < ANSWERS; i++) bytes = await crowd.ask();
      if (bytes < count * ANSWERS * ANSWER_BYTES) throw new Error(`only ${bytes} bytes were answered`);
      const decided = performance.timeOrigin + performance.now();
      const { verdicts } = await bed.failover();
      const spliced = verdicts.filter(v => v.reason === 'spliced');
      if (spliced.length !== count) throw new Error(`recovery: ${spliced.length} of ${count} were kept`);
      await crowd.ask();
      await crowd.close();
      await bed.reprotect(serve);
      return Math.max(...spliced.map(v => v.at)) - decided;
    };
    const fresh = async (count: number) => {
      await bed.failover();
      const took = await crowd.open(count);
      await crowd.close();
      await bed.reprotect(serve);
      return took;
    };
    await fresh(10); // the client's own code is warm from here on
    for (let i = 0; i < runs; i++) {
      for (const count of COUNTS) {
        const took = await recover(count);
        log(`netns ${i + 1}/${runs}: ${trials.add(count, took, await fresh(count))}`);
      }
    }
    const cost = await withCosts({ from_replay: bed.path.fd('from_replay') }, () => recover(COUNTS.at(-1)!));
    await crowd.stop();
    return { recovery: trials.medians(), from_replay: cost.from_replay };
  } finally {
    await bed.dispose();
  }
}
