import { sleep } from '../lib/run.js';
import { NetnsBed } from '../netns/lib/bed.js';
import { servePeer } from '../netns/lib/clients.js';
import { CHAT } from '../netns/lib/peer.js';
import { forgetFlows } from './bench-host.js';
import { CrowdClient } from './crowd-client.js';
import { type Cost, withCosts } from './measure.js';
import { median } from './statistics.js';

/** Time of a recovery beside that of its baseline: the least of the runs, since whatever disturbs one only adds to it. */
export interface Recovery {
  /** Decision to last splice. */
  ms: number;
  /** A warm guest accepts as many new connections of the same client and answers the same request on each. */
  baselineMs: number;
  ratio: number;
  medianMs: number;
  medianBaselineMs: number;
  runs: number;
}

/** What one client sees of a recovery, medians, ms. */
export interface Gap {
  /** Longest time between two answers, less the time from the fault to its detection. */
  ms: number;
  /** The same without a fault. */
  undisturbedMs: number;
  /** Bytes that the client had acknowledged before. */
  acknowledged: number;
  runs: number;
}

export const COUNTS = [1, 100, 1000];
/** Each connection has had one answer of so many bytes when the fault comes, as has each of the baseline at its end. */
const ANSWER_BYTES = 65_536;
const ACKNOWLEDGED = 1_000_000;
const WATCH_MS = 1500;
const FAULT_AFTER_MS = 400;

/** The times measured so far, by number of connections. */
export class Trials {
  private readonly all = new Map<number, { ms: number[]; baseline: number[] }>();

  add(count: number, ms: number, baseline: number): string {
    const trial = this.all.get(count) ?? { ms: [], baseline: [] };
    this.all.set(count, trial);
    trial.ms.push(ms);
    trial.baseline.push(baseline);
    return `recovery of ${count}: ${ms.toFixed(1)} ms, baseline ${baseline.toFixed(1)} ms`;
  }

  results(): Record<string, Recovery> {
    const of = ({ ms, baseline }: { ms: number[]; baseline: number[] }): Recovery => ({
      ms: Math.min(...ms),
      baselineMs: Math.min(...baseline),
      ratio: Math.min(...ms) / Math.min(...baseline),
      medianMs: median(ms),
      medianBaselineMs: median(baseline),
      runs: ms.length,
    });
    return Object.fromEntries([...this.all].map(([count, trial]) => [count, of(trial)]));
  }
}

/** Recoveries and their baseline in turn, each time with a guest that has served nobody before. */
export async function netnsRecovery(
  runs: number,
  log: (line: string) => void,
): Promise<{ recovery: Record<string, Recovery>; gap: Gap; from_replay: Cost }> {
  const bed = await NetnsBed.create('benchrec', { ports: [CHAT], logMiB: 256 });
  try {
    const serve = (slot: number) => servePeer(bed, slot, [CHAT]);
    await serve(0);
    await serve(1);
    const crowd = CrowdClient.start(bed.lab, 'chat', CHAT, `${ANSWER_BYTES}`);
    const trials = new Trials();
    const startAfresh = async () => {
      await crowd.close();
      await bed.reprotect(serve);
      forgetFlows(bed.path);
    };
    const recover = async (count: number) => {
      await crowd.open(count);
      const decided = performance.timeOrigin + performance.now();
      const { verdicts } = await bed.failover();
      const spliced = verdicts.filter(v => v.reason === 'spliced');
      if (spliced.length !== count) throw new Error(`recovery: ${spliced.length} of ${count} were kept`);
      await crowd.ask();
      await startAfresh();
      return Math.max(...spliced.map(v => v.at)) - decided;
    };
    const fresh = async (count: number) => {
      await bed.failover();
      const took = await crowd.open(count);
      await startAfresh();
      return took;
    };
    await fresh(10); // the client's own code is warm from here on
    for (let i = 0; i < runs; i++) {
      for (const count of COUNTS) {
        const took = await recover(count);
        log(`netns ${i + 1}/${runs}: ${trials.add(count, took, await fresh(count))}`);
      }
    }
    const gaps: number[] = [];
    const undisturbed: number[] = [];
    for (let i = 0; i < runs; i++) {
      await crowd.open(1);
      await crowd.ask(`${ACKNOWLEDGED - ANSWER_BYTES}`);
      undisturbed.push(await crowd.watch(WATCH_MS, '1'));
      const watched = crowd.watch(WATCH_MS, '1');
      await sleep(FAULT_AFTER_MS);
      await bed.failover();
      gaps.push(await watched);
      await startAfresh();
      log(
        `netns ${i + 1}/${runs}: gap ${gaps.at(-1)!.toFixed(1)} ms, undisturbed ${undisturbed.at(-1)!.toFixed(1)} ms`,
      );
    }
    const cost = await withCosts({ from_replay: bed.path.fd('from_replay') }, () => recover(100));
    await crowd.stop();
    const gap = { ms: median(gaps), undisturbedMs: median(undisturbed), acknowledged: ACKNOWLEDGED, runs };
    return { recovery: trials.results(), gap, from_replay: cost.from_replay };
  } finally {
    await bed.dispose();
  }
}
