import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Lab, SERVICE_ADDRESS } from '../lib/lab.js';

const CROWD = fileURLToPath(new URL('./crowd.js', import.meta.url));

/** The process of crowd.ts in the client namespace of a laboratory. */
export class CrowdClient {
  private readonly answers: AsyncIterator<string>;

  private constructor(
    private readonly lab: Lab,
    private readonly child: ChildProcess,
  ) {
    this.answers = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  }

  static start(lab: Lab, kind: 'chat' | 'http', port: number, what: string, sha256?: string): CrowdClient {
    const argv = [process.execPath, CROWD, kind, SERVICE_ADDRESS, `${port}`, what];
    if (sha256 !== undefined) argv.push(sha256);
    const stdio = ['pipe', 'pipe', 'inherit'] as const;
    return new CrowdClient(lab, lab.spawn(lab.clients[0]!.name, argv, { stdio: [...stdio] }));
  }

  /** Opens connections, `width` of them at once; resolves with the time until each had its first answer, ms. */
  async open(connections: number, width = connections): Promise<number> {
    return (await this.command(`open ${connections} ${width}`)).ms;
  }

  /** One more answer on each; resolves with all bytes that the open connections have received. */
  async ask(what?: string): Promise<number> {
    return (await this.command(what === undefined ? 'ask' : `ask ${what}`)).bytes;
  }

  /** Asks the first connection again and again; resolves with the longest time between two answers, ms. */
  async watch(ms: number, what: string): Promise<number> {
    return (await this.command(`watch ${ms} ${what}`)).ms;
  }

  /** From now on a request on each connection, `ms` after the answer to the one before. */
  async busy(ms: number): Promise<void> {
    await this.command(`busy ${ms}`);
  }

  /** Resolves when the last of them are answered. */
  async quiet(): Promise<void> {
    await this.command('quiet');
  }

  async close(): Promise<void> {
    await this.command('close');
  }

  /** Closes without a port left to wait: so many ports there are not. */
  async reset(): Promise<void> {
    await this.command('reset');
  }

  stop(): Promise<void> {
    return this.lab.stop(this.child);
  }

  private async command(line: string): Promise<{ ms: number; bytes: number }> {
    this.child.stdin!.write(`${line}\n`);
    const next = await this.answers.next();
    if (next.done) throw new Error(`the client ended at '${line}'`);
    const answer = JSON.parse(next.value) as { ms: number; bytes: number; error?: string };
    if (answer.error !== undefined) throw new Error(`the client says at '${line}': ${answer.error}`);
    return answer;
  }
}
