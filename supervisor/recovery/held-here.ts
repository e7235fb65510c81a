import { hostPort } from '../../hypervisor-shim/datapath/addresses.js';
import { resetToGuest } from '../../hypervisor-shim/datapath/frames.js';
import { OP, RESULT } from '../../hypervisor-shim/datapath/layout.generated.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { hostAddresses } from '../config/config.js';
import type { GuestVm } from '../service/guest.js';
import type { Protection } from '../service/protection.js';

/**
 * The connections of a service that is started again. The guest's list has those that were open there; a handshake that ended while
 * nobody listened left one that only the host knows, so all that there are on its ports are held.
 */
export class HeldHere {
  readonly #ports: ReadonlySet<number> | undefined;

  constructor(
    private readonly p: Protection,
    private readonly guest: GuestVm,
    service: number | undefined,
  ) {
    const ports = service === undefined ? undefined : p.maker.image.services[service]?.ports;
    this.#ports = ports && new Set(ports);
  }

  /** Call it when the service listens again and no new connection has been let in yet: all that are there are older. */
  rest(): void {
    const { path, config } = this.p;
    const { slot, ifindex } = this.guest;
    const ends = { guestMac: path.control.guest_mac.slice(0, 6), ...hostAddresses(config) };
    const packets = native.packetSocket();
    try {
      for (const { id, flow } of path.flows()) {
        if (flow.owner !== slot || !path.inCurrentEpoch(flow)) continue;
        if (this.#ports && !this.#ports.has(hostPort(flow.key.lport))) continue;
        const { generation, epoch } = flow;
        if (path.transition(OP.HOLD, id, generation, { slot, epoch }) !== RESULT.DONE) continue;
        native.packetSend(packets, ifindex, resetToGuest(flow, ends));
      }
    } finally {
      native.closeFd(packets);
    }
  }
}
