import { existsSync, readdirSync, readFileSync, rmdirSync, unlinkSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeDirectories } from '../directories.js';
import { HoldfastError } from '../errors.js';
import { native } from '../native/native.js';
import { linkLocal } from './addresses.js';
import {
  COMPARE,
  CONST,
  Control,
  Flow,
  Key,
  ON_FULL,
  OP,
  RESULT,
  Request,
  ROLE,
  STAT,
  STATE,
  TABLE_FULL,
} from './layout.generated.js';
import { LogStore } from './log-store.js';
import { SpillFiles } from './spill-files.js';

const OBJECT = fileURLToPath(new URL('./ssw.bpf.o', import.meta.url));
const BPF_F_LOCK = 4;
const LARGE_SHARE = 5 / 8;
const FLOWS_AT_ONCE = 256;
/** Things that one call makes free. */
const FILL = 4096;
/** Where a record says whether it is free. */
const STATE_AT = (() => {
  const probe = new Flow();
  probe.state = 0xff;
  return probe.bytes.indexOf(0xff);
})();
/** One small segment in so many is kept for input; captures may not take it. */
const INPUT_SHARE = 4;

export interface DataPathOptions {
  /** Directory on a bpffs that receives this service's pins; must not exist yet. */
  pinDirectory: string;
  /** IPv4 address of the service, four bytes. */
  address: Uint8Array;
  /** Its IPv6 address, 16 bytes, if it has one. */
  address6?: Uint8Array | undefined;
  ports: number[];
  guestMac: Uint8Array;
  compare: 'sampled' | 'full';
  /** Memory of the log, MiB; allocated at once. */
  logMiB: number;
  /** What becomes of a connection whose input finds no room in the log. */
  onFull?: 'backpressure' | 'unprotected';
  /** Most that the log holds of one connection's input, MiB, and as much of its captured output; the same becomes of it then. */
  perConnectionMiB?: number | undefined;
  maxFlows: number;
  /** What becomes of a new connection's SYN when `maxFlows` are in use. */
  onTableFull?: 'wait' | 'refuse';
}

/** One flow as read under its lock. */
export interface FlowEntry {
  id: number;
  flow: Flow;
}

/**
 * The data path of one protected service: programs, flow table and log, all pinned in the kernel, so that they go on
 * without us (promise P5). Changing the path or fencing a guest is one aligned store to the mapped control block.
 */
export class DataPath {
  readonly control: Control;
  readonly log: LogStore;
  private readonly fds = new Map<string, number>();
  private readonly request = new Request();

  private constructor(readonly pinDirectory: string) {
    this.control = new Control(
      new DataView(native.mapFd(this.fd('control'), 4096 * Math.ceil(Control.BYTES / 4096))),
    );
    if (this.control.version !== 0 && this.control.version !== CONST.LAYOUT_VERSION) {
      throw new HoldfastError(
        'HF_PINS_VERSION',
        `the pinned data path in ${pinDirectory} has layout version ${this.control.version}, this supervisor knows ${CONST.LAYOUT_VERSION}`,
        'Stop the service with the version that made it (`holdfast down`), then start this one.',
      );
    }
    this.log = LogStore.map(
      this.fd('segments'),
      this.fd('slabs'),
      native.mapInfo(this.fd('slabs')).maxEntries,
    );
  }

  /** Loads and pins a new data path. */
  static create(o: DataPathOptions): DataPath {
    if (existsSync(o.pinDirectory)) {
      throw new HoldfastError(
        'HF_PINS_EXIST',
        `${o.pinDirectory} exists: a data path of this service is pinned already`,
        'Adopt it (`holdfast up`) or remove it (`holdfast down`).',
      );
    }
    const slabs = Math.max(2, Math.ceil((o.logMiB * 2 ** 20) / CONST.SLAB_BYTES));
    const large = Math.max(1, Math.floor(slabs * LARGE_SHARE));
    const inSmall = LogStore.slabLayout(1, CONST.SMALL_STRIDE).count;
    const inLarge = LogStore.slabLayout(1, CONST.LARGE_STRIDE).count;
    makeDirectories(o.pinDirectory);
    try {
      loadObject(o.pinDirectory, {
        flows: o.maxFlows,
        wire_index: o.maxFlows,
        free_flows: o.maxFlows,
        slabs,
        free_small: (slabs - large) * inSmall,
        free_large: large * inLarge,
        segments: (slabs - large) * inSmall + large * inLarge,
      });
      const path = new DataPath(o.pinDirectory);
      path.initialize(o, slabs, large);
      return path;
    } catch (e) {
      DataPath.remove(o.pinDirectory);
      throw e;
    }
  }

  /** Takes over what an earlier supervisor left pinned. */
  static adopt(pinDirectory: string): DataPath {
    return new DataPath(pinDirectory);
  }

  /** The files in `directory` that hold input which is not in memory any more. */
  spillFiles(directory: string): SpillFiles {
    return new SpillFiles(directory, this.control.seed);
  }

  /** Unpins everything; the programs go with their interfaces. */
  static remove(pinDirectory: string): void {
    if (!existsSync(pinDirectory)) return;
    for (const name of readdirSync(pinDirectory)) unlinkSync(`${pinDirectory}/${name}`);
    rmdirSync(pinDirectory);
    const parent = dirname(pinDirectory);
    if (basename(parent) === 'holdfast' && readdirSync(parent).length === 0) rmdirSync(parent);
  }

  private initialize(o: DataPathOptions, slabs: number, large: number): void {
    // The stack gives what came last: low ids first, for whoever reads the table reads up to the highest that was ever used.
    for (let first = FILL * Math.floor((o.maxFlows - 1) / FILL); first >= 0; first -= FILL) {
      this.fill(0, { first, count: Math.min(FILL, o.maxFlows - first), stride: 1 });
    }
    for (let slab = 0; slab < slabs; slab++) {
      const isLarge = slab >= slabs - large;
      const stride = isLarge ? CONST.LARGE_STRIDE : CONST.SMALL_STRIDE;
      this.fill(isLarge ? 2 : 1, LogStore.slabLayout(slab, stride));
    }
    const c = this.control;
    c.small_reserve = Math.floor(c.small_free / INPUT_SHARE);
    c.active = CONST.NO_SLOT;
    c.addr4 = new DataView(o.address.buffer, o.address.byteOffset, 4).getUint32(0, true);
    if (o.address6) new Uint8Array(c.addr6.buffer, c.addr6.byteOffset, 16).set(o.address6);
    new Uint8Array(c.link_local.buffer, c.link_local.byteOffset, 16).set(linkLocal(o.guestMac));
    c.compare = o.compare === 'full' ? COMPARE.FULL : COMPARE.SAMPLED;
    c.on_full = o.onFull === 'unprotected' ? ON_FULL.UNPROTECTED : ON_FULL.BACKPRESSURE;
    c.flow_share = BigInt((o.perConnectionMiB ?? 0) * 2 ** 20);
    c.table_full = o.onTableFull === 'refuse' ? TABLE_FULL.TABLE_REFUSE : TABLE_FULL.TABLE_WAIT;
    c.seed = crypto.getRandomValues(new BigUint64Array(1))[0]!;
    c.guest_mac.set(o.guestMac.subarray(0, 6));
    for (const port of o.ports) c.ports[port >>> 3]! |= 1 << (port & 7);
    c.version = CONST.LAYOUT_VERSION;
  }

  private fill(which: number, r: { first: number; count: number; stride: number }): void {
    Object.assign(this.request, { op: OP.FILL, which, ...r });
    native.programRun(this.fd('control_flow'), this.request.bytes);
  }

  /** Flow records that there are. */
  get maxFlows(): number {
    return native.mapInfo(this.fd('flows')).maxEntries;
  }

  /** Descriptor of a pinned map or program, opened once. */
  fd(name: string): number {
    let fd = this.fds.get(name);
    if (fd === undefined) {
      fd = native.bpfGet(`${this.pinDirectory}/${name}`);
      this.fds.set(name, fd);
    }
    return fd;
  }

  /**
   * @param wire the inner end of the service's veth: what is sent out of it arrives at the bridge
   * @param port its peer, the bridge's port: frames from and to the bridge are taken and given here, without a hop through the veth
   */
  attachWire(wire: number, port: number): void {
    this.control.wire_ifindex = wire;
    this.control.port_ifindex = port;
    native.tcAttach(port, this.fd('from_wire'), true);
  }

  attachReplay(ifindex: number, mac: Uint8Array): void {
    this.control.replay_mac.set(mac.subarray(0, 6));
    this.control.replay_ifindex = ifindex;
    native.tcAttach(ifindex, this.fd('from_replay'));
  }

  /** Gives a guest a slot; it stays fenced until it is activated. */
  attachGuest(slot: number, ifindex: number): void {
    const s = this.control.slots(slot);
    s.epoch = 0;
    s.listening = 0;
    s.ifindex = ifindex;
    native.tcAttach(ifindex, this.fd('from_guest'));
  }

  detachGuest(slot: number): void {
    this.fence(slot);
    this.control.slots(slot).ifindex = 0;
  }

  /** Revokes the guest's epoch: from this store on every flow of it is held, and nothing that it sends goes out. */
  fence(slot: number): void {
    this.control.slots(slot).epoch = 0;
    if (this.control.active === slot) this.control.active = CONST.NO_SLOT;
  }

  /** Makes the guest the one that takes new flows. Epochs are unique over the service's life. */
  activate(slot: number, epoch: number): void {
    this.control.slots(slot).epoch = epoch;
    this.control.active = slot;
  }

  setListening(slot: number, listening: boolean): void {
    this.control.slots(slot).listening = listening ? 1 : 0;
  }

  /** One flow, read under its lock; undefined if the record is free. */
  flow(id: number): Flow | undefined {
    const flow = new Flow();
    const key = new Uint8Array(Uint32Array.of(id).buffer);
    native.mapLookup(this.fd('flows'), key, flow.bytes, BPF_F_LOCK);
    return flow.state === STATE.FREE ? undefined : flow;
  }

  /** All flows that are not free, each read under its lock. */
  *flows(): Generator<FlowEntry> {
    const high = this.control.flow_high;
    const fd = this.fd('flows');
    for (let first = 0; first < high; first += FLOWS_AT_ONCE) {
      const ids = new Uint32Array(Math.min(FLOWS_AT_ONCE, high - first));
      const used = native.arrayScan(fd, first, Flow.BYTES, STATE_AT, BPF_F_LOCK, ids);
      const view = new DataView(used.buffer, used.byteOffset, used.length);
      for (let at = 0; at < used.length; at += Flow.BYTES)
        yield { id: ids[at / Flow.BYTES]!, flow: new Flow(view, at) };
    }
  }

  /** The flow of a client's connection, as its tuple is on the wire. */
  find(family: number, remote: Uint8Array, remotePort: number, localPort: number): FlowEntry | undefined {
    const key = new Key();
    key.bytes.set(remote.subarray(0, 16));
    Object.assign(key, { rport: remotePort, lport: localPort, role: ROLE.CLIENT_SIDE, family });
    const found = new Uint8Array(4);
    if (!native.mapLookup(this.fd('wire_index'), key.bytes, found, 0)) return undefined;
    const id = new DataView(found.buffer).getUint32(0, true);
    const flow = this.flow(id);
    // It may have been given back, and to another, in between.
    const same = flow?.key.bytes.every((byte, i) => byte === key.bytes[i]);
    return flow && same ? { id, flow } : undefined;
  }

  /** Whether the flow's owner still has the epoch in which it got the flow; otherwise the flow is held. */
  inCurrentEpoch(flow: Flow): boolean {
    return flow.epoch !== 0 && this.control.slots(flow.owner).epoch === flow.epoch;
  }

  /** Runs one transition of a flow in the kernel, compare-and-set on its generation; returns a `RESULT`. */
  transition(
    op: number,
    id: number,
    generation: number,
    more: Partial<Pick<Request, 'slot' | 'epoch' | 'in_end' | 'out' | 'first' | 'count'>> = {},
  ): number {
    Object.assign(this.request, { op, flow: id, generation, slot: 0, epoch: 0, in_end: 0n, out: 0n }, more);
    native.programRun(this.fd('control_flow'), this.request.bytes);
    return this.request.result;
  }

  /** Frees the records and segments of flows that closed at least `lingerNs` ago; returns how many. */
  reap(lingerNs: bigint): number {
    const before = process.hrtime.bigint() - lingerNs;
    let reaped = 0;
    for (const { id, flow } of this.flows()) {
      if (flow.state !== STATE.CLOSED || flow.closed_ns > before) continue;
      let result: number = RESULT.AGAIN;
      for (let i = 0; i < 100_000 && result === RESULT.AGAIN; i++) {
        result = this.transition(OP.REAP, id, flow.generation);
      }
      if (result === RESULT.DONE) reaped++;
    }
    return reaped;
  }

  /** Counters by name, summed over CPUs. */
  stats(): Record<keyof typeof STAT, number> {
    const cpus = possibleCpus();
    const out: Record<string, number> = {};
    for (const [name, index] of Object.entries(STAT)) {
      if (name === 'MAX') continue;
      const value = new BigUint64Array(cpus);
      native.mapLookup(
        this.fd('stats'),
        new Uint8Array(Uint32Array.of(index).buffer),
        new Uint8Array(value.buffer),
        0,
      );
      out[name] = Number(value.reduce((a, b) => a + b, 0n));
    }
    return out as Record<keyof typeof STAT, number>;
  }

  close(): void {
    for (const fd of this.fds.values()) native.closeFd(fd);
    this.fds.clear();
  }
}

function loadObject(pinDirectory: string, maxEntries: Record<string, number>): void {
  try {
    native.bpfLoad(OBJECT, pinDirectory, maxEntries);
  } catch (e) {
    throw new HoldfastError(
      'HF_BPF_LOAD',
      `the kernel did not take the data path: ${String((e as Error).message).slice(0, 1500)}`,
      'It needs Linux 6.1 or newer with BTF (/sys/kernel/btf/vmlinux), root, and memory for the log (log.sizeMiB).',
      { cause: e },
    );
  }
}

/** Per-CPU maps have one value for each possible CPU, present or not. */
function possibleCpus(): number {
  const text = readFileSync('/sys/devices/system/cpu/possible', 'utf8');
  return Math.max(...text.split(',').map(range => Number(range.split('-').pop()))) + 1;
}
