import { execFile, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { HoldfastError } from '../errors.js';

export type Accelerator = 'kvm' | 'tcg';

/** What is booted to find out. Any Linux kernel does; an initrd is not needed. */
export interface TrialBoot {
  kernel: string;
  initrd?: string;
  /** Appears on the serial console if the boot worked. Default: the kernel's last words before user space. */
  marker?: RegExp;
  /** Default 10 s, several times what a boot under KVM takes. */
  deadlineMs?: number;
}

export interface AcceleratorOptions {
  /** Where the answer is remembered: `<directory>/accelerator.json`. */
  directory: string;
  /** Absent: nothing is tried, and unless remembered the answer is `tcg`, which always works. */
  trial?: TrialBoot;
  emulator?: string;
  environment?: NodeJS.ProcessEnv;
}

/**
 * KVM or TCG, decided by trying: /dev/kvm may exist and open and still hang every guest. The answer holds for this
 * host kernel and QEMU version and is remembered with them. `HOLDFAST_ACCEL=kvm|tcg` overrides everything.
 * Rejects with HF_ACCEL for another value there, and HF_QEMU_MISSING without QEMU.
 */
export async function chooseAccelerator(options: AcceleratorOptions): Promise<Accelerator> {
  const { directory, trial, emulator = 'qemu-system-x86_64', environment = process.env } = options;
  const forced = environment.HOLDFAST_ACCEL;
  if (forced === 'kvm' || forced === 'tcg') return forced;
  if (forced) {
    throw new HoldfastError(
      'HF_ACCEL',
      `HOLDFAST_ACCEL: must be 'kvm' or 'tcg', got '${forced}'`,
      'Correct or unset it.',
    );
  }
  const canOpen = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!canOpen) return 'tcg';

  const file = join(directory, 'accelerator.json');
  const key = `${release()} / ${await qemuVersion(emulator)}`;
  const remembered = await recall(file, key);
  if (remembered || !trial) return remembered ?? 'tcg';
  const accel = (await boots(emulator, trial)) ? 'kvm' : 'tcg';
  await mkdir(dirname(file), { recursive: true });
  await writeFile(`${file}.new`, `${JSON.stringify({ key, accel }, null, 2)}\n`);
  await rename(`${file}.new`, file);
  return accel;
}

async function recall(file: string, key: string): Promise<Accelerator | undefined> {
  try {
    const saved: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (typeof saved !== 'object' || saved === null || !('key' in saved) || !('accel' in saved))
      return undefined;
    if (saved.key !== key) return undefined;
    return saved.accel === 'kvm' || saved.accel === 'tcg' ? saved.accel : undefined;
  } catch {
    return undefined;
  }
}

async function qemuVersion(emulator: string): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(emulator, ['--version']);
    return stdout.split('\n')[0] ?? '';
  } catch (cause) {
    throw new HoldfastError('HF_QEMU_MISSING', `${emulator} does not run`, 'Install qemu-system-x86.', {
      cause,
    });
  }
}

/** Either the kernel starts user space, or it says that it has none: both come after a whole kernel boot. */
const lastWords = /Run \S+ as init process|Unable to mount root/;

/** Whether the trial boots under KVM before its deadline. The QEMU is gone when this resolves. */
function boots(emulator: string, trial: TrialBoot): Promise<boolean> {
  const { kernel, initrd, marker = lastWords, deadlineMs = 10_000 } = trial;
  const args =
    '-accel kvm -machine q35 -cpu host -m 256 -display none -nodefaults -no-user-config -no-reboot -serial stdio'
      .split(' ')
      .concat('-kernel', kernel, '-append', 'console=ttyS0 panic=-1')
      .concat(initrd ? ['-initrd', initrd] : []);
  const qemu = spawn(emulator, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  return new Promise(resolve => {
    let booted = false;
    let said = '';
    const end = () => qemu.kill('SIGKILL');
    const timer = setTimeout(end, deadlineMs);
    qemu.stdout.setEncoding('latin1').on('data', (text: string) => {
      said = (said + text).slice(-65_536);
      if (marker.test(said)) {
        booted = true;
        end();
      }
    });
    const done = () => {
      clearTimeout(timer);
      resolve(booted);
    };
    qemu.once('close', done);
    qemu.once('error', done);
  });
}
