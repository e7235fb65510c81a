/**
 * How a recovery grows with the number of connections, and what an idle connection holds.
 *
 *   SCALE_RUNS=5 SCALE_IDLE=1,100,300,1000,3000,10000 SCALE_BUSY=100,300,1000 node build/test/scale/scale.js
 *
 * Recoveries of nginx in a network namespace, with the real data path, replayer and event log; each number of connections once
 * in every round, so that what changes on the machine meets all alike. Figures are medians. Progress goes to stderr; the last line of
 * stdout is one JSON object.
 */
import { release } from 'node:os';
import { goHome } from '../bench/bench-host.js';
import { median } from '../bench/statistics.js';
import { memoryPerConnection } from './memory.js';
import { type Kind, Stage, type Trial } from './trial.js';

const numbers = (name: string, standard: string): number[] =>
  (process.env[name] || standard).split(',').map(word => {
    const value = Number(word);
    if (Number.isInteger(value) && value > 0) return value;
    throw new Error(`${name} is ${process.env[name]}, expected whole numbers above 0 with commas between`);
  });

const [runs = 0] = numbers('SCALE_RUNS', '5');
const idle = numbers('SCALE_IDLE', '1,100,300,1000,3000,10000');
const busy = numbers('SCALE_BUSY', '100,300,1000');
/** Flatness counts from here on: below it the fixed cost of a recovery shows. */
const MANY = 100;

const started = performance.now();
const log = (line: string) =>
  process.stderr.write(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${line}\n`);
const rounded = (value: number, digits = 3): number => Number(value.toPrecision(digits));

interface Figures {
  kind: Kind;
  count: number;
  ms: number;
  msPerConnection: number;
  freshMs: number;
  ratio: number;
  supervisorCpuMs: number;
  supervisorCpuMsPerConnection: number;
  guestCpuMs: number;
  /** Of the whole machine, others' work too. */
  machineCpuMs: number;
  softirqMs: number;
  peakRssMiB: number;
  peakRssRiseMiB: number;
  journalledMs: number;
  load: number;
}

function figures(kind: Kind, count: number, trials: Trial[]): Figures {
  const of = (pick: (t: Trial) => number) => median(trials.map(pick));
  const cpu = of(t => t.cpu.user + t.cpu.system);
  return {
    kind,
    count,
    ms: rounded(of(t => t.ms)),
    msPerConnection: rounded(of(t => t.ms) / count),
    freshMs: rounded(of(t => t.freshMs)),
    ratio: rounded(of(t => t.ms / t.freshMs)),
    supervisorCpuMs: rounded(cpu),
    supervisorCpuMsPerConnection: rounded(cpu / count),
    guestCpuMs: rounded(of(t => t.cpu.guest)),
    machineCpuMs: rounded(of(t => t.cpu.machine)),
    softirqMs: rounded(of(t => t.cpu.softirq)),
    peakRssMiB: rounded(of(t => t.peakRss) / 2 ** 20),
    peakRssRiseMiB: rounded(of(t => t.peakRssRise) / 2 ** 20),
    journalledMs: rounded(of(t => t.journalledMs)),
    load: of(t => t.load),
  };
}

/** Largest over smallest. */
function spread(all: Figures[], pick: (f: Figures) => number): number | null {
  const values = all.filter(f => f.kind === 'idle' && f.count >= MANY).map(pick);
  return values.length > 1 ? rounded(Math.max(...values) / Math.min(...values)) : null;
}

// registered before the laboratory's own: it ends what runs in its host namespace, where this process must not be then
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, goHome);

const stage = await Stage.create('scale');
try {
  const wanted = [
    ...idle.map(count => ({ kind: 'idle' as const, count, trials: [] as Trial[] })),
    ...busy.map(count => ({ kind: 'busy' as const, count, trials: [] as Trial[] })),
  ];
  await stage.recover(10, 'idle'); // the clients' own code is warm from here on
  // first, for the kernel keeps what it had once: later differences are of what is used again
  const memory = await memoryPerConnection(stage, [0, ...idle.filter(count => count >= MANY)], log);
  for (let i = 0; i < runs; i++) {
    for (const { kind, count, trials } of wanted) {
      const trial = await stage.recover(count, kind);
      trials.push(trial);
      const { ms, freshMs, cpu } = trial;
      log(
        `${i + 1}/${runs}: ${count} ${kind}: ${ms.toFixed(1)} ms, as many new ${freshMs.toFixed(1)} ms, supervisor's CPU ${(cpu.user + cpu.system).toFixed(0)} ms, load ${trial.load}`,
      );
    }
  }
  const all = wanted.map(({ kind, count, trials }) => figures(kind, count, trials));
  const most = Math.max(...idle);
  const programs = await stage.costs(most);
  const result = {
    scale: all,
    flatness: {
      time: spread(all, f => f.msPerConnection),
      cpu: spread(all, f => f.supervisorCpuMsPerConnection),
    },
    programs: Object.fromEntries(
      Object.entries(programs).map(([name, { ns, packets }]) => [
        name,
        { ns: rounded(ns), runsPerConnection: rounded(packets / most) },
      ]),
    ),
    memory,
    runs,
    kernel: release(),
    node: process.version,
  };
  for (const f of all)
    process.stdout.write(
      `${f.kind} ${String(f.count).padStart(6)}: ${f.ms} ms, ${f.msPerConnection} each, ${f.ratio} of as many new; CPU of the supervisor ${f.supervisorCpuMs} ms, ${f.supervisorCpuMsPerConnection} each, of the guest ${f.guestCpuMs} ms; peak RSS ${f.peakRssMiB} MiB, risen by ${f.peakRssRiseMiB}\n`,
    );
  process.stdout.write(`${JSON.stringify(result)}\n`);
} finally {
  await stage.dispose();
}
process.exit();
