import type { FlowVerdict } from '../../hypervisor-shim/replay/replayer.js';
import type { HoldfastEvent } from '../api/types.js';
import type { Fault } from '../service/protection.js';

/** A recovery whose replay ended early: its supervisor was killed, or the worker failed. The report of it is still owed. */
export interface Interrupted {
  fault: Fault;
  resumedAt: number;
  /** Among the recoveries of the service's history; a supervisor that was killed did not get so far. */
  counted: boolean;
}

/**
 * The recovery that a killed supervisor was at, from the event log, with the verdicts that it had given by then. What it spliced
 * in its last moment may be missing; the flow table has that.
 */
export async function readInterrupted(
  events: AsyncIterable<HoldfastEvent>,
  service: string,
): Promise<{ interrupted: Interrupted; verdicts: Map<string, FlowVerdict> } | undefined> {
  let open: { interrupted: Interrupted; verdicts: Map<string, FlowVerdict> } | undefined;
  for await (const { type, service: of, at, data } of events) {
    if (of !== service) continue;
    // A service of the same name, or a recovery that came to its end.
    if (type === 'service.starting' || type === 'recovery.done') open = undefined;
    else if (type === 'recovery.started') {
      const detectedAt = Number(data.detectedAt ?? at);
      const fault: Fault = {
        cause: (data.cause as Fault['cause']) ?? 'guest-gone',
        detail: 'its recovery was interrupted',
        detectedAt,
        fencedAt: Number(data.fencedAt ?? detectedAt),
        faultAt: typeof data.faultAt === 'number' ? data.faultAt : undefined,
      };
      // A second fault in the midst of a recovery: what was said of the connections before belongs into the same report.
      open = { interrupted: { fault, resumedAt: at, counted: false }, verdicts: open?.verdicts ?? new Map() };
    } else if (open && /^connection\.(kept|lost)$/.test(type)) {
      const verdict = { ...data, outcome: type.slice(11), id: data.flow } as unknown as FlowVerdict;
      open.verdicts.set(verdictKey(verdict), verdict);
    }
  }
  return open;
}

export const verdictKey = (verdict: FlowVerdict): string => `${verdict.id} ${verdict.client}`;
