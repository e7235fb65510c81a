/**
 * `make fuzz`: both fuzzers for SECONDS (600), half of the time each. Inputs for the SSW that reach something new are added to the
 * corpus in the tree; those that break something are kept in build/fuzz. Prints one JSON object as its last line.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from '../lib/run.js';
import { CORPUS, runFuzzer } from './lib/fuzzer.js';

const root = repositoryRoot();
const finds = join(root, 'build/fuzz');
const fresh = join(finds, 'corpus');
const seconds = Number(process.env.SECONDS ?? 600);
if (!(seconds >= 10)) throw new RangeError(`SECONDS is ${process.env.SECONDS}, expected a number from 10 on`);

const PARSER_FILES = ['parsers', 'memory'].map(name => `build/test/fuzz/${name}.test.js`);

/** The properties of the parsers, each for its share of the time. Resolves with its status. */
function runParsers(): Promise<number | null> {
  const ava = join(root, 'node_modules/.bin/ava');
  const env = { ...process.env, HOLDFAST_FUZZ_SECONDS: `${seconds / 2 / PARSER_FILES.length}` };
  const child = spawn(process.execPath, [ava, '--timeout=24h', ...PARSER_FILES], {
    cwd: root,
    env,
    stdio: 'inherit',
  });
  return new Promise(resolve => child.on('close', resolve));
}

mkdirSync(fresh, { recursive: true });
const ssw = await runFuzzer([`-max_total_time=${Math.round(seconds / 2)}`, fresh, CORPUS], finds);
const before = readdirSync(CORPUS).length;
await runFuzzer(['-set_cover_merge=1', '-use_counters=0', CORPUS, fresh], finds);
const added = readdirSync(CORPUS).length - before;
if (ssw.broken) process.stdout.write(`${ssw.broken}\n`);
const parsers = await runParsers();
const ok = ssw.broken === undefined && parsers === 0;
process.stdout.write(
  `${JSON.stringify({ seconds, ssw: { ...ssw, added }, parsers: { ok: parsers === 0 }, ok })}\n`,
);
process.exitCode = ok ? 0 : 1;
