import { join } from 'node:path';
import type { ClientNamespace, Lab } from './lab.js';
import { repositoryRoot, run } from './run.js';

/** Clocks far ahead of, and far behind, the host's: both sides of the comparison in PAWS (RFC 7323, section 5). */
export const TS_AHEAD = 0x76543210;
export const TS_BEHIND = -0x76543210;

/**
 * Shifts the TCP timestamps that leave a client by `delta` (added to TSval, modulo 2^32) and shifts echoes back, before the client's
 * first connection. Captures at the client's device see the shifted values, as everyone else does.
 */
export async function shiftTimestamps(lab: Lab, client: ClientNamespace, delta: number): Promise<void> {
  const source = join(repositoryRoot(), 'test/lib/ts-shift.bpf.c');
  const object = join(lab.dir, `ts-shift-${client.name}.o`);
  await run([
    ...['clang', '-O2', '-g', '-target', 'bpf', `-DDELTA=${delta >>> 0}u`],
    ...[`-I/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`],
    ...['-c', source, '-o', object],
  ]);
  const tc = (...words: string[]) => lab.exec(client.name, ['tc', ...words]);
  await tc('qdisc', 'add', 'dev', client.dev, 'clsact');
  for (const hook of ['egress', 'ingress'])
    await tc(
      'filter',
      'add',
      'dev',
      client.dev,
      hook,
      'bpf',
      'direct-action',
      'object-file',
      object,
      'section',
      hook,
    );
}
