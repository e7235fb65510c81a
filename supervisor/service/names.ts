import { createHash } from 'node:crypto';
import { checkedName } from '../config/service-name.js';

/** Slots of a service's data path; each has taps of its own, which successive guests of the slot use. */
export const SLOTS = [0, 1, 2, 3] as const;
export const PIN_ROOT = '/sys/fs/bpf/holdfast';
export const SHM = '/dev/shm';

/** Longest prefix of an interface name (15 characters) that leaves room for `hf-`, `-` and a suffix of two. */
const BASE = 9;

/**
 * Every name outside the state directory that belongs to a service, derived from the service's name alone, so that `down`
 * finds all of it when nothing else is known any more.
 */
export class ServiceNames {
  readonly #base: string;

  /** Throws `HF_SERVICE_UNKNOWN` for what is no name: it becomes part of paths that are removed. */
  constructor(readonly service: string) {
    checkedName(service);
    this.#base = service.length <= BASE ? service : `${service.slice(0, 4)}${digest(service).slice(0, 5)}`;
  }

  /** The data path's end of the veth pair to the uplink, and the end on the uplink's bridge. */
  get wire(): string {
    return this.#device('s');
  }
  get wirePeer(): string {
    return this.#device('p');
  }
  get managementBridge(): string {
    return this.#device('m');
  }
  get replayDevice(): string {
    return this.#device('r');
  }
  get replayNamespace(): string {
    return `hf-${this.service}-replay`;
  }
  tap(slot: number): string {
    return this.#device(letters(slot));
  }
  managementTap(slot: number): string {
    return this.#device(`m${letters(slot)}`);
  }

  /** All interfaces there may be. */
  get devices(): string[] {
    const taps = SLOTS.flatMap(slot => [this.tap(slot), this.managementTap(slot)]);
    return [this.wire, this.wirePeer, this.replayDevice, ...taps, this.managementBridge];
  }

  /** Domain of the `generation`th guest: web-a, web-b, ... web-z, web-aa. */
  guest(generation: number): string {
    return `${this.service}-${letters(generation)}`;
  }

  isGuest(domain: string): boolean {
    return domain.startsWith(`${this.service}-`) && /^[a-z]+$/.test(domain.slice(this.service.length + 1));
  }

  /** File in /dev/shm that is a guest's control page. */
  page(guest: string): string {
    return `holdfast-${guest}`;
  }

  isPage(file: string): boolean {
    return file.startsWith('holdfast-') && this.isGuest(file.slice('holdfast-'.length));
  }

  get pins(): string {
    return `${PIN_ROOT}/${this.service}`;
  }

  #device(suffix: string): string {
    return `hf-${this.#base}-${suffix}`;
  }
}

/** Locally administered MAC that is the same whenever and wherever it is asked for. */
export function macFor(...words: (string | number)[]): string {
  return ['02', ...(digest(words.join(' ')).slice(0, 10).match(/../g) ?? [])].join(':');
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex');

/** a, b, ... z, aa, ab, ... */
function letters(index: number): string {
  const last = String.fromCharCode(97 + (index % 26));
  return index < 26 ? last : letters(Math.floor(index / 26) - 1) + last;
}
