import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { chooseAccelerator } from '../../hypervisor-shim/libvirt/accelerator.js';
import { findKernel } from './support/kernel.js';

const directory = mkdtempSync(join(tmpdir(), 'hf-accel-'));
const file = join(directory, 'accelerator.json');
test.after.always(() => rmSync(directory, { recursive: true, force: true }));

test.serial('the environment decides, or is refused by name', async t => {
  const choose = (value: string) => chooseAccelerator({ directory, environment: { HOLDFAST_ACCEL: value } });
  t.is(await choose('kvm'), 'kvm');
  t.is(await choose('tcg'), 'tcg');
  await t.throwsAsync(choose('hax'), { code: 'HF_ACCEL', message: /HOLDFAST_ACCEL.*hax/ });
});

test.serial('without a trial nothing is believed of /dev/kvm', async t => {
  t.is(await chooseAccelerator({ directory, environment: {} }), 'tcg');
  t.throws(() => readFileSync(file));
});

test.serial('a trial keeps its deadline, and its answer is remembered', async t => {
  const { vmlinuz } = findKernel();
  const deadlineMs = 6000;
  const started = Date.now();
  const first = await chooseAccelerator({
    directory,
    environment: {},
    trial: { kernel: vmlinuz, deadlineMs },
  });
  t.true(Date.now() - started < deadlineMs + 2000);
  t.log(`this host: ${first}, found out in ${Date.now() - started} ms`);

  const again = Date.now();
  const trial = { kernel: '/nonexistent' };
  t.is(await chooseAccelerator({ directory, environment: {}, trial }), first);
  t.true(Date.now() - again < 1000);
});

test.serial('a trial that hangs is ended at its deadline', async t => {
  const emulator = join(directory, 'qemu');
  const pidFile = join(directory, 'pid');
  const script = `#!/bin/sh\n[ "$1" = --version ] && exec echo hanging 1.0\necho $$ > ${pidFile}\nexec sleep 600\n`;
  writeFileSync(emulator, script, { mode: 0o755 });
  const started = Date.now();
  const trial = { kernel: '/nonexistent', deadlineMs: 500 };
  t.is(await chooseAccelerator({ directory, environment: {}, emulator, trial }), 'tcg');
  t.true(Date.now() - started < 3000);
  if (existsSync(pidFile)) t.false(existsSync(`/proc/${readFileSync(pidFile, 'utf8').trim()}`));
});

test.serial('an answer for another kernel or QEMU, or a damaged one, counts for nothing', async t => {
  for (const text of [`{"key":"another / one","accel":"kvm"}`, '{', 'null', `{"key":"${release()}"}`]) {
    writeFileSync(file, text);
    t.is(await chooseAccelerator({ directory, environment: {} }), 'tcg');
  }
});
