/** A service that is there and does nothing, in a guest that is well: it must be asked, or say by itself that it lives. */
import { join } from 'node:path';
import test from 'ava';
import { shell } from '../lib/guest-shell.js';
import { BRIDGE, SERVICE_ADDRESS } from '../lib/lab.js';
import { repositoryRoot, waitFor } from '../lib/run.js';
import { allAtWork, LONG_LOAD, type Stage, type StageOptions, undisturbed } from '../lib/stage.js';

/** The host's own way to the service. */
const HOST_ADDRESS = '10.77.0.1/24';
const PROBE = { http: '/small/1k', status: 200, intervalMs: 500, timeoutMs: 5000, failures: 2 };
const LOAD = { ...LONG_LOAD, downloads: 4, uploads: 1, loops: 4 };

const optionsOf = (tag: string, detect: object): StageOptions => ({
  tag,
  appliance: join(repositoryRoot(), 'test/appliances/wedged.yaml'),
  config: { detect },
  load: LOAD,
});

/** Two takeovers' boots: of what the guest tells the other test has one kind. */
const long = process.env.HOLDFAST_LONG ? test : test.skip;

const said = ({ supervisor }: Stage, type: string, times = 1) =>
  waitFor(type, 120_000, async () => {
    const events = (await supervisor.events()).filter(event => event.type === type);
    return events[times - 1];
  });

/** The service is lost for that reason, its connections go on in the backup, and there is a new one in the end. */
async function recovered(stage: Stage, times: number, why: RegExp): Promise<string> {
  const done = await said(stage, 'recovery.done', times);
  const { cause, lost } = done.data as { cause: string; lost: number };
  const fault = await said(stage, 'fault.detected', times);
  if (cause !== 'service-wedged' || lost !== 0 || !why.test(fault.message)) throw new Error(done.message);
  await stage.supervisor.protectedAgain(stage.tag);
  return `${fault.message}; ${done.message}`;
}

/** Signs of life in the name of the application, by who is none of it: they must not count. */
const OUTSIDER = `
const { notify } = require('/opt/holdfast/guest-agent/native/agent.node');
setInterval(() => notify('/run/holdfast/notify.app', 'WATCHDOG=1'), 500);
`;
const node = (script: string) => `/opt/holdfast/bin/node -e "${script.replaceAll('\n', ' ')}"`;

/** Does not wait for an answer. */
const ask = ({ lab, client }: Stage, port: number, path: string) =>
  lab.spawn(client.name, ['curl', '-s', '-m', '240', `http://${SERVICE_ADDRESS}:${port}${path}`]);

test('a service that is stopped is found by its probe, one whose event loop is blocked by its silence', async t => {
  await undisturbed(t, optionsOf('wedged', { probe: PROBE }), async stage => {
    const { lab, supervisor, traffic, tag } = stage;
    await lab.exec(lab.host, ['ip', 'addr', 'add', HOST_ADDRESS, 'dev', BRIDGE]);
    await said(stage, 'probe.trouble'); // there was no way
    await said(stage, 'probe.answered');
    await said(stage, 'watchdog.begun');
    allAtWork(t, stage, 'before the service is stopped');
    const { phase, recoveries } = await supervisor.status(tag);
    t.deepEqual([phase, recoveries], ['protected', 0]);
    await shell(lab, 'busybox killall -STOP nginx');
    t.log(await recovered(stage, 1, /GET \/small\/1k has failed 2 times/));
    const { kept } = (await said(stage, 'recovery.done')).data as { kept: number };
    t.true(kept >= traffic.clients.length, 'the connections of the probe itself are among them');

    allAtWork(t, stage, 'before the event loop is blocked');
    await said(stage, 'watchdog.begun', 2);
    await shell(lab, `busybox touch /run/may-block; ${node(OUTSIDER)} >/dev/null 2>&1 &`);
    ask(stage, 8081, '/block');
    t.log(await recovered(stage, 2, /app in .* has given no sign of life for \d+ ms, and declared 5000/));
    t.is((await supervisor.status(tag)).recoveries, 2);
  });
});

long('a service that accepts nothing is found by the connections that wait', async t => {
  await undisturbed(t, optionsOf('deaf', { acceptQueueMs: 4000 }), async stage => {
    allAtWork(t, stage, 'before the service is stopped');
    const { recoveries } = await stage.supervisor.status(stage.tag);
    await shell(stage.lab, 'busybox killall -STOP upload-sink');
    ask(stage, 8080, '/');
    stage.opened++;
    t.log(await recovered(stage, recoveries + 1, /upload-sink in .* has accepted none of 1 connections/));
  });
});
