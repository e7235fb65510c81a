/** The host starts anew under a daemon's state: nothing of it runs any more, and the service comes back by itself. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { ServiceStatus } from '../../supervisor/api/types.js';
import { findImage } from '../lib/image.js';
import { Lab } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { makeTraffic } from '../lib/load.js';
import { namespacePids } from '../lib/namespaces.js';
import { waitFor } from '../lib/run.js';
import { serviceConfig } from '../lib/scenario.js';
import { Supervisor } from '../lib/supervisor.js';

const TAG = 'anew';
const PINS = `/sys/fs/bpf/holdfast/${TAG}`;

/** As far as a test can: processes and pins are gone, files remain, and the kernel is another. */
async function powerCut(lab: Lab, supervisor: Supervisor): Promise<void> {
  const all = () => namespacePids(lab.host);
  for (const pid of await all()) process.kill(pid, 'SIGKILL');
  await waitFor('all processes to end', 20_000, async () => ((await all()).length === 0 ? true : undefined));
  rmSync(PINS, { recursive: true });
  const file = join(supervisor.stateDir, 'services', `${TAG}.json`);
  const state = JSON.parse(readFileSync(file, 'utf8')) as { boot: string };
  writeFileSync(file, JSON.stringify({ ...state, boot: '00000000-0000-0000-0000-000000000000' }));
}

test('after a restart of the host `up` protects what was protected', async t => {
  const image = await findImage(text => t.log(text.trim()));
  const lab = await Lab.create(TAG);
  const supervisor = new Supervisor(lab);
  try {
    const before = await supervisor.up(serviceConfig(TAG, image));
    await powerCut(lab, supervisor);
    const up = await supervisor.command(['up', join(lab.dir, `${TAG}.yaml`)]);
    const [after] = (JSON.parse(up.stdout) as { services: ServiceStatus[] }).services;
    t.is(after?.phase, 'protected', '`up FILE` waits for it');
    t.true((await supervisor.events()).some(({ type }) => type === 'host.restarted'));
    t.true(after!.startedAt! > before.startedAt!);
    const { error } = await makeTraffic(lab, lab.clients[0]!, image, 60_000).keepAlive(3, 10).result;
    t.is(error, undefined);
    await supervisor.down();
    t.deepEqual(await lab.strays(), []);
  } finally {
    await supervisor.command(['down'], true).catch(() => {});
    await lab.dispose();
  }
  t.deepEqual(await leftovers(TAG), []);
});
