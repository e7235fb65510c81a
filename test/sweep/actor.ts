/**
 * Either end of the conversations of stages.ts, told by lines of JSON on standard input what to do.
 *
 *   node actor.js server first|second     first: stops at every gate until told; second: stops at none
 *   node actor.js client ADDRESS          connects as many times as it is told to
 *
 * in:  {"start": STAGE, "times"?: N} {"open": GATE, "stage"?: STAGE, "peer"?: ADDRESS}
 * out: {"ready": true}  {"at": GATE, ...}  {"done": true, sent, got, error?, ...}   with stage and peer (the other end's address)
 */
import { createHash } from 'node:crypto';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import koffi from 'koffi';
import { knownContent } from '../../images/content.js';
import { FIRST_PORT, STAGE_NAMES, STAGES, type Step, sends } from './stages.js';

const SOL_SOCKET = 1;
const SO_OOBINLINE = 10;
const SO_RCVBUF = 8;
const MSG_OOB = 1;
const libc = koffi.load('libc.so.6');
const setsockopt = libc.func('int setsockopt(int, int, int, int *, int)');
const sendOob = libc.func('long send(int, const uint8_t *, size_t, int)');

const descriptor = (of: Socket | Server): number => (of as unknown as { _handle: { fd: number } })._handle.fd;

function setOption(of: Socket | Server, option: number, value: number): void {
  if (setsockopt(descriptor(of), SOL_SOCKET, option, [value], 4) !== 0) throw new Error(`option ${option}`);
}

const say = (message: object): boolean => process.stdout.write(`${JSON.stringify(message)}\n`);

/** What one end says in a stage's conversation: the same in every process. */
const contents = new Map<string, Buffer>();
function content(stage: string, side: 'client' | 'server'): Buffer {
  const key = `${stage}/${side}`;
  let bytes = contents.get(key);
  if (!bytes) {
    bytes = Buffer.concat([...knownContent('sweep', key, sends(STAGES[stage]![side]))]);
    contents.set(key, bytes);
  }
  return bytes;
}

/** Gates: opened once, for all or for one connection. */
const opened = new Set<string>();
const waiting = new Map<string, (() => void)[]>();

class Talk {
  private readonly chunks: Buffer[] = [];
  private buffered = 0;
  private ended = false;
  private error: string | undefined;
  private wake: (() => void) | undefined;
  private sent = 0;
  private got = 0;
  private readonly sentHash = createHash('sha256');
  private readonly gotHash = createHash('sha256');

  constructor(
    private readonly socket: Socket,
    private readonly side: 'client' | 'server',
    private readonly stage: string,
    private readonly peer: string,
    private readonly stops: boolean,
  ) {
    socket.on('data', d => {
      this.chunks.push(d);
      this.buffered += d.length;
      this.wake?.();
    });
    socket.pause();
    socket.on('end', () => {
      this.ended = true;
      this.wake?.();
    });
    socket.on('error', e => {
      this.error ??= e.message;
      this.wake?.();
    });
  }

  async run(steps: readonly Step[]): Promise<void> {
    this.say({ at: 'open' });
    try {
      for (const step of steps) await this.step(step);
    } catch (e) {
      this.error ??= (e as Error).message;
    }
    const { sent, got, error } = this;
    const digests = { sentHash: this.sentHash.digest('hex'), gotHash: this.gotHash.digest('hex') };
    this.say({ done: true, sent, got, ...digests, ...(error && { error }) });
  }

  private say(message: object): void {
    say({ ...message, stage: this.stage, peer: this.peer });
  }

  private async step(step: Step): Promise<void> {
    switch (step[0]) {
      case 'send':
        return this.send(step[1]);
      case 'urgent':
        return this.urgent();
      case 'take':
        return this.take(step[1]);
      case 'end':
        this.socket.end();
        return;
      case 'eof':
        await this.until(() => this.ended || this.buffered > 0);
        if (this.buffered > 0) throw new Error(`${this.buffered} bytes too many`);
        return;
      case 'gate':
        return this.gate(step[1]);
      case 'late':
        if (!this.stops) await this.until(() => this.buffered >= step[1]);
    }
  }

  private next(bytes: number): Buffer {
    const piece = content(this.stage, this.side).subarray(this.sent, this.sent + bytes);
    this.sent += bytes;
    this.sentHash.update(piece);
    return piece;
  }

  private async send(bytes: number): Promise<void> {
    const error = await new Promise<Error | null | undefined>(resolve =>
      this.socket.write(this.next(bytes), resolve),
    );
    if (error) throw error;
  }

  private async urgent(): Promise<void> {
    const n = sendOob(descriptor(this.socket), this.next(1), 1, MSG_OOB);
    if (n !== 1) throw new Error('the urgent byte was not taken');
  }

  /** Reads from the kernel only while it waits. */
  private async until(enough: () => boolean): Promise<void> {
    this.socket.resume();
    while (!enough()) {
      if (this.error) throw new Error(this.error);
      if (this.ended) throw new Error('the stream ended early');
      await new Promise<void>(resolve => {
        this.wake = resolve;
      });
    }
    this.socket.pause();
  }

  private async take(bytes: number): Promise<void> {
    await this.until(() => this.buffered >= bytes);
    const all = Buffer.concat(this.chunks.splice(0));
    const piece = all.subarray(0, bytes);
    if (all.length > bytes) this.chunks.push(all.subarray(bytes));
    this.buffered -= bytes;
    const right = content(this.stage, this.side === 'client' ? 'server' : 'client');
    if (!piece.equals(right.subarray(this.got, this.got + bytes))) {
      throw new Error(`wrong bytes in ${this.got}..${this.got + bytes}`);
    }
    this.got += bytes;
    this.gotHash.update(piece);
  }

  private async gate(name: string): Promise<void> {
    this.say({ at: name });
    if (!this.stops) return;
    const own = `${name}/${this.stage}/${this.peer}`;
    if (opened.has(name) || opened.has(own)) return;
    await new Promise<void>(resolve => waiting.set(own, [...(waiting.get(own) ?? []), resolve]));
  }
}

function open(gate: string, stage?: string, peer?: string): void {
  const wanted = stage ? `${gate}/${stage}/${peer}` : gate;
  opened.add(wanted);
  for (const [key, all] of waiting) {
    if (key !== wanted && !(stage === undefined && key.startsWith(`${gate}/`))) continue;
    waiting.delete(key);
    for (const resolve of all) resolve();
  }
}

async function serve(stops: boolean): Promise<void> {
  for (const [i, stage] of STAGE_NAMES.entries()) {
    const { noDelay = false } = STAGES[stage]!;
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay }, socket => {
      const peer = (socket.remoteAddress ?? '').replace(/^::ffff:/, '');
      void new Talk(socket, 'server', stage, peer, stops).run(STAGES[stage]!.server);
    });
    await new Promise<void>(resolve =>
      server.listen({ port: FIRST_PORT + i, host: '::', backlog: 4096 }, resolve),
    );
    setOption(server, SO_OOBINLINE, 1);
  }
}

function start(address: string, stage: string): void {
  const port = FIRST_PORT + STAGE_NAMES.indexOf(stage);
  const socket = connect({ host: address, port, allowHalfOpen: true });
  const talk = new Talk(socket, 'client', stage, address, true);
  socket.once('error', e => {
    if (socket.connecting) say({ done: true, sent: 0, got: 0, error: e.message, stage, peer: address });
  });
  socket.once('connect', () => {
    const { client, receiveBuffer } = STAGES[stage]!;
    setOption(socket, SO_OOBINLINE, 1);
    if (receiveBuffer) setOption(socket, SO_RCVBUF, receiveBuffer);
    void talk.run(client);
  });
}

if (process.argv[1]?.endsWith('/actor.js')) {
  const [role, word] = process.argv.slice(2);
  if (role === 'server') await serve(word === 'first');
  createInterface({ input: process.stdin }).on('line', line => {
    const m = JSON.parse(line);
    if (m.start) for (let i = 0; i < (m.times ?? 1); i++) start(word!, m.start);
    else open(m.open, m.stage, m.peer);
  });
  say({ ready: true });
}
