/** One fault after another, each before the last is mended; 500 connections at once, and uploads larger than every buffer. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { PAGE_BYTES } from '../../guest-agent/wire/control-page.js';
import { IvshmemChannel } from '../../hypervisor-shim/guest-channel/ivshmem.js';
import { native } from '../../hypervisor-shim/native/native.js';
import type { HoldfastEvent } from '../../supervisor/api/types.js';
import { CrowdClient } from '../bench/crowd-client.js';
import { BEYOND_BUFFERS } from '../lib/load.js';
import { waitFor } from '../lib/run.js';
import { allAtWork, killDaemon, LONG_LOAD, type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';

const CROWD = 500;
const PAGE = '/small/10k';
const LOAD = { ...LONG_LOAD, uploadMiB: 40, timeoutMs: 400_000 };

/** The supervisor's words so far, without asking it. */
function eventsIn({ supervisor }: Stage): HoldfastEvent[] {
  const text = readFileSync(join(supervisor.stateDir, 'events.ndjson'), 'utf8');
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return lines.filter(Boolean).map(line => JSON.parse(line) as HoldfastEvent);
}

const said = (stage: Stage, type: string, after = 0): Promise<HoldfastEvent> =>
  waitFor(type, 180_000, () => eventsIn(stage).find(event => event.type === type && event.seq > after), 5);

const lastSeq = (stage: Stage): number => eventsIn(stage).at(-1)!.seq;

/** With more left than both ends can buffer, the machine that dies is needed for every upload. */
function uploadsFarFromEnd(t: ExecutionContext, { traffic }: Stage): void {
  const left = traffic.clients.filter(c => c.plan.kind === 'upload').map(c => c.progress().left);
  t.true(Math.min(...left) > BEYOND_BUFFERS, `left of the uploads: ${left}`);
}

test('backup killed during the replay; then no backup when the primary panics, and no supervisor', async t => {
  await undisturbed(t, { tag: 'outage', load: LOAD }, async stage => {
    const { tag, lab, image, supervisor, traffic } = stage;
    const all = traffic.clients.length + CROWD;
    const crowd = CrowdClient.start(lab, 'http', 80, PAGE, image.small.get(PAGE)!.sha256);
    await crowd.open(CROWD);
    stage.opened = CROWD;

    const before = await supervisor.status(tag);
    const doomed = guestOf(before, 'backup');
    allAtWork(t, stage, 'before the first fault');
    uploadsFarFromEnd(t, stage);
    const start = lastSeq(stage);
    process.kill(guestOf(before, 'primary').pid!, 'SIGKILL');
    await said(stage, 'connection.kept', start);
    process.kill(doomed.pid!, 'SIGKILL');
    const done = await said(stage, 'recovery.done', start);
    t.like(done.data, { kept: all, lost: 0 });
    const recovery = eventsIn(stage).filter(event => event.seq > start && event.seq < done.seq);
    t.is(recovery.filter(event => event.type === 'recovery.started').length, 2, 'the replay was interrupted');
    const kept = recovery.filter(event => event.type === 'connection.kept');
    t.true(kept.length > all, 'what was spliced to the lost backup was replayed again');
    await crowd.ask();

    const whole = await supervisor.protectedAgain(tag);
    allAtWork(t, stage, 'before the second fault');
    uploadsFarFromEnd(t, stage);
    const panic = lastSeq(stage);
    process.kill(guestOf(whole, 'backup').pid!, 'SIGKILL');
    await said(stage, 'guest.gone', panic);
    panicGuest(guestOf(whole, 'primary').name);
    await said(stage, 'guest.panicked', panic);
    await said(stage, 'service.recovering', panic);
    await said(stage, 'guest.booting', panic);
    await killDaemon(supervisor);
    await supervisor.command(['up']);
    const again = await said(stage, 'recovery.done', panic);
    t.like(again.data, { cause: 'guest-panic', kept: all, lost: 0 });
    allAtWork(t, stage, 'after the second recovery');
    await crowd.ask();
    const { connections } = await supervisor.status(tag);
    t.like(connections, { held: 0, spliced: all });
    await supervisor.protectedAgain(tag);
    await crowd.ask();
    await crowd.close();
    await crowd.stop();
  });
});

function panicGuest(name: string): void {
  new IvshmemChannel(native.mapFile(`/dev/shm/holdfast-${name}`, PAGE_BYTES)).sendCommand('panic');
}
