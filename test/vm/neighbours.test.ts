/** Two services on one host, each with its own machines and policies: a fault in one touches nothing of the other. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { stringify } from 'yaml';
import type { DrillFault, Incident, ServiceStatus } from '../../supervisor/api/types.js';
import { serviceConfig } from '../lib/scenario.js';
import { type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';
import { Traffic } from '../lib/traffic.js';

const [ONE, OTHER] = ['neigh', 'neighb'];
const OTHER_ADDRESS = '10.77.0.11';
/** Resolution of a guest's vCPU time, ms. */
const TICK_MS = 10;

const load = {
  ...{ downloads: 2, uploads: 1, loops: 2, downloadRate: 200_000, uploadRate: 130_000, uploadMiB: 16 },
  ...{ requests: 500, requestsPerSecond: 4, timeoutMs: 300_000 },
};

async function protectOther({ lab, image, supervisor }: Stage): Promise<void> {
  const config = serviceConfig(OTHER, image, {
    address: `${OTHER_ADDRESS}/24`,
    address6: undefined,
    management: { subnet: '192.168.88.0/24' },
    recovery: { former: 'destroy' },
    log: { sizeMiB: 128 },
  });
  const file = join(lab.dir, `${OTHER}.yaml`);
  writeFileSync(file, stringify(config));
  await supervisor.command(['protect', file]);
}

function loadOther({ lab, client, image }: Stage): Traffic {
  const { files, small } = image;
  const target = {
    httpUrl: `http://${OTHER_ADDRESS}`,
    sinkUrl: `http://${OTHER_ADDRESS}:8080`,
    files,
    small,
  };
  const traffic = new Traffic(lab, client, [target], load.timeoutMs);
  for (const path of [...files.keys()].slice(0, 2)) traffic.curl(path, 250_000);
  traffic.keepAlive(400, 4);
  return traffic;
}

/** What a fault elsewhere must leave as it is. */
const standing = ({ phase, epoch, recoveries, lastFault, connections, guests }: ServiceStatus) => ({
  ...{ phase, epoch, recoveries, lastFault, held: connections.held },
  guests: guests.map(({ name, role, state, bootId, pid }) => ({ name, role, state, bootId, pid })),
});

/** In `make verify`: others of this suite show most of it. */
const long = process.env.HOLDFAST_LONG ? test.serial : test.serial.skip;

long('two services under load: a panic in one, QEMU killed in the other, the end of one', async t => {
  await undisturbed(t, { tag: ONE, load }, async stage => {
    const { supervisor, traffic } = stage;
    await protectOther(stage);
    const others = loadOther(stage);
    stage.opened += others.clients.length;
    await others.waitInFlight(64 << 10, 1 << 20, 60_000);

    const fault = async (service: string, neighbour: string, kind: DrillFault, clients: number) => {
      const before = standing(await supervisor.status(neighbour));
      const report = await supervisor.drill(service, kind);
      t.deepEqual([report.kept, report.lost], [clients, 0], `${kind} in ${service}`);
      t.deepEqual(
        standing(await supervisor.status(neighbour)),
        before,
        `${neighbour} at ${kind} in ${service}`,
      );
      await supervisor.protectedAgain(service);
      t.deepEqual(standing(await supervisor.status(neighbour)), before, `${neighbour} after it`);
    };
    await fault(ONE, OTHER, 'guest-panic', traffic.clients.length);
    await fault(OTHER, ONE, 'vm-kill', others.clients.length);

    const [one, other] = [await supervisor.status(ONE), await supervisor.status(OTHER)];
    t.is(guestOf(one, 'former').state, 'crashed', 'each has a policy of its own');
    t.is(
      other.guests.find(({ role }) => role === 'former'),
      undefined,
    );
    for (const status of [one, other]) {
      const backup = guestOf(status, 'backup');
      t.true(backup.vcpuMs <= backup.vcpuMsAtSuspend! + TICK_MS, 'a suspended backup uses no CPU');
      t.log(`${backup.name}: ${Math.round(backup.residentBytes! / 2 ** 20)} MiB of the host's memory`);
    }
    const incidents = async (service: string) =>
      JSON.parse((await supervisor.command(['incidents', service])).stdout) as Incident[];
    t.is((await incidents(ONE))[0]!.cause, 'guest-panic');
    t.like(await incidents(OTHER), { length: 1, 0: { service: OTHER, cause: 'guest-gone' } });
    t.deepEqual(
      (await others.results()).filter(({ ok }) => !ok),
      [],
    );
    const before = standing(one);
    await supervisor.command(['down', OTHER]);
    t.deepEqual(standing(await supervisor.status(ONE)), before, 'when the other ends');
  });
});
