/**
 * What protection costs: loads over the protected path against the same guest on the plain bridge, in turn.
 *
 *   BENCH_ONLY=netns|vm|faults BENCH_PAIRS=5 BENCH_SECONDS=1 BENCH_WAY=redirect node build/test/bench/bench.js
 *
 * Progress goes to stderr; stdout gets a table and, as last line, one JSON object. `BENCH_WAY=redirect` compares the plain bridge with
 * programs that only redirect instead, and leaves the rest out: the price of the way without that of the SSW.
 */

import { join } from 'node:path';
import { findImage, type Image } from '../lib/image.js';
import { repositoryRoot } from '../lib/run.js';
import type { Way } from './bench-host.js';
import { goHome } from './bench-host.js';
import { faultTrials } from './faults.js';
import { guestCost } from './guest-cost.js';
import { type Guest, netnsGuest } from './guest-netns.js';
import { vmGuest } from './guest-vm.js';
import { costs, type Measuring, throughput } from './measure.js';
import { netnsRecovery } from './recovery-netns.js';
import { vmRecovery } from './recovery-vm.js';
import { asJson, asTable, nsPerPacket, type Results } from './report.js';

const only = process.env.BENCH_ONLY || 'netns vm faults';
const pairs = positive('BENCH_PAIRS', 5);
const seconds = positive('BENCH_SECONDS', 1);
const way = (process.env.BENCH_WAY || 'protected') as Way;
const RECOVERIES = 3;
/** So small a cost needs many pairs to be seen at all. */
const COST_PAIRS = 3;
/** How often each size of file and each place in it; a backup boots after each recovery by one. */
const FAULTS = { same: 3, backup: 1 };
const MEASURED = join(repositoryRoot(), 'test/appliances/measured.yaml');

const started = performance.now();
const log = (line: string) =>
  process.stderr.write(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${line}\n`);

const results: Results = {
  throughput: { vm: null, netns: null },
  redirectOnly: null,
  nsPerPacket: { vm: null, netns: null, from_replay: null },
  recovery: { vm: null, netns: null },
  gap: { vm: null, netns: null },
  faults: { trials: null, guestCost: null },
  reasons: {},
  pairs,
  accel: null,
};

function positive(name: string, standard: number): number {
  const value = Number(process.env[name] || standard);
  if (!(value > 0)) throw new Error(`${name} is ${process.env[name]}, expected a number above 0`);
  return value;
}

async function measure(where: 'netns' | 'vm', guest: Guest): Promise<void> {
  try {
    const m: Measuring = { ...guest, label: where, pairs, seconds, log };
    await guest.host.loadRedirects();
    results.throughput[where] = await throughput(m, way);
    if (way === 'protected' && where === 'netns')
      results.redirectOnly = await throughput({ ...m, pairs: Math.ceil(pairs / 2) }, 'redirect');
    const floor = await costs(m, 'redirect', ['bulkDown']);
    const measured = await costs(m, 'protected');
    results.nsPerPacket[where] = nsPerPacket(measured, floor.bulkDown.from_wire.ns, seconds);
  } catch (error) {
    log(`${where}: way ${guest.host.way}, data path ${JSON.stringify(guest.host.path.stats())}`);
    throw error;
  } finally {
    await guest.dispose();
  }
}

/** A part that fails leaves a gap with its reason; the others are still worth having. */
async function attempt(what: string, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    log(`${what} failed: ${(error as Error).stack}`);
    results.reasons[what] = (error as Error).message.split('\n')[0]!;
    process.exitCode = 1;
  }
}

// registered before any laboratory's own: it ends what runs in its host namespace, where this process must not be then
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, goHome);

if (only.includes('netns')) {
  await attempt('netns', async () => measure('netns', await netnsGuest()));
  if (way === 'protected')
    await attempt('recovery.netns', async () => {
      const { recovery, gap, from_replay } = await netnsRecovery(RECOVERIES, log);
      results.recovery.netns = recovery;
      results.gap.netns = gap;
      results.nsPerPacket.from_replay = from_replay.ns;
    });
}
if (only.includes('vm')) {
  let image: Image | undefined;
  await attempt('image', async () => {
    image = await findImage(text => log(`image: ${text.trim()}`));
  });
  await attempt('vm', async () => {
    log('vm: booting the guest');
    const guest = await vmGuest(image!);
    results.accel = guest.accel;
    await measure('vm', guest);
  });
  if (way === 'protected')
    await attempt('recovery.vm', async () => {
      const { recovery, gap } = await vmRecovery(image!, RECOVERIES, log);
      results.recovery.vm = recovery;
      results.gap.vm = gap;
    });
}
if (only.includes('faults') && way === 'protected') {
  let image: Image | undefined;
  await attempt('image for faults', async () => {
    image = await findImage(text => log(`image: ${text.trim()}`), MEASURED);
  });
  await attempt('guestCost', async () => {
    results.faults.guestCost = await guestCost(image!, pairs * COST_PAIRS, seconds, log);
  });
  await attempt('faults', async () => {
    results.faults.trials = await faultTrials(image!, FAULTS, log);
  });
}
process.stdout.write(`${asTable(results)}\n\n${asJson(results)}\n`);
process.exit();
