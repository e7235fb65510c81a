/** Five failovers in a row under the same connections, with re-protection between. */
import test from 'ava';
import { Capture } from '../lib/capture.js';
import { summarize } from '../lib/gaps.js';
import { findImage } from '../lib/image.js';
import { Lab } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { boundReceiveBuffers, makeTraffic } from '../lib/load.js';
import { SERVICE_PORTS, serviceConfig } from '../lib/scenario.js';
import { Supervisor } from '../lib/supervisor.js';
import { makeUploadBody } from '../lib/traffic.js';

const TAG = 'five';
const FAILOVERS = 5;
const FAULTS = ['guest-panic', 'vm-kill'] as const;
/** Slow enough that every transfer outlives five boots of a backup under emulation. */
const DOWNLOAD_RATE = 200_000;
const UPLOAD_RATE = 150_000;
const REQUESTS_PER_SECOND = 4;
const CLIENT_TIMEOUT_MS = 300_000;

test('five failovers in a row under continuous load', async t => {
  const image = await findImage(text => t.log(text.trim()));
  const lab = await Lab.create(TAG);
  const supervisor = new Supervisor(lab);
  try {
    const client = lab.clients[0]!;
    await boundReceiveBuffers(lab, client);
    await supervisor.up(serviceConfig(TAG, image));
    const capture = await Capture.start(lab, client);
    const traffic = makeTraffic(lab, client, image, CLIENT_TIMEOUT_MS);
    const body = makeUploadBody(lab, 24 << 20);
    const files = [...image.files.keys()];
    for (let i = 0; i < 6; i++) traffic.curl(files[i]!, DOWNLOAD_RATE);
    for (let i = 0; i < 4; i++) traffic.upload(body, UPLOAD_RATE);
    for (let i = 0; i < 6; i++) traffic.keepAlive(600, REQUESTS_PER_SECOND);
    await traffic.waitInFlight(256 << 10, 1 << 20, 60_000);
    const bootIds = new Set<string | undefined>();
    for (let n = 0; n < FAILOVERS; n++) {
      const ended = traffic.clients.filter(c => c.ended).length;
      t.is(ended, 0, `all clients are at work before fault ${n + 1}`);
      const report = await supervisor.drill(TAG, FAULTS[n % FAULTS.length]!);
      t.deepEqual(
        report.verdicts.filter(v => v.outcome !== 'kept'),
        [],
      );
      t.is(report.kept, traffic.clients.length);
      const status = await supervisor.protectedAgain(TAG);
      bootIds.add(status.guests.find(g => g.role === 'primary')?.bootId);
    }
    t.is(bootIds.size, FAILOVERS, 'each failover went to a machine of its own');
    const results = await traffic.results();
    t.deepEqual(
      results.filter(r => !r.ok).map(r => `${r.label}: ${r.error}`),
      [],
    );
    await capture.stop();
    const summary = summarize(capture.trace(SERVICE_PORTS), traffic.clients.length);
    t.like(summary, { connections: traffic.clients.length, resets: 0, reconnects: 0 });
    t.is((await supervisor.status(TAG)).recoveries, FAILOVERS);
    await supervisor.down();
    t.deepEqual(await lab.strays(), []);
  } finally {
    await supervisor.command(['down'], true).catch(() => {});
    await lab.dispose();
  }
  t.deepEqual(await leftovers(TAG), []);
});
