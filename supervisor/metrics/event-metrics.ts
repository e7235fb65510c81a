import { Counter, Histogram, type Registry } from 'prom-client';
import { VERDICT_CODES } from '../../hypervisor-shim/replay/protocol.js';
import type { HoldfastEvent } from '../api/types.js';

/** From a takeover of a few ms to a replay that ran into its deadline. */
const SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30];

/** What recoveries did, counted from their events: the log and the metrics cannot disagree (promise P6). */
export class EventMetrics {
  readonly #verdicts: Counter;
  readonly #detection: Histogram;
  readonly #resume: Histogram;
  readonly #splice: Histogram;
  readonly #errors: Counter;
  /** When the fault of the recovery under way was detected, by service. */
  readonly #detectedAt = new Map<string, number>();

  constructor(registry: Registry) {
    const registers = [registry];
    const histogram = (name: string, help: string) =>
      new Histogram({ name, help, labelNames: ['service'], buckets: SECONDS, registers });
    this.#verdicts = new Counter({
      name: 'holdfast_verdicts_total',
      help: 'Verdicts over connections: kept or lost, and why',
      labelNames: ['service', 'outcome', 'code'],
      registers,
    });
    this.#detection = histogram('holdfast_detection_seconds', 'From an injected fault to its detection');
    this.#resume = histogram('holdfast_resume_seconds', 'From the detection of a fault until the backup ran');
    this.#splice = histogram(
      'holdfast_splice_seconds',
      "From the detection of a fault to a connection's splice",
    );
    this.#errors = new Counter({
      name: 'holdfast_internal_errors_total',
      help: 'Errors that nobody foresaw and the daemon survived',
      registers,
    });
  }

  count({ type, service = '', data }: HoldfastEvent): void {
    if (type === 'daemon.error') this.#errors.inc();
    else if (type === 'recovery.started') this.#note(service, data.detectedAt);
    else if (type === 'recovery.done') this.#recovered(service, data);
    else if (type === 'connection.kept' || type === 'connection.lost') {
      const code = VERDICT_CODES.find(known => known === data.code) ?? 'other';
      this.#verdicts.inc({ service, outcome: type === 'connection.kept' ? 'kept' : 'lost', code });
      const since = this.#detectedAt.get(service);
      if (code === 'spliced' && since !== undefined) this.#observe(this.#splice, service, since, data.at);
    }
  }

  #note(service: string, detectedAt: unknown): void {
    if (typeof detectedAt === 'number') this.#detectedAt.set(service, detectedAt);
  }

  #recovered(service: string, { faultAt, detectedAt, resumedAt }: HoldfastEvent['data']): void {
    this.#detectedAt.delete(service);
    this.#observe(this.#detection, service, faultAt, detectedAt);
    this.#observe(this.#resume, service, detectedAt, resumedAt);
  }

  /** Moments in ms; what an event does not have is not observed. */
  #observe(histogram: Histogram, service: string, from: unknown, to: unknown): void {
    if (typeof from === 'number' && typeof to === 'number') {
      histogram.observe({ service }, Math.max(0, to - from) / 1000);
    }
  }
}
