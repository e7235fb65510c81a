import { setTimeout as sleep } from 'node:timers/promises';
import type { DrillFault, RecoveryReport } from '../../supervisor/api/types.js';
import { assess, type RoundNumbers } from './assess.js';
import { Capture } from './capture.js';
import { findImage, type Image } from './image.js';
import { keepLogs } from './keep.js';
import { BRIDGE, type ClientNamespace, Lab, SERVICE_ADDRESS, SERVICE_ADDRESS6, sweep } from './lab.js';
import { leftovers } from './leftovers.js';
import { BEYOND_BUFFERS, boundReceiveBuffers, type Families, IN_FLIGHT, startMixedLoad } from './load.js';
import { guestOf, Supervisor } from './supervisor.js';
import { shiftTimestamps } from './ts-shift.js';

export const SERVICE_PORTS = [80, 8080];
/** How long all clients transfer undisturbed before the fault: the baseline for gaps. */
const CALM_MS = 2000;
const START_MS = 30_000;

export interface ScenarioOptions {
  /** Lab tag, also the service's name. Default `demo`. */
  tag?: string;
  fault?: DrillFault;
  connections?: number;
  /** Faults in a row, each with fresh connections against the machine that took over before. */
  rounds?: number;
  /** Added to the client's TCP timestamps, see ts-shift.ts. */
  clientTsShift?: number;
  /** Default: IPv4. */
  families?: Families;
  /** Merged over the service's configuration, top-level fields. */
  config?: Record<string, unknown>;
  log?: (line: string) => void;
}

export interface RoundResult extends RoundNumbers {
  report: RecoveryReport;
}

export interface ScenarioResult {
  scenario: DrillFault;
  accel: string;
  rounds: RoundResult[];
  /** What was still there after `down`. */
  leftovers: string[];
  /** Everything that does not hold, in words; empty means success. */
  failures: string[];
}

/** Protects a service, breaks its primary under load, and judges what the clients saw. Rejects only if it could not be run. */
export async function runScenario(options: ScenarioOptions = {}): Promise<ScenarioResult> {
  const { tag = 'demo', fault = 'guest-panic', connections = 50, rounds = 1, log = () => {} } = options;
  const image = await findImage(text => log(`image: ${text.trim()}`));
  const lab = await Lab.create(tag);
  const supervisor = new Supervisor(lab);
  const result: ScenarioResult = { scenario: fault, accel: '', rounds: [], leftovers: [], failures: [] };
  try {
    const client = lab.clients[0]!;
    await boundReceiveBuffers(lab, client);
    if (options.clientTsShift !== undefined) await shiftTimestamps(lab, client, options.clientTsShift);
    log('starting primary and backup');
    const status = await supervisor.up(serviceConfig(tag, image, options.config));
    result.accel = status.accel;
    for (let round = 1; round <= rounds; round++) {
      const { families } = options;
      const numbers = await runRound({
        ...{ supervisor, client, image, tag, fault, connections, families, log },
      });
      result.rounds.push(numbers);
      result.failures.push(...numbers.failures.map(text => (rounds > 1 ? `round ${round}: ${text}` : text)));
      if (round < rounds) await supervisor.protectedAgain(tag);
    }
    const { recoveries } = await supervisor.status(tag);
    if (recoveries !== rounds) {
      result.failures.push(
        `${recoveries} recoveries from ${rounds} injected faults: ${await faultsOf(supervisor)}`,
      );
    }
    log('stopping the service');
    await supervisor.down();
    result.leftovers.push(...(await lab.strays()));
    if (result.failures.length > 0) keepLogs(lab, log);
  } catch (error) {
    keepLogs(lab, log);
    // the daemon knows best what is to be removed; whatever it does not manage, the sweep ends
    await supervisor.command(['down'], true).catch(() => {});
    await lab.dispose();
    await sweep(tag);
    throw error;
  }
  await lab.dispose();
  result.leftovers.push(...(await leftovers(tag)));
  if (result.leftovers.length > 0) result.failures.push(`left behind: ${result.leftovers.join('; ')}`);
  return result;
}

interface Round {
  supervisor: Supervisor;
  client: ClientNamespace;
  image: Image;
  tag: string;
  fault: DrillFault;
  connections: number;
  families: Families | undefined;
  log: (line: string) => void;
}

async function runRound(round: Round): Promise<RoundResult> {
  const { supervisor, client, image, tag, fault, connections, families, log } = round;
  const { lab } = supervisor;
  const capture = await Capture.start(lab, client);
  const traffic = startMixedLoad(lab, client, image, connections, families);
  log(`opening ${connections} connections`);
  await traffic.waitInFlight(IN_FLIGHT, BEYOND_BUFFERS, START_MS);
  await sleep(CALM_MS);
  const statusBefore = await supervisor.status(tag);
  // once more, as near to the fault as can be: nothing may have finished, or be about to
  const inFlight = await traffic.waitInFlight(IN_FLIGHT, BEYOND_BUFFERS, 1000);
  log(`${inFlight.length} in flight, injecting ${fault}`);
  const report = await supervisor.drill(tag, fault);
  const statusAfter = await supervisor.status(tag);
  log(`recovered, ${report.kept} kept, ${report.lost} lost; waiting for the clients to finish`);
  const clients = await traffic.results();
  await capture.stop();
  const numbers = assess({
    fault,
    clients,
    trace: capture.trace(SERVICE_PORTS),
    clientAddresses: [client.address, client.address6],
    report,
    primaryBefore: guestOf(statusBefore, 'primary'),
    backupBefore: guestOf(statusBefore, 'backup'),
    primaryAfter: guestOf(statusAfter, 'primary'),
    inFlight: inFlight.length,
  });
  return { ...numbers, report };
}

/** What the supervisor took for faults, injected or not. */
async function faultsOf(supervisor: Supervisor): Promise<string> {
  const events = await supervisor.events();
  const started = events.filter(event => event.type === 'recovery.started');
  return started.map(event => event.message).join('; ');
}

/** Configuration of the example appliance as a protected service. */
export function serviceConfig(name: string, image: Image, extra: Record<string, unknown> = {}) {
  return {
    name,
    address: `${SERVICE_ADDRESS}/24`,
    address6: `${SERVICE_ADDRESS6}/64`,
    ports: SERVICE_PORTS,
    source: { image: image.dir },
    uplink: { bridge: BRIDGE },
    // uploads stay in the log whole
    log: { sizeMiB: 512 },
    ...extra,
  };
}
