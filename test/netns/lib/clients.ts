import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { SERVICE_ADDRESS } from '../../lib/lab.js';
import type { NetnsBed } from './bed.js';

const PEER = fileURLToPath(new URL('./peer.js', import.meta.url));

export interface PeerResult {
  ok: boolean;
  rounds: number;
  bytes: number;
  error?: string;
}

/** A running client process; `result` resolves when it ends, whatever the end. */
export interface Client {
  child: ChildProcess;
  result: Promise<PeerResult>;
  /** Resolves when the client says that its connection is open (chat only). */
  open: Promise<void>;
}

/** Starts the protocol peer as a client in the client namespace. */
export function startPeer(bed: NetnsBed, mode: 'sink' | 'chat' | 'random', ...words: number[]): Client {
  const argv = [process.execPath, PEER, mode, SERVICE_ADDRESS, ...words.map(String)];
  const child = bed.lab.spawn(bed.client.name, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let err = '';
  child.stdout!.on('data', d => {
    out += d;
  });
  const open = new Promise<void>(resolve => {
    child.stderr!.on('data', d => {
      err += d;
      if (err.includes('open\n')) resolve();
    });
  });
  const result = new Promise<PeerResult>(resolve => {
    child.on('close', code => {
      const line = out.trim();
      resolve(line ? JSON.parse(line) : { ok: false, rounds: 0, bytes: 0, error: `exit ${code}: ${err}` });
    });
  });
  return { child, open, result };
}

/** The peer as the service of a guest. */
export const servePeer = (bed: NetnsBed, slot: number, ports: number[]): Promise<void> =>
  bed.serve(slot, [process.execPath, PEER, 'serve'], ports);

/** A curl download; resolves with the body's hash and size, and curl's exit status. */
export function download(
  bed: NetnsBed,
  path: string,
  rate: string,
): { moved: () => number; result: Promise<{ sha256: string; bytes: number; code: number | null }> } {
  const url = `http://${SERVICE_ADDRESS}${path}`;
  const child = bed.lab.spawn(bed.client.name, ['curl', '-sS', '--retry', '0', '--limit-rate', rate, url], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const hash = createHash('sha256');
  let bytes = 0;
  child.stdout!.on('data', d => {
    hash.update(d);
    bytes += d.length;
  });
  const result = new Promise<{ sha256: string; bytes: number; code: number | null }>(resolve => {
    child.on('close', code => resolve({ sha256: hash.digest('hex'), bytes, code }));
  });
  return { moved: () => bytes, result };
}
