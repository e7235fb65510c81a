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

/** Throws `HF_CONFIG_CONFLICT` if the management network of `config` overlaps that of another service. */
export function checkSubnet({ management }: ServiceConfig, others: ServiceConfig[]): void {
  for (const { name, management: other } of others) {
    if (!overlaps(parseCidr(other.subnet)!, parseCidr(management.subnet)!)) continue;
    throw new HoldfastError(
      'HF_CONFIG_CONFLICT',
      `management.subnet is ${management.subnet}, which overlaps that of ${name}, ${other.subnet}`,
      'Give each service a management network of its own.',
    );
  }
}
