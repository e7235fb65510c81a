/**
 * A failover at every stage of a connection x pairwise combinations of what a client negotiates x every disturbance of a leg.
 *
 *   SEED=1 [FULL=1] node build/test/sweep/sweep.js [--fresh]
 *
 * FULL: every combination, and every clock of the guests with each, for hours. Resumable: what is done at this commit lies in
 * build/sweep-SEED.json (sweep-full-SEED.json). The pairwise table is written to test/sweep/table.md. The last line is
 * one JSON object; exit status 0 only if every cell passed.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot, run } from '../lib/run.js';
import { sweepBed } from './bed.js';
import { fullPlan, pairwisePlan } from './plan.js';
import { faultsOf, loadSweep, saveSweep, table } from './report.js';

const seed = Number(process.env.SEED || 1);
if (!Number.isInteger(seed) || seed < 1)
  throw new Error(`SEED is ${process.env.SEED}, expected a whole number of 1 or more`);
const full = process.env.FULL === '1';
const plans = full ? fullPlan(seed) : pairwisePlan(seed);
const root = repositoryRoot();
const commit = (await run(['git', '-C', root, 'rev-parse', '--short', 'HEAD'])).stdout.trim();
const path = join(root, `build/sweep-${full ? 'full-' : ''}${seed}.json`);
const file = loadSweep(path, commit, seed, process.argv.includes('--fresh'));

for (const [i, plan] of plans.entries()) {
  if (file.beds[plan.id] && faultsOf(file.beds[plan.id]!, plan).length === 0) continue;
  const result = await sweepBed('sweep', plan);
  file.beds[plan.id] = result;
  saveSweep(path, file);
  const { cells, effects, seconds } = result;
  const passed = cells.filter(c => !c.why).length;
  const did = `${effects.lost} lost, ${effects.doubled} doubled, ${effects.held} held back`;
  process.stderr.write(
    `${i + 1}/${plans.length} ${plan.id}: ${passed} of ${cells.length}, ${did}, ${seconds.toFixed(0)} s (reached, recovered, ended: ${Object.values(result.phases).join(', ')} ms)\n`,
  );
  for (const fault of faultsOf(result, plan)) process.stderr.write(`  FAILED ${fault}\n`);
}

const results = plans.map(plan => file.beds[plan.id]!);
const cells = results.flatMap(r => r.cells);
if (!full) writeFileSync(join(root, 'test/sweep/table.md'), table(cells));
const sum = (of: (r: (typeof results)[number]) => number) => results.reduce((total, r) => total + of(r), 0);
const failedBeds = plans.filter((plan, i) => faultsOf(results[i]!, plan).length > 0).length;
process.stdout.write(
  `${JSON.stringify({
    cells: cells.length,
    failed: cells.filter(c => c.why).length,
    failedBeds,
    beds: plans.length,
    seed,
    commit,
    lost: sum(r => r.effects.lost),
    doubled: sum(r => r.effects.doubled),
    held: sum(r => r.effects.held),
    lateResets: sum(r => r.lateResets),
    seconds: Math.round(sum(r => r.seconds)),
  })}\n`,
);
process.exitCode = failedBeds ? 1 : 0;
