import { execFile } from 'node:child_process';
import { readdir, readFile, readlink, rm, stat, symlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { HoldfastError } from '../errors.js';
import { mountedOver, writeDaemonConfig } from './daemon-config.js';
import { launchDaemon, removeMountPoints, startLogOf } from './daemon-launch.js';
import { endProcess, isRunning, readPidFile } from './processes.js';

const installHint =
  'Install libvirt-daemon and libvirt-daemon-driver-qemu, or name a libvirt that runs by its URI.';

/** `sun_path` of unix(7), without the final NUL. */
const maxSocketPath = 107;

/**
 * A libvirtd of our own: configuration, state, logs and socket below `<stateDir>/libvirt`, nothing of the host's
 * changed. It is in the network namespace of whoever started it, outlives its starter, and is adopted by the next one.
 * Its guests outlive it in turn, and the next libvirtd with the same `stateDir` finds them.
 */
export class PrivateDaemon {
  private constructor(
    readonly directory: string,
    readonly pid: number,
    /** It was running already. */
    readonly adopted: boolean,
  ) {}

  get uri(): string {
    return `qemu+unix:///system?socket=${encodeURIComponent(socketOf(this.directory))}`;
  }

  /**
   * Adopts the private daemon of `stateDir` or starts one; takes about a second the first time.
   * Rejects with HF_LIBVIRTD_START, with HF_STATE_DIR if the socket's path would be too long (107 bytes), and with
   * HF_LIBVIRTD_NETNS if the one that runs is in another network namespace.
   */
  static async ensure(stateDir: string, deadlineMs = 20_000): Promise<PrivateDaemon> {
    const directory = join(resolve(stateDir), 'libvirt');
    const running = await findDaemon(directory);
    if (running && (await answers(socketOf(directory)))) {
      await checkNetwork(running);
      return new PrivateDaemon(directory, running, true);
    }
    checkSocketPath(directory);
    await writeDaemonConfig(directory);
    await linkDrivers(directory);
    const child = await launchDaemon(directory);
    for (const deadline = Date.now() + deadlineMs; Date.now() < deadline; await sleep(10)) {
      // Whoever started it: of two that start at a time, libvirtd's lock on its pid file lets one run.
      const pid = await findDaemon(directory);
      if (pid && (await answers(socketOf(directory)))) {
        return new PrivateDaemon(directory, pid, pid !== child.pid);
      }
      if (!pid && (child.exitCode !== null || child.pid === undefined)) break;
    }
    if (child.exitCode === null) child.kill('SIGKILL');
    await removeMountPoints();
    throw new HoldfastError(
      'HF_LIBVIRTD_START',
      `libvirtd does not start: ${await lastWords(directory)}`,
      installHint,
    );
  }

  /** Ends the daemon **and its guests**, and removes everything outside `stateDir`. */
  async stop(): Promise<void> {
    if (await ownsNamespace(this.pid, this.directory)) await endProcess(this.pid, 10_000);
    const pidDirectory = join(this.directory, 'run/qemu');
    for (const file of await readdir(pidDirectory).catch(() => [])) {
      const pid = file.endsWith('.pid') ? await readPidFile(join(pidDirectory, file)) : undefined;
      if (pid && (await ownsNamespace(pid, this.directory))) await endProcess(pid, 2_000);
    }
    await removeMountPoints();
    await rm(join(this.directory, 'run'), { recursive: true, force: true });
  }
}

const socketOf = (directory: string) => join(directory, 'run/libvirt-sock');

function checkSocketPath(directory: string): void {
  const bytes = Buffer.byteLength(socketOf(directory));
  if (bytes <= maxSocketPath) return;
  throw new HoldfastError(
    'HF_STATE_DIR',
    `stateDir: the socket ${socketOf(directory)} has ${bytes} bytes, a unix socket's path at most ${maxSocketPath}`,
    'Choose a shorter state directory.',
  );
}

/** Its guests' taps are looked for in its own network namespace, so one in another would find none of ours. */
async function checkNetwork(pid: number): Promise<void> {
  const [theirs, ours] = await Promise.all([pid, 'self'].map(who => readlink(`/proc/${who}/ns/net`)));
  if (theirs === ours) return;
  throw new HoldfastError(
    'HF_LIBVIRTD_NETNS',
    `the private libvirtd (pid ${pid}) is in network namespace ${theirs}, this process in ${ours}`,
    'Start from the same network namespace, or stop that daemon first.',
  );
}

async function findDaemon(directory: string): Promise<number | undefined> {
  const pid = await readPidFile(join(directory, 'run/libvirtd.pid'));
  return pid && (await isRunning(pid)) && (await ownsNamespace(pid, directory)) ? pid : undefined;
}

/** A pid may have been reused since it was written down; our processes are those that see our /run/libvirt. */
async function ownsNamespace(pid: number, directory: string): Promise<boolean> {
  try {
    const theirs = await stat(`/proc/${pid}/root${mountedOver.run}`);
    const ours = await stat(join(directory, 'run'));
    return theirs.dev === ours.dev && theirs.ino === ours.ino;
  } catch {
    return false;
  }
}

function answers(socket: string): Promise<boolean> {
  return new Promise(resolve => {
    const probe = connect(socket);
    probe.once('connect', () => resolve(true)).once('error', () => resolve(false));
    probe.once('connect', () => probe.destroy());
  });
}

/** Only the QEMU driver: the others would look at, or touch, the host's networks, firewall and devices. */
async function linkDrivers(directory: string): Promise<void> {
  const { stdout } = await promisify(execFile)('/bin/sh', [
    '-c',
    'ls /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so /usr/lib*/libvirt/connection-driver/libvirt_driver_qemu.so 2>/dev/null || :',
  ]);
  const driver = stdout.split('\n')[0];
  if (!driver)
    throw new HoldfastError('HF_LIBVIRTD_START', "libvirt's QEMU driver is not installed", installHint);
  const link = join(directory, 'drivers/libvirt_driver_qemu.so');
  await rm(link, { force: true });
  await symlink(driver, link);
}

async function lastWords(directory: string): Promise<string> {
  const logs = [startLogOf(directory), join(directory, 'log/libvirtd.log')];
  const text = (await Promise.all(logs.map(log => readFile(log, 'utf8').catch(() => '')))).join('');
  return text.trim().split('\n').slice(-3).join('; ') || 'no word from it';
}
