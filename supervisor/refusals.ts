import { HoldfastError } from '../hypervisor-shim/errors.js';
import { overlaps, parseCidr } from './config/cidr.js';
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
  return new HoldfastError('HF_SERVICE_BUSY', `${name} is being started`, 'Wait until it is protected.');
}

export function exists(name: string): HoldfastError {
  return new HoldfastError(
    'HF_SERVICE_EXISTS',
    `there is a service ${name} already`,
    `Stop it first (\`holdfast down ${name}\`), or choose another name.`,
  );
}

const host = (cidr: string): string => cidr.split('/')[0]!;

/** Throws `HF_CONFIG_CONFLICT` if `config` wants an address, or a management network, that another service has. */
export function checkConflicts(
  { management, address, uplink }: ServiceConfig,
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
    if (!overlaps(parseCidr(other.management.subnet)!, parseCidr(management.subnet)!)) continue;
    throw new HoldfastError(
      'HF_CONFIG_CONFLICT',
      `management.subnet is ${management.subnet}, which overlaps that of ${other.name}, ${other.management.subnet}`,
      'Give each service a management network of its own.',
    );
  }
}
