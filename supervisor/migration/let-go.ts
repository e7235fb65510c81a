import { resetToGuest } from '../../hypervisor-shim/datapath/frames.js';
import { type Flow, OP, RESULT, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { hostAddresses } from '../config/config.js';
import type { GuestVm } from '../service/guest.js';
import type { Protection } from '../service/protection.js';

type Paths = Pick<Protection, 'path' | 'exchanges'>;
type Slot = Pick<GuestVm, 'slot'>;

/**
 * `between`: connections that stand between two exchanges, with nothing under way; `all`: the others, too, and what they have
 * under way is said again to the next guest.
 */
export type Which = 'between' | 'all';

/** Connections that have just left: with nothing to repeat, or with an exchange that is begun again; and those that have not. */
export interface Gone {
  moved: number;
  replayed: number;
  left: number;
}

/**
 * Takes from `guest`, which is well, the connections that can go: each is held, for the replayer to find.
 *
 * A busy client is never seen between two exchanges: its next request is there as soon as the last answer is. So a connection of which it is
 * known where exchanges end is told to leave (`HF_OP_LEAVE`), and the data path itself holds it when its next request begins; here it is
 * read whether that was so, and what came before is forgotten, before the replayer may have it.
 */
export function letGo(p: Paths, guest: Slot, which: Which): Gone {
  const { path, exchanges } = p;
  const gone = { moved: 0, replayed: 0, left: 0 };
  for (const { id, flow } of path.flows()) {
    if (flow.owner !== guest.slot || isOver(flow)) continue;
    const owner = { slot: guest.slot, epoch: flow.epoch };
    if (flow.epoch === 0) {
      if (!flow.leaves) continue;
      exchanges.trim(id, flow);
      gone[exchanges.boundary(id, flow)?.out === flow.out_sent ? 'moved' : 'replayed']++;
      path.transition(OP.LEAVE, id, flow.generation, { ...owner, count: 0 });
    } else if (!path.inCurrentEpoch(flow)) continue;
    else if (yields(p, owner, id, flow)) gone.moved++;
    else if (which === 'all' && holds(p, owner, id, flow)) gone.replayed++;
    else {
      gone.left++;
      if (!flow.leaves && exchanges.follows(id, flow))
        path.transition(OP.LEAVE, id, flow.generation, { ...owner, count: 1 });
    }
  }
  return gone;
}

const isOver = ({ state }: Flow): boolean => state === STATE.CLOSED || state === STATE.DIVERGED;

interface Owner {
  slot: number;
  epoch: number;
}

function yields({ path, exchanges }: Paths, owner: Owner, id: number, flow: Flow): boolean {
  const boundary = exchanges.boundary(id, flow);
  if (!boundary || boundary.in !== flow.in_end || boundary.out !== flow.out_sent) return false;
  const place = { in_end: boundary.in, out: boundary.out };
  const result = path.transition(OP.YIELD, id, flow.generation, { ...owner, ...place });
  // What `AGAIN` has left to be freed goes with the next trim.
  return result === RESULT.DONE || result === RESULT.AGAIN;
}

/** What the log does not have can be replayed nowhere: such a connection stays as long as it likes. */
const holds = ({ path }: Paths, owner: Owner, id: number, flow: Flow): boolean =>
  !flow.unlogged && path.transition(OP.HOLD, id, flow.generation, owner) === RESULT.DONE;

/** Those that have been told to leave `guest`, and have not, stay; those that just have come back by a replay, which finds no older socket. */
export function stay({ path, config }: Protection, { slot, ifindex }: GuestVm): void {
  const ends = { guestMac: path.control.guest_mac.slice(0, 6), ...hostAddresses(config) };
  const packets = native.packetSocket();
  for (const { id, flow } of path.flows()) {
    if (flow.owner !== slot || !flow.leaves) continue;
    path.transition(OP.LEAVE, id, flow.generation, { slot, epoch: flow.epoch, count: 0 });
    if (flow.epoch === 0) native.packetSend(packets, ifindex, resetToGuest(flow, ends));
  }
  native.closeFd(packets);
}

/** How many connections a guest has. */
export function owned({ path }: Pick<Paths, 'path'>, { slot }: Slot): number {
  let n = 0;
  for (const { flow } of path.flows())
    if (flow.owner === slot && (path.inCurrentEpoch(flow) || flow.leaves) && !isOver(flow)) n++;
  return n;
}
