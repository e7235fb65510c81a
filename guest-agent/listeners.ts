import { closeSync, openSync, readSync } from 'node:fs';

const LISTEN = '0A';
const window = Buffer.alloc(16 << 10);

/**
 * TCP ports in LISTEN state, from /proc/net/tcp and tcp6. The kernel prints listeners before all other sockets, so
 * the first block is enough and the cost does not grow with the number of connections.
 */
export function listeningPorts(): Set<number> {
  return new Set(['/proc/net/tcp', '/proc/net/tcp6'].flatMap(path => parseListeners(readHead(path))));
}

/** Local ports of the leading LISTEN lines of such a table. */
export function parseListeners(table: string): number[] {
  const ports: number[] = [];
  for (const line of table.split('\n').slice(1)) {
    const [, local, , state] = line.trim().split(/\s+/);
    const port = /:([0-9A-F]{4})$/.exec(local ?? '')?.[1];
    if (state !== LISTEN || port === undefined) break;
    ports.push(Number.parseInt(port, 16));
  }
  return ports;
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
