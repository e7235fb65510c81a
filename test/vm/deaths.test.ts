/** Every way in which a process can die: abort, a crash of one thread of many, exit(1), no memory; and the end of a service without a backup. */
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { earlyFarewell } from '../lib/farewells.js';
import { shell } from '../lib/guest-shell.js';
import { repositoryRoot, waitFor } from '../lib/run.js';
import { SERVICE_PORTS } from '../lib/scenario.js';
import { allAtWork, LONG_LOAD, type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';

const appliance = join(repositoryRoot(), 'test/appliances/mortal.yaml');
const LOAD = {
  ...LONG_LOAD,
  downloads: 4,
  uploads: 4,
  loops: 4,
  downloadRate: 200_000,
  uploadRate: 100_000,
  uploadMiB: 16,
  requests: 600,
};
const NGINX = '/sys/fs/cgroup/holdfast.nginx';
const SINK = '/sys/fs/cgroup/holdfast.mortal-sink';
/** Far less than the machine has, far more than a worker needs. */
const SINK_BYTES = 64 << 20;

/** Made of a signal and what it does to a worker, see test/appliances/mortal/sink.c. A connection that dies a fourth time is not kept. */
const DEATHS: { name: string; cgroup: string; signal: string; told: RegExp }[] = [
  { name: 'abort of a server that knows nothing of it', cgroup: NGINX, signal: 'ABRT', told: /signal 6$/ },
  { name: 'a crash of one thread of several', cgroup: SINK, signal: 'USR1', told: /signal 11$/ },
  { name: 'exit(1) with open connections', cgroup: SINK, signal: 'USR2', told: /exit status 1$/ },
  { name: 'no more memory in its cgroup', cgroup: SINK, signal: 'HUP', told: /signal 9$/ },
];

/** Three machines' boots, one of them beside the test. */
const long = process.env.HOLDFAST_LONG ? test : test.skip;

/** The nth of a service's processes by age: the first is the main one. */
const oldest = (cgroup: string, n: number) =>
  `$(busybox sort -n ${cgroup}/cgroup.procs | busybox sed -n ${n}p)`;
/** The worker that has lived longest, in which there are connections: those of one that died are with its successor. */
const eldest = (cgroup: string) => oldest(cgroup, 2);

async function since({ supervisor }: Stage, seq: number, type: string) {
  return (await supervisor.events()).filter(event => event.seq > seq && event.type === type);
}

async function lastSeq({ supervisor }: Stage): Promise<number> {
  return (await supervisor.events()).at(-1)!.seq;
}

/** Runs a script in the guest, by which something dies there; resolves with what became of it. */
async function recovered(
  stage: Stage,
  script: string,
): Promise<{ cause: string; kept: number; lost: number }> {
  const seq = await lastSeq(stage);
  await shell(stage.lab, script);
  const done = await waitFor(`the recovery after ${script}`, 60_000, async () => {
    return (await since(stage, seq, 'recovery.done'))[0];
  });
  return done.data as { cause: string; kept: number; lost: number };
}

async function die(t: ExecutionContext, stage: Stage, death: (typeof DEATHS)[number]): Promise<number> {
  const { name, cgroup, signal, told } = death;
  allAtWork(t, stage, `before ${name}`);
  const seq = await lastSeq(stage);
  const { kept, lost } = await recovered(stage, `kill -${signal} ${eldest(cgroup)}`);
  t.regex((await since(stage, seq, 'guest.application'))[0]!.message, told, name);
  t.true(kept >= 1 && kept <= LOAD.uploads, `${name}: ${kept} were replayed`);
  t.is(lost, 0, name);
  await stage.supervisor.protectedAgain(stage.tag);
  return kept;
}

long(
  'a worker aborts, exits, lacks memory, or loses one thread to a crash; a service without a backup is killed',
  async t => {
    await undisturbed(t, { tag: 'deaths', appliance, load: LOAD, captureGuest: true }, async stage => {
      const { tag, lab, supervisor, traffic } = stage;
      const { bootId } = guestOf(await supervisor.status(tag), 'primary');
      await shell(
        lab,
        `echo +memory >/sys/fs/cgroup/cgroup.subtree_control; echo ${SINK_BYTES} >${SINK}/memory.max`,
      );
      // No death: the first thread of a worker ends, and those that serve go on. It dies whole later, by another thread.
      const before = await lastSeq(stage);
      await shell(lab, `kill -WINCH ${eldest(SINK)}`);
      const state = `busybox awk '/^State/{print $2}' /proc/${eldest(SINK)}/status`;
      await waitFor(
        'its first thread to end',
        20_000,
        async () => /Z/.test(await shell(lab, state)) || undefined,
      );
      for (const death of DEATHS) t.log(`${death.name}: ${await die(t, stage, death)} replayed`);
      t.is(
        (await since(stage, before, 'recovery.done')).length,
        DEATHS.length,
        'one recovery for each death, and none else',
      );
      t.regex(
        await shell(lab, `busybox grep oom_kill ${SINK}/memory.events`),
        /oom_kill [1-9]/,
        'the kernel found no memory',
      );

      allAtWork(t, stage, 'before the service dies without a backup');
      process.kill(guestOf(await supervisor.status(tag), 'backup').pid!, 'SIGKILL');
      await waitFor('the backup to be missed', 20_000, async () => {
        return (
          (await supervisor.status(tag)).guests.every(
            ({ role, state }) => role !== 'backup' || state !== 'suspended',
          ) || undefined
        );
      });
      const report = await recovered(stage, `kill -KILL ${oldest(NGINX, 1)}`);
      t.deepEqual(
        [report.cause, report.kept, report.lost],
        ['application-exit', LOAD.downloads + LOAD.loops, 0],
      );
      t.is(
        guestOf(await supervisor.status(tag), 'primary').bootId,
        bootId,
        'the service started again in the same guest',
      );
      await supervisor.protectedAgain(tag);
      t.is(guestOf(await supervisor.status(tag), 'primary').bootId, bootId);
      await traffic.results();
      await stage.guestCapture!.stop();
      const { connections } = stage.guestCapture!.trace(SERVICE_PORTS);
      t.deepEqual(connections.flatMap(earlyFarewell), [], 'at the tap of the guest');
    });
  },
);
