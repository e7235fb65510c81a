import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { type Disposable, disposeAtExit, settled } from '../../lib/at-exit.js';
import { endProcesses, processesOf, signalQuietly } from '../../lib/processes.js';
import { MINIMAL, temporaryFolder } from './helpers.js';

const SCRIPT = join(import.meta.dirname, 'fake-cli.js');

export interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A folder with configuration, state and socket of one daemon, ended after the test. */
export function laboratory(t: ExecutionContext, extra: Record<string, string> = {}) {
  const dir = temporaryFolder();
  const state = join(dir, 'state');
  const socket = join(dir, 's.sock');
  const config = join(dir, 'web.yaml');
  writeFileSync(config, MINIMAL);
  const env = { ...process.env, HOLDFAST_SOCKET: socket, HOLDFAST_STATE: state, ...extra };
  const start = (...args: string[]): ChildProcess => spawn(process.execPath, [SCRIPT, ...args], { env });
  const run = async (...args: string[]): Promise<Result> => {
    const child = start(...args);
    const result: Result = { code: null, stdout: '', stderr: '' };
    child.stdout!.setEncoding('utf8').on('data', text => (result.stdout += text));
    child.stderr!.setEncoding('utf8').on('data', text => (result.stderr += text));
    [result.code] = await once(child, 'close');
    return result;
  };
  // A daemon has a session of its own: an interrupted run would leave it.
  const outside: Disposable = {
    async dispose() {
      await endProcesses(async () => processesOf(dir), 0);
      rmSync(dir, { recursive: true, force: true });
      settled(outside);
    },
    disposeNow() {
      for (const pid of processesOf(dir)) signalQuietly(pid, 'SIGKILL');
      rmSync(dir, { recursive: true, force: true });
    },
  };
  disposeAtExit(outside);
  t.teardown(async () => {
    await run('down');
    rmSync(dir, { recursive: true });
    settled(outside);
  });
  return { dir, state, socket, config, start, run };
}

export const lines = (text: string) => text.trimEnd().split('\n');
