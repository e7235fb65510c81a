import test, { type ExecutionContext } from 'ava';
import { Http1 } from '../../../hypervisor-shim/protocols/http1.js';
import type { Boundary, Stream } from '../../../hypervisor-shim/protocols/stream.js';

/** What was said in one direction; of `known` bytes at each of `heads` the text is there, elsewhere only the length. */
class Said implements Stream {
  text = '';
  /** Ranges that the log does not have. */
  readonly gaps: [number, number][] = [];

  constructor(private readonly base = 0) {}

  get end(): bigint {
    return BigInt(this.base + this.text.length);
  }

  say(text: string): this {
    this.text += text;
    return this;
  }

  /** A body of which nothing is in the log. */
  body(bytes: number): this {
    this.gaps.push([this.text.length, this.text.length + bytes]);
    return this.say('?'.repeat(bytes));
  }

  read(from: bigint, most: number): Uint8Array {
    const at = Number(from) - this.base;
    const gap = this.gaps.find(([, end]) => end > at);
    const end = Math.min(at + most, gap ? Math.max(gap[0], at) : this.text.length);
    return Buffer.from(this.text.slice(at, end), 'latin1');
  }
}

const ORIGIN = { in: 0n, out: 0n };
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
const ok = (bytes: number): string => `HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\n\r\n`;

class Talk {
  readonly input = new Said();
  readonly output = new Said();
  readonly #http = new Http1(ORIGIN);

  get boundary(): Boundary | undefined {
    return this.#http.follow(this.input, this.output);
  }

  /** Whether all that was said so far is answered. */
  isBetween(t: ExecutionContext, what: string): void {
    t.deepEqual(this.boundary, { in: this.input.end, out: this.output.end }, what);
  }
}

test('a request and its response, byte by byte', t => {
  const talk = new Talk();
  t.is(talk.boundary, undefined, 'nothing was said: nothing is known');
  for (const byte of GET) {
    talk.input.say(byte);
    t.is(talk.boundary, undefined);
  }
  for (const byte of `${ok(3)}ab`) {
    talk.output.say(byte);
    t.is(talk.boundary, undefined);
  }
  talk.output.say('c');
  talk.isBetween(t, 'answered');
});

test('bodies are not read, only their lengths', t => {
  const talk = new Talk();
  talk.input.say('PUT /x HTTP/1.1\r\nContent-Length: 70000\r\nExpect: 100-continue\r\n\r\n');
  talk.output.say('HTTP/1.1 100 Continue\r\n\r\n');
  t.is(talk.boundary, undefined);
  talk.input.body(70_000);
  t.is(talk.boundary, undefined);
  talk.output.say(ok(1_000_000)).body(999_999);
  t.is(talk.boundary, undefined);
  talk.output.body(1);
  talk.isBetween(t, 'both bodies have ended');
});

test('a response that ends before its request does is not the end', t => {
  const talk = new Talk();
  talk.input.say('POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n').body(4);
  talk.output.say(ok(0));
  t.is(talk.boundary, undefined);
  talk.input.body(6);
  talk.isBetween(t, 'the request has ended, too');
});

test('of pipelined requests those that are answered', t => {
  const talk = new Talk();
  talk.input.say(GET).say(GET).say(GET);
  talk.output.say(ok(5)).body(5);
  t.deepEqual(talk.boundary, { in: BigInt(GET.length), out: talk.output.end });
  talk.output.say(ok(0)).say('HTTP/1.1 204 No Content\r\n\r\n');
  talk.isBetween(t, 'all three');
});

test('a response without its head in the log leaves the last place known', t => {
  const talk = new Talk();
  talk.input.say(GET);
  talk.output.say(ok(0));
  const before = talk.boundary;
  talk.input.say(GET);
  talk.output.body(500);
  t.deepEqual(talk.boundary, before);
});

test('responses without a body', t => {
  for (const [method, status] of [
    ['HEAD', '200 OK'],
    ['GET', '304 Not Modified'],
    ['GET', '204 No Content'],
  ]) {
    const talk = new Talk();
    talk.input.say(`${method} / HTTP/1.1\r\n\r\n`);
    talk.output.say(`HTTP/1.1 ${status}\r\nContent-Length: 7\r\n\r\n`);
    talk.isBetween(t, `${method} ${status}`);
  }
});

test('chunks: each size must be in the log', t => {
  const talk = new Talk();
  talk.input.say('POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n');
  talk.input.say('1000;x=y\r\n').body(0x1000).say('\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n');
  talk.output.say('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n');
  t.is(talk.boundary, undefined);
  talk.output.say('0\r\n\r\n');
  talk.isBetween(t, 'the last chunk');
  talk.input.say(GET);
  talk.output.say('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n').body(4000);
  const { boundary } = talk;
  talk.output.say('0\r\n\r\n');
  t.deepEqual(talk.boundary, boundary, 'of what was not captured nobody can tell where it ends');
});

test('a date that a mask has taken from the log is no obstacle; any other gap is one', t => {
  const head = (hidden: string): string => `HTTP/1.1 200 OK\r\n${hidden}\r\nContent-Length: 0\r\n\r\n`;
  for (const [hidden, known] of [
    ['Date: \0\0\0\0', true],
    ['expires: \0', true],
    ['Date: \0\0HTTP/1.1 200 OK', false],
    ['X-Date: \0\0', false],
    ['Content-Length: \0', false],
  ] as const) {
    const talk = new Talk();
    talk.input.say(GET);
    talk.output.say(head(hidden));
    t.is(talk.boundary !== undefined, known, JSON.stringify(hidden));
  }
});

test('what is no sequence of exchanges is never between two', t => {
  const hopeless: [string, string, string][] = [
    ['a tunnel', 'CONNECT a:1 HTTP/1.1\r\n\r\n', ok(0)],
    ['a switch of protocols', 'GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n', 'HTTP/1.1 101 x\r\n\r\n'],
    ['a body until the end', GET, 'HTTP/1.1 200 OK\r\n\r\n'],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', ok(0)],
    ['two framings', 'POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', ok(0)],
    ['two lengths', 'POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', ok(0)],
    ['a bad length', 'POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n', ok(0)],
    ['a bad chunk', 'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n', ok(0)],
    ['another coding', 'POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n', ok(0)],
    ['a folded field', 'GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n', ok(0)],
    ['a connection that is somebody', 'GET / HTTP/1.1\r\nAuthorization: NTLM x\r\n\r\n', ok(0)],
    ['another protocol', 'EHLO mail\r\n\r\n', '250 OK\r\n\r\n'],
    ['a head without an end', 'x'.repeat(70_000), ''],
  ];
  for (const [what, input, output] of hopeless) {
    const talk = new Talk();
    talk.input.say(input);
    talk.output.say(output);
    t.is(talk.boundary, undefined, what);
    talk.input.say(GET);
    talk.output.say(ok(0));
    t.is(talk.boundary, undefined, `${what}, later`);
  }
});

test('it may begin anywhere between two', t => {
  const input = new Said(5_000_000_000).say(GET);
  const output = new Said(6_000_000_000).say(ok(2)).body(2);
  const http = new Http1({ in: 5_000_000_000n, out: 6_000_000_000n });
  t.deepEqual(http.follow(input, output), { in: input.end, out: output.end });
});
