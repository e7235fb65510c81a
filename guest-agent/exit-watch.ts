import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Cgroup } from './cgroup.js';
import { type AgentAddon, loadAddon } from './native/native.js';
import type { ControlPage } from './page.js';
import type { ServiceSpec } from './services.js';
import { tool } from './tool.js';
import { crashes, guest } from './wire/control-page.js';
import { hostWord } from './words.js';

const OBJECT = fileURLToPath(new URL('./bpf/exit-watch.bpf.o', import.meta.url));
const PINS = '/sys/fs/bpf/holdfast';
const NICS = '/sys/class/net';
/** The kernel would load them by itself if there were a modprobe. */
const MODULES = ['sch_ingress', 'cls_bpf'];

type Ports = Pick<ServiceSpec, 'ports'>;

/** The exit watch (bpf/exit-watch.bpf.c) of this machine: no connection of a process that dies says goodbye. */
export class ExitWatch {
  private constructor(private readonly addon: AgentAddon) {}

  /** Loads it. Without it (a kernel without BTF, say) services run all the same; what is lacking is told. */
  static async open(page: ControlPage, services: readonly Ports[]): Promise<ExitWatch | undefined> {
    try {
      for (const module of MODULES) await tool('modprobe', module);
    } catch {
      // built in, or the load says what is missing
    }
    try {
      const addon = loadAddon();
      const layout = {
        head: guest.crashHead.offset,
        entries: crashes.offset,
        count: crashes.count,
      };
      addon.watchExits(OBJECT, PINS, serviceNic(), protectedPorts(services), page.buffer, layout);
      return new ExitWatch(addon);
    } catch (error) {
      console.error(`holdfast: no exit watch: ${(error as Error).message}`);
      return undefined;
    }
  }

  /** `main` 0: it is about to start. An announced stop is no fault. */
  watch(
    cgroup: Cgroup,
    service: number,
    main: number,
    spec: Pick<ServiceSpec, 'cleanExit'>,
    announced: boolean,
  ): void {
    this.addon.watchService(cgroup.id, service, main, announced, spec.cleanExit === 'crash');
  }
}

/** Of the configuration, as the host says; without that all that services declare. */
export function protectedPorts(services: readonly Ports[]): number[] {
  const given = hostWord('ports');
  return given === undefined ? services.flatMap(service => service.ports) : given.split(',').map(Number);
}

/** The first NIC in the order of their place on the bus, as in network.sh. */
function serviceNic(): number {
  const nics = readdirSync(NICS).flatMap(name => {
    try {
      return [{ name, place: realpathSync(`${NICS}/${name}/device`) }];
    } catch {
      return []; // no hardware behind it
    }
  });
  const [first] = nics.sort((a, b) => (a.place < b.place ? -1 : 1));
  if (first === undefined) throw new Error('there is no NIC');
  return Number(readFileSync(`${NICS}/${first.name}/ifindex`, 'latin1'));
}
