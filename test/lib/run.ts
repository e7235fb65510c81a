import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Written to the command's standard input, which is then closed. */
  input?: string;
  /** The command is killed after so long, ms. Default 30 s: nothing in a test may wait for ever. */
  timeoutMs?: number;
  /** Resolve with the exit status instead of rejecting when it is not 0. */
  allowFailure?: boolean;
  /** Called with each piece of standard error as it comes. */
  onStderr?: (text: string) => void;
}

export interface RunResult {
  /** Exit status; 128 + signal number is not used: `signal` tells. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** A command of the test laboratory failed; the message names it with its output. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  constructor(
    readonly argv: readonly string[],
    readonly result: RunResult,
    why: string,
  ) {
    super(`${argv.join(' ')}: ${why}\n${(result.stderr || result.stdout).trim().slice(-2000)}`);
  }
}

/** Environment for commands under test: proxies of the build machine must not catch traffic inside a namespace. */
export function cleanEnv(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {};
  for (const [name, value] of Object.entries(process.env))
    if (!/^(https?|all|no|ftp)_proxy$/i.test(name)) env[name] = value;
  return { ...env, LC_ALL: 'C', ...extra };
}

/** Runs a command to its end. Rejects with CommandError unless it exits with 0 (or `allowFailure`). */
export function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { timeoutMs = 30_000 } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0]!, argv.slice(1), {
      cwd: options.cwd,
      env: options.env ?? cleanEnv(),
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
      options.onStderr?.(text);
    });
    child.stdin.on('error', () => {}); // the command may exit without reading its input
    child.stdin.end(options.input ?? '');
    child.on('error', error => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const result = { code, signal, stdout, stderr };
      if (timedOut) reject(new CommandError(argv, result, `no end after ${timeoutMs} ms`));
      else if (code !== 0 && !options.allowFailure)
        reject(new CommandError(argv, result, `exit status ${code ?? signal}`));
      else resolve(result);
    });
  });
}

/** Top of the repository, whether this file runs from `build/` or elsewhere below it. */
export function repositoryRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (dir !== '/') {
    const manifest = join(dir, 'package.json');
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'holdfast') return dir;
    dir = dirname(dir);
  }
  throw new Error('the test library is not inside a holdfast repository');
}

export function sleep(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, ms));
}

/** Polls `probe` until it gives something other than undefined; rejects after `timeoutMs` with what was awaited. */
export async function waitFor<T>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<T | undefined> | T | undefined,
  everyMs = 20,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined) return value;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await sleep(everyMs);
  }
}
