import { readFileSync } from 'node:fs';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { ServiceConfig } from '../config/config.js';

/** QEMU's own memory, the supervisor: MiB beside guests, log and flow table. */
const OVERHEAD_MIB = 360;
/** Of each flow: its record, its places in the index and in the stack of free ones. */
const FLOW_BYTES = 640;

/** What a service takes of the host with so many guests, MiB: two when protected, three after a fault, the failed one kept. */
export function memoryNeed(
  config: Pick<ServiceConfig, 'guest' | 'log' | 'connections'>,
  guests: number,
): number {
  const table = Math.ceil((config.connections.max * FLOW_BYTES) / 2 ** 20);
  return guests * config.guest.memoryMiB + config.log.sizeMiB + table + OVERHEAD_MIB;
}

/** What the host can give without swapping, MiB. */
export const memoryAvailable = (): number => Math.floor(meminfo('MemAvailable') / 1024);

/** A line of /proc/meminfo: KiB, or a number of pages. */
export function meminfo(name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
}

/**
 * Throws `HF_MEMORY` if primary, backup and log do not fit. The log is allocated in full at the start, by the kernel: to try
 * would be to send the host out of memory, and its other services with it.
 */
export function checkMemory(config: ServiceConfig): void {
  const [need, available] = [memoryNeed(config, 2), memoryAvailable()];
  if (need <= available) return;
  const { guest, log } = config;
  throw new HoldfastError(
    'HF_MEMORY',
    `two guests of guest.memoryMiB ${guest.memoryMiB} and log.sizeMiB ${log.sizeMiB} take ${need} MiB, but ${available} MiB are available`,
    'Free memory, or lower guest.memoryMiB, log.sizeMiB or connections.max.',
  );
}
