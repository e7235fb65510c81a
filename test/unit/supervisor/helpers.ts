import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../../../hypervisor-shim/errors.js';

/** The smallest valid configuration; tests append to it or replace parts of it. */
export const MINIMAL = `name: web
address: 192.0.2.10/24
ports: [80]
source: { image: /images/web }
uplink: { bridge: br0 }
`;

const folders: string[] = [];
process.once('exit', () => {
  for (const folder of folders) {
    rmSync(folder, { recursive: true, force: true });
  }
});

/** A new folder, short enough for socket paths, that goes with the test process. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'hf-'));
  folders.push(folder);
  return folder;
}

/** The `HoldfastError` that `action` throws; anything else fails the test. */
export async function errorOf(action: () => unknown): Promise<HoldfastError> {
  try {
    await action();
  } catch (error) {
    if (error instanceof HoldfastError) {
      return error;
    }
    throw error;
  }
  throw new Error('expected a HoldfastError, nothing was thrown');
}
