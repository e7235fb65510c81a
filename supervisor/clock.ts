/** Now, ms since 1970 with fractions: one scale for all moments of a report, the replay worker's included. */
export const now = (): number => performance.timeOrigin + performance.now();

/** The same scale for a moment on CLOCK_MONOTONIC (`process.hrtime.bigint()`), ns. */
export const atMonotonic = (ns: bigint): number => now() - Number(process.hrtime.bigint() - ns) / 1e6;
