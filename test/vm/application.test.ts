/** A process of a service dies in a healthy guest, and no client hears of it: the exit watch of the guest, on real machines. */
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { DrillFault, RecoveryReport } from '../../supervisor/api/types.js';
import { byClient, earlyFarewell, notPassed } from '../lib/farewells.js';
import { longestSilence } from '../lib/gaps.js';
import { killAgentPart, shell } from '../lib/guest-shell.js';
import { BRIDGE, SERVICE_ADDRESS } from '../lib/lab.js';
import { repositoryRoot, waitFor } from '../lib/run.js';
import { SERVICE_PORTS } from '../lib/scenario.js';
import { allAtWork, LONG_LOAD, type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';
import type { Trace } from '../lib/tcp-trace.js';

const appliance = join(repositoryRoot(), 'test/appliances/crash.yaml');
/** Outlives two deaths, without a boot between them. */
const LOAD = { ...LONG_LOAD, downloadRate: 400_000, uploadMiB: 10, requests: 300 };
const WHOLE: DrillFault[] = ['app-kill', 'app-stop', 'app-segv'];

/** The host's own way to the service. */
const HOST_ADDRESS = '10.77.0.1/24';

/** Three machines' boots: of its kinds the other tests have the first. */
const long = process.env.HOLDFAST_LONG ? test : test.skip;

long(
  'the whole service is killed, stopped by mistake, or crashes: the backup takes over, and nobody hears a goodbye',
  async t => {
    await undisturbed(t, { tag: 'appexit', appliance, load: LONG_LOAD }, async stage => {
      const { tag, supervisor, traffic } = stage;
      for (const fault of WHOLE) {
        allAtWork(t, stage, `before ${fault}`);
        const report = await supervisor.drill(tag, fault);
        t.is(report.cause, 'application-exit', fault);
        t.deepEqual(
          report.verdicts.filter(v => v.outcome !== 'kept'),
          [],
          fault,
        );
        t.is(report.kept, traffic.clients.length, fault);
        t.log(`${fault}: detected after ${(report.detectedAt - report.faultAt!).toFixed(0)} ms`);
        await supervisor.protectedAgain(tag);
      }
      t.is((await supervisor.status(tag)).recoveries, WHOLE.length);
    });
  },
);

const NGINX = '/sys/fs/cgroup/holdfast.nginx/cgroup.procs';
const SESSIONS = '/sys/fs/cgroup/holdfast.session-sink/cgroup.procs';

async function recoveries({ supervisor }: Stage): Promise<number> {
  return (await supervisor.events()).filter(({ type }) => type === 'recovery.done').length;
}

/** Pids of nginx's workers, and then what `script` prints; none while the shell is not ready for the next. */
async function workers({ lab }: Stage, script = ''): Promise<string[]> {
  const printed = await shell(lab, `busybox tail -n +2 ${NGINX}; ${script}`);
  return printed.split('\n').filter(line => /^\d+$/.test(line));
}

/** Clients of the flows that there are: those that were ever replayed, and those that never noticed anything. */
async function touched({ supervisor, tag }: Stage): Promise<{ replayed: string[]; untouched: string[] }> {
  const open = (await supervisor.connections(tag)).filter(({ state }) => state !== 'closed');
  const clients = (wanted: typeof open) => wanted.map(({ client }) => client);
  return {
    replayed: clients(open.filter(({ failovers }) => failovers > 0)),
    untouched: clients(open.filter(({ failovers }) => failovers === 0)),
  };
}

/** The guest said neither FIN nor RST on any connection before its client had; its own kernel would have, for each that was replayed. */
function judgeGuest(t: ExecutionContext, guest: Trace, replayed: string[]): void {
  const there = byClient(guest);
  for (const name of replayed) t.true(there.get(name)!.syns > 1, `${name} was replayed in this guest`);
  t.deepEqual(guest.connections.flatMap(earlyFarewell), [], 'at the tap of the guest');
}

/** So much longer than ever before may those wait whose process lives: the host is busy with the replay of the others. */
const SLOWER = 4;
const SLOWER_MS = 250;

/** Connections that were not replayed noticed nothing: each of their packets passed the data path, and they waited no longer than before. */
function judgeUntouched(
  t: ExecutionContext,
  [guest, client]: [Trace, Trace],
  untouched: string[],
  { faultAt, lastSpliceAt }: RecoveryReport,
): void {
  const [there, here] = [byClient(guest), byClient(client)];
  t.deepEqual(
    untouched.flatMap(name => notPassed(there.get(name), here.get(name)!)),
    [],
  );
  const waited = (from: number, to: number) =>
    Math.max(...untouched.map(name => longestSilence(here.get(name)!, from, to)));
  const [before, during] = [waited(0, faultAt!), waited(faultAt!, lastSpliceAt! + SLOWER_MS)];
  t.true(
    during <= SLOWER * before + SLOWER_MS,
    `they waited ${during} ms, and never more than ${before} before`,
  );
  t.log(
    `not replayed: waited ${during.toFixed(0)} ms at most during the recovery, ${before.toFixed(0)} before`,
  );
}

test('one process of many is killed or crashes: its connections alone are replayed, in the same guest', async t => {
  await undisturbed(t, { tag: 'appone', appliance, load: LOAD, captureGuest: true }, async stage => {
    const { tag, lab, supervisor, traffic } = stage;
    const { bootId } = guestOf(await supervisor.status(tag), 'primary');
    const all = traffic.clients.length;
    for (const part of ['agent', 'heart'] as const) t.log(await killAgentPart(lab, supervisor, part));
    t.is(await recoveries(stage), 0, 'the death of the agent is no outage');

    // What follows is told by an agent that came later, through an exit watch that it found.
    allAtWork(t, stage, 'before a worker is killed');
    const report = await supervisor.drill(tag, 'app-worker');
    t.is(report.cause, 'application-exit');
    t.is(report.lost, 0);
    t.true(report.kept >= 1 && report.kept < all, `${report.kept} of ${all} were replayed`);
    const { replayed, untouched } = await touched(stage);
    t.deepEqual([replayed.length, untouched.length], [report.kept, all - report.kept]);
    t.log(
      `worker: detected after ${(report.detectedAt - report.faultAt!).toFixed(0)} ms, ${report.kept} replayed`,
    );
    await supervisor.protectedAgain(tag);

    allAtWork(t, stage, 'before a session crashes');
    const before = await recoveries(stage);
    await shell(lab, `kill -SEGV $(busybox tail -n 1 ${SESSIONS})`);
    await waitFor(
      'the recovery of one session',
      30_000,
      async () => (await recoveries(stage)) > before || undefined,
    );
    const both = await touched(stage);
    t.is(both.replayed.length, report.kept + 1);
    t.deepEqual(
      both.replayed.filter(client => !replayed.includes(client)).length,
      1,
      'the session alone was replayed',
    );
    const status = await supervisor.protectedAgain(tag);
    t.is(guestOf(status, 'primary').bootId, bootId, 'it is the same guest');

    await traffic.results();
    await stage.guestCapture!.stop();
    const done = await recoveries(stage);
    const old = await waitFor('the command to reload', 30_000, async () => {
      const present = await workers(stage, 'nginx -s reopen; nginx -s reload');
      return present.length > 0 ? present : undefined;
    });
    await waitFor('the reload', 30_000, async () => {
      const present = await workers(stage);
      return (present.length > 0 && !present.some(pid => old.includes(pid))) || undefined;
    });
    t.is(await recoveries(stage), done, 'a reload and a log rotation are no faults');
    const guest = stage.guestCapture!.trace(SERVICE_PORTS);
    judgeGuest(t, guest, both.replayed);
    stage.judge = client => judgeUntouched(t, [guest, client], both.untouched, report);
    await stopAndStart(t, stage);
    t.is(await recoveries(stage), done, 'nor is an announced stop');
  });
});

/** From the host: what the clients' capture sees stays free of refusals. */
async function get({ lab }: Stage, path: string): Promise<number> {
  const url = `http://${SERVICE_ADDRESS}${path}`;
  return (
    await lab.exec(lab.host, ['curl', '-s', '-m', '20', '-o', '/dev/null', url], { allowFailure: true })
  ).code!;
}

const REFUSED = 7;
/** By a FIN, or by a reset where the server had not read all. */
const CUT_SHORT = [18, 56];

/** nginx, on purpose, with a download under way: closed as it closes it, then refused, then served again. */
async function stopAndStart(t: ExecutionContext, stage: Stage): Promise<void> {
  const { lab, supervisor, tag } = stage;
  await lab.exec(lab.host, ['ip', 'addr', 'add', HOST_ADDRESS, 'dev', BRIDGE]);
  const url = `http://${SERVICE_ADDRESS}/files/00.bin`;
  const download = lab.exec(lab.host, ['curl', '-s', '--limit-rate', '1M', '-o', '/dev/null', url], {
    allowFailure: true,
    timeoutMs: 180_000,
  });
  await waitFor('the download', 30_000, async () =>
    (await supervisor.connections(tag)).some(c => c.client.startsWith('10.77.0.1:') && c.outputAcked > 1e5)
      ? true
      : undefined,
  );
  const stopped = await shell(lab, 'holdfast-guest stop nginx; echo status $?');
  t.regex(stopped, /^nginx is stopped; .*\nstatus 0$/m);
  t.true(CUT_SHORT.includes((await download).code!), 'the client of a transfer hears of its end');
  t.deepEqual((await supervisor.status(tag)).stoppedServices, ['nginx']);
  t.is(await get(stage, '/small/1k'), REFUSED);
  t.regex(await shell(lab, 'holdfast-guest start nginx; echo status $?'), /^nginx is started\nstatus 0$/m);
  t.is(await get(stage, '/small/1k'), 0);
  const status = await supervisor.status(tag);
  t.deepEqual([status.stoppedServices, status.phase], [[], 'protected']);
}

test('restart: a service that dies starts again in the same guest; dies it again, the backup takes over', async t => {
  const config = { recovery: { onApplicationExit: 'restart' } };
  await undisturbed(
    t,
    { tag: 'appagain', appliance, config, load: LOAD, captureGuest: true },
    async stage => {
      const { tag, supervisor, traffic } = stage;
      const all = traffic.clients.length;
      const { bootId } = guestOf(await supervisor.status(tag), 'primary');
      allAtWork(t, stage, 'before the first death');
      const first = await supervisor.drill(tag, 'app-kill');
      t.is(first.cause, 'application-exit');
      t.is(first.lost, 0);
      t.is(first.kept, all - LOAD.uploads, 'those of the other service were not touched');
      const clients = await touched(stage);
      t.deepEqual([clients.replayed.length, clients.untouched.length], [first.kept, LOAD.uploads]);
      const took = first.lastSpliceAt! - first.faultAt!;
      t.log(
        `restart: detected after ${(first.detectedAt - first.faultAt!).toFixed(0)} ms, done after ${took.toFixed(0)} ms`,
      );
      t.is(guestOf(await supervisor.protectedAgain(tag), 'primary').bootId, bootId, 'it is the same guest');

      await stage.guestCapture!.stop();
      judgeGuest(t, stage.guestCapture!.trace(SERVICE_PORTS), clients.replayed);
      allAtWork(t, stage, 'before the second death');
      const second = await supervisor.drill(tag, 'app-kill');
      t.deepEqual([second.kept, second.lost], [all, 0]);
      t.not(guestOf(await supervisor.status(tag), 'primary').bootId, bootId, 'the backup has taken over');
    },
  );
});
