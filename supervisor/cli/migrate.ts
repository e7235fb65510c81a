import { type Command, InvalidArgumentError, Option } from 'commander';
import { DEADLINE_POLICIES } from '../api/schemas.js';
import type { DeadlinePolicy, MigrationReport } from '../api/types.js';
import { checkedName } from '../config/service-name.js';
import { DRAIN_MS } from '../migration/limits.js';
import { type CommandContext, clientOf, type Run } from './commands.js';
import { EXIT } from './output.js';
import { withProgress } from './progress.js';

interface Options {
  drain: number;
  deadlinePolicy: DeadlinePolicy;
  abort?: boolean;
}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** `holdfast migrate`. */
export function addMigrateCommand(program: Command, run: Run): void {
  program
    .command('migrate')
    .description('make the backup of SERVICE the primary, while both are well')
    .argument('<service>')
    .addOption(
      new Option('--drain <time>', 'what connections get to finish what they have begun')
        .argParser(duration)
        .default(DRAIN_MS, `${DRAIN_MS / 1000}s`),
    )
    .addOption(
      new Option('--deadline-policy <policy>', 'then: begin it again there, wait on, or go back')
        .choices(DEADLINE_POLICIES)
        .default('replay'),
    )
    .option('--abort', 'take back the migration that is under way')
    .action((service: string, options: Options, command: Command) =>
      run(command, context => migrate(context, service, options)),
    );
}

async function migrate(context: CommandContext, service: string, options: Options): Promise<number> {
  checkedName(service);
  const client = clientOf(context);
  const { drain: drainMs, deadlinePolicy: policy, abort } = options;
  const report = await withProgress(client, context.output, () =>
    abort ? client.abortMigration(service) : client.migrate(service, { drainMs, policy }),
  );
  context.output.result(report, formatMigration(report));
  const isWanted = report.outcome === (abort ? 'aborted' : 'done');
  return isWanted && report.lost === 0 ? EXIT.ok : EXIT.failed;
}

function formatMigration(report: MigrationReport): string {
  const { from, to, moved, replayed, lost, outcome, why, startedAt, endedAt } = report;
  const seconds = ((endedAt - startedAt) / 1000).toFixed(1);
  const how = why === undefined ? '' : ` (${why})`;
  const title = `migration from ${from} to ${to}: ${outcome}${how} after ${seconds} s`;
  return `${title}\nconnections: ${moved} moved, ${replayed} replayed, ${lost} lost`;
}

function duration(text: string): number {
  const [, number, unit] = /^(\d{1,9}(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? [];
  const ms = Math.round(Number(number) * (UNITS[unit ?? ''] ?? Number.NaN));
  if (!(ms <= 86_400_000))
    throw new InvalidArgumentError('Expected a time of at most 24h, such as 500ms, 30s, 10m.');
  return ms;
}
