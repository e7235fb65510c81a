/**
 * Many connections in one client process, commanded by lines on standard input:
 *
 *   node crowd.js chat HOST PORT BYTES     speaks to the chat peer: banner, then `BYTES\n` is answered by BYTES bytes
 *   node crowd.js http HOST PORT PATH [SHA256]   keep-alive GETs of PATH, whose body must have this hash
 *
 *   open N [WIDTH]     opens N connections, at most WIDTH of them at once; done when each has its first answer
 *   ask [WHAT]     one more request on each; done when each has the answer
 *   watch MS WHAT  requests on the first, PACE_MS apart, for so long; `ms` is the longest time between two answers
 *   busy MS    from now on a request on each, MS after the answer to the one before; `quiet` ends it, done when all are answered
 *   close      closes all
 *   reset      resets all, so that no port of theirs waits
 *
 * Each command is answered by one line of JSON: { ms, bytes } or { error }.
 */
import { createHash, type Hash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** A replay goes through all requests one by one: a client that asks as fast as it can would measure that. */
const PACE_MS = 5;

type Kind = 'chat' | 'http';

/** One connection, which knows only how many bytes the next answer has. */
class Conversation {
  received = 0;
  private awaited = 0;
  private head = '';
  private body: Hash | undefined;
  private done: (() => void) | undefined;
  private readonly socket: Socket;

  constructor(
    private readonly kind: Kind,
    private readonly host: string,
    port: number,
    private readonly what: string,
    private readonly sha256: string | undefined,
    private readonly failed: (e: Error) => void,
  ) {
    this.socket = connect({ host, port, noDelay: true });
    this.socket.on('error', failed).on('end', () => failed(new Error('the server closed a connection')));
    this.socket.on('data', data => this.take(data));
    if (kind === 'chat') this.awaited = '220 ready\r\n'.length;
  }

  ask(what = this.what): Promise<void> {
    return new Promise(resolve => {
      this.done = resolve;
      if (this.kind === 'chat') {
        this.awaited += Number(what);
        this.socket.write(`${what}\n`);
      } else this.socket.write(`GET ${what} HTTP/1.1\r\nHost: ${this.host}\r\n\r\n`);
    });
  }

  close(): void {
    this.socket.removeAllListeners('end').destroy();
  }

  reset(): void {
    this.socket.removeAllListeners('end').resetAndDestroy();
  }

  private take(data: Buffer): void {
    this.received += data.length;
    if (this.kind === 'http' && this.awaited === 0) {
      this.head += data.toString('latin1');
      const end = this.head.indexOf('\r\n\r\n');
      if (end < 0) return;
      const body = Number(/content-length: *(\d+)/i.exec(this.head)![1]);
      this.awaited = body + end + 4 - this.head.length;
      this.body = createHash('sha256').update(this.head.slice(end + 4), 'latin1');
      this.head = '';
    } else {
      this.awaited -= data.length;
      this.body?.update(data);
    }
    if (this.awaited < 0) this.failed(new Error(`${-this.awaited} bytes more than asked for`));
    if (this.awaited !== 0) return;
    const wrong = this.sha256 !== undefined && this.body?.digest('hex') !== this.sha256;
    if (wrong) this.failed(new Error(`the body of ${this.what} differs`));
    else this.done?.();
  }
}

const [kind, host, port, what, sha256] = process.argv.slice(2);
let crowd: Conversation[] = [];
/** Told when a connection fails: whoever waits for the present command. */
let rejected: (e: Error) => void = () => {};

/** Longest time between two answers, ms. */
async function watch(conversation: Conversation, ms: number, what: string): Promise<number> {
  const end = performance.now() + ms;
  let longest = 0;
  for (let last = performance.now(); last < end; ) {
    await conversation.ask(what);
    const now = performance.now();
    await new Promise(resolve => setTimeout(resolve, PACE_MS));
    longest = Math.max(longest, now - last);
    last = now;
  }
  return longest;
}

/** `body` for each of the items, `width` at once. */
async function each<T>(items: Iterable<T>, width: number, body: (item: T) => Promise<void>): Promise<void> {
  const left = items[Symbol.iterator]();
  const worker = async () => {
    for (let next = left.next(); !next.done; next = left.next()) await body(next.value);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

let busy: Promise<unknown> | undefined;
let quiet = false;

/** Goes on until `quiet`; the first requests are spread over the pause. */
async function keepBusy(conversation: Conversation, ms: number): Promise<void> {
  const pause = (least: number) => new Promise(resolve => setTimeout(resolve, least));
  await pause(Math.random() * ms);
  while (!quiet) {
    await conversation.ask();
    await pause(ms);
  }
}

async function command(line: string): Promise<{ ms: number; bytes: number }> {
  const [word, number, more] = line.split(' ');
  const started = performance.now();
  if (word === 'watch') return { ms: await watch(crowd[0]!, Number(number), more!), bytes: 0 };
  if (word === 'close' || word === 'reset') {
    for (const conversation of crowd) conversation[word]();
    crowd = [];
  } else
    await new Promise<void>((resolve, reject) => {
      rejected = reject;
      if (word === 'open') {
        crowd = [];
        each(Array(Number(number)).keys(), Number(more ?? number), () => {
          const failed = (e: Error) => rejected(e);
          const conversation = new Conversation(kind as Kind, host!, Number(port), what!, sha256, failed);
          crowd.push(conversation);
          return conversation.ask();
        }).then(resolve, reject);
      } else if (word === 'busy') {
        quiet = false;
        busy = Promise.all(crowd.map(conversation => keepBusy(conversation, Number(number))));
        busy.catch(reject);
        resolve();
      } else if (word === 'quiet') {
        quiet = true;
        Promise.resolve(busy).then(() => resolve(), reject);
      } else Promise.all(crowd.map(conversation => conversation.ask(number))).then(() => resolve(), reject);
    });
  const bytes = crowd.reduce((sum, conversation) => sum + conversation.received, 0);
  return { ms: performance.now() - started, bytes };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await command(line).catch((e: Error) => ({ error: e.message }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
