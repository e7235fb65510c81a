import { once } from 'node:events';
import { sleep, waitFor } from '../lib/run.js';
import type { BenchHost } from './bench-host.js';

/** What a guest serves. */
export interface Target {
  /** A large file, one of 1 KiB, and where a PUT goes. */
  file: string;
  small: string;
  sink: string;
  upload: { path: string; bytes: number };
}

export type LoadName = 'bulkDown' | 'bulkUp' | 'requests' | 'connections';
export const LOADS: LoadName[] = ['bulkDown', 'bulkUp', 'requests', 'connections'];
export const UNITS: Record<LoadName, string> = {
  bulkDown: 'MB/s',
  bulkUp: 'MB/s',
  requests: '/s',
  connections: '/s',
};

/** One run of about `seconds` against the guest, over whatever way it has now; more is better. In the unit above. */
export function runLoad(name: LoadName, host: BenchHost, target: Target, seconds: number): Promise<number> {
  if (name === 'bulkDown') return download(host, target, seconds);
  if (name === 'bulkUp') return upload(host, target, seconds);
  return wrk(host, target, seconds, name === 'connections' ? ['-H', 'Connection: close'] : []);
}

/** Uploads of a target's size that fit the log. */
const UPLOADS_LOGGED = 4;
const CURL = ['curl', '-q', '-s', '--fail', '-o', '/dev/null'];

/** The large file again and again over one connection; the first, in which the windows open, does not count. */
async function download(host: BenchHost, target: Target, seconds: number): Promise<number> {
  const argv = [...CURL, '-w', '%{stderr}%{size_download} %{time_total}\n', `${target.file}?[1-1000000]`];
  // standard error is not buffered, and curl ends by a signal
  const child = host.lab.spawn(host.client.name, argv, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr!.on('data', d => {
    said += d;
  });
  const closed = once(child, 'close');
  const transfers = () => [...said.matchAll(/^(\d+) ([\d.]+)\n/gm)].map(line => [+line[1]!, +line[2]!]);
  await sleep(seconds * 1000);
  // a busy machine may need longer for a first and a second one
  await waitFor(`transfers of ${target.file}`, 30_000, () => transfers().length > 1 || undefined);
  await host.lab.stop(child);
  await closed;
  const done = transfers();
  return rate(done.slice(1) as [number, number][]);
}

/** The same upload again and again, one connection each: an upload stays in the log until its flow is forgotten. */
async function upload(host: BenchHost, target: Target, seconds: number): Promise<number> {
  const { path, bytes } = target.upload;
  const words = ['-H', 'Expect:', '-w', '%{time_pretransfer} %{time_total}', '-T', path, `${target.sink}/`];
  const done: [number, number][] = [];
  for (let spent = 0; spent < seconds; ) {
    const { stdout } = await host.lab.exec(host.client.name, [...CURL, ...words]);
    const [start, end] = stdout.split(' ').map(Number);
    done.push([bytes, end! - start!]);
    spent += end!;
    if (spent < seconds && done.length % UPLOADS_LOGGED === 0) host.forgetFlows();
  }
  return rate(done);
}

const rate = (done: [bytes: number, seconds: number][]): number =>
  done.reduce((sum, [bytes]) => sum + bytes, 0) / done.reduce((sum, [, seconds]) => sum + seconds, 0) / 1e6;

async function wrk(host: BenchHost, target: Target, seconds: number, more: string[]): Promise<number> {
  const argv = ['wrk', '-t', '1', '-c', '16', '-d', `${Math.ceil(seconds)}s`, ...more, target.small];
  const { stdout } = await host.lab.exec(host.client.name, argv, { timeoutMs: 60_000 });
  const perSecond = /Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1];
  if (perSecond === undefined) throw new Error(`wrk said:\n${stdout}`);
  // ends of connections are what `Connection: close` asks for: wrk counts some of them as read errors
  const timeouts = Number(/timeout (\d+)/.exec(stdout)?.[1] ?? 0);
  if (timeouts > 0 || stdout.includes('Non-2xx'))
    process.stderr.write(`${stdout.split('\n').slice(-5).join('\n')}\n`);
  return Number(perSecond);
}
