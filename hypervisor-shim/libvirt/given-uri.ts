import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../errors.js';
import { LibvirtConnection } from './connection.js';
import { LibvirtError } from './libvirt-error.js';

/** A host that does not answer at all would keep libvirt waiting for minutes. */
const OPEN_MS = 20_000;

/** Opens a URI that an operator wrote. Rejects with `HF_LIBVIRT_URI`, naming it, if nobody answers there. */
export async function openGivenUri(uri: string): Promise<LibvirtConnection> {
  const deadline = new AbortController();
  const late = sleep(OPEN_MS, undefined, { signal: deadline.signal, ref: false }).then(() => {
    throw unusable(uri, `no answer after ${OPEN_MS / 1000} s`);
  });
  const opening = LibvirtConnection.open(uri);
  // Whoever loses the race is nobody's concern any more.
  late.catch(() => {});
  opening.catch(() => {});
  try {
    return await Promise.race([opening, late]);
  } catch (error) {
    if (error instanceof LibvirtError) throw unusable(uri, error.libvirtText, error);
    throw error;
  } finally {
    deadline.abort();
  }
}

function unusable(uri: string, why: string, cause?: Error): HoldfastError {
  return new HoldfastError(
    'HF_LIBVIRT_URI',
    `hypervisor.uri is ${uri}, which cannot be opened: ${why}`,
    'Correct it (`virsh -c URI list` must work here), or leave it out: then a private libvirtd is started.',
    { cause },
  );
}
