import { readFileSync } from 'node:fs';
import { run } from '../../lib/run.js';

/** The pins need a BPF file system; systemd mounts it, a bare machine does not. */
export async function ensureBpffs(): Promise<void> {
  if (/ \/sys\/fs\/bpf bpf /.test(readFileSync('/proc/mounts', 'utf8'))) return;
  await run(['mount', '-t', 'bpf', 'bpf', '/sys/fs/bpf']);
}
