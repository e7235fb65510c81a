import { Command, InvalidArgumentError, Option } from 'commander';
import { DRILL_FAULTS } from '../api/schemas.js';
import type { DrillFault } from '../api/types.js';
import { addBackupCommands } from './backup-commands.js';
import * as commands from './commands.js';
import { doctor } from './doctor.js';
import { addMigrateCommand } from './migrate.js';
import { EXIT, Output } from './output.js';
import type { SupervisorFactory } from './supervisor-factory.js';
import { version } from './version.js';

const EPILOGUE = `
Exit codes:
  0  done
  1  the operation failed, or a drill or migration lost connections
  2  wrong usage or configuration

Environment:
  HOLDFAST_SOCKET     control socket, if --socket is not given
  HOLDFAST_STATE      state directory, if --state-dir is not given
  HOLDFAST_LOG_LEVEL  level of the daemon's log: debug, info (default), warn, error`;

interface GlobalOptions {
  json?: boolean;
  socket?: string;
  stateDir?: string;
  metricsListen?: string;
}

/** Runs one command line (without `node` and script) and gives its exit code. Never throws. */
export async function runCli(args: string[], createSupervisor: SupervisorFactory): Promise<number> {
  // Known before parsing, because errors of parsing are also to be JSON.
  const output = new Output(args.includes('--json'));
  tolerateClosedPipes(args.includes('--foreground'));
  let exitCode: number = EXIT.ok;
  /** Runs a command's function with the context its options make. */
  const run = async (
    command: Command,
    action: (context: commands.CommandContext) => Promise<number>,
  ): Promise<void> => {
    const { socket, stateDir, metricsListen } = command.optsWithGlobals<GlobalOptions>();
    exitCode = await action({
      output,
      createSupervisor,
      ...(socket !== undefined && { socket }),
      ...(stateDir !== undefined && { stateDir }),
      ...(metricsListen !== undefined && { metricsListen }),
    });
  };
  try {
    await buildProgram(run, output).parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    return output.error(error);
  }
}

/** `holdfast events | head`: a reader that has seen enough is no error, and no reason to end a daemon. */
function tolerateClosedPipes(serving: boolean): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') {
        throw error;
      }
      if (stream === process.stdout && !serving) {
        process.exit(EXIT.ok);
      }
    });
  }
}

function buildProgram(run: commands.Run, output: Output): Command {
  const stateDir = () => new Option('--state-dir <dir>', 'state of the daemon (default: /var/lib/holdfast)');
  const metricsListen = () =>
    new Option('--metrics-listen <address:port>', 'also serve GET /metrics over TCP (default: not)').env(
      'HOLDFAST_METRICS_LISTEN',
    );
  const program = new Command('holdfast')
    .description('Keeps TCP services answering through the death of the machine that runs them.')
    .version(version(), '--version')
    .option('--json', 'machine output on stdout, errors as JSON on stderr')
    .option('--socket <path>', 'control socket of the daemon (default: /run/holdfast/control.sock)')
    .addHelpText('after', EPILOGUE)
    .exitOverride()
    .configureOutput({ writeErr: text => void (output.json || process.stderr.write(text)) });

  program
    .command('up')
    .description(
      'start the daemon, unless it runs; take over what an earlier one left, and protect the service of each CONFIG',
    )
    .argument('[config...]', 'YAML files, one service each')
    .option('--foreground', 'run the daemon in this process')
    .addOption(metricsListen())
    .addOption(stateDir())
    .action((files: string[], options: { foreground?: boolean }, command: Command) =>
      run(command, context => commands.up(context, files, options.foreground ?? false)),
    );

  program
    .command('daemon', { hidden: true })
    .addOption(metricsListen())
    .addOption(stateDir())
    .action((_options: object, command: Command) => run(command, commands.daemon));

  program
    .command('protect')
    .description('protect the service of CONFIG; returns when it is protected')
    .argument('<config>', 'YAML file of one service')
    .action((file: string, _options: object, command: Command) =>
      run(command, context => commands.protect(context, [file])),
    );

  program
    .command('down')
    .description(
      'stop SERVICE and remove all that belongs to it; without SERVICE: all services, and the daemon',
    )
    .argument('[service]')
    .action((service: string | undefined, _options: object, command: Command) =>
      run(command, context => commands.down(context, service)),
    );

  program
    .command('status')
    .description('services and their guests')
    .argument('[service]')
    .action((service: string | undefined, _options: object, command: Command) =>
      run(command, context => commands.status(context, service)),
    );

  program
    .command('connections')
    .description('connections, the guest that serves each, and positions in their streams')
    .argument('[service]')
    .action((service: string | undefined, _options: object, command: Command) =>
      run(command, context => commands.connections(context, service)),
    );

  program
    .command('events')
    .description('the event log, oldest first')
    .option('--follow', 'go on with new events as they happen')
    .option('--since <seq>', 'begin with this sequence number', sequenceNumber, 0)
    .action((options: { follow?: boolean; since: number }, command: Command) =>
      run(command, context => commands.events(context, options.since, options.follow ?? false)),
    );

  addBackupCommands(program, run);

  program
    .command('incidents')
    .description('faults: of all services, of SERVICE, or all that is known of the one with this ID')
    .argument('[service]')
    .argument('[id]', 'as the list has it', incidentId)
    .action((service: string | undefined, id: number | undefined, _options: object, command: Command) =>
      run(command, context => commands.incidents(context, service, id)),
    );

  program
    .command('drill')
    .description('inject a fault into the primary of SERVICE and report the recovery')
    .argument('<service>')
    .addOption(new Option('--fault <fault>', 'what to inject').choices(DRILL_FAULTS).makeOptionMandatory())
    .action((service: string, options: { fault: DrillFault }, command: Command) =>
      run(command, context => commands.drill(context, service, options.fault)),
    );

  addMigrateCommand(program, run);

  program
    .command('doctor')
    .description('what this host has and lacks, each with its remedy; no daemon needed')
    .option('--config <file>', 'also what the service of this configuration needs')
    .addOption(stateDir())
    .action((options: { config?: string }, command: Command) =>
      run(command, context => doctor(context, options.config)),
    );

  program
    .command('metrics')
    .description('metrics in the text format of Prometheus')
    .action((_options: object, command: Command) => run(command, commands.metrics));

  program
    .command('api')
    .description('the control API as an OpenAPI document (no daemon needed)')
    .action((_options: object, command: Command) => run(command, commands.api));

  return program;
}

function incidentId(text: string): number {
  const value = sequenceNumber(text);
  if (value === 0) throw new InvalidArgumentError('Expected the number of an incident, 1 or more.');
  return value;
}

function sequenceNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw new InvalidArgumentError('Expected a sequence number, 0 or more.');
  }
  return value;
}
