import koffi from 'koffi';
import type { GuestState } from '../hypervisor.js';
import { free, type Pointer, vir } from './binding.js';
import { libvirt } from './constants.js';
import type { LibvirtFailure } from './libvirt-error.js';

/** Thrown inside a worker; only its `failure` crosses to the main thread. */
export class CallFailed extends Error {
  constructor(readonly failure: LibvirtFailure) {
    super(failure.text);
  }
}

/** libvirt's error of this thread. It is thread-local, so it must be read where the call was made. */
export function lastFailure(lost = false): LibvirtFailure {
  return { code: vir.lastErrorCode(), domain: vir.lastErrorDomain(), text: vir.lastErrorMessage(), lost };
}

function check(result: number): number {
  if (result < 0) throw new CallFailed(lastFailure());
  return result;
}

function withDomain<T>(connection: Pointer, name: string, use: (domain: Pointer) => T): T {
  const domain = vir.lookupByName(connection, name);
  if (!domain) throw new CallFailed(lastFailure());
  try {
    return use(domain);
  } finally {
    vir.domainFree(domain);
  }
}

function stateOf(domain: Pointer): GuestState {
  const state: [number] = [0];
  check(vir.getState(domain, state, [0], 0));
  switch (state[0]) {
    case libvirt.state.paused:
    case libvirt.state.pmsuspended:
      return 'paused';
    case libvirt.state.crashed:
      return 'crashed';
    case libvirt.state.shutoff:
      return 'shutoff';
    default:
      return 'running';
  }
}

/** A refusal is success if the guest is where it was to go; the error is kept, since asking the state clears it. */
function checkUnless(result: number, domain: Pointer, wanted: GuestState): void {
  if (result >= 0) return;
  const failure = lastFailure();
  if (failure.code !== libvirt.error.operationInvalid || stateOf(domain) !== wanted)
    throw new CallFailed(failure);
}

/** `virVcpuInfo`: unsigned number, int state, unsigned long long cpuTime (ns), int cpu, padding. */
const vcpuInfoBytes = 24;
const maxVcpus = 64;

/** `virDomainBlockStatsStruct`: five long long. */
const blockStatsBytes = 40;

/** Every operation a lane can be asked for, on its own connection. Runs in a worker and blocks there. */
export const calls = {
  exists(connection: Pointer, name: string): boolean {
    const domain = vir.lookupByName(connection, name);
    if (domain) vir.domainFree(domain);
    else if (vir.lastErrorCode() !== libvirt.error.noDomain) throw new CallFailed(lastFailure());
    return domain !== null;
  },

  list(connection: Pointer): { name: string; state: GuestState }[] {
    const out: [Pointer | null] = [null];
    const count = check(vir.listAllDomains(connection, out, 0));
    const array = out[0];
    if (!array) return [];
    const domains = count > 0 ? (koffi.decode(array, 'void *', count) as Pointer[]) : [];
    const names = domains.map(domain => {
      const entry = { name: vir.domainName(domain), state: stateOf(domain) };
      vir.domainFree(domain);
      return entry;
    });
    free(array);
    return names;
  },

  /** An equal name that is off is replaced; the answer `running` means that nothing was done. */
  define(connection: Pointer, name: string, xml: string): 'defined' | 'running' {
    const old = vir.lookupByName(connection, name);
    if (old) {
      const active = vir.isActive(old) === 1;
      if (!active) vir.undefineFlags(old, libvirt.undefineEverything);
      vir.domainFree(old);
      if (active) return 'running';
    }
    const domain = vir.defineXml(connection, xml);
    if (!domain) throw new CallFailed(lastFailure());
    vir.domainFree(domain);
    return 'defined';
  },

  start(connection: Pointer, name: string, paused: boolean): void {
    withDomain(connection, name, domain =>
      check(vir.createWithFlags(domain, paused ? libvirt.startPaused : 0)),
    );
  },

  suspend(connection: Pointer, name: string): void {
    withDomain(connection, name, domain => checkUnless(vir.suspend(domain), domain, 'paused'));
  },

  resume(connection: Pointer, name: string): void {
    withDomain(connection, name, domain => checkUnless(vir.resume(domain), domain, 'running'));
  },

  destroy(connection: Pointer, name: string): void {
    withDomain(connection, name, domain => checkUnless(vir.destroy(domain), domain, 'shutoff'));
  },

  undefine(connection: Pointer, name: string): void {
    withDomain(connection, name, domain => {
      check(vir.undefineFlags(domain, libvirt.undefineEverything));
    });
  },

  dump(connection: Pointer, name: string, file: string): void {
    withDomain(connection, name, domain =>
      check(vir.coreDump(domain, file, libvirt.dumpFormatRaw, libvirt.dumpMemoryOnly)),
    );
  },

  /** Plugs a device into a guest that is on; its definition stays as it is. */
  attach(connection: Pointer, name: string, xml: string): void {
    withDomain(connection, name, domain => check(vir.attachDevice(domain, xml, libvirt.affectLive)));
  },

  /** What the guest is made of now. */
  describe(connection: Pointer, name: string): string {
    return withDomain(connection, name, domain => {
      const text = vir.xmlDescription(domain, 0);
      if (!text) throw new CallFailed(lastFailure());
      const xml = koffi.decode(text, 'char', -1) as string;
      free(text);
      return xml;
    });
  },

  state(connection: Pointer, name: string): GuestState {
    return withDomain(connection, name, stateOf);
  },

  /** A question that libvirt can't answer by itself: what all disks have done, which only the emulator's main loop knows. */
  roundTrip(connection: Pointer, name: string): void {
    const stats = Buffer.alloc(blockStatsBytes);
    withDomain(connection, name, domain => check(vir.blockStats(domain, '', stats, blockStatsBytes)));
  },

  /** Sum over the vCPUs, ns; libvirt counts in scheduler ticks (10 ms). */
  vcpuTimeNs(connection: Pointer, name: string): bigint {
    return withDomain(connection, name, domain => {
      const info = Buffer.alloc(vcpuInfoBytes * maxVcpus);
      const count = check(vir.getVcpus(domain, info, maxVcpus, null, 0));
      let total = 0n;
      for (let i = 0; i < count; i++) total += info.readBigUInt64LE(i * vcpuInfoBytes + 8);
      return total;
    });
  },
};

export type Calls = typeof calls;
export type Operation = keyof Calls;

type Tail<T extends unknown[]> = T extends [unknown, ...infer Rest] ? Rest : never;
/** Arguments of an operation, without the connection. */
export type Arguments<O extends Operation> = Tail<Parameters<Calls[O]>>;
