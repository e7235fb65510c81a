import { native } from '../../hypervisor-shim/native/native.js';
import { arpProbeFrame } from '../../hypervisor-shim/platform/arp-probe.js';
import { macBytes } from '../../hypervisor-shim/replay/namespace.js';
import type { GuestVm } from '../service/guest.js';
import { serviceMac } from '../service/network.js';
import type { Protection } from '../service/protection.js';
import type { Silence } from './evidence.js';
import { readThreads, type Threads, usedSince } from './threads.js';

/** A guest to which frames went and that sent none for so long is asked, ms; one that nobody spoke to, after a second. */
const ASK_AFTER_MS = 150;
const ASK_IDLE_AFTER_MS = 1000;
/** Between two questions, ms: less than a heartbeat period, whatever it is. */
const ASK_EVERY_MS = 40;

const ENODEV = 19;
/** IFF_UP and IFF_RUNNING. */
const CARRIER = 0x41;

interface Asked {
  at: number;
  lastAt: number;
  times: number;
  beat: bigint;
  threads: Threads;
}

/** Since when a tap has had no carrier. */
export class Carrier {
  #lost: { at: number; lateMs: number } | undefined;

  /**
   * For how long there is none, ms, less what we were late; undefined if there is one. It counts from the first look without: how
   * long before that it was lost, nobody knows. `error` of the look: to have been told nothing is no evidence.
   */
  look(at: number, lateMs: number, error: number, flags: number): number | undefined {
    if (this.#lost) this.#lost.lateMs += lateMs;
    if (error === -ENODEV || (error === 0 && (flags & CARRIER) !== CARRIER)) this.#lost ??= { at, lateMs: 0 };
    else if (error === 0) this.#lost = undefined;
    // Not while it is not known: the next look counts on.
    if (!this.#lost || (error !== 0 && error !== -ENODEV)) return undefined;
    return at - this.#lost.at - this.#lost.lateMs;
  }
}

/**
 * Watches the link of the active guest. What its tap counts tells whether the guest's kernel sends anything; if it does not, it is
 * asked for a frame (an ARP probe), so that a guest with nothing to say is told from one that cannot be heard.
 */
export class Link {
  /** Flags of the tap, and frames that passed it: received from the guest, sent to it, dropped on the way to it. */
  readonly #state = new Float64Array(4);
  /** When a frame last came from the guest. */
  #heardAt = 0;
  readonly #carrier = new Carrier();
  /** Frames by then, from the guest and to it. */
  #fromGuest = -1;
  #toGuest = 0;
  #lateMs = 0;
  #asked: Asked | undefined;
  readonly #socket = native.packetSocket();
  readonly #route = native.routeSocket();
  readonly #probe: Uint8Array;

  constructor(
    p: Protection,
    private readonly guest: GuestVm,
    at: number,
  ) {
    const address = Uint8Array.from(p.config.address.split('/')[0]!.split('.'), Number);
    const mac = macBytes(serviceMac(p.config));
    // From its own MAC: a bridge does not send the answer back to where it came from, so nobody else hears of it.
    this.#probe = arpProbeFrame(mac, address, mac);
    this.#heardAt = at;
  }

  close(): void {
    native.closeFd(this.#socket);
    native.closeFd(this.#route);
  }

  /**
   * One look. `lateMs` is what we ourselves were late since the last one; `urgent` asks the guest at once, however short its
   * silence is.
   */
  look(at: number, lateMs: number, beat: bigint, urgent: boolean): Silence {
    const error = native.linkState(this.#route, this.guest.ifindex, this.#state);
    const [flags = 0, fromGuest = 0, sent = 0, dropped = 0] = this.#state;
    const carrierLostMs = this.#carrier.look(at, lateMs, error, flags);
    this.#lateMs += lateMs;
    if (fromGuest !== this.#fromGuest) this.#heard(at, fromGuest, sent + dropped);
    const silentMs = at - this.#heardAt - this.#lateMs;
    const spokenTo = sent + dropped !== this.#toGuest;
    if (urgent || silentMs >= (spokenTo ? ASK_AFTER_MS : ASK_IDLE_AFTER_MS)) this.#ask(at, beat);
    const asked = this.#asked;
    return {
      carrier: carrierLostMs === undefined,
      carrierLostMs: carrierLostMs ?? 0,
      askedMs: asked ? at - asked.at - this.#lateMs - this.#waitedMs(asked) : 0,
      asked: asked?.times ?? 0,
      beats: asked ? Number(beat - asked.beat) : 0,
    };
  }

  #heard(at: number, fromGuest: number, toGuest: number): void {
    this.#heardAt = at;
    this.#fromGuest = fromGuest;
    this.#toGuest = toGuest;
    this.#lateMs = 0;
    this.#asked = undefined;
  }

  #ask(at: number, beat: bigint): void {
    if (this.#asked && at - this.#asked.lastAt < ASK_EVERY_MS) return;
    this.#asked ??= { at, lastAt: at, times: 0, beat, threads: readThreads(this.guest.pid) };
    this.#asked.lastAt = at;
    this.#asked.times++;
    // A tap that is down takes nothing; its carrier tells.
    native.packetSend(this.#socket, this.guest.ifindex, this.#probe);
  }

  #waitedMs(asked: Asked): number {
    if (asked.times < 2) return 0;
    const used = usedSince(asked.threads, readThreads(this.guest.pid));
    return used.mainWaitedMs + used.vcpuWaitedMs + used.stolenMs;
  }
}
