import type { ServiceConfig } from '../config/config.js';

/** What becomes of a guest whose service died. */
export type Remedy = { does: 'failover' } | { does: 'restart'; delayMs: number };

/** Pause before a restart that follows another, ms: doubled each time, up to the second. */
const BACKOFF_MS = [1000, 30_000] as const;

/**
 * The policy, and when it does not serve, the other: a service that dies again within the window is not restarted once more if a
 * backup can take over, and without a backup a restart is better than to wait for one. `restarts`: moments of those in this guest.
 */
export function chooseRemedy(
  { onApplicationExit, restartWindowMs }: ServiceConfig['recovery'],
  restarts: readonly number[],
  hasBackup: boolean,
  at: number,
): Remedy {
  const recent = restarts.filter(moment => moment > at - restartWindowMs).length;
  if (hasBackup && (onApplicationExit === 'failover' || recent > 0)) return { does: 'failover' };
  const [first, most] = BACKOFF_MS;
  return { does: 'restart', delayMs: recent === 0 ? 0 : Math.min(first * 2 ** (recent - 1), most) };
}
