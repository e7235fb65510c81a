import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { keepLogs } from '../../lib/keep.js';
import { Lab, SERVICE_ADDRESS, sweep } from '../../lib/lab.js';
import { leftovers } from '../../lib/leftovers.js';
import { run, waitFor } from '../../lib/run.js';

test.serial('clients reach the bridge, commands see bpffs, and dispose leaves nothing', async t => {
  const before = await leftovers('unitlab');
  const lab = await Lab.create('unitlab', { clients: 2 });
  try {
    await lab.exec(lab.host, ['ip', 'addr', 'add', `${SERVICE_ADDRESS}/24`, 'dev', 'br0']);
    // nobody listens: refused by the host's kernel at once, not timed out
    for (const client of lab.clients) {
      const curl = ['curl', '-q', '-sS', '--max-time', '5', `http://${SERVICE_ADDRESS}/`];
      t.is((await lab.exec(client.name, curl, { allowFailure: true })).code, 7);
    }
    t.is((await lab.exec(lab.host, ['stat', '-f', '-c', '%T', '/sys/fs/bpf'])).stdout.trim(), 'bpf_fs');
    t.true((await leftovers('unitlab')).includes('namespace hf-unitlab-host'));
    await t.throwsAsync(Lab.create('unitlab'), { message: /in use by process/ });
    t.deepEqual(await lab.strays(), []);
    const child = lab.spawn(lab.host, ['sh', '-c', 'setsid sleep 100 & exec sleep 100']);
    await lab.exec(lab.host, ['ip', 'link', 'add', 'tap9', 'type', 'veth', 'peer', 'name', 'tap8']);
    const strays = await waitFor('the process that left its group', 5000, async () => {
      const list = await lab.strays();
      return list.some(line => /^process \d+ in hf-unitlab-host: sleep 100/.test(line)) ? list : undefined;
    });
    t.true(strays.some(line => line.startsWith('device tap9')));
    const ended = once(child, 'exit');
    await lab.dispose();
    await ended;
  } finally {
    await lab.dispose();
  }
  t.deepEqual(
    (await leftovers('unitlab')).filter(line => !before.includes(line)),
    [],
  );
});

test.serial('logs of a failure are kept where HOLDFAST_TEST_KEEP says, and nowhere without', async t => {
  const target = mkdtempSync(join(tmpdir(), 'holdfast-keep-'));
  const lab = await Lab.create('unitkeep');
  t.teardown(async () => {
    delete process.env.HOLDFAST_TEST_KEEP;
    rmSync(target, { recursive: true });
    await lab.dispose();
  });
  mkdirSync(join(lab.dir, 'state'));
  for (const file of ['state/events.ndjson', 'state/web.console.log', 'state/root.qcow2', 'upload.bin'])
    writeFileSync(join(lab.dir, file), file);
  const said: string[] = [];
  keepLogs(lab, line => void said.push(line));
  t.deepEqual(said, []);
  process.env.HOLDFAST_TEST_KEEP = target;
  keepLogs(lab, line => void said.push(line));
  t.deepEqual(said, [`logs and captures are in ${target}/unitkeep`]);
  t.deepEqual(readdirSync(join(target, 'unitkeep')), ['state']);
  t.deepEqual(readdirSync(join(target, 'unitkeep/state')).sort(), ['events.ndjson', 'web.console.log']);
});

test.serial('what an interrupted run left is listed, and swept', async t => {
  const dir = '/tmp/holdfast-lab-unitsweep';
  t.teardown(() => sweep('unitsweep'));
  await sweep('unitsweep');
  const before = await leftovers('unitsweep');
  await run(['ip', 'netns', 'add', 'hf-unitsweep-host']);
  await run(['ip', 'link', 'add', 'hfunit0', 'type', 'veth', 'peer', 'name', 'hfunit1']);
  t.teardown(() => run(['ip', 'link', 'del', 'hfunit0'], { allowFailure: true }));
  mkdirSync('/sys/fs/bpf/holdfast-unitsweep/flows', { recursive: true });
  writeFileSync('/dev/shm/holdfast-unitsweep-a', '');
  mkdirSync(dir);
  const script = ['-c', 'while sleep 0.1; do :; done', `${dir}/state`];
  const planted = spawn('sh', script, { argv0: 'qemu-system-x86_64', stdio: 'ignore' });
  t.teardown(() => void planted.kill('SIGKILL'));
  writeFileSync(`${dir}/lock`, '999999999 1\n');
  const found = (await leftovers('unitsweep')).filter(line => !before.includes(line));
  t.true(found.pop()!.startsWith(`process ${planted.pid}: qemu-system-x86_64`));
  planted.kill('SIGKILL');
  await once(planted, 'exit');
  t.deepEqual(found.sort(), [
    'device hfunit0',
    'device hfunit1',
    'file /dev/shm/holdfast-unitsweep-a',
    'file /sys/fs/bpf/holdfast-unitsweep',
    'file /sys/fs/bpf/holdfast-unitsweep/flows',
    'namespace hf-unitsweep-host',
  ]);
  await sweep('unitsweep');
  await run(['ip', 'link', 'del', 'hfunit0']);
  t.deepEqual(
    (await leftovers('unitsweep')).filter(line => !before.includes(line)),
    [],
  );
  rmSync(dir, { recursive: true, force: true });
});

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  test.serial(`${signal} removes an open lab and what runs in it`, async t => {
    t.teardown(() => sweep('unitsig'));
    const before = await leftovers('unitsig');
    const lab = new URL('../../lib/lab.js', import.meta.url).href;
    const script = `import { Lab } from '${lab}';
      const lab = await Lab.create('unitsig');
      lab.spawn(lab.host, ['sleep', '60']);
      console.log('ready');
      setTimeout(() => {}, 60_000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    t.true((await leftovers('unitsig')).length > before.length);
    child.kill(signal);
    const [code] = await once(child, 'exit');
    t.is(code, signal === 'SIGINT' ? 130 : 143);
    t.deepEqual(
      (await leftovers('unitsig')).filter(line => !before.includes(line)),
      [],
    );
  });
