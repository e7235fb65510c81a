import { join } from 'node:path';
import type { ClientNamespace, Lab } from './lab.js';
import { repositoryRoot, run } from './run.js';

/** Clocks far ahead of, and far behind, the host's: both sides of the comparison in PAWS (RFC 7323, section 5). */
export const TS_AHEAD = 0x76543210;
export const TS_BEHIND = -0x76543210;

const objects = new Map<number, Promise<string>>();

/** Once in a process for each distance. */
function compile(delta: number): Promise<string> {
  const known = objects.get(delta);
  if (known) return known;
  const object = join(repositoryRoot(), `build/test/lib/ts-shift-${delta}.o`);
  const made = run([
    ...['clang', '-O2', '-g', '-target', 'bpf', `-DDELTA=${delta}u`],
    ...[`-I/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`],
    ...['-c', join(repositoryRoot(), 'test/lib/ts-shift.bpf.c'), '-o', object],
  ]).then(() => object);
  objects.set(delta, made);
  return made;
}

/**
 * Shifts the TCP timestamps that leave a client by `delta` (added to TSval, modulo 2^32) and shifts echoes back, before the client's
 * first connection. Captures at the client's device see the shifted values, as everyone else does.
 */
export async function shiftTimestamps(lab: Lab, client: ClientNamespace, delta: number): Promise<void> {
  const object = await compile(delta >>> 0);
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
