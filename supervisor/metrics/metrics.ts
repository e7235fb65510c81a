import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { CONST } from '../../hypervisor-shim/datapath/layout.generated.js';
import { CAUSES, servicePhase } from '../api/schemas.js';
import type { EventLog } from '../events/event-log.js';
import { EventMetrics } from './event-metrics.js';
import type { ServiceSample } from './sample.js';

/**
 * Everything an operator may want to graph or be woken by. What happened is counted from the event log as it is written,
 * what is now (and the kernel's own counters) is read at the scrape. Labels come from fixed sets and the names of services.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #events: EventLog;

  readonly #phase = this.#gauge('service_phase', '1 for the phase a service is in, 0 for the others', [
    'phase',
  ]);
  readonly #epoch = this.#gauge('service_epoch', 'Epoch of the service: raised by each takeover');
  readonly #started = this.#gauge('service_start_time_seconds', 'When the service was first protected');
  readonly #guests = this.#gauge('guests', 'Guests by role and state', ['role', 'state']);
  readonly #heartbeat = this.#gauge(
    'guest_heartbeat_age_seconds',
    "Since the active guest's heartbeat last moved",
  );
  readonly #connections = this.#gauge('connections', 'Open connections by state', ['state']);
  readonly #maxConnections = this.#gauge('connections_max', 'Connections that can be open at once');
  readonly #segments = this.#gauge('log_segments', 'Segments of the connection log', ['size', 'state']);
  readonly #logUsed = this.#gauge('log_used_bytes', 'Bytes of the connection log that are in use');
  readonly #logSize = this.#gauge('log_size_bytes', 'Bytes of the connection log');
  readonly #spillUsed = this.#gauge('log_spill_bytes', 'Bytes of the files that the log is spilled to');
  readonly #spillSize = this.#gauge('log_spill_size_bytes', 'Bytes that those files may have');
  readonly #spillFull = this.#gauge('log_spill_full', '1 while the files have no room, or cannot be written');
  readonly #spilled = this.#counter(
    'log_spilled_bytes_total',
    'Bytes of input moved from memory to files',
    [],
  );
  readonly #datapath = this.#counter('datapath_events_total', "The data path's own counters, by name", [
    'event',
  ]);
  readonly #recoveries = this.#counter('recoveries_total', 'Recoveries by cause', ['cause']);
  readonly #eventErrors = this.#counter('event_log_errors_total', 'Events that could not be stored', [], []);
  readonly #eventCount = this.#counter('event_log_events_total', 'Events ever written', [], []);

  constructor(version: string, events: EventLog) {
    this.#events = events;
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    const happened = new EventMetrics(this.#registry);
    events.listen(event => happened.count(event));
    const labelNames = ['version', 'layout', 'node'] as const;
    const help = 'Always 1; what runs, in its labels';
    const layout = String(CONST.LAYOUT_VERSION);
    new Gauge({ name: 'holdfast_build_info', help, labelNames, registers }).set(
      { version, layout, node: process.version },
      1,
    );
  }

  /** Media type of what `render` gives. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The text that Prometheus reads. */
  render(samples: readonly ServiceSample[]): Promise<string> {
    const sampled = [
      this.#phase,
      this.#epoch,
      this.#started,
      this.#guests,
      this.#heartbeat,
      this.#connections,
      this.#maxConnections,
    ];
    const more = [this.#segments, this.#logUsed, this.#logSize, this.#datapath, this.#recoveries];
    const spill = [this.#spillUsed, this.#spillSize, this.#spillFull, this.#spilled];
    // A service that is gone has no series any more.
    for (const metric of [...sampled, ...more, ...spill, this.#eventErrors, this.#eventCount]) metric.reset();
    for (const sample of samples) this.#take(sample);
    this.#eventErrors.inc(this.#events.errors);
    this.#eventCount.inc(this.#events.lastSeq);
    return this.#registry.metrics();
  }

  #take(sample: ServiceSample): void {
    const service = sample.name;
    for (const phase of servicePhase.options) {
      this.#phase.set({ service, phase }, phase === sample.phase ? 1 : 0);
    }
    this.#epoch.set({ service }, sample.epoch);
    if (sample.startedAt !== undefined) this.#started.set({ service }, sample.startedAt / 1000);
    for (const { role, state } of sample.guests) this.#guests.inc({ service, role, state });
    if (sample.heartbeatAgeMs !== undefined) this.#heartbeat.set({ service }, sample.heartbeatAgeMs / 1000);
    for (const state of ['tracked', 'held', 'spliced'] as const) {
      this.#connections.set({ service, state }, sample.connections[state]);
    }
    this.#maxConnections.set({ service }, sample.maxConnections);
    let used = 0;
    let bytes = 0;
    for (const segment of sample.segments) {
      const { size, free, total } = segment;
      this.#segments.set({ service, size, state: 'free' }, free);
      this.#segments.set({ service, size, state: 'used' }, total - free);
      used += (total - free) * segment.bytes;
      bytes += total * segment.bytes;
    }
    this.#logUsed.set({ service }, used);
    this.#logSize.set({ service }, bytes);
    if (sample.spill) {
      const { bytes, limitBytes, moved, full, error } = sample.spill;
      this.#spillUsed.set({ service }, bytes);
      this.#spillSize.set({ service }, limitBytes);
      this.#spillFull.set({ service }, full || error !== undefined ? 1 : 0);
      this.#spilled.inc({ service }, moved);
    }
    for (const [name, value] of Object.entries(sample.counters)) {
      this.#datapath.inc({ service, event: name.toLowerCase() }, value);
    }
    for (const cause of CAUSES)
      this.#recoveries.inc({ service, cause }, sample.recoveriesByCause[cause] ?? 0);
  }

  #gauge(name: string, help: string, labels: string[] = []): Gauge {
    const labelNames = ['service', ...labels];
    return new Gauge({ name: `holdfast_${name}`, help, labelNames, registers: [this.#registry] });
  }

  #counter(name: string, help: string, labels: string[], first = ['service']): Counter {
    const labelNames = [...first, ...labels];
    return new Counter({ name: `holdfast_${name}`, help, labelNames, registers: [this.#registry] });
  }
}
