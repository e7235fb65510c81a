/** Parsers of what guests, clients and neighbours write, and of files that a disk may have damaged. Each by the folder it lies in. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { parseListeners } from '../../guest-agent/listeners.js';
import { formatAddress, parseAddress } from '../../hypervisor-shim/datapath/addresses.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { element, escapeXml, textElement } from '../../hypervisor-shim/libvirt/xml.js';
import { arpProbe } from '../../hypervisor-shim/platform/arp-probe.js';
import { ndProbe } from '../../hypervisor-shim/platform/nd-probe.js';
import { Http1 } from '../../hypervisor-shim/protocols/http1.js';
import { MASKS } from '../../hypervisor-shim/replay/masks.js';
import { parseServiceConfig } from '../../supervisor/config/config.js';
import { EventLog } from '../../supervisor/events/event-log.js';
import { decodeEvent, encodeEvent } from '../../supervisor/events/ndjson.js';
import { readInterrupted } from '../../supervisor/recovery/interrupted.js';
import { History } from '../../supervisor/service/history.js';
import { ServiceFiles } from '../../supervisor/service/state-file.js';
import { repositoryRoot } from '../lib/run.js';
import { damaged, property } from './lib/property.js';

const scratch = mkdtempSync(join(tmpdir(), 'holdfast-fuzz-'));
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));

const EXAMPLE = readFileSync(join(repositoryRoot(), 'supervisor/config/example.yaml'), 'utf8');
const json = fc.json({ maxDepth: 3 });

property('config: a service, or an error that says so', damaged(EXAMPLE), text => {
  try {
    return parseServiceConfig(text, '/etc/x.yaml').name.length > 0;
  } catch (error) {
    return (
      error instanceof HoldfastError &&
      /^HF_CONFIG_/.test(error.code) &&
      error.message.includes('/etc/x.yaml')
    );
  }
});

const EVENT = encodeEvent({
  ...{ seq: 7, at: 1.5, type: 'recovery.started', service: 'web', message: 'panic' },
  data: { cause: 'guest-panic', detectedAt: 1, fencedAt: 2, flow: 3, client: '10.0.0.1:5', outcome: 'kept' },
});

property('event log: a line is an event or nothing', fc.oneof(damaged(EVENT), json), line => {
  const event = decodeEvent(line);
  if (!event) return true;
  const { type, message, at, data, service } = event;
  return (
    typeof type === 'string' &&
    typeof message === 'string' &&
    typeof at === 'number' &&
    typeof data === 'object' &&
    data !== null &&
    (service === undefined || typeof service === 'string')
  );
});

property(
  'event log: opens on whatever its file holds, and goes on',
  fc.array(fc.oneof(damaged(EVENT), fc.string(), fc.constant(EVENT))),
  lines => {
    const dir = mkdtempSync(join(scratch, 'events-'));
    writeFileSync(join(dir, 'events.ndjson'), lines.join(''));
    const log = EventLog.open(dir);
    const { seq } = log.append('x.y', 'web', 'after');
    log.close();
    rmSync(dir, { recursive: true });
    return seq >= 1;
  },
);

test('event log: an interrupted recovery is told from whatever events there are', async t => {
  const lines = fc.array(fc.oneof(damaged(EVENT), fc.constant(EVENT), json));
  await fc.assert(
    fc.asyncProperty(lines, async all => {
      async function* events() {
        for (const line of all) {
          const event = decodeEvent(line);
          if (event) yield event;
        }
      }
      await readInterrupted(events(), 'web');
    }),
  );
  t.pass();
});

const STATE = JSON.stringify({
  ...{ name: 'web', config: '', source: '/x', epoch: 3, generation: 2, holder: 'g', boot: 'b' },
  guests: [{ name: 'g', slot: 0, role: 'primary' }],
  history: {
    startedAt: 1,
    lastFault: { cause: 'guest-panic', detail: 'x', at: 1 },
    recoveriesByCause: { 'guest-panic': 1 },
  },
});

property('state file: whatever is in it, a service starts', fc.oneof(damaged(STATE, json), json), text => {
  mkdirSync(join(scratch, 'services'), { recursive: true });
  writeFileSync(join(scratch, 'services/web.json'), text);
  const saved = new ServiceFiles(scratch, 'web').load();
  const history = new History();
  history.restore(saved?.history);
  return (
    Number.isFinite(history.status().recoveries) &&
    (saved?.holder === undefined || typeof saved.holder === 'string')
  );
});

const PROC =
  '  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A 00\n   1: 0100007F:1F90 00000000:0000 0A 00\n';

property('listeners: ports, whatever /proc/net/tcp looks like', damaged(PROC), table =>
  parseListeners(table).every(
    ({ port, queued }) => Number.isInteger(port) && port >= 0 && port <= 65535 && queued >= 0,
  ),
);

const MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);
const frame = fc.uint8Array({ maxLength: 120 });
const probes = [arpProbe(MAC, Uint8Array.of(10, 0, 0, 1)), ndProbe(MAC, parseAddress('fd00::1')!)];
const answers = fc
  .tuple(fc.nat(1), fc.array(fc.tuple(fc.nat(90), fc.nat(255))), fc.nat(130))
  .map(([which, changes, length]) => {
    const bytes = Uint8Array.from(probes[which]!.frame);
    for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
    return bytes.subarray(0, length);
  });

property(
  'address probes: any frame claims the address for some MAC, or does not',
  fc.oneof(frame, answers),
  bytes =>
    probes.every(probe => {
      const claimed = probe.claimedBy(bytes);
      return claimed === undefined || (claimed.length === 6 && Buffer.compare(claimed, MAC) !== 0);
    }),
);

property(
  'addresses: text is an address or none, and is written as it is read',
  fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()),
  text => {
    const bytes = parseAddress(text);
    if (!bytes)
      return (
        !/^\d+\.\d+\.\d+\.\d+$/.test(text) || text.split('.').some(n => Number(n) > 255 || /^0./.test(n))
      );
    const canonical = formatAddress(bytes);
    return (
      Buffer.compare(parseAddress(canonical)!, bytes) === 0 &&
      formatAddress(parseAddress(canonical)!) === canonical
    );
  },
);

const unescaped = (xml: string) => xml.replace(/&#(\d+);/g, (_, code) => String.fromCharCode(Number(code)));

property('XML: what is written is read', fc.oneof(fc.string(), fc.string({ unit: 'binary' })), text => {
  let escaped: string;
  try {
    escaped = escapeXml(text);
  } catch (error) {
    return error instanceof RangeError;
  }
  const nested = element('a', {}, [element('b', { c: text }, [textElement('d', text)])]);
  const [, attribute, inner] = /c="([^"]*)"[^<]*<d>([^<]*)<\/d>/s.exec(nested)!;
  return !/[&<>"'](?!#)/.test(escaped) && unescaped(attribute!) === text && unescaped(inner!) === text;
});

/** What the mask was before: right, and in quadratic time. */
const spansByPattern = (text: string) =>
  [...text.matchAll(/HTTP\/1\.[01] \d{3}[^\r\n]*\r\n(?:[^\r\n]+\r\n)*/g)].flatMap(message =>
    [...message[0].matchAll(/\r\n(?:date|expires): ([^\r\n]*)/gi)].map(field => {
      const end = message.index + field.index + field[0].length;
      return { start: end - field[1]!.length, end };
    }),
  );
const PIECES = [
  'HTTP/1.1 200',
  'HTTP/1.0 404 no',
  '\r\n',
  '\r',
  '\n',
  'Date: ',
  'expires: ',
  'x',
  'Server: y\r\n',
  '\r\n\r\n',
  ' ',
];
const heads = fc.array(fc.constantFrom(...PIECES), { maxLength: 40 }).map(pieces => pieces.join(''));

property('masks: dates in heads of responses, and nothing else', heads, text => {
  const spans = MASKS['http-date']!(text);
  const wanted = spansByPattern(text).filter(({ start, end }) => end - start <= 64);
  return JSON.stringify(spans) === JSON.stringify(wanted);
});

test('masks: their time is linear in what a guest has written', t => {
  const bytes = 4 << 20;
  for (const piece of [
    'HTTP/1.1 200 ',
    'HTTP/1.1 200\r',
    'HTTP/1.1 200 x\r\n',
    '\r',
    'Date: ',
    '\r\nDate: HTTP/1.1 200',
  ]) {
    const text = piece.repeat(bytes / piece.length);
    const started = process.cpuUsage();
    MASKS['http-date']!(text);
    const { user, system } = process.cpuUsage(started);
    t.true(user + system < 10e6, `${JSON.stringify(piece)}: ${user + system} us`);
  }
});

const EXCHANGES =
  'POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\nGET /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n';
const ANSWERS =
  'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 304 Not Modified\r\n\r\n';

property(
  'HTTP/1.1: whatever both ends say, boundaries lie inside of it, and only move ahead',
  fc.tuple(
    damaged(EXCHANGES),
    damaged(ANSWERS),
    fc.array(fc.tuple(fc.nat(200), fc.nat(200)), { maxLength: 8 }),
  ),
  ([asked, answered, steps]) => {
    const http = new Http1({ in: 0n, out: 0n });
    const said = (text: string, end: number) => ({
      end: BigInt(end),
      read: (from: bigint, most: number) =>
        Buffer.from(text.slice(Number(from), Math.min(end, Number(from) + most)), 'latin1'),
    });
    let last = { in: 0n, out: 0n };
    let [input, output] = [0, 0];
    for (const [more, moreOut] of steps) {
      input = Math.min(asked.length, input + more);
      output = Math.min(answered.length, output + moreOut);
      const boundary = http.follow(said(asked, input), said(answered, output));
      if (!boundary) continue;
      if (boundary.in < last.in || boundary.out < last.out) return false;
      if (boundary.in > input || boundary.out > output) return false;
      last = boundary;
    }
    return true;
  },
);
