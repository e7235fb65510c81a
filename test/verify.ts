/**
 * Runs everything at full size and keeps the results in test/reports/verify.json. Resumable: a step that has passed at
 * this commit is not run again. `node build/test/verify.js [--fresh]`
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { repositoryRoot, run } from './lib/run.js';

interface Step {
  name: string;
  script: string;
  args?: string[];
  env?: Record<string, string>;
}

interface StepReport {
  passed: boolean;
  seconds: number;
  /** The step's last line, an object where the step prints one. */
  result: unknown;
}

interface Report {
  commit: string;
  host: string;
  steps: Record<string, StepReport>;
}

const STEPS: Step[] = [
  { name: 'all suites', script: 'test/run.js' },
  {
    name: 'oracle: a million steps',
    script: 'test/run.js',
    args: ['fixtures', 'fixtures6'],
    env: { HOLDFAST_SEEDS: '2000' },
  },
  {
    name: 'long transfers, more faults in a row',
    script: 'test/run.js',
    args: ['netns', 'vm'],
    env: { HOLDFAST_LONG: '1' },
  },
  { name: 'sweep', script: 'test/sweep/sweep.js' },
  { name: 'demo: guest panic, 50 connections', script: 'test/demo/demo.js' },
  { name: 'demo: vm-kill, 50 connections', script: 'test/demo/demo.js', env: { SCENARIO: 'vm-kill' } },
  { name: 'demo: app-crash, 50 connections', script: 'test/demo/demo.js', env: { SCENARIO: 'app-crash' } },
  { name: 'five panics in a row, 50 connections', script: 'test/demo/demo.js', env: { ROUNDS: '5' } },
  { name: 'ten minutes of stress', script: 'test/run.js', args: ['stress'] },
  { name: 'a Debian with systemd as guest', script: 'test/run.js', args: ['stock'] },
  { name: 'bench', script: 'test/bench/bench.js' },
];

const root = repositoryRoot();
const file = join(root, 'test/reports/verify.json');

async function load(): Promise<Report> {
  const commit = (await run(['git', '-C', root, 'rev-parse', '--short', 'HEAD'])).stdout.trim();
  const host = (await run(['uname', '-srm'])).stdout.trim();
  if (!process.argv.includes('--fresh') && existsSync(file)) {
    const report: Report = JSON.parse(readFileSync(file, 'utf8'));
    if (report.commit === commit) return report;
  }
  return { commit, host, steps: {} };
}

function save(report: Report): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
}

/** The last line is the step's result: one JSON object, or the count of a suite. */
function parseResult(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return line;
  }
}

function runStep(step: Step): Promise<StepReport> {
  const started = performance.now();
  return new Promise(resolve => {
    const child = spawn(process.execPath, [join(root, 'build', step.script), ...(step.args ?? [])], {
      cwd: root,
      env: { ...process.env, ...step.env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    child.stdout.on('data', text => {
      out += text;
      process.stdout.write(text);
    });
    child.on('close', code => {
      const seconds = Math.round((performance.now() - started) / 1000);
      resolve({ passed: code === 0, seconds, result: parseResult(out.trim().split('\n').at(-1) ?? '') });
    });
  });
}

const report = await load();
for (const step of STEPS) {
  if (report.steps[step.name]?.passed) continue;
  process.stderr.write(`\n== ${step.name}\n`);
  report.steps[step.name] = await runStep(step);
  save(report);
}
const failed = STEPS.filter(step => !report.steps[step.name]?.passed).map(step => step.name);
process.stdout.write(`${JSON.stringify({ commit: report.commit, steps: STEPS.length, failed })}\n`);
process.exitCode = failed.length ? 1 : 0;
