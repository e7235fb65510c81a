import { CONST, type Control } from '../datapath/layout.generated.js';

/** How long the data path relies on the spiller for room, in steps of 1.07 s: longer than any pause of its. */
const LEASE = 3n;

/** The data path's clock for it: the twin of `room_is_made` in bpf/unlogged.h. */
const now = (): bigint => process.hrtime.bigint() >> BigInt(CONST.LEASE_SHIFT);

/** From now on and for a moment the data path holds input back that finds no room, whatever `onFull` says. */
export function promiseRoom(control: Control): void {
  control.spill_until = Number(now() + LEASE);
}

export const isRoomMade = (control: Control): boolean => now() < BigInt(control.spill_until);
