/** The SSW under libFuzzer, as a program (test/fuzz/ssw). */
import { execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';
import { repositoryRoot } from '../../lib/run.js';

const root = repositoryRoot();
const PROGRAM = 'build/test/fuzz/ssw.fuzz';
/** Inputs that together reach what is known to be reached, and by name those that once broke something. */
export const CORPUS = join(root, 'test/fuzz/corpus/ssw');

export interface Run {
  /** What was broken, and where the input lies that shows it; undefined for nothing. */
  broken: string | undefined;
  inputs: number;
  /** Edges of the program's control flow that were taken. */
  coverage: number;
}

/** Makes the program, if what it is made of is newer. */
export function makeFuzzer(): void {
  execFileSync('make', ['--no-print-directory', PROGRAM], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

/** Runs it with libFuzzer's own arguments; inputs that break something are kept in `finds`. */
export async function runFuzzer(args: string[], finds: string): Promise<Run> {
  const child = spawn(
    join(root, PROGRAM),
    ['-timeout=20', '-max_len=500', `-artifact_prefix=${finds}/`, '-print_final_stats=1', ...args],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let said = '';
  child.stderr.on('data', d => {
    said += d;
  });
  const status = await new Promise<number | null>(resolve => child.on('close', resolve));
  const number = (pattern: RegExp) => Number([...said.matchAll(pattern)].at(-1)?.[1] ?? 0);
  const inputs = number(/number_of_executed_units: (\d+)/g);
  const coverage = number(/ cov: (\d+)/g);
  if (status === 0) return { broken: undefined, inputs, coverage };
  const what = /^BROKEN: .*|.*runtime error: .*|==\d+==ERROR: .*/m.exec(said)?.[0] ?? said.slice(-2000);
  return { broken: `${what} (${/Test unit written to (\S+)/.exec(said)?.[1]})`, inputs, coverage };
}
