import { readFileSync } from 'node:fs';

/** The kernel's command line of an appliance; the OEM strings of a machine that boots its own disk. Kernels with DMI show them. */
const SOURCES = ['/proc/cmdline', '/sys/firmware/dmi/tables/DMI'];

/** What the host says by `holdfast.NAME=VALUE` or `holdfast.NAME` (network.sh lists the names), or undefined. */
export function hostWord(name: string): string | undefined {
  return SOURCES.map(source => findWord(read(source), name)).find(value => value !== undefined);
}

/** The value of `holdfast.name=` in text or in a table of strings that end at what is not printable; empty if the name stands alone. */
export function findWord(table: string, name: string): string | undefined {
  const bare = `holdfast.${name}`;
  return table
    .split(/[^!-~]+/)
    .find(word => word === bare || word.startsWith(`${bare}=`))
    ?.slice(bare.length + 1);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
