/**
 * Whole frames out of a namespace's own device, by somebody who keeps to no protocol:
 *
 *   node raw.js send DEVICE                       frames from standard input (`frames` packs them), each once
 *   node raw.js garbage DEVICE COUNT SEED         random bytes behind the guest's own MAC, some with an IP or TCP header in front
 *   node raw.js syn DEVICE COUNT PORT             a SYN from a different address each, over both families, as fast as it can
 *
 * Prints `sent N` on standard output now and then, and at the end.
 */
import { readFileSync } from 'node:fs';
import { native } from '../../../hypervisor-shim/native/native.js';
import { fixChecksums } from '../../fixtures/lib/checksum.js';
import { EVERYTHING, synOptions } from '../../fixtures/lib/options.js';
import { buildFrame } from '../../fixtures/lib/segment.js';
import { SERVICE_ADDRESS, SERVICE_ADDRESS6 } from '../../lib/lab.js';
import { run } from '../../lib/run.js';
import { Random } from '../../model/random.js';

export const GUEST_MAC = '02:48:46:00:00:10';
const EVERY = 1000;
/** The path drops what it does not take. */
const ENOBUFS = 105;

/** Frames as `raw.js send` reads them. */
export const pack = (list: Buffer[]): Buffer =>
  Buffer.concat(
    list.flatMap(frame => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(frame.length);
      return [length, frame];
    }),
  );

function* unpack(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    yield bytes.subarray(at + 4, at + 4 + length);
    at += 4 + length;
  }
}

/** The service's own address and MAC as source, so that only what is behind them is wrong. */
function* garbage(count: number, seed: number): Generator<Buffer> {
  const r = new Random(seed);
  const to = { mac: 'ff:ff:ff:ff:ff:ff', address: '10.77.0.100', port: 40_000 };
  const from = { mac: GUEST_MAC, address: SERVICE_ADDRESS, port: 7002 };
  const segment = { from, to, seq: 1, ack: 1, flags: 'A', window: 9, options: Buffer.alloc(12, 1) };
  const whole = buildFrame({ ...segment, data: Buffer.alloc(100) });
  for (let n = 0; n < count; n++) {
    const keep = r.pick([12, 14, 34, 34, 54]);
    const frame = Buffer.from(whole.subarray(0, r.between(14, whole.length)));
    for (let i = keep; i < frame.length; i++) frame[i] = r.int(256);
    if (r.chance(0.2))
      frame.writeUInt16BE(r.pick([0x0806, 0x86dd, 0x8100, 0x88a8, 0x88cc, 0x0042, 0x8035]), 12);
    yield frame;
  }
}

function* syns(count: number, port: number, mac: string): Generator<Buffer> {
  const options = synOptions(EVERYTHING, 1, 0);
  const frameOf = (source: string, address: string) =>
    buildFrame({
      ...{ from: { mac, address: source, port: 1 }, to: { mac: GUEST_MAC, address, port } },
      ...{ seq: 0, ack: 0, flags: 'S', window: 65_535, options, data: Buffer.alloc(0) },
    });
  const four = frameOf('198.18.0.0', SERVICE_ADDRESS);
  const six = frameOf('fd99::', SERVICE_ADDRESS6);
  for (let n = 0; n < count; n++) {
    const frame = n % 4 === 0 ? six : four;
    const [source, tcp] = n % 4 === 0 ? [34, 54] : [28, 34];
    frame.writeUInt16BE(n & 0xffff, source);
    frame.writeUInt16BE(1024 + ((n * 7) & 0x7fff), tcp);
    frame.writeUInt32BE(Math.imul(n, 0x9e3779b1) >>> 0, tcp + 4);
    yield fixChecksums(frame);
  }
}

async function main([mode, device, ...words]: string[]): Promise<void> {
  // Not from /sys, which shows the devices of another namespace.
  const { stdout } = await run(['ip', '-j', 'link', 'show', device!]);
  const { ifindex, address } = JSON.parse(stdout)[0];
  const socket = native.packetSocket();
  const n = words.map(Number);
  const frames =
    mode === 'syn'
      ? syns(n[0]!, n[1]!, address)
      : mode === 'garbage'
        ? garbage(n[0]!, n[1]!)
        : unpack(readFileSync(0));
  let sent = 0;
  for (const frame of frames) {
    const error = native.packetSend(socket, ifindex, frame);
    if (error && error !== -ENOBUFS) throw new Error(`frame ${sent} of ${mode}: errno ${-error}`);
    if (++sent % EVERY === 0) process.stdout.write(`sent ${sent}\n`);
  }
  process.stdout.write(`sent ${sent}\n`);
}

if (process.argv[1]?.endsWith('/raw.js')) await main(process.argv.slice(2));
