/**
 * The floor: Debian 12's kernel 6.1 takes the data path, and the guest's exit watch. Its verifier knows less than a newer host's; the appliance's own
 * kernel is booted with nothing but busybox, bpftool and the compiled object.
 */
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import test from 'ava';
import { findImage } from '../lib/image.js';
import { repositoryRoot, run } from '../lib/run.js';

const OBJECTS = ['hypervisor-shim/datapath/ssw.bpf.o', 'guest-agent/bpf/exit-watch.bpf.o'];
const BOOT_MS = 180_000;
const INIT = `#!/bin/sh
mount -t proc p /proc; mount -t sysfs s /sys; mount -t bpf b /sys/fs/bpf
echo "KERNEL $(busybox uname -r)"
for object in /*.bpf.o; do
  pins=/sys/fs/bpf/$(busybox basename $object .bpf.o | busybox tr -d -)
  if bpftool prog loadall $object $pins >/log 2>&1; then
    for p in $pins/*; do echo "LOADED $(busybox basename $p)"; done
  else
    busybox tail -40 /log
  fi
done
echo THE END
busybox poweroff -f
`;

/** Copies a program with the libraries that it is linked to. */
async function install(program: string, root: string, as: string): Promise<void> {
  const { stdout } = await run(['ldd', program], { allowFailure: true });
  copyFileSync(program, join(root, as));
  for (const [library] of stdout.matchAll(/\/\S+/g)) {
    mkdirSync(join(root, dirname(library)), { recursive: true });
    copyFileSync(library, join(root, library));
  }
}

async function which(program: string): Promise<string> {
  return (await run(['sh', '-c', `readlink -f "$(command -v ${program})"`])).stdout.trim();
}

test('kernel 6.1 loads every program of the data path and of the exit watch', async t => {
  const image = await findImage(text => t.log(text.trim()));
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-floor-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const root = join(dir, 'root');
  for (const folder of ['bin', 'proc', 'sys']) mkdirSync(join(root, folder), { recursive: true });
  await install(await which('busybox'), root, 'bin/busybox');
  for (const applet of ['sh', 'mount', 'echo'])
    copyFileSync(join(root, 'bin/busybox'), join(root, 'bin', applet));
  await install(await which('bpftool'), root, 'bin/bpftool');
  for (const object of OBJECTS)
    copyFileSync(join(repositoryRoot(), 'build', object), join(root, basename(object)));
  writeFileSync(join(root, 'init'), INIT);
  chmodSync(join(root, 'init'), 0o755);
  await run(['sh', '-c', `cd ${root} && find . | cpio -o -H newc --quiet > ${dir}/initrd`]);

  const { stdout } = await run(
    [
      ...['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'Nehalem', '-m', '512', '-nographic', '-no-reboot'],
      ...['-nodefaults', '-serial', 'stdio', '-kernel', `${image.dir}/vmlinuz`, '-initrd', `${dir}/initrd`],
      ...['-append', 'console=ttyS0 quiet panic=-1'],
    ],
    { timeoutMs: BOOT_MS },
  );
  t.regex(stdout, /KERNEL 6\.1\./, stdout.slice(-2000));
  const loaded = [...stdout.matchAll(/LOADED (\w+)/g)].map(m => m[1]!);
  const dataPath = ['control_flow', 'from_guest', 'from_replay', 'from_wire'];
  const exitWatch = ['egress_guard', 'process_exit', 'signal_generate', 'socket_state'];
  t.deepEqual(loaded.sort(), [...dataPath, ...exitWatch].sort(), stdout.slice(-3000));
});
