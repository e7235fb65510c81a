import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { DrillFault } from '../../supervisor/api/types.js';
import { type AgentPart, ask, killAgentPart, SHELL_APPLIANCE, shell } from './guest-shell.js';
import { CLIENT_ADDRESS } from './lab.js';
import { repositoryRoot, sleep, waitFor } from './run.js';
import { allAtWork, type Load, type Stage, undisturbed } from './stage.js';

/**
 * Four processes that spin, one that fills the memory up to a little, and one that writes a disk through and reads it: each at the
 * same priority as the service, for as long as the guest lives.
 */
const SPIN = 'for i in 1 2 3 4; do (while :; do :; done) >/dev/null 2>&1 & done';
const FILL = `
(while :; do busybox dd if=/dev/zero of=/root/stress bs=1M count=128 conv=fsync; busybox cat /root/stress >/dev/null; done) >/dev/null 2>&1 &
free=$(busybox awk '/MemAvailable/ { print int($2 / 1024) - 40 }' /proc/meminfo)
(while :; do busybox dd if=/dev/urandom of=/tmp/stress bs=1M count=$free conv=notrunc; done) >/dev/null 2>&1 &
echo stressed`;
const STRESS = `${SPIN}\n${FILL}`;

/** Idle and all time of the guest's CPU since its boot, in ticks: /proc/stat, proc(5). */
const CPU_TIMES = `busybox awk '/^cpu / { print $5 + $6, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat`;

/** The share of the time between two readings of CPU_TIMES that the guest had nothing to do. */
function idle(now: string, before: string): number {
  const [idleNow, allNow] = now.split(' ').map(Number);
  const [idleThen, allThen] = before.split(' ').map(Number);
  return (idleNow! - idleThen!) / (allNow! - allThen!);
}

/** What cuts the guest off inside, and no tap can show. */
const CUTS = {
  /** It says nothing any more. */
  link: 'busybox ip link set eth0 down',
  /** It has no way back to the client: it answers ARP, but no client. */
  route: `busybox ip route add blackhole ${CLIENT_ADDRESS}`,
} as const;

/** From one fault until the service is protected again, s: under emulation, on a host that does other things. */
const RECOVERY_S = 40;

/** So slow that all clients are still at work when the stress ends, and through the recoveries after it. */
function loadFor(lasts: number): Partial<Load> {
  return {
    downloads: 4,
    uploads: 2,
    loops: 4,
    downloadRate: Math.floor((32 << 20) / lasts),
    uploadRate: Math.floor((24 << 20) / lasts),
    uploadMiB: 24,
    requests: 2 * lasts,
    requestsPerSecond: 2,
    timeoutMs: (lasts + 300) * 1000,
  };
}

export interface StressReport {
  seconds: number;
  accel: string;
  falseAlarms: number;
  faults: { fault: DrillFault; cause: string; detectMs: number; kept: number; lost: number }[];
}

/**
 * Stresses CPU, memory and disk of the primary for `seconds`, in which nothing may be taken for a fault; then each of `faults` is
 * injected while the guest that it meets is under the same stress, and must be detected; and each of `cuts`, without it. `parts` of the
 * agent are killed as the stress begins, which is no fault either.
 */
export async function stressed(
  t: ExecutionContext,
  tag: string,
  seconds: number,
  faults: readonly DrillFault[],
  cuts: readonly (keyof typeof CUTS)[],
  parts: readonly AgentPart[] = [],
): Promise<StressReport> {
  const report: StressReport = { seconds, accel: '', falseAlarms: 0, faults: [] };
  await undisturbed(
    t,
    {
      tag,
      appliance: SHELL_APPLIANCE,
      load: loadFor(seconds + 30 * (1 + parts.length) + RECOVERY_S * (faults.length + cuts.length)),
    },
    async stage => {
      const { supervisor, traffic, lab } = stage;
      report.accel = (await supervisor.status(tag)).accel;
      await shell(lab, SPIN);
      for (const part of parts) t.log(await killAgentPart(lab, supervisor, part));
      t.regex(await shell(lab, FILL), /stressed/);
      const before = await ask(lab, CPU_TIMES);
      for (let left = seconds; left > 0; left -= 5) {
        await sleep(Math.min(left, 5) * 1000);
        const { recoveries, phase, reason } = await supervisor.status(tag);
        report.falseAlarms = recoveries;
        t.deepEqual([recoveries, phase], [0, 'protected'], reason);
      }
      const idleness = idle(await ask(lab, CPU_TIMES), before);
      t.true(idleness < 0.2, `the guest is under stress: idle for ${idleness} of the time`);
      for (const [n, fault] of faults.entries()) {
        if (n > 0) t.regex(await shell(lab, STRESS), /stressed/);
        allAtWork(t, stage, `before ${fault}`);
        const { cause, detectedAt, faultAt, kept, lost } = await supervisor.drill(tag, fault);
        report.faults.push({ fault, cause, detectMs: Math.round(detectedAt - faultAt!), kept, lost });
        t.deepEqual([cause, kept, lost], ['guest-hang', traffic.clients.length, 0]);
        await supervisor.protectedAgain(tag);
      }
      for (const [n, cut] of cuts.entries()) await cutInside(t, stage, CUTS[cut], faults.length + n + 1);
    },
  );
  t.log(JSON.stringify(report));
  return report;
}

/** The shell's own connection goes with it. */
async function cutInside(
  t: ExecutionContext,
  stage: Stage,
  command: string,
  recoveries: number,
): Promise<void> {
  const { supervisor, lab, tag, traffic } = stage;
  allAtWork(t, stage, `before ${command}`);
  await shell(lab, command);
  const done = await waitFor('the recovery', 60_000, async () => {
    const all = (await supervisor.events()).filter(event => event.type === 'recovery.done');
    return all.length === recoveries ? all.at(-1) : undefined;
  });
  t.log(`${command}: ${done.message}`);
  t.like(done.data, { cause: 'link-cut', kept: traffic.clients.length, lost: 0 });
  await supervisor.protectedAgain(tag);
}

/** Under test/reports, for `make verify`. */
export function keepReport(name: string, report: StressReport): void {
  const file = join(repositoryRoot(), 'test/reports', `${name}.json`);
  writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
}
