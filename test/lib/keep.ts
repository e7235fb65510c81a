import { cpSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.js';

const WANTED = /\.(log|pcap|yaml|json|ndjson|stderr|console)$/;

/**
 * After a failure: copies logs, events and captures of a laboratory, whose own are removed, to a folder with its tag in the directory that
 * `HOLDFAST_TEST_KEEP` names. Nothing without that.
 */
export function keepLogs(lab: Lab, say: (line: string) => void): void {
  const directory = process.env.HOLDFAST_TEST_KEEP;
  if (!directory) return;
  const target = join(directory, lab.tag);
  try {
    const filter = (path: string) => {
      const found = statSync(path);
      return found.isDirectory() || (found.isFile() && WANTED.test(path));
    };
    cpSync(lab.dir, target, { recursive: true, filter });
    say(`logs and captures are in ${target}`);
  } catch (error) {
    say(`could not keep logs: ${error}`);
  }
}
