import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { native } from '../../hypervisor-shim/native/native.js';
import type { Lab } from '../lib/lab.js';
import { repositoryRoot, run, waitFor } from '../lib/run.js';

/** Legs of the laboratory: each client to data path, data path to each guest, replay sockets to data path. */
export const LEGS = ['client0', 'client1', 'client2', 'client3', 'guest0', 'guest1', 'replay'] as const;
export type Leg = (typeof LEGS)[number];
/** Towards the service, or from it. */
const WAYS = ['in', 'out'] as const;
export type Way = (typeof WAYS)[number];
export type Kind = 'loss' | 'duplication' | 'reordering';

/** Where a leg's frames pass: a device, and on which of its hooks those towards the service do. */
export interface LegPlace {
  namespace: string;
  device: string;
  inward: 'ingress' | 'egress';
}

export interface Effects {
  seen: number;
  lost: number;
  doubled: number;
  held: number;
}

/** 32-bit words of `struct way` in inject.bpf.c. */
const WORD = {
  loss: 0,
  twice: 1,
  hold: 2,
  seed: 3,
  ifindex: 4,
  tap: 5,
  ingress: 6,
  firstPort: 7,
  firstClient: 8,
  seen: 9,
  lost: 10,
  doubled: 11,
  held: 12,
  cut: 16,
} as const;
const CLIENTS = 8;
const STAGES = 64;
const WORDS = WORD.cut + 2 * STAGES * CLIENTS;
const PAGE = 4096;
const KNOB: Record<Kind, number> = { loss: WORD.loss, duplication: WORD.twice, reordering: WORD.hold };

const BUILD = join(repositoryRoot(), 'build/test/sweep');
let compiled: Promise<void> | undefined;

/** Once in a process. */
async function compile(): Promise<void> {
  const source = join(repositoryRoot(), 'test/sweep');
  const include = `-I/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`;
  await run([
    ...['clang', '-O2', '-g', '-target', 'bpf', '-mcpu=v3', include],
    ...['-c', `${source}/inject.bpf.c`, '-o', `${BUILD}/inject.o`],
  ]);
  await run(['gcc', '-O2', '-Wall', '-Werror', `${source}/hold.c`, '-o', `${BUILD}/hold`]);
}

/**
 * Loss, duplication and reordering on the legs of a laboratory, and cuts of single connections; a connection is named by the
 * number of its port (stage) and of its client.
 */
export class Injector {
  private readonly words: Uint32Array;

  private constructor(
    private readonly lab: Lab,
    private readonly pins: string,
    private readonly firstPort: number,
    private readonly firstClient: number,
  ) {
    const bytes = Math.ceil((LEGS.length * 2 * WORDS * 4) / PAGE) * PAGE;
    const fd = native.bpfGet(`${pins}/ways`);
    this.words = new Uint32Array(native.mapFd(fd, bytes));
    native.closeFd(fd);
  }

  /** Loads it for a laboratory; `attach` each leg then. */
  static async create(lab: Lab, firstPort: number, firstClient: number): Promise<Injector> {
    compiled ??= compile();
    await compiled;
    const pins = `/sys/fs/bpf/holdfast/${lab.tag}i`;
    DataPath.remove(pins);
    mkdirSync(pins, { recursive: true });
    native.bpfLoad(`${BUILD}/inject.o`, pins, {});
    return new Injector(lab, pins, firstPort, firstClient);
  }

  async attach(leg: Leg, place: LegPlace): Promise<void> {
    const { namespace, device } = place;
    const taps = { in: `hold${leg}i`, out: `hold${leg}o` };
    const child = this.lab.spawn(namespace, [`${BUILD}/hold`, taps.in, taps.out], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let ready = false;
    child.stdout!.once('data', () => {
      ready = true;
    });
    await waitFor('the holder of frames', 10_000, () => ready || undefined);
    // the filter comes first of all on its hook: the others (a shifted clock) see what it lets through
    const hooks = ['in', 'out'].map(way =>
      (way === 'in') === (place.inward === 'ingress') ? 'ingress' : 'egress',
    );
    const bpf = (program: string): string => `pref 1 bpf direct-action object-pinned ${this.pins}/${program}`;
    const commands = WAYS.flatMap((way, i) => [
      `sysctl -qw net.ipv6.conf.${taps[way]}.disable_ipv6=1`,
      `ip link set ${taps[way]} mtu 9000 up`,
      `tc qdisc add dev ${taps[way]} clsact`,
      `tc filter add dev ${taps[way]} ingress ${bpf(`resume_${this.number(leg, way)}`)}`,
      `tc filter add dev ${device} ${hooks[i]} ${bpf(`inject_${this.number(leg, way)}`)}`,
    ]);
    const clsact = `{ tc qdisc add dev ${device} clsact 2>/dev/null || true; }`;
    await this.lab.exec(namespace, ['sh', '-c', [clsact, ...commands].join(' && ')]);
    const links: { ifname: string; ifindex: number }[] = JSON.parse(
      (await this.lab.exec(namespace, ['ip', '-j', 'link', 'show'])).stdout,
    );
    const index = (name: string): number => links.find(link => link.ifname === name)!.ifindex;
    for (const [i, way] of WAYS.entries()) {
      const w = this.number(leg, way) * WORDS;
      this.words[w + WORD.ifindex] = index(device);
      this.words[w + WORD.tap] = index(taps[way]);
      this.words[w + WORD.ingress] = hooks[i] === 'ingress' ? 1 : 0;
      this.words[w + WORD.firstPort] = this.firstPort;
      this.words[w + WORD.firstClient] = this.firstClient;
    }
  }

  private number(leg: Leg, way: Way): number {
    return 2 * LEGS.indexOf(leg) + (way === 'in' ? 0 : 1);
  }

  /** From now on `share` of the leg's frames (0 to 1) meet this fate, both ways. */
  disturb(leg: Leg, kind: Kind, share: number, seed: number): void {
    for (const way of WAYS) {
      const w = this.number(leg, way) * WORDS;
      this.words[w + WORD.seed] = seed + 1000 * LEGS.indexOf(leg);
      this.words[w + KNOB[kind]] = Math.round(share * 65536);
    }
  }

  /** Lets nothing of a connection pass, or only SYNs. */
  cut(leg: Leg, way: Way, stage: number, client: number, what: 'all' | 'but SYN' = 'all'): void {
    this.words[this.number(leg, way) * WORDS + WORD.cut + stage * CLIENTS + client] = what === 'all' ? 1 : 2;
  }

  /** Ends all cuts. */
  mend(): void {
    for (let n = 0; n < LEGS.length * 2; n++) {
      this.words.fill(0, n * WORDS + WORD.cut, n * WORDS + WORD.cut + STAGES * CLIENTS);
    }
  }

  /** Frames of this connection that were cut, on all legs. */
  cutFrames(stage: number, client: number): number {
    let sum = 0;
    for (let n = 0; n < LEGS.length * 2; n++) {
      sum += this.words[n * WORDS + WORD.cut + STAGES * CLIENTS + stage * CLIENTS + client]!;
    }
    return sum;
  }

  /** What was done to a leg's frames so far. */
  effects(leg: Leg): Effects {
    const sum = (word: number) =>
      this.words[this.number(leg, 'in') * WORDS + word]! +
      this.words[this.number(leg, 'out') * WORDS + word]!;
    return { seen: sum(WORD.seen), lost: sum(WORD.lost), doubled: sum(WORD.doubled), held: sum(WORD.held) };
  }

  dispose(): void {
    DataPath.remove(this.pins);
  }
}
