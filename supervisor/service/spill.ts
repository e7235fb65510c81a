import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Spiller, type SpillState } from '../../hypervisor-shim/spill/spiller.js';
import { parseServiceConfig, type ServiceConfig } from '../config/config.js';
import type { Protection } from './protection.js';
import type { ServiceFiles } from './state-file.js';

/** After so long without spilling, the next time is news again. */
const EPISODE_MS = 10_000;
const RESTART_MS = 5000;

/** Where a service's log is spilled; undefined if it is not. Below a directory that was given, services have one each. */
export function spillDirectory(
  { name, log: { spill } }: Pick<ServiceConfig, 'name' | 'log'>,
  files: ServiceFiles,
): string | undefined {
  if (!spill) return undefined;
  return spill.directory === undefined
    ? join(files.directory, 'spill')
    : join(spill.directory, `${name}.spill`);
}

type Charge = Pick<Protection, 'config' | 'files' | 'path' | 'say' | 'stopped' | 'spiller'>;

/** Starts to spill the log, if it is to be; the spiller's troubles become events. Throws `HF_SPILL_DIRECTORY`. */
export async function startSpilling(p: Charge): Promise<void> {
  const directory = spillDirectory(p.config, p.files);
  const { spill } = p.config.log;
  if (!spill || directory === undefined) return;
  const spiller = await Spiller.start(p.path, { directory, sizeMiB: spill.sizeMiB });
  const watch = new SpillWatch(p);
  p.spiller = spiller;
  spiller.on('state', state => watch.look(state));
  spiller.once('failed', error => {
    p.spiller = undefined;
    trouble(p, error);
    void restart(p);
  });
}

/** The same for a service that goes on whatever becomes of it: tried again until it succeeds. */
export async function trySpilling(p: Charge, again = false): Promise<void> {
  await startSpilling(p).catch(error => {
    if (!again) trouble(p, error);
    void restart(p);
  });
}

async function restart(p: Charge): Promise<void> {
  await sleep(RESTART_MS, undefined, { signal: p.stopped }).catch(() => {});
  if (!p.stopped.aborted) await trySpilling(p, true);
}

function trouble(p: Charge, error: Error): void {
  p.say('log.trouble', `the log is not spilled: ${error.message}; ${until(p)}`, { error: error.message });
}

const until = ({ config }: Charge): string =>
  config.log.onFull === 'backpressure'
    ? 'when its memory is full, connections wait'
    : 'when its memory is full, connections go on unprotected';

/** Tells of the spiller's doings once, not each time. */
class SpillWatch {
  #moved = 0;
  #at = Number.NEGATIVE_INFINITY;
  #error: string | undefined;

  constructor(private readonly p: Charge) {}

  look({ directory, moved, error, bytes, limitBytes }: SpillState): void {
    const { p } = this;
    const now = performance.now();
    if (moved > this.#moved) {
      if (now - this.#at > EPISODE_MS) {
        p.say('log.spilling', `half of the log's memory is in use: what is oldest moves to ${directory}`, {
          ...{ directory, bytes, limitBytes },
        });
      }
      this.#at = now;
    }
    this.#moved = moved;
    if (error !== undefined && error !== this.#error) {
      const remedy = 'Make room there, or see what is wrong with that disk; it is tried again each second.';
      p.say('log.trouble', `cannot spill to ${directory}: ${error}; ${until(p)}. ${remedy}`, {
        ...{ directory, error, remedy },
      });
    }
    this.#error = error;
  }
}

/** Removes what a service has spilled below a directory of its configuration's; the rest goes with the state directory. */
export function removeSpilled(files: ServiceFiles): void {
  const saved = files.load();
  if (!saved) return;
  let directory: string | undefined;
  try {
    directory = spillDirectory(parseServiceConfig(saved.config, saved.source), files);
  } catch {
    return; // another version's: it is not known where
  }
  if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
}
