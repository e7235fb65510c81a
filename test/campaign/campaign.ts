/**
 * Random faults at random moments under mixed load on real guests, with the same load beside it on guests that see no fault.
 *
 *   N=200 SEED=1 [LEG=10] node build/test/campaign/campaign.js
 *
 * Resumable: what is done lies in test/reports/campaign-SEED.json, and a later run with the same seed goes on from there. The
 * last line is one JSON object. Exit status 0 only if nothing was lost, corrupt, or left behind.
 */
import { join } from 'node:path';
import { repositoryRoot, run } from '../lib/run.js';
import { FAULT_KINDS } from './faults.js';
import { Leg } from './leg.js';
import { faultAt } from './plan.js';
import { type CampaignFile, loadCampaign, lossesOf, saveCampaign, summarizeCampaign } from './report.js';

const CONTROL_CROWD = 6;

/** Faults in one laboratory before all its clients are heard and the next is built: what an interruption costs at most. */
const perLeg = whole('LEG', 10);
const count = whole('N', 200);
const seed = whole('SEED', Date.now() % 1_000_000);
const root = repositoryRoot();
const commit = (await run(['git', '-C', root, 'rev-parse', '--short', 'HEAD'])).stdout.trim();
const path = join(root, `test/reports/campaign-${seed}.json`);
const file = loadCampaign(path, seed, commit);
process.stderr.write(`seed ${seed}: ${file.faults.length} of ${count} faults are done; kept in ${path}\n`);

while (file.faults.length < count) await runLeg(file, Math.min(perLeg, count - file.faults.length));

const summary = summarizeCampaign(file);
process.stdout.write(`${JSON.stringify(summary)}\n`);
const { lost, corrupt, notProtectedAgain, resets } = summary;
process.exitCode = lost + corrupt + notProtectedAgain + resets + file.leftovers.length ? 1 : 0;

/** A leg counts only as a whole: clients of one that was interrupted have told nothing. */
async function runLeg(into: CampaignFile, faults: number): Promise<void> {
  const control = await Leg.start('calm', CONTROL_CROWD);
  try {
    const leg = await Leg.start('camp');
    const records = [];
    for (let i = 0; i < faults; i++) {
      const n = into.faults.length + i;
      const planned = faultAt(seed, n, FAULT_KINDS);
      const record = await leg.fault(n, planned, seed);
      records.push(record);
      const after = record.error ?? `protected again after ${(record.protectedMs! / 1000).toFixed(1)} s`;
      process.stderr.write(
        `${n + 1}/${count} ${planned.kind}: ${record.open} open, ${record.busy} busy; ${after}\n`,
      );
      if (record.error) {
        process.stderr.write(`${(await leg.lastEvents()).join('\n')}\n`);
        break;
      }
    }
    const end = await leg.finish();
    const losses = lossesOf(end.outcomes);
    for (const loss of losses) process.stderr.write(`LOST ${JSON.stringify(loss)}\n`);
    into.faults.push(...records);
    into.losses.push(...losses);
    into.clients += end.outcomes.length;
    into.resets += end.resets;
    into.leftovers.push(...end.leftovers);
  } finally {
    const { outcomes, resets } = await control.finish();
    const failed = lossesOf(outcomes);
    into.control.clients += outcomes.length;
    into.control.failed += failed.length;
    into.control.corrupt += failed.filter(loss => loss.corrupt).length;
    into.control.resets += resets;
  }
  saveCampaign(path, into);
}

function whole(name: string, standard: number): number {
  const value = Number(process.env[name] || standard);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`${name} is ${process.env[name]}, expected a whole number of 1 or more`);
  }
  return value;
}
