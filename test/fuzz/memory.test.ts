/** Memory that others write, and files that a disk may have damaged: the control page, the log, spill files. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { ControlPage } from '../../guest-agent/page.js';
import * as wire from '../../guest-agent/wire/control-page.js';
import { CONST, Flow, KIND, SegHeader, SegKey } from '../../hypervisor-shim/datapath/layout.generated.js';
import { LogStore } from '../../hypervisor-shim/datapath/log-store.js';
import { SpillDamaged, SpillFiles } from '../../hypervisor-shim/datapath/spill-files.js';
import { IvshmemChannel } from '../../hypervisor-shim/guest-channel/ivshmem.js';
import { maskSegments } from '../../hypervisor-shim/replay/masks.js';
import { property } from './lib/property.js';

const scratch = mkdtempSync(join(tmpdir(), 'holdfast-fuzz-'));
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));

const word = fc.oneof(fc.nat(8), fc.nat(0xffff_ffff), fc.constantFrom(wire.GUEST_MAGIC, wire.HOST_MAGIC));
const HALF = wire.guest.heartbeat.offset;
/** Words that somebody stores in the guest's half, most of them in its fields. */
const fields = Object.values(wire.guest).map(field => field.offset / 4);
const inGuestHalf = fc.array(
  fc.tuple(
    fc.oneof(fc.constantFrom(...fields), fc.integer({ min: HALF / 4, max: wire.rings.offset / 4 - 1 })),
    word,
  ),
);
const isReported = ({ application, pid, exitStatus, bootId, epoch }: ReturnType<IvshmemChannel['read']>) =>
  wire.APPLICATION_STATES.includes(application) &&
  [pid, exitStatus, epoch].every(n => Number.isInteger(n) && n >= 0 && n <= 0xffff_ffff) &&
  (bootId === undefined || /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/.test(bootId));
const isWord = ({ watchdogMs = 1000, queued, isStopped }: ReturnType<IvshmemChannel['services']>[number]) =>
  typeof isStopped === 'boolean' &&
  [watchdogMs, queued].every(n => Number.isInteger(n) && n <= 0xffff_ffff) &&
  watchdogMs >= 1000 &&
  queued >= 0;

property(
  'control page: whatever a guest stores, the host reads a report, and its own half stays',
  inGuestHalf,
  stores => {
    const page = new ArrayBuffer(wire.PAGE_BYTES);
    const words = new Uint32Array(page);
    const channel = new IvshmemChannel(page);
    words[wire.guest.magic.offset / 4] = wire.GUEST_MAGIC;
    words[wire.guest.version.offset / 4] = wire.PAGE_VERSION;
    const own = Buffer.from(page.slice(0, HALF));
    for (const [at, value] of stores) {
      words[at] = value;
      if (!isReported(channel.read()) || !channel.services(wire.services.count).every(isWord)) return false;
    }
    return own.equals(Buffer.from(page.slice(0, HALF)));
  },
);

const report = fc.record({
  application: fc.constantFrom(...wire.APPLICATION_STATES),
  pid: fc.nat(0x7fff_ffff),
  exitStatus: fc.nat(0xffff_ffff),
});

property(
  'control page: what the agent reports is what the host reads, whatever an earlier agent left',
  fc.tuple(inGuestHalf, report),
  ([stores, said]) => {
    const page = new ArrayBuffer(wire.PAGE_BYTES);
    const words = new Uint32Array(page);
    const channel = new IvshmemChannel(page);
    for (const [at, value] of stores) words[at] = value;
    words[wire.guest.magic.offset / 4] = wire.GUEST_MAGIC;
    words[wire.guest.version.offset / 4] = wire.PAGE_VERSION;
    new ControlPage(page).report(said);
    const { application, pid, exitStatus } = channel.read();
    return application === said.application && pid === said.pid && exitStatus === said.exitStatus;
  },
);

const SLABS = new Uint8Array(CONST.SLAB_BYTES + CONST.SLAB_PAD);
const { first, count, stride } = LogStore.slabLayout(0, CONST.SMALL_STRIDE);
const address = fc.oneof(
  fc.nat(12).map(n => first + n * stride),
  fc.constantFrom(first + (count - 1) * stride, first + count * stride),
  fc.nat(0xffff_ffff),
);
const entry = fc.record({
  ...{
    address,
    flow: fc.nat(2),
    kind: fc.constantFrom(KIND.INPUT, KIND.INPUT, KIND.OUTPUT, KIND.SAMPLES, KIND.MARKS),
    index: fc.oneof(fc.nat(3), fc.nat(0xfff_ffff)),
  },
  ...{ next: address, honest: fc.boolean(), fill: fc.nat(255) },
});

/** A log of one slab in which the index, the segments' headers and what they hold may lie. */
function logOf(entries: (typeof entry extends fc.Arbitrary<infer E> ? E : never)[]): LogStore {
  const index = new Map<string, number>();
  SLABS.fill(0, 0, 16 * CONST.SMALL_STRIDE);
  for (const e of entries) {
    const key = new SegKey();
    key.flow = e.flow;
    key.kind_index = ((e.kind << 28) | e.index) >>> 0;
    index.set(Buffer.from(key.bytes).toString('hex'), e.address);
    const at = e.address * (1 << CONST.UNIT_SHIFT);
    if (at + CONST.SMALL_STRIDE > 16 * CONST.SMALL_STRIDE) continue;
    SLABS.fill(e.fill, at + CONST.SEG_HEADER, at + CONST.SMALL_STRIDE);
    const header = new SegHeader(new DataView(SLABS.buffer, at, SegHeader.BYTES));
    header.flow = e.honest ? e.flow : e.fill;
    header.kind_index = key.kind_index;
    header.next = e.next;
  }
  return new LogStore(key => index.get(Buffer.from(key).toString('hex')), SLABS);
}

property(
  'log: whatever index and headers say, input is a piece of a segment of that flow, or not there',
  fc.tuple(
    fc.array(entry, { minLength: 1 }),
    fc.nat(),
    fc.nat(CONST.SMALL_BYTES - 1),
    fc.bigInt(1n, 1n << 40n),
  ),
  ([entries, which, offset, more]) => {
    const { flow, index } = entries[which % entries.length]!;
    const start = index ? BigInt(CONST.SMALL_BYTES) + BigInt(index - 1) * BigInt(CONST.LARGE_BYTES) : 0n;
    const piece = logOf(entries).input(flow, start + BigInt(offset), start + BigInt(offset) + more);
    if (!piece) return true;
    const size = index ? CONST.LARGE_BYTES : CONST.SMALL_BYTES;
    const segment = piece.offset - offset - CONST.SEG_HEADER;
    if (segment < 0 || segment + CONST.SEG_HEADER + size > SLABS.length) return false;
    const header = new SegHeader(new DataView(SLABS.buffer, segment, SegHeader.BYTES));
    const isIts = header.flow === flow && header.kind_index === ((KIND.INPUT << 28) | index) >>> 0;
    return isIts && piece.length > 0 && offset + piece.length <= size;
  },
);

property(
  'log: marks and captures of a damaged log come to an end',
  fc.tuple(fc.array(entry), address, fc.nat(0xffff_ffff)),
  ([entries, head, marks]) => {
    const log = logOf(entries);
    const flow = new Flow();
    flow.segments = head;
    const captured = log.captured(flow);
    maskSegments(captured, 0n, ['http-date']);
    return log.marks(0, marks).length <= marks && captured.length <= SLABS.length / CONST.SMALL_STRIDE + 1;
  },
);

const LIFE = 7n;
const damage = fc.record({
  at: fc.nat(40_000),
  bit: fc.nat(7),
  cut: fc.option(fc.nat(40_000)),
  index: fc.nat(3),
});

property(
  'spill files: what is damaged is said to be, and nothing else is given',
  damage,
  ({ at, bit, cut, index }) => {
    const files = new SpillFiles(scratch, LIFE);
    const segments = [0, 1, 2].map(i => Buffer.alloc(i ? CONST.LARGE_BYTES : CONST.SMALL_BYTES, i + 1));
    files.write(1, 1, 0, segments);
    const path = join(scratch, '1-1');
    const bytes = readFileSync(path);
    if (at < bytes.length) bytes[at]! ^= 1 << bit;
    writeFileSync(path, bytes);
    if (cut !== null && cut < bytes.length) truncateSync(path, cut);
    try {
      return Buffer.from(files.read(1, 1, index)).equals(segments[index]!);
    } catch (error) {
      return error instanceof SpillDamaged;
    } finally {
      files.remove(1, 1);
    }
  },
);
