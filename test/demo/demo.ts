/**
 * The demonstration, which is also a test: 50 clients, the primary's kernel panics (or its QEMU is killed, or its web server in a
 * healthy machine), and nobody notices.
 *
 *   SCENARIO=guest-panic|vm-kill|app-crash CONNECTIONS=50 ROUNDS=1 node build/test/demo/demo.js
 *
 * Progress goes to stderr; stdout gets a timeline and, as last line, one JSON object. Exit status 0 only if all holds.
 */
import type { DrillFault } from '../../supervisor/api/types.js';
import { runScenario, type ScenarioOptions } from '../lib/scenario.js';
import { summaryLine } from './summary.js';
import { timeline } from './timeline.js';

/** The fault that each scenario injects. */
const FAULTS = new Map<string, DrillFault>([
  ['guest-panic', 'guest-panic'],
  ['vm-kill', 'vm-kill'],
  ['app-crash', 'app-kill'],
]);

async function main(): Promise<number> {
  const scenario = process.env.SCENARIO || 'guest-panic';
  const fault = FAULTS.get(scenario);
  if (fault === undefined) {
    process.stderr.write(`SCENARIO is ${scenario}, expected one of ${[...FAULTS.keys()].join(', ')}\n`);
    return 2;
  }
  const started = performance.now();
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1).padStart(6);
  const options: ScenarioOptions = {
    fault,
    connections: positive('CONNECTIONS', 50),
    rounds: positive('ROUNDS', 1),
    log: line => process.stderr.write(`${seconds()} s  ${line}\n`),
  };
  if (process.env.CLIENT_TS_SHIFT) options.clientTsShift = Number(process.env.CLIENT_TS_SHIFT);
  try {
    const result = await runScenario(options);
    for (const round of result.rounds) process.stdout.write(`${timeline(round)}\n`);
    for (const failure of result.failures) process.stdout.write(`FAILED: ${failure}\n`);
    process.stdout.write(`${JSON.stringify({ ...summaryLine(result), scenario })}\n`);
    return result.failures.length === 0 ? 0 : 1;
  } catch (error) {
    process.stderr.write(`${(error as Error).stack}\n`);
    process.stdout.write(`${JSON.stringify({ scenario, ok: false, error: `${error}` })}\n`);
    return 1;
  }
}

function positive(name: string, standard: number): number {
  const value = Number(process.env[name] || standard);
  if (!Number.isInteger(value) || value < 1)
    throw new Error(`${name} is ${process.env[name]}, expected 1 or more`);
  return value;
}

process.exitCode = await main();
