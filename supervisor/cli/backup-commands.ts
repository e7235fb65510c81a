import { Argument, type Command } from 'commander';
import { BACKUP_OPERATIONS } from '../../guest-agent/wire/control-page.js';
import type { BackupCommand, BackupOperation, BackupStatus, Grant } from '../api/types.js';
import { checkedName } from '../config/service-name.js';
import { type CommandContext, clientOf, type Run } from './commands.js';
import { EXIT } from './output.js';
import { withProgress } from './progress.js';
import { table } from './table.js';

/** What each does to the backup of SERVICE. */
const HELP: Record<Exclude<BackupOperation, 'boot' | 'address'>, string> = {
  suspend: 'suspend it again, after `wake`',
  wake: 'let it run for maintenance, reached on its management address; it still takes over if it must',
  migrate: 'begin to make it the primary (`holdfast migrate` waits for the end, and has options)',
  status: 'how it is',
};

/** `holdfast backup` and `holdfast grant`. */
export function addBackupCommands(program: Command, run: Run): void {
  const backup = program.command('backup').description('command the backup of a service');
  backup
    .command('boot')
    .description('resolve when there is one that has booted')
    .argument('<service>')
    .option('--fresh', 'in place of the one that there is')
    .action((service: string, { fresh }: { fresh?: boolean }, command: Command) =>
      run(command, context => commandBackup(context, service, { operation: 'boot', fresh })),
    );
  backup
    .command('address')
    .description('give its management NIC a further address, in place of the one that it got so before')
    .argument('<service>')
    .argument('<address/prefix>')
    .action((service: string, address: string, _options: object, command: Command) =>
      run(command, context => commandBackup(context, service, { operation: 'address', address })),
    );
  for (const [operation, help] of Object.entries(HELP) as [BackupOperation, string][]) {
    backup
      .command(operation)
      .description(help)
      .argument('<service>')
      .action((service: string, _options: object, command: Command) =>
        run(command, context => commandBackup(context, service, { operation })),
      );
  }

  const grant = program
    .command('grant')
    .description('what the active guest of a service may ask of its backup');
  const operations = new Argument('[operation...]', 'default: all').choices(BACKUP_OPERATIONS);
  for (const [verb, granted] of [
    ['add', true],
    ['remove', false],
  ] as const) {
    grant
      .command(verb)
      .description(granted ? 'let it use these operations (holdfast-guest backup ...)' : 'take them back')
      .argument('<service>')
      .addArgument(operations)
      .action((service: string, given: BackupOperation[], _options: object, command: Command) =>
        run(command, context => changeGrant(context, service, given, granted)),
      );
  }
  grant
    .command('list')
    .description('of SERVICE, or of all')
    .argument('[service]')
    .action((service: string | undefined, _options: object, command: Command) =>
      run(command, context => listGrants(context, service)),
    );
}

async function commandBackup(
  context: CommandContext,
  service: string,
  given: BackupCommand,
): Promise<number> {
  checkedName(service);
  const client = clientOf(context);
  const act = () => client.backup(service, given);
  const status = given.operation === 'boot' ? await withProgress(client, context.output, act) : await act();
  context.output.result(status, formatBackup(status));
  return EXIT.ok;
}

async function changeGrant(
  context: CommandContext,
  service: string,
  given: readonly BackupOperation[],
  granted: boolean,
): Promise<number> {
  checkedName(service);
  const operations = given.length > 0 ? given : BACKUP_OPERATIONS;
  const result = await clientOf(context).grant(service, operations, granted);
  context.output.result(result, formatGrants([result]));
  return EXIT.ok;
}

async function listGrants(context: CommandContext, service: string | undefined): Promise<number> {
  if (service !== undefined) checkedName(service);
  const grants = await clientOf(context).grants(service);
  context.output.result(grants, formatGrants(grants));
  return EXIT.ok;
}

function formatBackup(status: BackupStatus): string {
  const row = table(
    [status],
    [
      { title: 'SERVICE', cell: s => s.service },
      { title: 'PHASE', cell: s => s.phase },
      { title: 'BACKUP', cell: s => s.guest },
      { title: 'STATE', cell: s => (s.awake ? 'awake' : s.state) },
      { title: 'VCPU MS', right: true, cell: s => s.vcpuMs && Math.round(s.vcpuMs) },
      {
        title: 'MEMORY MIB',
        right: true,
        cell: s => s.residentBytes && Math.ceil(s.residentBytes / 2 ** 20),
      },
      { title: 'MANAGEMENT', cell: s => s.managementAddress },
      { title: 'FURTHER ADDRESS', cell: s => s.furtherAddress },
    ],
  );
  return status.reason === undefined ? row : `${row}\n${status.service}: ${status.reason}`;
}

function formatGrants(grants: readonly Grant[]): string {
  return table(grants, [
    { title: 'SERVICE', cell: g => g.service },
    { title: 'GRANTED', cell: g => g.operations.join(' ') || 'nothing' },
  ]);
}
