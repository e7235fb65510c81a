/**
 * Runs the suites and closes with `N passed, N failed`.
 *
 *   node build/test/run.js [SUITE...]      unit libvirt fixtures fixtures6 platform fuzz netns vm; all by default;
 *                                          and stress, ten minutes, and stock, five
 *
 * A suite that runs no test at all counts as failed: it can't have shown anything.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { repositoryRoot } from './lib/run.js';

/** Suites one after the other; those of the first step in two lanes at once, for each of them leaves a core idle. */
const STEPS = [
  [
    ['unit', 'libvirt', 'platform'],
    ['fixtures', 'fixtures6', 'fuzz'],
  ],
  [['netns', 'vm']],
];
/** Test files of a suite that run at once; 1 unless said. Guests wait for their clients, and tests for conditions, more than they compute. */
const CONCURRENCY: Record<string, number> = { netns: 2, vm: 2 };
/** Suites that are another one under other circumstances: the same rules, over IPv6. */
const VARIANTS: Record<string, { suite: string; env: NodeJS.ProcessEnv }> = {
  fixtures6: { suite: 'fixtures', env: { HOLDFAST_FIXTURES_FAMILY: '6' } },
};
/** Lines of a failed test's log that are printed. */
const MOST_SAID = 400;
const root = repositoryRoot();

interface Tally {
  passed: number;
  failed: number;
}

/** No further suite is begun. */
let interrupted = false;

/** One ava process for a suite; each result is printed as it comes, a failure with ava's own words. */
async function runSuite(suite: string): Promise<Tally> {
  const started = performance.now();
  const tally: Tally = { passed: 0, failed: 0 };
  const print = (text: string) => process.stdout.write(`${suite.padEnd(9)} ${text}\n`);
  const { suite: folder, env } = VARIANTS[suite] ?? { suite, env: {} };
  const files = `build/test/${folder}/**/*.test.js`;
  const concurrency = `${CONCURRENCY[suite] ?? 1}`;
  const argv = [join(root, 'node_modules/.bin/ava'), '--tap', '--concurrency', concurrency, files];
  // A group of its own: a signal must reach the processes that hold laboratories, which ava does not pass it on to.
  const child = spawn(process.execPath, argv, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const stop = (signal: NodeJS.Signals) => {
    interrupted = true;
    process.kill(-child.pid!, signal);
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  let errors = '';
  child.stderr.on('data', d => {
    errors += d;
  });
  let detail = false;
  let saying = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    const result = /^(not )?ok \d+ - (.*)$/.exec(line);
    if (result && !/# (SKIP|TODO)/.test(line)) {
      if (result[1]) tally.failed++;
      else tally.passed++;
      const seconds = ((performance.now() - started) / 1000).toFixed(0).padStart(4);
      print(`${seconds}s ${result[1] ? 'FAILED' : 'ok    '} ${result[2]}`);
    }
    // What the test itself had to say, its supervisor's events perhaps.
    if (result) saying = result[1] ? MOST_SAID : 0;
    else if (!detail && saying > 0 && /^\s*#/.test(line)) print(`      ${saying-- && line}`);
    if (line === '  ---') detail = true;
    if (detail) print(`      ${line}`);
    if (line === '  ...') detail = false;
  }
  const code = await new Promise<number | null>(resolve =>
    child.exitCode !== null ? resolve(child.exitCode) : child.on('close', resolve),
  );
  process.off('SIGINT', stop).off('SIGTERM', stop);
  if (tally.passed + tally.failed === 0 || (code !== 0 && tally.failed === 0)) {
    tally.failed++;
    print(`      suite ${suite} ended with status ${code}\n${errors.slice(-4000)}`);
  }
  print(`      ${tally.passed} passed, ${tally.failed} failed`);
  return tally;
}

const wanted = process.argv.slice(2);
const steps = wanted.length > 0 ? wanted.map(suite => [[suite]]) : STEPS;
const total: Tally = { passed: 0, failed: 0 };

async function runLane(suites: string[]): Promise<void> {
  for (const suite of suites) {
    if (interrupted) return;
    const tally = await runSuite(suite);
    total.passed += tally.passed;
    total.failed += tally.failed;
  }
}

for (const lanes of steps) await Promise.all(lanes.map(runLane));
process.stdout.write(`\n${total.passed} passed, ${total.failed} failed\n`);
process.exitCode = total.failed ? 1 : 0;
