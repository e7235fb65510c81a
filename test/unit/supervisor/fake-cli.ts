import { runCli } from '../../../supervisor/cli/cli.js';
import { FakeSupervisor } from './fake-supervisor.js';

// The command as it is, over a supervisor without machines; `up` re-executes this file.
process.exit(await runCli(process.argv.slice(2), FakeSupervisor.create));
