import { runCli } from './cli.js';
import { createSupervisor } from './supervisor-factory.js';

// Not `exitCode`: whatever a library still holds open must not keep an ended daemon alive.
process.exit(await runCli(process.argv.slice(2), createSupervisor));
