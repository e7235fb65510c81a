import { closeSync, openSync, readSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'];
/** States as these tables have them (include/net/tcp_states.h). */
const [ESTABLISHED, CLOSE_WAIT, LISTEN] = ['01', '08', '0A'];

export interface Listener {
  port: number;
  /** Connections that wait to be accepted. */
  queued: number;
}

const window = Buffer.alloc(16 << 10);

/**
 * TCP ports in LISTEN state, from /proc/net/tcp and tcp6. The kernel prints listeners before all other sockets, so
 * the first block is enough and the cost does not grow with the number of connections.
 */
export function listeningPorts(): Set<number> {
  return new Set(listeners().map(({ port }) => port));
}

/** The same, with how many connections wait to be accepted. */
export function listeners(): Listener[] {
  return TABLES.flatMap(path => parseListeners(readHead(path)));
}

/** The leading LISTEN lines of such a table. */
export function parseListeners(table: string): Listener[] {
  const found: Listener[] = [];
  for (const line of table.split('\n').slice(1)) {
    const [, local, , state, queues] = line.trim().split(/\s+/);
    const port = portOf(local);
    if (state !== LISTEN || port === undefined) break;
    found.push({ port, queued: Number.parseInt(queues?.split(':')[1] ?? '', 16) || 0 });
  }
  return found;
}

/**
 * Connections to one of `ports` that nobody has accepted yet, each by its two ends: established, maybe closed by the client, and with no
 * inode, which a socket gets when a process does. Reads the whole table.
 */
export async function unaccepted(ports: ReadonlySet<number>): Promise<Set<string>> {
  const tables = await Promise.all(TABLES.map(path => readFile(path, 'latin1').catch(() => '')));
  return new Set(tables.flatMap(table => parseUnaccepted(table, ports)));
}

export function parseUnaccepted(table: string, ports: ReadonlySet<number>): string[] {
  return table.split('\n').flatMap(line => {
    const [, local, remote, state, , , , , , inode] = line.trim().split(/\s+/);
    const isOpen = state === ESTABLISHED || state === CLOSE_WAIT;
    return isOpen && inode === '0' && ports.has(portOf(local) ?? 0) ? [`${local} ${remote}`] : [];
  });
}

function portOf(address = ''): number | undefined {
  const hex = /:([0-9A-F]{4})$/.exec(address)?.[1];
  return hex === undefined ? undefined : Number.parseInt(hex, 16);
}

function readHead(path: string): string {
  let fd: number | undefined;
  try {
    fd = openSync(path, 'r');
    return window.toString('latin1', 0, readSync(fd, window, 0, window.length, 0));
  } catch {
    return ''; // a kernel without IPv6 has no tcp6
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
