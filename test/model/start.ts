import type { Ssw } from './state.js';

/** A data path at its start: guest 0 is active in `epoch` and listens, guest 1 is fenced. */
export const startingState = (compare: Ssw['compare'], seed: bigint, epoch: number): Ssw => ({
  ...{ active: 0, compare, seed, handshakes: new Map(), flows: new Map(), counted: [] },
  slots: [
    { epoch, listening: true },
    { epoch: undefined, listening: true },
  ],
});
