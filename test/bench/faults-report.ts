import type { FaultTrial } from './faults.js';
import type { Goal } from './goals.js';
import type { GuestLoad } from './guest-cost.js';
import { median, type Ratio } from './statistics.js';

/** Everything about faults of applications and of guests. */
export interface Faults {
  trials: FaultTrial[] | null;
  /** With the agent and its programs in the guest, against without. */
  guestCost: Record<GuestLoad, Ratio> | null;
}

export interface Spread {
  median: number;
  worst: number;
  runs: number;
}

/** What the papers measured on their machines, from the fault's detection to the end of the recovery, ms; and the design's goals for detection. */
const PAPER_MS = { 'same guest': 250, backup: 600 } as const;
const DETECTION_MS: Record<string, number> = {
  ...{ 'guest-panic': 20, 'vm-kill': 20, 'guest-hang': 200 },
  ...{ 'app-kill': 20, 'app-segv': 20, 'app-worker': 20 },
};
const LEAST_RATIO = 0.995;

/** Of each group, by its name, the spread of a quantity. */
function grouped(
  trials: FaultTrial[],
  nameOf: (trial: FaultTrial) => string,
  of: (trial: FaultTrial) => number,
) {
  const groups = new Map<string, number[]>();
  for (const trial of trials) groups.set(nameOf(trial), [...(groups.get(nameOf(trial)) ?? []), of(trial)]);
  const spread = (values: number[]): Spread => ({
    median: median(values),
    worst: Math.max(...values),
    runs: values.length,
  });
  return Object.fromEntries([...groups].map(([name, values]) => [name, spread(values)]));
}

const detection = (trials: FaultTrial[]) =>
  grouped(
    trials,
    t => t.fault,
    t => t.detectedMs,
  );
/** A worker's successor is there at once: nothing is started. */
const kindOf = ({ where, fault }: FaultTrial) => (fault === 'app-worker' ? 'one worker' : where);
const recovery = (trials: FaultTrial[]) => grouped(trials, kindOf, t => t.splicedMs);
const byCase = (trials: FaultTrial[]) =>
  grouped(
    trials,
    t => `${kindOf(t)}, ${t.mib} MiB, ${t.at}`,
    t => t.splicedMs,
  );

export function faultsJson({ trials, guestCost }: Faults) {
  return {
    guestCost,
    detectionMs: trials && detection(trials),
    recoveryMs: trials && { ...recovery(trials), cases: byCase(trials) },
    trials,
  };
}

export function faultGoals({ trials, guestCost }: Faults): Goal[] {
  const atMost = (name: string, bound: number, value: number | undefined): Goal => ({
    name,
    goal: `at most ${bound} ms`,
    value: value ?? null,
    met: value !== undefined && value <= bound,
  });
  const [found, recovered] = [detection(trials ?? []), recovery(trials ?? [])];
  const ratio = guestCost?.requests.ratio;
  return [
    ...Object.entries(PAPER_MS).map(([where, ms]) =>
      atMost(`recovery, ${where}, median`, ms, recovered[where]?.median),
    ),
    ...Object.entries(DETECTION_MS).map(([fault, ms]) =>
      atMost(`detection of ${fault}, median`, ms, found[fault]?.median),
    ),
    {
      name: 'requests with the agent in the guest',
      goal: `at least ${LEAST_RATIO}`,
      value: ratio ?? null,
      met: ratio !== undefined && ratio >= LEAST_RATIO,
    },
  ];
}

export function faultsTable({ trials, guestCost }: Faults): string[] {
  const rows = (of: Record<string, Spread>) =>
    Object.entries(of).map(
      ([name, { median: middle, worst, runs }]) =>
        `  ${name.padEnd(26)} ${middle.toFixed(1).padStart(7)} ms, worst ${worst.toFixed(1)} ms, ${runs} runs`,
    );
  return [
    ...(trials ? ['', 'from a fault to its detection, one download', '', ...rows(detection(trials))] : []),
    ...(trials ? ['', 'from a fault to the splice, one download', '', ...rows(recovery(trials))] : []),
    ...(trials
      ? ['', 'the same by size of the file, and where in it the fault came', '', ...rows(byCase(trials))]
      : []),
    ...(guestCost
      ? ['', 'in the guest: with the agent and its programs / without, on the plain bridge', '']
      : []),
    ...Object.entries(guestCost ?? {}).map(
      ([name, { ratio, low, high, plain, protected: watched }]) =>
        `  ${name.padEnd(12)} ${ratio.toFixed(3)}  [${low.toFixed(3)}, ${high.toFixed(3)}]   ${Math.round(plain)} -> ${Math.round(watched)} /s`,
    ),
  ];
}
