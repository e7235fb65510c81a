import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { isRunning, readPidFile } from '../../hypervisor-shim/libvirt/processes.js';
import { ControlClient } from '../api/client.js';
import { links } from '../service/ip.js';
import { PIN_ROOT, ServiceNames, SHM } from '../service/names.js';
import { heldServices, holderOf } from '../service/service-lock.js';
import { ServiceFiles, savedServices } from '../service/state-file.js';
import { type Check, failure, type Look, ok, warning } from './finding.js';
import type { Subject } from './subject.js';

/** What supervisors that are gone left behind. Only told of: nothing of it is removed without an operator's word. */
export function leftoverChecks({ stateDir, socket }: Subject): Check[] {
  return [
    { name: 'services', remedy: '', look: () => services(stateDir, socket) },
    { name: 'leftovers', remedy: '', look: () => strangers(stateDir) },
  ];
}

/** Each service of the state directory: can a supervisor of this version take it over? */
async function services(stateDir: string, socket: string): Promise<Look[]> {
  const names = savedServices(stateDir);
  if (names.length === 0) return [ok(`none in ${stateDir}`)];
  const watched = await isWatched(socket);
  return names.map(name => {
    const remedy = `\`holdfast down ${name}\` removes what is left of it; then protect it again.`;
    if (!new ServiceFiles(stateDir, name).load())
      return failure(`${name}: its state file is damaged`, remedy);
    const pid = holderOf(name);
    if (pid !== undefined) return ok(`${name} is there, daemon ${pid} has it`);
    try {
      DataPath.adopt(new ServiceNames(name).pins).close();
    } catch (error) {
      const known = error instanceof HoldfastError;
      return failure(
        `${name}: ${known ? error.message : 'its data path is not pinned'}`,
        known ? error.remedy : remedy,
      );
    }
    if (watched) return ok(`${name} is there`);
    return warning(`${name}: no supervisor watches over it`, '`holdfast up` takes it over.');
  });
}

async function isWatched(socket: string): Promise<boolean> {
  const client = new ControlClient(socket);
  return client.daemon().then(
    () => true,
    () => false,
  );
}

/** What bears our names and belongs to no service of this state directory, nor of a daemon that runs. */
async function strangers(stateDir: string): Promise<Look[]> {
  // Another daemon's that is alive is no leftover.
  const known = [...savedServices(stateDir), ...heldServices()].map(name => new ServiceNames(name));
  const owned = (test: (names: ServiceNames) => boolean) => known.some(test);
  const found = [
    ...list(PIN_ROOT)
      .filter(pins => !pins.includes('_') && !owned(names => names.service === pins))
      .map(pins => `pinned data path ${join(PIN_ROOT, pins)}`),
    ...list(SHM)
      .filter(file => file.startsWith('holdfast-') && !owned(names => names.isPage(file)))
      .map(file => `control page ${join(SHM, file)}`),
    ...(await links())
      .map(({ ifname }) => ifname)
      .filter(name => /^hf-.+-/.test(name) && !owned(names => names.devices.includes(name)))
      .map(name => `interface ${name}`),
    ...(await guests(stateDir))
      .filter(guest => !owned(names => names.isGuest(guest)))
      .map(guest => `guest ${guest}`),
  ];
  if (found.length === 0) return [ok('none')];
  const remedy = '`holdfast down SERVICE` with the name it bears removes it.';
  return found.map(what => warning(`${what} belongs to no service in ${stateDir}`, remedy));
}

/** Guests of the private libvirtd that run. */
async function guests(stateDir: string): Promise<string[]> {
  const directory = join(stateDir, 'libvirt/run/qemu');
  const running: string[] = [];
  for (const file of list(directory)) {
    const pid = file.endsWith('.pid') ? await readPidFile(join(directory, file)) : undefined;
    if (pid !== undefined && (await isRunning(pid))) running.push(file.slice(0, -'.pid'.length));
  }
  return running;
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
