/**
 * Many connections in one client process, commanded by lines on standard input:
 *
 *   node crowd.js chat HOST PORT BYTES     speaks to the chat peer: banner, then `BYTES\n` is answered by BYTES bytes
 *   node crowd.js http HOST PORT PATH      keep-alive GETs of PATH
 *
 *   open N     opens N connections; done when each has its first answer
 *   ask        one more request on each; done when each has the answer
 *   close      closes all
 *
 * Each command is answered by one line of JSON: { ms, bytes } or { error }.
 */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

type Kind = 'chat' | 'http';

/** One connection, which knows only how many bytes the next answer has. */
class Conversation {
  received = 0;
  private awaited = 0;
  private head = '';
  private done: (() => void) | undefined;
  private readonly socket: Socket;

  constructor(
    private readonly kind: Kind,
    private readonly host: string,
    port: number,
    private readonly what: string,
    private readonly failed: (e: Error) => void,
  ) {
    this.socket = connect({ host, port, noDelay: true });
    this.socket.on('error', failed).on('end', () => failed(new Error('the server closed a connection')));
    this.socket.on('data', data => this.take(data));
    if (kind === 'chat') this.awaited = '220 ready\r\n'.length;
  }

  ask(): Promise<void> {
    return new Promise(resolve => {
      this.done = resolve;
      if (this.kind === 'chat') {
        this.awaited += Number(this.what);
        this.socket.write(`${this.what}\n`);
      } else this.socket.write(`GET ${this.what} HTTP/1.1\r\nHost: ${this.host}\r\n\r\n`);
    });
  }

  close(): void {
    this.socket.removeAllListeners('end').destroy();
  }

  private take(data: Buffer): void {
    this.received += data.length;
    if (this.kind === 'http' && this.awaited === 0) {
      this.head += data.toString('latin1');
      const end = this.head.indexOf('\r\n\r\n');
      if (end < 0) return;
      const body = Number(/content-length: *(\d+)/i.exec(this.head)![1]);
      this.awaited = body + end + 4 - this.head.length;
      this.head = '';
    } else this.awaited -= data.length;
    if (this.awaited < 0) this.failed(new Error(`${-this.awaited} bytes more than asked for`));
    if (this.awaited === 0) this.done?.();
  }
}

const [kind, host, port, what] = process.argv.slice(2);
let crowd: Conversation[] = [];

async function command(line: string): Promise<{ ms: number; bytes: number }> {
  const [word, number] = line.split(' ');
  const started = performance.now();
  if (word === 'close') {
    for (const conversation of crowd) conversation.close();
    crowd = [];
  } else
    await new Promise<void>((resolve, reject) => {
      if (word === 'open')
        crowd = Array.from(
          { length: Number(number) },
          () => new Conversation(kind as Kind, host!, Number(port), what!, reject),
        );
      Promise.all(crowd.map(conversation => conversation.ask())).then(() => resolve(), reject);
    });
  const bytes = crowd.reduce((sum, conversation) => sum + conversation.received, 0);
  return { ms: performance.now() - started, bytes };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await command(line).catch((e: Error) => ({ error: e.message }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
