/** An operator's mistakes and questions beside a service under load, which notices nothing of them. */
import { closeSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { stringify } from 'yaml';
import { z } from 'zod';
import * as schemas from '../../supervisor/api/schemas.js';
import type { IncidentDetail, ServiceStatus } from '../../supervisor/api/types.js';
import type { Finding } from '../../supervisor/doctor/finding.js';
import { waitFor } from '../lib/run.js';
import { serviceConfig } from '../lib/scenario.js';
import { allAtWork, killDaemon, type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';

const TAG = 'ops';
const OWN = { recovery: { former: 'dump' } };

/** The command must fail with that code. */
async function refused(stage: Stage, words: string[], code: string, message: RegExp) {
  const result = await stage.supervisor.command(words, true);
  const error = JSON.parse(result.stderr.trim().split('\n').at(-1)!) as { code: string; message: string };
  const status = /^HF_(CONFIG|UPLINK)_/.test(code) ? 2 : 1;
  if (result.code !== status || error.code !== code || !message.test(error.message))
    throw new Error(`holdfast ${words.join(' ')}: ${result.code}, ${result.stderr}`);
}

function configFile({ lab, image }: Stage, name: string, changes: object): string {
  const file = join(lab.dir, 'other.yaml');
  writeFileSync(file, stringify(serviceConfig(name, image, { ...OWN, ...changes })));
  return file;
}

/** Value of a sample, by its name and the labels given. */
async function metric({ supervisor }: Stage, name: string, labels: Record<string, string>): Promise<number> {
  const { stdout } = await supervisor.command(['metrics']);
  const lines = (JSON.parse(stdout) as string).split('\n');
  const wanted = Object.entries({ service: TAG, ...labels }).map(([key, value]) => `${key}="${value}"`);
  const found = lines.filter(
    line => line.startsWith(`holdfast_${name}{`) && wanted.every(label => line.includes(label)),
  );
  if (found.length !== 1) throw new Error(`${name} ${wanted}: ${found.length} samples`);
  return Number(found[0]!.split(' ').at(-1));
}

const boots = (status: ServiceStatus) => status.guests.map(({ name, bootId }) => `${name} ${bootId}`);

/** Of TAG's only one. */
async function theIncident({ supervisor }: Stage): Promise<IncidentDetail> {
  const list = JSON.parse((await supervisor.command(['incidents'])).stdout) as { id: number }[];
  if (list.length !== 1) throw new Error(`${list.length} incidents`);
  const { stdout } = await supervisor.command(['incidents', TAG, `${list[0]!.id}`]);
  return schemas.incidentDetail.parse(JSON.parse(stdout));
}

function head(file: string, bytes: number): string {
  const buffer = Buffer.alloc(bytes);
  const fd = openSync(file, 'r');
  readSync(fd, buffer, 0, bytes, 0);
  closeSync(fd);
  return buffer.toString('latin1');
}

test('mistakes beside a protected service, a drill without a backup, metrics, incidents, history over an adoption', async t => {
  await undisturbed(t, { tag: TAG, config: OWN }, async stage => {
    const { supervisor, traffic, lab } = stage;
    const before = await supervisor.status(TAG);
    t.notThrows(() => z.array(schemas.serviceStatus).parse([before]));
    const own = join(lab.dir, `${TAG}.yaml`);
    const again = JSON.parse((await supervisor.command(['up', own])).stdout) as { services: ServiceStatus[] };
    t.deepEqual(boots(again.services[0]!), boots(before), '`up` again changes nothing');
    const changed = configFile(stage, TAG, { log: { sizeMiB: 128 }, ports: [80] });
    await refused(stage, ['up', changed], 'HF_SERVICE_EXISTS', /ports, log\.sizeMiB differ/);
    const conflict = 'HF_CONFIG_CONFLICT';
    await refused(
      stage,
      ['protect', configFile(stage, 'opsb', {})],
      conflict,
      /address is .* which ops has on/,
    );
    const overlapping = configFile(stage, 'opsb', { address: '10.77.0.11/24', address6: undefined });
    await refused(stage, ['protect', overlapping], conflict, /management\.subnet is .*overlaps that of ops/);
    const elsewhere = {
      address: '10.77.0.11/24',
      address6: undefined,
      management: { subnet: '192.168.99.0/24' },
    };
    const uri = configFile(stage, 'opsb', { ...elsewhere, hypervisor: { uri: 'qemu+foo:///system' } });
    await refused(stage, ['protect', uri], 'HF_LIBVIRT_URI', /hypervisor\.uri is qemu\+foo/);
    const bridge = configFile(stage, 'opsb', { ...elsewhere, uplink: { bridge: 'br9' } });
    await refused(stage, ['protect', bridge], 'HF_UPLINK_MISSING', /no interface br9/);
    t.deepEqual(boots(await supervisor.status(TAG)), boots(before), 'the service is as it was');
    t.is((JSON.parse((await supervisor.command(['status'])).stdout) as unknown[]).length, 1);
    const doctor = await supervisor.command(
      ['doctor', '--config', own, '--state-dir', supervisor.stateDir],
      true,
    );
    const { findings } = JSON.parse(doctor.stdout) as { findings: Finding[] };
    t.regex(findings.find(({ check }) => check === 'address')!.found, /answered by this service itself/);
    t.deepEqual(
      findings.filter(({ level }) => level === 'failure'),
      [],
    );
    allAtWork(t, stage, 'after the mistakes');

    const report = await supervisor.drill(TAG, 'guest-panic');
    await waitFor('the next backup to boot', 30_000, async () =>
      (await supervisor.status(TAG)).phase === 'unprotected' ? true : undefined,
    );
    await refused(stage, ['drill', TAG, '--fault', 'vm-kill'], 'HF_DRILL_NO_BACKUP', /no backup that could/);
    const booting = await waitFor('a guest that boots', 30_000, async () =>
      (await supervisor.status(TAG)).guests.find(({ state }) => state === 'booting'),
    );
    t.is(booting.role, 'backup');
    t.is(await metric(stage, 'guests', { role: 'backup', state: 'booting' }), 1);
    t.is(await metric(stage, 'verdicts_total', { outcome: 'kept', code: 'spliced' }), report.kept);
    t.is(report.kept, traffic.clients.length);
    t.is(await metric(stage, 'recoveries_total', { cause: 'guest-panic' }), 1);
    t.is(await metric(stage, 'splice_seconds_count', {}), report.kept);
    t.is(await metric(stage, 'service_phase', { phase: 'unprotected' }), 1);
    t.true((await metric(stage, 'datapath_events_total', { event: 'opened' })) >= traffic.clients.length);
    t.true((await metric(stage, 'log_used_bytes', {})) > 0);
    t.true((await metric(stage, 'guest_heartbeat_age_seconds', {})) < 3);
    t.is(await metric(stage, 'connections', { state: 'held' }), 0);
    const protectedAgain = await supervisor.protectedAgain(TAG);
    const dumped = await waitFor('the dump', 60_000, async () => {
      const incident = await theIncident(stage);
      return incident.dumpFile && incident.timeline.protectedAt ? incident : undefined;
    });
    t.like(dumped, { cause: 'guest-panic', outcome: 'recovered', kept: report.kept, lost: 0 });
    const { faultAt, detectedAt, fencedAt, resumedAt, firstSpliceAt, lastSpliceAt } = report;
    t.like(dumped.timeline, {
      faultAt: faultAt!,
      detectedAt,
      fencedAt,
      resumedAt,
      firstSpliceAt: firstSpliceAt!,
      lastSpliceAt: lastSpliceAt!,
    });
    t.is(dumped.guest, guestOf(before, 'primary').name);
    t.is(dumped.successor, guestOf(before, 'backup').name);
    t.true(
      dumped.evidence.some(({ type, message }) => type === 'guest.panicked' && /kernel panic/.test(message)),
    );
    const byClient = (verdicts: IncidentDetail['verdicts']) =>
      verdicts.map(({ client, code, spliceMs }) => `${client} ${code} ${spliceMs}`).sort();
    t.deepEqual(byClient(dumped.verdicts), byClient(report.verdicts));
    t.regex(readFileSync(dumped.consoleFile!, 'utf8'), /Kernel panic - not syncing/);
    t.is(head(dumped.dumpFile!, 4), '\x7fELF');

    await killDaemon(supervisor);
    await supervisor.command(['up']);
    const adopted = await supervisor.protectedAgain(TAG);
    const past = { recoveries: 1, recoveriesByCause: { 'guest-panic': 1 }, startedAt: before.startedAt! };
    t.like(adopted, { ...past, lastRecoveryAt: protectedAgain.lastRecoveryAt! });
    t.is(adopted.lastFault?.cause, 'guest-panic');
    t.deepEqual(await theIncident(stage), dumped, 'incidents outlive the supervisor');
    t.is(await metric(stage, 'recoveries_total', { cause: 'guest-panic' }), 1);
    t.deepEqual([guestOf(adopted, 'primary').bootId], [guestOf(before, 'backup').bootId]);
  });
});
