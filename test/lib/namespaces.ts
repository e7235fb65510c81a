import { readFileSync } from 'node:fs';
import { endProcesses } from './processes.js';
import { run } from './run.js';

export const namespaceName = (tag: string, part: string): string => `hf-${tag}-${part}`;
export const inside = (namespace: string, argv: readonly string[]): string[] => [
  'nsenter',
  `--net=/run/netns/${namespace}`,
  '--',
  ...argv,
];
export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

/** Processes found in namespaces of our name are ours by construction, also those that left their process group (QEMU). */
export async function removeNamespaces(tag: string): Promise<void> {
  const listed = await run(['ip', 'netns', 'list']);
  const names = listed.stdout.split('\n').map(line => line.split(' ')[0]!);
  for (const name of names.filter(name => name.startsWith(namespaceName(tag, '')))) {
    await endProcesses(() => namespacePids(name));
    await run(['ip', 'netns', 'del', name]);
  }
}

export async function namespacePids(name: string): Promise<number[]> {
  const { stdout } = await run(['ip', 'netns', 'pids', name], { allowFailure: true });
  return stdout.split(/\s+/).filter(Boolean).map(Number);
}
