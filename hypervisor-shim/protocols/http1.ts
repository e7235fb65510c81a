/**
 * HTTP/1.1 (RFC 9112): where one exchange ends and the next begins. Messages are framed, never interpreted; of bodies nothing is read but
 * the sizes of chunks. Whatever is not certain ends the following: the connection is then one of which nothing is known.
 */
import type { Boundary, Stream, Tracker } from './stream.js';

/** What a mask has taken from a head (replay/masks); nothing else may be missing in one. */
const MASKED_FIELD = /^(?:date|expires): \0+$/i;
/** A longer head is no head. */
const HEAD_BYTES = 65_536;
const FIRST_READ = 2048;
/** A chunk's size, with extensions (7.1.1). */
const LINE_BYTES = 256;

const REQUEST_LINE = /^([!#$%&'*+.^_`|~\w-]+) \S+ HTTP\/1\.[01]$/;
const STATUS_LINE = /^HTTP\/1\.[01] (\d{3})(?: |$)/;
const FIELD = /^([!#$%&'*+.^_`|~\w-]+):[ \t]*(.*?)[ \t]*$/;
/** Of these the first request decides who all that follow come from (RFC 4559, 6). */
const BOUND_TO_CONNECTION = /^(?:ntlm|negotiate)\b/i;

/** Thrown for what ends the following. */
class Unknowable extends Error {}

/** How the body behind a head is framed. */
type Body = { kind: 'none' } | { kind: 'bytes'; length: bigint } | { kind: 'chunked' };

interface Head {
  line: string;
  fields: Map<string, string[]>;
  end: bigint;
}

/** Reads one direction, message by message. `at` is the end of what was taken; nothing is taken by halves. */
class Messages {
  /** What is left of the present body: until a position, or chunk by chunk. */
  #body: Body = { kind: 'none' };
  constructor(public at: bigint) {}

  /** The next head, once it is whole. */
  head(stream: Stream): Head | undefined {
    for (let most = FIRST_READ; ; most *= 8) {
      const text = latin1(stream.read(this.at, Math.min(most, HEAD_BYTES)));
      // Empty lines before a request are to be ignored (2.2).
      const skipped = /^(?:\r\n)*/.exec(text)![0].length;
      const end = text.indexOf('\r\n\r\n', skipped);
      if (end >= 0) return parseHead(text.slice(skipped, end), this.at + BigInt(end + 4));
      if (text.length >= HEAD_BYTES) throw new Unknowable('a head without an end');
      if (text.length < most) return undefined;
    }
  }

  begin(head: Head, body: Body): void {
    this.at = head.end;
    this.#body = body;
  }

  /** Takes in the body as far as it has come; whether it has ended. */
  bodyEnded(stream: Stream): boolean {
    while (this.#body.kind === 'chunked') {
      const line = this.#line(stream, this.at);
      if (!line) return false;
      const size = /^([0-9a-f]{1,12})[ \t]*(?:;.*)?$/i.exec(line.text);
      if (!size) throw new Unknowable('no size of a chunk');
      const length = BigInt(`0x${size[1]}`);
      if (length === 0n) return this.#trailersEnded(stream, line.end);
      const end = line.end + length + 2n;
      if (stream.end < end) return false;
      this.at = end;
    }
    if (this.#body.kind === 'bytes') {
      const end = this.at + this.#body.length;
      if (stream.end < end) return false;
      this.at = end;
      this.#body = { kind: 'none' };
    }
    return true;
  }

  #trailersEnded(stream: Stream, from: bigint): boolean {
    for (let at = from; ; ) {
      const line = this.#line(stream, at);
      if (!line) return false;
      at = line.end;
      if (line.text !== '') continue;
      this.at = at;
      this.#body = { kind: 'none' };
      return true;
    }
  }

  #line(stream: Stream, from: bigint): { text: string; end: bigint } | undefined {
    const text = latin1(stream.read(from, LINE_BYTES));
    const end = text.indexOf('\r\n');
    if (end >= 0) return { text: text.slice(0, end), end: from + BigInt(end + 2) };
    if (text.length === LINE_BYTES) throw new Unknowable('a line without an end');
    return undefined;
  }
}

/** One connection, from a place at which nothing was under way. */
export class Http1 implements Tracker {
  readonly #requests: Messages;
  readonly #responses: Messages;
  /** Of the request that is being taken in, or answered. */
  #method: string | undefined;
  #inRequest = false;
  #inResponse = false;
  #last: Boundary | undefined;
  isKnown = true;

  constructor(from: Boundary) {
    this.#requests = new Messages(from.in);
    this.#responses = new Messages(from.out);
  }

  follow(input: Stream, output: Stream): Boundary | undefined {
    if (!this.isKnown) return undefined;
    try {
      while (this.#step(input, output)) {
        if (this.#method === undefined) this.#last = { in: this.#requests.at, out: this.#responses.at };
      }
    } catch (error) {
      if (!(error instanceof Unknowable)) throw error;
      this.isKnown = false;
      this.#last = undefined;
    }
    return this.#last;
  }

  /** In turn, for a boundary may lie between requests that both have come: the next is looked at when the one before it is answered. */
  #step(input: Stream, output: Stream): boolean {
    if (this.#method === undefined) return this.#request(input);
    // A response may begin before its request has ended; it is not over before.
    return (this.#inRequest && this.#request(input)) || this.#response(output);
  }

  #request(input: Stream): boolean {
    const requests = this.#requests;
    if (this.#inRequest) {
      if (!requests.bodyEnded(input)) return false;
      this.#inRequest = false;
      return true;
    }
    if (requests.at >= input.end) return false;
    const head = requests.head(input);
    if (!head) return false;
    const method = REQUEST_LINE.exec(head.line)?.[1];
    if (method === undefined) throw new Unknowable('no request');
    if (method === 'CONNECT') throw new Unknowable('a tunnel');
    if (head.fields.get('authorization')?.some(value => BOUND_TO_CONNECTION.test(value)))
      throw new Unknowable('authentication of the connection');
    requests.begin(head, framing(head, { kind: 'none' }));
    this.#method = method;
    this.#inRequest = true;
    return true;
  }

  #response(output: Stream): boolean {
    const responses = this.#responses;
    if (this.#inResponse) {
      if (this.#inRequest || !responses.bodyEnded(output)) return false;
      this.#inResponse = false;
      this.#method = undefined;
      return true;
    }
    if (responses.at >= output.end) return false;
    const head = responses.head(output);
    if (!head) return false;
    const status = Number(STATUS_LINE.exec(head.line)?.[1] ?? 0);
    if (status < 100 || status === 101) throw new Unknowable('no response of HTTP/1.1');
    if (status < 200) {
      responses.begin(head, { kind: 'none' });
      return true;
    }
    const bare = this.#method === 'HEAD' || status === 204 || status === 304;
    responses.begin(head, bare ? { kind: 'none' } : framing(head, undefined));
    this.#inResponse = true;
    return true;
  }
}

/** RFC 9112, 6.3. `otherwise`: where no field says it; undefined if the end of the connection does. */
function framing({ fields }: Head, otherwise: Body | undefined): Body {
  const codings = fields.get('transfer-encoding');
  const lengths = fields.get('content-length');
  if (codings && lengths) throw new Unknowable('two framings');
  if (codings) {
    if (codings.join(',').toLowerCase() !== 'chunked') throw new Unknowable('another coding than chunks');
    return { kind: 'chunked' };
  }
  if (lengths) {
    const [length] = lengths;
    if (lengths.length > 1 || !/^\d{1,15}$/.test(length!)) throw new Unknowable('no length');
    return { kind: 'bytes', length: BigInt(length!) };
  }
  if (!otherwise) throw new Unknowable('a body that ends with the connection');
  return otherwise;
}

function parseHead(text: string, end: bigint): Head {
  const [line = '', ...rest] = text.split('\r\n');
  const fields = new Map<string, string[]>();
  for (const one of rest) {
    const [, name, value] = FIELD.exec(one) ?? [];
    if (name === undefined || (one.includes('\0') && !MASKED_FIELD.test(one)))
      throw new Unknowable('a line that is no field');
    const key = name.toLowerCase();
    fields.set(key, [...(fields.get(key) ?? []), value!]);
  }
  return { line, fields, end };
}

const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
