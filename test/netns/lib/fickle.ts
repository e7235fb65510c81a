/**
 * A service that answers in one guest otherwise than in the next, each of its ports in another way, and its client:
 *
 *   node fickle.js serve first|second
 *   node fickle.js client     both families, every port; goes on at SIGUSR2; ends with one line of JSON, a `Fate` for each
 */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { knownContent } from '../../../images/content.js';
import { SERVICE_ADDRESS, SERVICE_ADDRESS6 } from '../../lib/lab.js';

/** What the second guest does otherwise, by port. */
export const FICKLE = {
  /** Another Date of equal length, which the protocol allows. */
  date: 7020,
  /** A Date of another length. */
  longDate: 7021,
  /** One byte of the body. */
  content: 7022,
  /** A longer reply, in front of another one. */
  shifted: 7023,
  /** More before the end of the stream. */
  longer: 7024,
  /** The end of the stream comes sooner. */
  shorter: 7025,
  /** The reply stops in the middle, and the stream goes on. */
  stops: 7026,
} as const;
export type Kind = keyof typeof FICKLE;
const KINDS = Object.keys(FICKLE) as Kind[];

/** What a client saw: whether every byte was as the first guest said it, how its stream ended, whether it was answered again. */
export interface Fate {
  kind: Kind;
  family: number;
  exact: boolean;
  end: 'open' | 'ended' | 'reset';
  answered: boolean;
}

const BODY = 20_000;
const DATES = [
  'Mon, 01 Jan 2024 00:00:00 GMT',
  'Tue, 02 Jan 2024 11:22:33 GMT',
  'Wednesday, 03-Jan-24 11:22:33 GMT',
];

function reply(kind: Kind, number: number, second: boolean): Buffer {
  const date = !second ? DATES[0] : kind === 'date' ? DATES[1] : kind === 'longDate' ? DATES[2] : DATES[0];
  const head = Buffer.from(`HTTP/1.1 200 OK\r\nDate: ${date}\r\nServer: fickle\r\n\r\n`);
  const all = Buffer.concat([head, ...knownContent('fickle', `${kind}${number}`, BODY)]);
  if (!second || number > 1) return all;
  if (kind === 'content') all[500]! ^= 0x20;
  if (kind === 'shifted' || kind === 'longer') return Buffer.concat([all, Buffer.alloc(100, 'x')]);
  if (kind === 'shorter' || kind === 'stops') return all.subarray(0, 15_000);
  return all;
}

const ends = (kind: Kind, second: boolean): boolean => kind === 'longer' || (kind === 'shorter' && second);

function serve(second: boolean): void {
  for (const kind of KINDS) {
    createServer({ allowHalfOpen: true, noDelay: true }, socket => {
      let number = 0;
      socket.on('error', () => {});
      socket.on('end', () => socket.end());
      socket.on('data', data => {
        for (const _ of data.toString('latin1').matchAll(/\n/g)) {
          socket.write(reply(kind, ++number, second));
          if (ends(kind, second)) socket.end();
        }
      });
    }).listen({ port: FICKLE[kind], host: '::', backlog: 64 });
  }
}

/** Asks until it has what the first guest says; then, if it still can, once more. */
async function ask(kind: Kind, family: number, opened: () => void, resumed: Promise<unknown>): Promise<Fate> {
  const host = family === 6 ? SERVICE_ADDRESS6 : SERVICE_ADDRESS;
  const socket = connect({ host, port: FICKLE[kind], noDelay: true, allowHalfOpen: true });
  const requests = kind === 'shifted' ? 2 : 1;
  const first = Buffer.concat(Array.from({ length: requests }, (_, i) => reply(kind, i + 1, false)));
  const expected = Buffer.concat([first, reply(kind, requests + 1, true)]);
  let got = Buffer.alloc(0);
  let end: Fate['end'] = 'open';
  const reached = (bytes: number) =>
    new Promise<void>(resolve => {
      const look = () => (got.length >= bytes || end === 'reset') && resolve();
      socket.on('data', look).on('close', look);
      look();
    });
  socket.on('data', data => {
    got = Buffer.concat([got, data]);
  });
  socket.on('end', () => {
    if (end === 'open') end = 'ended';
  });
  socket.on('error', () => {
    end = 'reset';
  });
  for (let i = 1; i <= requests; i++) {
    socket.write('GET /\r\n');
    await reached((first.length / requests) * i);
  }
  if (kind === 'longer' && end === 'open') await once(socket, 'end');
  opened();
  await resumed;
  if (end === 'open') {
    socket.write('GET /\r\n');
    await reached(expected.length);
  }
  socket.destroy();
  const exact = got.equals(expected.subarray(0, got.length)) && got.length >= first.length;
  return { kind, family, exact, end, answered: got.length === expected.length };
}

async function client(): Promise<void> {
  const resumed = once(process, 'SIGUSR2');
  let open = 0;
  const opened = () => {
    if (++open === 2 * KINDS.length) process.stderr.write('open\n');
  };
  const fates = [4, 6].flatMap(family => KINDS.map(kind => ask(kind, family, opened, resumed)));
  process.stdout.write(`${JSON.stringify(await Promise.all(fates))}\n`);
}

if (process.argv[1]?.endsWith('/fickle.js')) {
  if (process.argv[2] === 'serve') serve(process.argv[3] === 'second');
  else void client();
}
