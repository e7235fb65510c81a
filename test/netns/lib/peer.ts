/**
 * Real processes at both ends, speaking protocols of known content:
 *
 *   node peer.js serve [RATE]              ports SINK, CHAT, RANDOM; SINK takes at most RATE bytes a second
 *   node peer.js sink HOST BYTES RATE      sends, half-closes, expects the SHA-256 of what it sent
 *   node peer.js urgent HOST BYTES         the same thrice with an urgent byte in between; goes on at SIGUSR2
 *   node peer.js chat HOST ROUNDS BYTES PAUSE_MS [IDLE_MS]    IDLE_MS -1: idle until SIGUSR2; ROUNDS 0: goes on until then
 *   node peer.js random HOST ROUNDS PAUSE_MS
 *   node peer.js fetch HOST BYTES          GETs /part, of that size, from port 80; has all, and closes at SIGUSR2
 *
 * A client ends with one line of JSON: { ok, rounds, bytes, error }.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import koffi from 'koffi';
import { knownContent } from '../../../images/content.js';

export const SINK = 7001;
/** Speaks first; each line `N` is answered by N bytes that depend on the line's number. */
export const CHAT = 7002;
/** Answers differently in each process: what no replay can repeat. */
export const RANDOM = 7003;
const MSG_OOB = 1;
const BANNER = '220 ready\r\n';

const answer = (round: number, bytes: number): Buffer =>
  Buffer.concat([...knownContent('chat', String(round), bytes)]);

function serve(rate = Number.POSITIVE_INFINITY): void {
  const listen = (port: number, handle: (socket: Socket) => void) =>
    createServer({ allowHalfOpen: true, noDelay: true }, socket => {
      socket.on('error', () => {});
      handle(socket);
    }).listen({ port, host: '::', backlog: 4096 });
  listen(SINK, socket => {
    const hash = createHash('sha256');
    socket.on('data', d => {
      hash.update(d);
      if (rate === Number.POSITIVE_INFINITY) return;
      socket.pause();
      setTimeout(() => socket.resume(), (d.length / rate) * 1000);
    });
    socket.on('end', () => socket.end(`${hash.digest('hex')}\n`));
  });
  listen(CHAT, socket => {
    let round = 0;
    let line = '';
    socket.write(BANNER);
    socket.on('data', d => {
      line += d.toString('latin1');
      for (let end = line.indexOf('\n'); end >= 0; end = line.indexOf('\n')) {
        const word = line.slice(0, end).trim();
        line = line.slice(end + 1);
        if (word === 'QUIT') socket.end('bye\r\n');
        else socket.write(answer(round++, Number(word)));
      }
    });
    socket.on('end', () => socket.end());
  });
  listen(RANDOM, socket => {
    socket.on('data', () => socket.write(randomBytes(2000)));
    socket.on('end', () => socket.end());
  });
}

interface Result {
  ok: boolean;
  rounds: number;
  bytes: number;
  error?: string;
}

function report(result: Result): never {
  process.stdout.write(`${JSON.stringify(result)}\n`);
  process.exit(result.ok ? 0 : 1);
}

/** Reads exactly `n` bytes at a time. */
class Reader {
  private chunks: Buffer[] = [];
  private size = 0;
  private waiting: (() => void) | undefined;
  ended = false;

  constructor(readonly socket: Socket) {
    socket.on('data', d => {
      this.chunks.push(d);
      this.size += d.length;
      this.waiting?.();
    });
    socket.on('end', () => {
      this.ended = true;
      this.waiting?.();
    });
  }

  async take(n: number): Promise<Buffer> {
    while (this.size < n) {
      if (this.ended) throw new Error(`stream ended ${n - this.size} bytes early`);
      await new Promise<void>(resolve => {
        this.waiting = resolve;
      });
    }
    const all = Buffer.concat(this.chunks);
    this.chunks = [all.subarray(n)];
    this.size -= n;
    return all.subarray(0, n);
  }
}

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

async function sink(host: string, bytes: number, rate: number): Promise<Result> {
  const socket = connect({ host, port: SINK, noDelay: true, allowHalfOpen: true });
  const reader = new Reader(socket);
  const hash = createHash('sha256');
  socket.on('error', e => report({ ok: false, rounds: 0, bytes: socket.bytesWritten, error: e.message }));
  const started = performance.now();
  let sent = 0;
  for (const chunk of knownContent('sink', `${bytes}`, bytes)) {
    hash.update(chunk);
    sent += chunk.length;
    if (!socket.write(chunk)) await new Promise(resolve => socket.once('drain', resolve));
    const ahead = (sent / rate) * 1000 - (performance.now() - started);
    if (ahead > 5) await pause(ahead);
  }
  socket.end();
  const got = (await reader.take(65)).toString();
  return { ok: got === `${hash.digest('hex')}\n`, rounds: 1, bytes: sent };
}

/** Urgent data leaves the stream in the receiver's kernel, unless it was repeated as ordinary data. */
async function urgent(host: string, bytes: number): Promise<Result> {
  const send = koffi.load('libc.so.6').func('long send(int, void *, long, int)');
  const socket = connect({ host, port: SINK, noDelay: true, allowHalfOpen: true });
  const reader = new Reader(socket);
  const hash = createHash('sha256');
  const part = Buffer.concat([...knownContent('urgent', `${bytes}`, bytes)]);
  const resumed = once(process, 'SIGUSR2');
  const write = (): Promise<void> => {
    hash.update(part);
    return new Promise(resolve => socket.write(part, () => resolve()));
  };
  await write();
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const sent = Number(send(fd, Buffer.from('!'), 1, MSG_OOB));
  await write();
  process.stderr.write('open\n');
  await resumed;
  await write();
  socket.end();
  const got = (await reader.take(65)).toString();
  return { ok: sent === 1 && got === `${hash.digest('hex')}\n`, rounds: 3, bytes: 3 * bytes };
}

async function chat(host: string, rounds: number, bytes: number, ms: number, idle: number): Promise<Result> {
  const socket = connect({ host, port: CHAT, noDelay: true, allowHalfOpen: true });
  const reader = new Reader(socket);
  let round = 0;
  let total = 0;
  const fail = (error: string) => report({ ok: false, rounds: round, bytes: total, error });
  let told = false;
  const resumed = once(process, 'SIGUSR2').then(() => {
    told = true;
  });
  socket.on('error', e => fail(e.message));
  if ((await reader.take(BANNER.length)).toString() !== BANNER) fail('wrong banner');
  process.stderr.write('open\n');
  await (idle < 0 ? resumed : pause(idle));
  for (; rounds ? round < rounds : !told; round++) {
    socket.write(`${bytes}\r\n`);
    const got = await reader.take(bytes);
    if (!got.equals(answer(round, bytes))) fail(`wrong bytes in round ${round}`);
    total += bytes;
    if (ms) await pause(ms);
  }
  socket.write('QUIT\r\n');
  const bye = (await reader.take(5)).toString();
  socket.end();
  return { ok: bye === 'bye\r\n', rounds: round, bytes: total };
}

async function random(host: string, rounds: number, ms: number): Promise<Result> {
  const socket = connect({ host, port: RANDOM, noDelay: true });
  const reader = new Reader(socket);
  let round = 0;
  socket.on('error', e => report({ ok: false, rounds: round, bytes: 0, error: e.message }));
  for (; round < rounds; round++) {
    socket.write('x');
    await reader.take(2000);
    await pause(ms);
  }
  socket.destroy();
  return { ok: true, rounds: round, bytes: round * 2000 };
}

async function fetchPart(host: string, bytes: number): Promise<Result> {
  const socket = connect({ host, port: 80, noDelay: true, allowHalfOpen: true });
  const reader = new Reader(socket);
  const resumed = once(process, 'SIGUSR2');
  socket.on('error', e => report({ ok: false, rounds: 0, bytes: 0, error: e.message }));
  socket.write('GET /part HTTP/1.1\r\nHost: x\r\n\r\n');
  let head = '';
  while (!head.endsWith('\r\n\r\n')) head += (await reader.take(1)).toString('latin1');
  await reader.take(bytes);
  process.stderr.write('open\n');
  await resumed;
  socket.end();
  // Nothing but the server's own end may follow.
  const more = await reader.take(1).then(
    () => true,
    () => false,
  );
  return { ok: !more, rounds: 1, bytes };
}

if (process.argv[1]?.endsWith('/peer.js')) {
  const [mode, host, ...words] = process.argv.slice(2);
  const n = words.map(Number);
  const failed = (e: Error) => report({ ok: false, rounds: 0, bytes: 0, error: e.message });
  if (mode === 'serve') serve(host ? Number(host) : undefined);
  else if (mode === 'sink') sink(host!, n[0]!, n[1]!).then(report, failed);
  else if (mode === 'urgent') urgent(host!, n[0]!).then(report, failed);
  else if (mode === 'chat') chat(host!, n[0]!, n[1]!, n[2]!, n[3] ?? 0).then(report, failed);
  else if (mode === 'fetch') fetchPart(host!, n[0]!).then(report, failed);
  else if (mode === 'random') random(host!, n[0]!, n[1]!).then(report, failed);
}
