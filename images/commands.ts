import { type ChildProcess, spawn } from 'node:child_process';
import { HoldfastError } from '../hypervisor-shim/errors.js';

const INSTALL = 'Install the packages that images/README.md lists.';

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Name in error messages, if not the program's. */
  label?: string;
  /** What to do next, judged by what the program printed. */
  remedy?: (output: string) => string;
}

const running = new Set<ChildProcess>();

/** One progress line. Standard output is for the result only. */
export function progress(text: string): void {
  process.stderr.write(`images: ${text}\n`);
}

/**
 * Runs a program to its end, in a process group of its own; rejects with `HF_IMAGE_BUILD` and the last lines it
 * printed. Its end follows ours.
 */
export function run(file: string, args: string[], options: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    // Should we be killed outright, so is what we started: nobody would hold the lock of what it still writes.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', file, ...args], {
      cwd: options.cwd,
      env: { ...process.env, LC_ALL: 'C', ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    running.add(child);
    let output = '';
    let stdout = '';
    child.stdout.on('data', data => {
      stdout += data;
      output += data;
    });
    child.stderr.on('data', data => {
      output += data;
    });
    child.once('error', error => {
      running.delete(child);
      reject(
        new HoldfastError('HF_IMAGE_BUILD', `cannot run setpriv: ${error.message}`, INSTALL, {
          cause: error,
        }),
      );
    });
    child.once('close', (code, signal) => {
      running.delete(child);
      if (code === 0) return resolve(stdout);
      const tail = output.trimEnd().split('\n').slice(-12).join('\n  ');
      const how = signal === null ? `status ${code}` : signal;
      const advice = code === 127 ? INSTALL : options.remedy?.(output);
      const remedy = advice ?? 'Read the lines above; the build can be repeated as it is.';
      reject(
        new HoldfastError('HF_IMAGE_BUILD', `${options.label ?? file} ended with ${how}:\n  ${tail}`, remedy),
      );
    });
  });
}

/** Ends whatever `run` still waits for. */
export function killAll(): void {
  for (const child of running) {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    } catch {
      // ended meanwhile
    }
  }
}
