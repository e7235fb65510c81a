import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Local ports of the TCP connections a process has open, from /proc: wget does not tell. Empty once it has ended. */
export function openPorts(pid: number): number[] {
  try {
    const inodes = new Set<string>();
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(link(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode !== undefined) inodes.add(inode);
    }
    if (inodes.size === 0) return [];
    return ['tcp', 'tcp6'].flatMap(table =>
      readFileSync(`/proc/${pid}/net/${table}`, 'latin1')
        .split('\n')
        .slice(1)
        .map(line => line.trim().split(/\s+/))
        .filter(field => inodes.has(field[9] ?? ''))
        .map(field => Number.parseInt(field[1]!.split(':')[1]!, 16)),
    );
  } catch {
    return [];
  }
}

/** How far a process has read a file it has open: the progress of an upload. Undefined when it has it open no more. */
export function filePosition(pid: number, path: string): number | undefined {
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      if (link(`/proc/${pid}/fd/${fd}`) !== path) continue;
      return Number(/^pos:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'))?.[1]);
    }
  } catch {
    // ended meanwhile
  }
  return undefined;
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
