/** Time that connections get to finish what they have begun, ms, where nobody says another. */
export const DRAIN_MS = 30_000;
