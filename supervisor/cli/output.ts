import { CommanderError } from 'commander';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { EXIT, errorBody, exitOf, normalize } from '../api/http-errors.js';

export { EXIT };

/** Where results and messages go: results to stdout; progress, notes and errors to stderr. */
export class Output {
  constructor(readonly json: boolean) {}

  /** The one result of a command: a JSON document, or the text for people. */
  result(value: unknown, text: string): void {
    process.stdout.write(this.json ? `${JSON.stringify(value)}\n` : text && `${text}\n`);
  }

  /** A result that comes in many parts (NDJSON). */
  line(value: unknown, text: string): Promise<void> {
    const flushed = process.stdout.write(`${this.json ? JSON.stringify(value) : text}\n`);
    // A slow reader slows the stream, instead of filling our memory.
    return flushed ? Promise.resolve() : new Promise(resolve => process.stdout.once('drain', resolve));
  }

  /** Whether somebody may be reading along. */
  get showsProgress(): boolean {
    return !this.json || process.stderr.isTTY === true;
  }

  note(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  /** Prints any error and gives the exit code it stands for. */
  error(thrown: unknown): number {
    if (thrown instanceof CommanderError) {
      return this.#usage(thrown);
    }
    const { error, known } = normalize(thrown);
    if (this.json) {
      this.note(JSON.stringify(errorBody(error)));
    } else {
      this.note(`holdfast: ${error.toString()}`);
      // A defect of the command itself: its trace is all there is to report.
      if (!known && thrown instanceof Error) {
        this.note(thrown.stack ?? '');
      }
    }
    return exitOf(error);
  }

  /** Commander has printed its message itself, except in JSON mode. */
  #usage(error: CommanderError): number {
    if (error.exitCode === 0) {
      return EXIT.ok;
    }
    if (this.json) {
      const none = error.code === 'commander.help';
      const message = none ? 'no command is given' : error.message.replace(/^error: /, '');
      const usage = new HoldfastError('HF_USAGE', message, 'See `holdfast --help`.');
      this.note(JSON.stringify(errorBody(usage)));
    }
    return EXIT.usage;
  }
}
