import type { FlowEntry } from '../../hypervisor-shim/datapath/datapath.js';
import { resetsToClient, resetToGuest } from '../../hypervisor-shim/datapath/frames.js';
import { OP, RESULT } from '../../hypervisor-shim/datapath/layout.generated.js';
import { native } from '../../hypervisor-shim/native/native.js';
import type { VerdictCode } from '../../hypervisor-shim/replay/protocol.js';
import { hostAddresses } from '../config/config.js';
import { connectionStatus, type FlowOwners } from '../service/flows.js';
import type { Protection } from '../service/protection.js';

type Ending = Omit<FlowOwners, 'guestIn'> &
  Pick<Protection, 'say'> & { guestIn(slot: number): { name: string; ifindex: number } | undefined };

/** Ends a connection that cannot be kept, outside a replay: both its ends learn of it at once. `packets`: a packet socket. */
export function endLost(
  p: Ending,
  packets: number,
  { id, flow }: FlowEntry,
  { code, reason }: { code: VerdictCode; reason: string },
): void {
  if (p.path.transition(OP.LOSE, id, flow.generation) !== RESULT.DONE) return;
  const ends = { guestMac: p.path.control.guest_mac.slice(0, 6), ...hostAddresses(p.config) };
  const owner = p.guestIn(flow.owner);
  for (const frame of resetsToClient(flow, ends))
    native.packetSend(packets, p.path.control.wire_ifindex, frame);
  if (owner) native.packetSend(packets, owner.ifindex, resetToGuest(flow, ends));
  const { client, port, inputBytes, outputSent: outputBytes } = connectionStatus(p, flow);
  p.say('connection.lost', `${client} to port ${port}: ${reason}`, {
    ...{ flow: id, client, port, code, reason, inputBytes, outputBytes },
    epoch: flow.epoch,
  });
}
