import { existsSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { PAGE_BYTES } from '../../guest-agent/wire/control-page.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { ServiceConfig } from '../config/config.js';
import { findImage } from '../service/image.js';
import { meminfo, memoryAvailable, memoryNeed } from '../service/memory.js';
import { SHM, SLOTS } from '../service/names.js';
import { type Check, failure, type Look, ok, warning } from './finding.js';
import { builtImages, imageCache } from './images.js';
import type { Subject } from './subject.js';

const MIB = 2 ** 20;
const TMPFS_MAGIC = 0x0102_1994;
/** What an overlay grows to in a service that writes logs, MiB, and what is too little for any. */
const DISK_MIB = { plenty: 1024, least: 128 };
/** A service that was not described, as the defaults have it. */
const DEFAULTS = {
  guest: { memoryMiB: 384, vcpus: 1 },
  log: { sizeMiB: 256, onFull: 'backpressure' as const },
  connections: { max: 65_536, onFull: 'wait' as const },
};

/** Memory, disk, images. */
export function resourceChecks(subject: Subject): Check[] {
  return [
    { name: 'memory', remedy: 'Read /proc/meminfo by hand.', look: () => memory(subject) },
    { name: '/dev/shm', remedy: 'mount -t tmpfs tmpfs /dev/shm', look: shm },
    { name: 'disk', remedy: 'Choose another --state-dir.', look: () => disk(subject) },
    ...(subject.config?.log.spill
      ? [{ name: 'spill', remedy: 'Choose another log.spill.directory.', look: () => spill(subject) }]
      : []),
    { name: 'image', remedy: 'Run `images/build` to see what is wrong.', look: () => image(subject) },
  ];
}

async function memory({ config, services }: Subject): Promise<Look> {
  if (config && services.some(({ name }) => name === config.name))
    return ok(`${config.name} has its memory already`);
  const huge = Math.floor((meminfo('HugePages_Total') * meminfo('Hugepagesize')) / 1024);
  const wanted = config ?? DEFAULTS;
  const [has, protectedMiB, afterFault] = [memoryAvailable(), memoryNeed(wanted, 2), memoryNeed(wanted, 3)];
  const reserved = huge > 0 ? ` (${huge} MiB are reserved as huge pages, which guests do not use)` : '';
  const found = `${has} MiB are available${reserved}; primary, backup and a log of ${wanted.log.sizeMiB} MiB take ${protectedMiB} MiB`;
  const remedy = 'Free memory, or lower guest.memoryMiB or log.sizeMiB.';
  if (has < protectedMiB) return failure(found, remedy);
  if (has < afterFault)
    return warning(`${found}, and ${afterFault} MiB after a fault (recovery.former: keep)`, remedy);
  return ok(found);
}

async function shm(): Promise<Look> {
  const { bavail, bsize } = statfsSync(SHM);
  const need = (SLOTS.length * PAGE_BYTES) / MIB;
  const found = `${Math.floor((bavail * bsize) / MIB)} MiB are free; the control pages of a service take ${need} MiB`;
  return (bavail * bsize) / MIB < need ? failure(found, 'mount -o remount,size=64M /dev/shm') : ok(found);
}

/** The nearest directory that there is. */
function existing(path: string): string {
  let place = path;
  while (!existsSync(place)) place = dirname(place);
  return place;
}

async function spill({ config, stateDir }: Subject): Promise<Look> {
  const { directory = stateDir, sizeMiB } = config!.log.spill!;
  const place = existing(directory);
  if (!statSync(place).isDirectory())
    return failure(`log.spill.directory: ${place} is no directory`, 'Choose another log.spill.directory.');
  const { bavail, bsize, type } = statfsSync(place);
  const free = Math.floor((bavail * bsize) / MIB);
  const found = `${free} MiB are free in ${place} for ${sizeMiB} MiB of spilled log`;
  if (type === TMPFS_MAGIC)
    return warning(`${found}, but it is a tmpfs, which is memory`, 'Choose a directory of a disk.');
  return free < sizeMiB ? warning(found, 'Free some, or lower log.spill.sizeMiB.') : ok(found);
}

async function disk({ stateDir }: Subject): Promise<Look> {
  const place = existing(stateDir);
  const { bavail, bsize } = statfsSync(place);
  const free = Math.floor((bavail * bsize) / MIB);
  const found = `${free} MiB are free for overlay disks and logs in ${place}`;
  const remedy =
    'Free some, or choose another place with --state-dir: guests whose disks are full stand still.';
  if (free < DISK_MIB.least) return failure(found, remedy);
  return free < DISK_MIB.plenty ? warning(found, remedy) : ok(found);
}

async function image({ config }: Subject): Promise<Look> {
  const { source } = config ?? {};
  if (source?.kind === 'domain') {
    return failure(
      `source.domain is ${source.domain}: not yet supported`,
      'Give source.image or source.disk instead.',
    );
  }
  if (source?.kind === 'disk') return bootDisk(source);
  if (source && !existsSync(source.image)) {
    return failure(
      `source.image: there is no ${source.image}`,
      'Give the directory that `images/build` printed, or the YAML file of an appliance.',
    );
  }
  const built = builtImages(config);
  if (built[0]) return ports(built[0].ports, config?.ports) ?? ok(`built: ${built[0].place}`);
  return warning(
    `none is built in ${imageCache()}`,
    'The first `up` builds it, which takes minutes and fetches Debian packages; `images/build` does it ahead.',
  );
}

async function bootDisk(source: ServiceConfig['source']): Promise<Look> {
  try {
    return ok(
      `${(await findImage(source)).place} has a boot record; whether the agent is in it shows at the first boot`,
    );
  } catch (error) {
    if (error instanceof HoldfastError) return failure(error.message, error.remedy);
    throw error;
  }
}

/** The agent calls a service ready when what the image declares is listened on: other ports may stay silent. */
function ports(declared: number[] = [], wanted: number[] = []): Look | undefined {
  const foreign = wanted.filter(port => !declared.includes(port));
  if (foreign.length === 0) return undefined;
  return warning(
    `the image declares the ports ${declared.join(', ')}, ports of the configuration also names ${foreign.join(', ')}`,
    'See that something in the guest listens there, and declare it in the appliance’s YAML.',
  );
}
