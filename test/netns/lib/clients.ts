import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { SERVICE_ADDRESS, SERVICE_ADDRESS6 } from '../../lib/lab.js';
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

/** Over which family a client speaks, and from which namespace; default: IPv4, the laboratory's first client. */
export interface Place {
  family?: 4 | 6;
  namespace?: string;
}

const serviceAt = ({ family = 4 }: Place): string => (family === 6 ? SERVICE_ADDRESS6 : SERVICE_ADDRESS);

type Mode = 'fetch' | 'sink' | 'urgent' | 'chat' | 'random';

/** Starts the protocol peer as a client in the client namespace. */
export const startPeer = (bed: NetnsBed, mode: Mode, ...words: number[]): Client =>
  startPeerAt(bed, {}, mode, ...words);

export function startPeerAt(bed: NetnsBed, place: Place, mode: Mode, ...words: number[]): Client {
  const argv = [process.execPath, PEER, mode, serviceAt(place), ...words.map(String)];
  const child = bed.lab.spawn(place.namespace ?? bed.client.name, argv, {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
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
export const servePeer = (bed: NetnsBed, slot: number, ports: number[], rate?: number): Promise<void> =>
  bed.serve(slot, [process.execPath, PEER, 'serve', ...(rate ? [String(rate)] : [])], ports);

/** A curl download; resolves with the body's hash and size, and curl's exit status. */
export function download(
  bed: NetnsBed,
  path: string,
  rate: string,
  place: Place = {},
): {
  child: ChildProcess;
  moved: () => number;
  result: Promise<{ sha256: string; bytes: number; code: number | null }>;
} {
  const url = `http://${place.family === 6 ? `[${SERVICE_ADDRESS6}]` : SERVICE_ADDRESS}${path}`;
  const argv = ['curl', '-sS', '--globoff', '--retry', '0', '--limit-rate', rate, url];
  const child = bed.lab.spawn(place.namespace ?? bed.client.name, argv, {
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
  return { child, moved: () => bytes, result };
}
