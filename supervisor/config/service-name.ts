import { HoldfastError } from '../../hypervisor-shim/errors.js';

/** Interface names are this plus a suffix, and Linux allows them 15 characters. It is part of paths, too: no dots, no slashes. */
export const SERVICE_NAME = /^[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?$/;
export const SERVICE_NAME_IS =
  'a DNS label of at most 12 characters: lower-case letters, digits and inner hyphens';

/** Throws `HF_SERVICE_UNKNOWN` if no service can be called so; gives the name. */
export function checkedName(name: string): string {
  if (SERVICE_NAME.test(name)) return name;
  throw new HoldfastError(
    'HF_SERVICE_UNKNOWN',
    `there is no service ${JSON.stringify(name)}: expected ${SERVICE_NAME_IS}`,
    'Look at `holdfast status` for those there are.',
  );
}
