/**
 * Runs the suites one after the other and closes with `N passed, N failed`.
 *
 *   node build/test/run.js [SUITE...]      unit libvirt fixtures platform netns vm; all by default
 *
 * A suite that runs no test at all counts as failed: it can't have shown anything.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { repositoryRoot } from './lib/run.js';

const SUITES = ['unit', 'libvirt', 'fixtures', 'platform', 'netns', 'vm'];
const root = repositoryRoot();

interface Tally {
  passed: number;
  failed: number;
}

/** One ava process for a suite; each result is printed as it comes, a failure with ava's own words. */
async function runSuite(suite: string): Promise<Tally> {
  const started = performance.now();
  const tally: Tally = { passed: 0, failed: 0 };
  process.stdout.write(`\n== ${suite}\n`);
  const argv = [join(root, 'node_modules/.bin/ava'), '--tap', `build/test/${suite}/**/*.test.js`];
  // A group of its own: a signal must reach the processes that hold laboratories, which ava does not pass it on to.
  const child = spawn(process.execPath, argv, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const stop = (signal: NodeJS.Signals) => process.kill(-child.pid!, signal);
  process.on('SIGINT', stop).on('SIGTERM', stop);
  let errors = '';
  child.stderr.on('data', d => {
    errors += d;
  });
  let detail = false;
  for await (const line of createInterface({ input: child.stdout })) {
    const result = /^(not )?ok \d+ - (.*)$/.exec(line);
    if (result && !/# (SKIP|TODO)/.test(line)) {
      if (result[1]) tally.failed++;
      else tally.passed++;
      const seconds = ((performance.now() - started) / 1000).toFixed(0).padStart(4);
      process.stdout.write(`${seconds}s ${result[1] ? 'FAILED' : 'ok    '} ${result[2]}\n`);
    }
    if (line === '  ---') detail = true;
    if (detail) process.stdout.write(`      ${line}\n`);
    if (line === '  ...') detail = false;
  }
  const code = await new Promise<number | null>(resolve =>
    child.exitCode !== null ? resolve(child.exitCode) : child.on('close', resolve),
  );
  process.off('SIGINT', stop).off('SIGTERM', stop);
  if (tally.passed + tally.failed === 0 || (code !== 0 && tally.failed === 0)) {
    tally.failed++;
    process.stdout.write(`      suite ${suite} ended with status ${code}\n${errors.slice(-4000)}\n`);
  }
  return tally;
}

const wanted = process.argv.slice(2);
const total: Tally = { passed: 0, failed: 0 };
for (const suite of wanted.length ? wanted : SUITES) {
  const tally = await runSuite(suite);
  total.passed += tally.passed;
  total.failed += tally.failed;
}
process.stdout.write(`\n${total.passed} passed, ${total.failed} failed\n`);
process.exitCode = total.failed ? 1 : 0;
