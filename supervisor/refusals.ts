import { statSync } from 'node:fs';
import { HoldfastError } from '../hypervisor-shim/errors.js';
import { overlaps, parseCidr, parseCidr6 } from './config/cidr.js';
import type { ServiceConfig } from './config/config.js';

export function unknown(name: string): HoldfastError {
  return new HoldfastError(
    'HF_SERVICE_UNKNOWN',
    `there is no service ${JSON.stringify(name)}`,
    'Look at `holdfast status` for those there are.',
  );
}

export function cancelled(name: string): HoldfastError {
  return new HoldfastError('HF_STOPPING', `${name} is being stopped`, 'Start it again when it is.');
}

export function busy(name: string): HoldfastError {
  return new HoldfastError(
    'HF_SERVICE_BUSY',
    `${name} is being started or stopped`,
    'Wait until `holdfast status` says that it is done.',
  );
}

/** A running service does not change under its clients' connections. */
export function exists(name: string, changed: readonly string[]): HoldfastError {
  return new HoldfastError(
    'HF_SERVICE_EXISTS',
    `there is a service ${name} already, configured otherwise: ${changed.join(', ')} differ${changed.length > 1 ? '' : 's'}`,
    `It goes on as it is. Stop it first (\`holdfast down ${name}\`, which ends its connections), or choose another name.`,
  );
}

/** A disk that does not exist is found out later. */
function isSameFile(one: string, two: string): boolean {
  const [a, b] = [one, two].map(path => statSync(path, { throwIfNoEntry: false }));
  if (!a || !b) return one === two;
  return a.isBlockDevice() && b.isBlockDevice() ? a.rdev === b.rdev : a.dev === b.dev && a.ino === b.ino;
}

const host = (cidr: string): string => cidr.split('/')[0]!;

/** An IPv6 address can be written in many ways. */
const same6 = (one: string | undefined, other: string): boolean =>
  one !== undefined && Buffer.compare(parseCidr6(one)!.address, parseCidr6(other)!.address) === 0;

/** Throws `HF_CONFIG_CONFLICT` if `config` wants an address, a management network or a disk that another service has. */
export function checkConflicts(
  { management, address, address6, uplink, storage }: ServiceConfig,
  others: ServiceConfig[],
): void {
  for (const other of others) {
    if (other.uplink.bridge === uplink.bridge && host(other.address) === host(address)) {
      throw new HoldfastError(
        'HF_CONFIG_CONFLICT',
        `address is ${address}, which ${other.name} has on the bridge ${uplink.bridge} already`,
        'Give each service an address of its own, or list all its ports in one service.',
      );
    }
    if (address6 !== undefined && other.uplink.bridge === uplink.bridge && same6(other.address6, address6)) {
      throw new HoldfastError(
        'HF_CONFIG_CONFLICT',
        `address6 is ${address6}, which ${other.name} has on the bridge ${uplink.bridge} already`,
        'Give each service an address of its own, or list all its ports in one service.',
      );
    }
    if (storage.mode === 'handed-over' && other.storage.mode === 'handed-over') {
      if (isSameFile(storage.disk, other.storage.disk)) {
        throw new HoldfastError(
          'HF_CONFIG_CONFLICT',
          `storage.disk is ${storage.disk}, which ${other.name} has already`,
          'Give each service a disk of its own: two machines that mount one destroy what is on it.',
        );
      }
    }
    if (!overlaps(parseCidr(other.management.subnet)!, parseCidr(management.subnet)!)) continue;
    throw new HoldfastError(
      'HF_CONFIG_CONFLICT',
      `management.subnet is ${management.subnet}, which overlaps that of ${other.name}, ${other.management.subnet}`,
      'Give each service a management network of its own.',
    );
  }
}
