import { createCipheriv, createHash } from 'node:crypto';
import { closeSync, openSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { ExpectedBody } from './body-check.js';
import { Client, type ClientPlan, type ClientResult, CURL_REPORT, type Progress } from './client.js';
import type { ClientNamespace, Lab } from './lab.js';
import { sleep } from './run.js';

/** A service to load: base URLs without trailing slash, and what its paths hold (from the image's manifest). */
export interface ServiceTarget {
  httpUrl: string;
  /** Answers a PUT with the SHA-256 of its body in hex and a line feed. */
  sinkUrl: string;
  /** Large files by path, such as `/files/00.bin`, and small ones, such as `/small/1k`. */
  files: Map<string, ExpectedBody>;
  small: Map<string, ExpectedBody>;
}

export interface UploadBody extends ExpectedBody {
  path: string;
}

/** Upload file of pseudo-random bytes, the same in each run: AES-CTR of zeros is quick and does not compress. */
export function makeUploadBody(lab: Lab, bytes: number): UploadBody {
  const path = join(lab.dir, `upload-${bytes}.bin`);
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16));
  const hash = createHash('sha256');
  const zeros = Buffer.alloc(1 << 20);
  // a client may be reading one made before: that must stay whole
  const unfinished = `${path}.unfinished`;
  const file = openSync(unfinished, 'w', 0o600);
  for (let left = bytes; left > 0; left -= zeros.length) {
    const piece = cipher.update(zeros.subarray(0, Math.min(left, zeros.length)));
    hash.update(piece);
    writeSync(file, piece);
  }
  closeSync(file);
  renameSync(unfinished, path);
  return { path, bytes, sha256: hash.digest('hex') };
}

// -q: no ~/.curlrc; globbing off: a URL is a URL; errors of HTTP are failures
const CURL = ['curl', '-q', '-sS', '--globoff', '--fail', '--retry', '0', '--connect-timeout', '10'];

/** Client processes against one service. Each method starts one connection and returns at once. */
export class Traffic {
  readonly clients: Client[] = [];

  constructor(
    readonly lab: Lab,
    readonly namespace: ClientNamespace,
    /** Where clients go, in turn. */
    private readonly targets: readonly [ServiceTarget, ...ServiceTarget[]],
    /** No client runs longer, ms. */
    readonly timeoutMs = 120_000,
  ) {}

  /** Of the next client. */
  private get target(): ServiceTarget {
    return this.targets[this.clients.length % this.targets.length]!;
  }

  /** curl of one large file at about `bytesPerSecond`. */
  curl(path: string, bytesPerSecond: number): Client {
    // the reader's pace rules; curl's own limit, a little above it, only caps bursts
    const limit = ['--limit-rate', `${Math.round(bytesPerSecond * 1.25)}`, '-w', CURL_REPORT];
    return this.#start({
      kind: 'curl',
      label: `curl ${path}`,
      argv: [...CURL, ...limit, '-o', '-', this.target.httpUrl + path],
      bodies: [body(this.target.files, path)],
      bytesPerSecond,
    });
  }

  wget(path: string, bytesPerSecond: number): Client {
    const options = ['--no-config', '--no-proxy', '--no-verbose', '--tries=1', '--timeout=60'];
    return this.#start({
      kind: 'wget',
      label: `wget ${path}`,
      argv: [
        ...['wget', ...options, `--limit-rate=${Math.round(bytesPerSecond)}`, '-O', '-'],
        this.target.httpUrl + path,
      ],
      bodies: [body(this.target.files, path)],
    });
  }

  /** curl -T of `upload` to the sink, whose answer must be the body's SHA-256. Kept there only if the path is below /data. */
  upload(upload: UploadBody, bytesPerSecond: number, path = '/'): Client {
    return this.#start({
      kind: 'upload',
      label: `upload of ${upload.bytes} bytes`,
      argv: [
        ...[...CURL, '-H', 'Expect:', '--limit-rate', `${Math.round(bytesPerSecond)}`, '-w', CURL_REPORT],
        ...['-T', upload.path, '-o', '-', this.target.sinkUrl + path],
      ],
      bodies: [answerTo(upload)],
      upload: { path: upload.path, bytes: upload.bytes },
    });
  }

  /** One curl process that uploads in turn over one connection; each body is kept as /data/NAME. */
  store(uploads: { name: string; body: UploadBody }[], perSecond: number): Client {
    const config = join(this.lab.dir, `store-${this.clients.length}-${this.namespace.name}.curlrc`);
    const lines = uploads.map(
      ({ name, body: { path } }) =>
        `url = "${this.target.sinkUrl}/data/${name}"\nupload-file = "${path}"\noutput = "-"\n`,
    );
    writeFileSync(config, lines.join(''));
    const pace = ['-H', 'Expect:', '--rate', `${perSecond}/s`, '--fail-early'];
    return this.#start({
      kind: 'keep-alive',
      label: `${uploads.length} uploads over one connection`,
      argv: [...CURL, ...pace, '-w', CURL_REPORT, '--config', config],
      bodies: uploads.map(({ body }) => answerTo(body)),
    });
  }

  /** One curl process, `requests` small requests in turn over one connection, `perSecond` of them started a second. */
  keepAlive(requests: number, perSecond: number): Client {
    const paths = [...this.target.small.keys()];
    const sequence = Array.from(
      { length: requests },
      (_, i) => paths[(i + this.clients.length) % paths.length]!,
    );
    const config = join(this.lab.dir, `keep-alive-${this.clients.length}-${this.namespace.name}.curlrc`);
    const lines = sequence.map(path => `url = "${this.target.httpUrl}${path}"\noutput = "-"\n`);
    writeFileSync(config, lines.join(''));
    return this.#start({
      kind: 'keep-alive',
      label: `keep-alive loop of ${requests} requests`,
      argv: [...CURL, '--rate', `${perSecond}/s`, '--fail-early', '-w', CURL_REPORT, '--config', config],
      bodies: sequence.map(path => body(this.target.small, path)),
    });
  }

  /** One curl process that gets back in turn, over one connection, what was stored. */
  fetch(uploads: { name: string; body: UploadBody }[]): Client {
    const urls = uploads.flatMap(({ name }) => ['-o', '-', `${this.target.httpUrl}/data/${name}`]);
    return this.#start({
      kind: 'keep-alive',
      label: `${uploads.length} files that were stored`,
      argv: [...CURL, '--fail-early', '-w', CURL_REPORT, ...urls],
      bodies: uploads.map(({ body }) => body),
    });
  }

  /**
   * Resolves when every client started so far has moved at least `movedBytes`; rejects when one has ended, or has less than `leftBytes`
   * left (keep-alive loops: a quarter of their requests), for then a fault would not meet them all.
   */
  async waitInFlight(movedBytes: number, leftBytes: number, timeoutMs: number): Promise<Progress[]> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const progress = this.clients.map(client => client.progress());
      for (const [i, client] of this.clients.entries()) {
        const { moved, left } = progress[i]!;
        const needed = client.plan.kind === 'keep-alive' ? (moved + left) / 4 : leftBytes;
        if (client.ended) throw new Error(`${client.plan.label} ended early: ${(await client.result).error}`);
        if (left < needed)
          throw new Error(`${client.plan.label} has ${left} bytes left, too few before all are in flight`);
      }
      const waiting = this.clients.filter((client, i) => {
        return progress[i]!.moved < (client.plan.kind === 'keep-alive' ? 1 : movedBytes);
      });
      if (waiting.length === 0) return progress;
      if (performance.now() > deadline)
        throw new Error(
          `not in flight after ${timeoutMs} ms: ${waiting.map(client => client.plan.label).join(', ')}`,
        );
      await sleep(20);
    }
  }

  results(): Promise<ClientResult[]> {
    return Promise.all(this.clients.map(client => client.result));
  }

  #start(plan: Omit<ClientPlan, 'timeoutMs'>): Client {
    const client = new Client({ ...plan, timeoutMs: this.timeoutMs }, this.lab, this.namespace);
    this.clients.push(client);
    return client;
  }
}

/** What the sink says to a body. */
function answerTo(upload: UploadBody): ExpectedBody {
  const answer = `${upload.sha256}\n`;
  return { bytes: answer.length, sha256: createHash('sha256').update(answer).digest('hex') };
}

function body(files: Map<string, ExpectedBody>, path: string): ExpectedBody {
  const expected = files.get(path);
  if (expected === undefined)
    throw new Error(`the service has no ${path}: it has ${[...files.keys()].join(', ')}`);
  return expected;
}
