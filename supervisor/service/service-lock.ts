import {
  fstatSync,
  ftruncateSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { makeDirectories } from '../../hypervisor-shim/directories.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { lockDescriptor } from '../api/lock.js';
import { busy } from '../refusals.js';

/** The same for every state directory: taps, pins and namespaces bear a service's name, and there is one of each on a host. */
const LOCKS = '/run/holdfast/services';
/** How often the file may have been removed between opening and locking it. */
const TRIES = 10;

const fileOf = (name: string) => join(LOCKS, `${name}.lock`);

/** The services that this daemon alone may touch. The kernel gives a lock back when its daemon ends, however it ends. */
export class ServiceLocks {
  readonly #held = new Map<string, () => void>();

  /** Throws `HF_SERVICE_ELSEWHERE` if another daemon has the service, `HF_SERVICE_BUSY` if this one has it already. */
  take(name: string): void {
    if (this.#held.has(name)) throw busy(name);
    makeDirectories(LOCKS, 0o700);
    this.#held.set(name, lockService(name));
  }

  release(name: string): void {
    this.#held.get(name)?.();
    this.#held.delete(name);
  }

  releaseAll(): void {
    for (const name of [...this.#held.keys()]) this.release(name);
  }
}

function lockService(name: string): () => void {
  const path = fileOf(name);
  for (let i = 0; i < TRIES; i++) {
    const lock = lockDescriptor(path);
    if (!lock) throw elsewhere(name);
    // Who had it before may have removed it meanwhile: then a third one locks another file of that name.
    if (statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(lock.fd).ino) {
      ftruncateSync(lock.fd);
      writeSync(lock.fd, `${process.pid}\n`);
      return () => {
        rmSync(path, { force: true });
        lock.release();
      };
    }
    lock.release();
  }
  throw elsewhere(name);
}

function elsewhere(name: string): HoldfastError {
  const pid = holderOf(name);
  return new HoldfastError(
    'HF_SERVICE_ELSEWHERE',
    `${name} belongs to another daemon, pid ${pid ?? 'unknown'}`,
    'Use that daemon (its --socket and --state-dir), or give the service another name; two cannot have one service.',
  );
}

/** Pid of the daemon that has the service; undefined if none has. Looks only: to try the lock would be to take it. */
export function holderOf(name: string): number | undefined {
  const path = fileOf(name);
  try {
    const pid = Number(readFileSync(path, 'latin1').trim());
    const files = `/proc/${pid}/fd`;
    return pid > 0 && readdirSync(files).some(fd => isLinkTo(join(files, fd), path)) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Names of all services that a daemon has. */
export function heldServices(): string[] {
  try {
    const names = readdirSync(LOCKS).flatMap(file => /^(.+)\.lock$/.exec(file)?.[1] ?? []);
    return names.filter(name => holderOf(name) !== undefined);
  } catch {
    return [];
  }
}

function isLinkTo(link: string, path: string): boolean {
  try {
    return readlinkSync(link) === path;
  } catch {
    return false;
  }
}
