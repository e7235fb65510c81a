import { networkInterfaces } from 'node:os';
import { tool } from './tool.js';
import { guest, host } from './wire/control-page.js';
import { hostWord } from './words.js';

/** Gives the management NIC the further address that the host names, whenever it names one. */
export function followAddress(page: ArrayBuffer, everyMs: number): void {
  const u32 = new Uint32Array(page);
  const load = ({ offset }: { offset: number }) => Atomics.load(u32, offset / 4);
  let given: string | undefined;
  let busy = false;
  setInterval(async () => {
    const id = load(host.addressId);
    if (busy || id === load(guest.addressEcho)) return;
    busy = true;
    const text = `${formatAddress(load(host.address))}/${load(host.prefix)}`;
    let failed = 0;
    try {
      const nic = managementNic();
      if (given !== undefined) await ip('del', given, nic).catch(() => {});
      given = undefined;
      await ip('add', text, nic);
      given = text;
    } catch (error) {
      failed = 1;
      console.error(`holdfast: address ${text}: ${(error as Error).message}`);
    }
    Atomics.store(u32, guest.addressFailed.offset / 4, failed);
    Atomics.store(u32, guest.addressEcho.offset / 4, id);
    busy = false;
  }, everyMs);
}

const formatAddress = (address: number): string =>
  [24, 16, 8, 0].map(shift => (address >>> shift) & 255).join('.');

const ip = (verb: 'add' | 'del', address: string, nic: string) =>
  tool('ip', 'addr', verb, address, 'dev', nic);

/** The one that has the address that the host said first. */
function managementNic(): string {
  const address = hostWord('mgmt')?.split('/')[0];
  const found = Object.entries(networkInterfaces()).find(([, all]) =>
    all?.some(it => it.address === address),
  );
  if (!found) throw new Error('there is no management NIC');
  return found[0];
}
