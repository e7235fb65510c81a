/** The backup is commanded, by the operator and by the guest that it stands behind; and what a takeover makes of clocks and machines. */
import test, { type ExecutionContext } from 'ava';
import type { BackupStatus, Grant, HoldfastEvent, Incident } from '../../supervisor/api/types.js';
import { COMMANDER_APPLIANCE, managementShell, shell } from '../lib/guest-shell.js';
import { sleep, waitFor } from '../lib/run.js';
import { allAtWork, killDaemon, type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';
import { makeUploadBody } from '../lib/traffic.js';

const TAG = 'grants';
const FURTHER = '192.168.77.99/24';
/** How late a clock may be by what commands take, s. */
const SLACK_S = 2;
/** A backup's clock stands still; so long, at least, that it shows, ms. */
const SUSPENDED_MS = 15_000;

const load = {
  ...{ downloads: 2, uploads: 1, loops: 2, downloadRate: 130_000, uploadRate: 90_000, uploadMiB: 16 },
  ...{ requests: 700, requestsPerSecond: 4, timeoutMs: 400_000 },
};

async function json<T>({ supervisor }: Stage, ...words: string[]): Promise<T> {
  return JSON.parse((await supervisor.command(words)).stdout) as T;
}

async function refusals({ supervisor }: Stage): Promise<HoldfastEvent[]> {
  return (await supervisor.events()).filter(({ type }) => type === 'grant.refused');
}

/** What the command says in the active guest, and its exit status. */
async function inGuest({ lab }: Stage, words: string): Promise<string> {
  return (await shell(lab, `holdfast-guest ${words} 2>&1; echo status $?`)).trim();
}

/** A program in the guest that writes to the rings itself, without the agent: valid requests, and random bytes. */
const FORGER = `
const { readdirSync, readFileSync } = require('fs');
const { ring, guest } = await import('/opt/holdfast/guest-agent/wire/control-page.js');
const { mapPage } = require('/opt/holdfast/guest-agent/native/agent.node');
const pci = '/sys/bus/pci/devices/';
const device = readdirSync(pci).find(d => readFileSync(pci + d + '/device', 'latin1').trim() === '0x1110');
const page = mapPage(pci + device + '/resource2', 1 << 20);
const [u32, u8] = [new Uint32Array(page), new Uint8Array(page)];
const text = Buffer.from('backup boot');
for (let i = 0; ; i++) {
  const at = ring.requests + (i % ring.entries) * ring.entryBytes;
  for (let n = 0; n < ring.entryBytes; n++) u8[at + n] = Math.random() * 256;
  if (i % 3 === 0) { u32[at / 4] = text.length; u8.set(text, at + 4); }
  u32[guest.requested.offset / 4] = i % 5 === 0 ? Math.random() * 2 ** 32 : u32[guest.requested.offset / 4] + 1;
  await new Promise(resolve => setTimeout(resolve, 5));
}`;

async function clockOf(lab: Stage['lab'], address: string): Promise<number> {
  return Number(await managementShell(lab, address, 'busybox date +%s'));
}

async function commands(t: ExecutionContext, stage: Stage): Promise<void> {
  const { supervisor, lab } = stage;
  const backup = guestOf(await supervisor.status(TAG), 'backup');
  t.regex(await inGuest(stage, 'backup wake'), /it has no grant for that\nstatus 1$/);
  t.like((await refusals(stage))[0]!.data, { reason: 'not-granted', asked: '"backup wake"' });
  t.is(guestOf(await supervisor.status(TAG), 'backup').state, 'suspended');

  const operations = ['suspend', 'wake', 'address', 'status'] as const;
  t.deepEqual(await json<Grant>(stage, 'grant', 'add', TAG, ...operations), {
    service: TAG,
    operations: [...operations],
  });
  t.regex(
    await inGuest(stage, 'backup status'),
    new RegExp(`^${backup.name} is suspended, at .*\nstatus 0$`),
  );
  t.regex(await inGuest(stage, `backup address ${FURTHER}`), /HF_BACKUP_SUSPENDED: .*\nstatus 1$/);
  t.regex(await inGuest(stage, 'backup migrate'), /it has no grant for that\nstatus 1$/);
  t.regex(await inGuest(stage, 'backup boot'), /it has no grant for that\nstatus 1$/);
  t.regex(await inGuest(stage, 'backup sell'), /^usage: [\s\S]*\nstatus 2$/);

  t.regex(await inGuest(stage, 'backup wake'), new RegExp(`^${backup.name} is awake, at .*\nstatus 0$`));
  t.true(Math.abs((await clockOf(lab, backup.managementAddress)) - Date.now() / 1000) < SLACK_S, 'its clock');
  t.regex(await inGuest(stage, `backup address ${FURTHER}`), /status 0$/);
  t.is((await managementShell(lab, FURTHER, 'busybox hostname')).trim(), backup.name);
  const awake = await json<BackupStatus>(stage, 'backup', 'status', TAG);
  t.like(awake, { guest: backup.name, awake: true, furtherAddress: FURTHER, phase: 'protected' });
  t.true(awake.residentBytes! > 50 << 20);
  t.regex(await inGuest(stage, 'backup suspend'), /is suspended, .*\nstatus 0$/);
  t.is(guestOf(await supervisor.status(TAG), 'backup').state, 'suspended');
}

test('an operator and a granted guest command the backup; its clock is right when it serves; the old machine stands aside', async t => {
  const options = {
    tag: TAG,
    appliance: COMMANDER_APPLIANCE,
    load,
    config: { recovery: { former: 'aside' } },
  };
  await undisturbed(t, options, async stage => {
    const { supervisor, lab, traffic } = stage;
    const body = makeUploadBody(lab, 1000);
    const uploads = Array.from({ length: 150 }, (_, i) => ({ name: `replayed-${i}`, body }));
    traffic.store(uploads, 1);
    await commands(t, stage);
    const suspendedAt = Date.now();

    await killDaemon(supervisor);
    await supervisor.command(['up']);
    await supervisor.protectedAgain(TAG);
    t.is((await json<Grant[]>(stage, 'grant', 'list', TAG))[0]!.operations.length, 4, 'grants are adopted');
    const before = (await refusals(stage)).length;
    const forger = FORGER.replaceAll("'", `'\\''`);
    await shell(
      lab,
      `/opt/holdfast/bin/node --input-type=module -e 'import { createRequire } from "module"; const require = createRequire("/"); ${forger}' >/dev/null 2>&1 &`,
    );
    await waitFor('forged requests to be refused', 60_000, async () =>
      (await refusals(stage)).length >= before + 3 ? true : undefined,
    );

    const old = await supervisor.status(TAG);
    t.is(old.epoch, 1, 'nothing of this was a fault');
    await sleep(Math.max(0, suspendedAt + SUSPENDED_MS - Date.now()));
    allAtWork(t, stage, 'before the fault');
    const report = await supervisor.drill(TAG, 'link-cut');
    t.is(report.kept, traffic.clients.length);
    // Of an upload that had ended before the fault: it was served again, first of all.
    const served = Number(await shell(lab, 'busybox stat -c %Y /srv/data/replayed-0'));
    t.log(
      `first served at ${served}, resumed at ${report.resumedAt / 1000}, last splice ${report.lastSpliceAt! / 1000}`,
    );
    t.true(
      served >= Math.floor(report.resumedAt / 1000),
      'the clock was right before the first replayed request',
    );
    t.true(served <= report.lastSpliceAt! / 1000 + SLACK_S);

    const status = await supervisor.protectedAgain(TAG);
    const former = guestOf(status, 'former');
    t.like(former, { name: guestOf(old, 'primary').name, state: 'aside' });
    t.is((await managementShell(lab, former.managementAddress, 'busybox hostname')).trim(), former.name);
    t.like(await json<Incident[]>(stage, 'incidents', TAG), {
      length: 1,
      0: { cause: 'link-cut', guest: former.name, outcome: 'recovered' },
    });
    const fresh = await json<BackupStatus>(stage, 'backup', 'boot', TAG, '--fresh');
    t.like(fresh, { state: 'suspended', awake: false });
    t.not(fresh.guest, guestOf(status, 'backup').name);
    t.is((await supervisor.status(TAG)).recoveries, 1);
  });
});
