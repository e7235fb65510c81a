import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { hasEnded } from '../../hypervisor-shim/libvirt/processes.js';
import type { ControlClient } from '../api/client.js';
import { fromErrorBody } from '../api/http-errors.js';
import { makeStateDirectory } from '../api/paths.js';
import type { DaemonStatus } from '../api/types.js';

/** Starting, and trying the accelerator once, may take this long, ms. */
const START_MS = 120_000;

/** The daemon, if one answers. */
export async function runningDaemon(client: ControlClient): Promise<DaemonStatus | undefined> {
  try {
    return await client.daemon();
  } catch (error) {
    if (error instanceof HoldfastError && error.code === 'HF_NOT_RUNNING') {
      return undefined;
    }
    throw error;
  }
}

/** Starts a detached daemon and waits until it answers. Throws what the daemon itself said if it ends instead. */
export async function spawnDaemon(
  client: ControlClient,
  stateDir: string,
  metricsListen?: string,
): Promise<DaemonStatus> {
  makeStateDirectory(stateDir);
  // What goes to stderr is only what happens before there is a log, or a crash of Node itself.
  const errorFile = join(stateDir, 'supervisor.stderr');
  const stderr = openSync(errorFile, 'w', 0o600);
  const args = ['daemon', '--json', '--state-dir', stateDir, '--socket', client.socketPath];
  if (metricsListen !== undefined) args.push('--metrics-listen', metricsListen);
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...args], {
    detached: true,
    cwd: '/',
    stdio: ['ignore', 'ignore', stderr],
  });
  closeSync(stderr);
  child.unref();
  let ended = '';
  child.once('error', error => {
    ended = error.message;
  });
  child.once('exit', (code, signal) => {
    ended = signal ? `signal ${signal}` : `exit code ${code}`;
  });
  for (let waited = 0; waited < START_MS; waited += 50) {
    await sleep(50);
    const daemon = await runningDaemon(client);
    if (daemon) {
      return daemon;
    }
    if (ended) {
      const error = startError(readFileSync(errorFile, 'utf8').trim(), ended, errorFile);
      // Another `up` at the same moment has the socket's lock, and its daemon is about to answer.
      if (error.code !== 'HF_ALREADY_RUNNING') {
        throw error;
      }
    }
  }
  await end(child);
  const message = `the daemon (pid ${child.pid}) did not answer within ${START_MS} ms, and was ended`;
  throw new HoldfastError('HF_START_FAILED', message, `Read ${join(stateDir, 'supervisor.log')}.`);
}

/** One that nobody waits for any more must not get there later. What it has taken over by then stays as it is. */
async function end(child: ChildProcess): Promise<void> {
  const ended = () => child.exitCode !== null || child.signalCode !== null;
  child.kill('SIGTERM');
  for (let waited = 0; waited < EXIT_MS && !ended(); waited += 50) await sleep(50);
  if (!ended()) child.kill('SIGKILL');
}

/** What a process may take to end after it has left its socket, ms. */
const EXIT_MS = 5000;

/** Waits until the daemon has left its socket, so that the next `up` starts a new one, and has ended. */
export async function waitUntilEnded(client: ControlClient, pid: number): Promise<void> {
  for (let waited = 0; waited < 20_000; waited += 50) {
    const daemon = await runningDaemon(client).catch((error: unknown) => {
      if (error instanceof HoldfastError && /^HF_(SHUTTING_DOWN|CONNECTION_LOST)$/.test(error.code)) {
        return { pid };
      }
      throw error;
    });
    if (daemon?.pid !== pid) {
      await hasEnded(pid, EXIT_MS);
      return;
    }
    await sleep(50);
  }
  const message = `the daemon (pid ${pid}) still answers 20 s after it was told to end`;
  throw new HoldfastError(
    'HF_STOP_FAILED',
    message,
    `Read its supervisor.log, then end it with \`kill ${pid}\`.`,
  );
}

/** The daemon writes its last error as one JSON line; anything else is a crash. */
function startError(stderr: string, ended: string, errorFile: string): HoldfastError {
  const last = stderr.split('\n').at(-1) ?? '';
  try {
    const error = fromErrorBody(JSON.parse(last));
    if (error) {
      return error;
    }
  } catch {
    // Not JSON: quoted below.
  }
  const message = `the daemon ended at its start with ${ended}${last && `: ${last}`}`;
  return new HoldfastError('HF_START_FAILED', message, `Read ${errorFile} and supervisor.log beside it.`);
}
