import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { stringify } from 'yaml';
import type { HoldfastEvent, ServiceStatus } from '../../supervisor/api/types.js';
import { Lab } from './lab.js';
import { leftovers } from './leftovers.js';
import { cleanEnv, repositoryRoot } from './run.js';

const HOLDFAST = join(repositoryRoot(), 'supervisor/holdfast');

interface Refusal {
  code: string;
  message: string;
  remedy: string;
}

/** A laboratory and the command in it. Whatever a test does, `down` must leave nothing in the end. */
export class Desk {
  readonly stateDir: string;

  private constructor(
    readonly t: ExecutionContext,
    readonly lab: Lab,
  ) {
    this.stateDir = join(lab.dir, 'state');
  }

  static async with(t: ExecutionContext, tag: string, act: (desk: Desk) => Promise<void>): Promise<void> {
    const lab = await Lab.create(tag);
    const desk = new Desk(t, lab);
    try {
      await act(desk);
      await desk.run(['down']);
      t.deepEqual(await lab.strays(), []);
    } finally {
      await desk.run(['down']).catch(() => {});
      await lab.dispose();
    }
    t.deepEqual(await leftovers(tag), []);
  }

  file(name: string, content: string | object): string {
    const path = join(this.lab.dir, name);
    writeFileSync(path, typeof content === 'string' ? content : stringify(content));
    return path;
  }

  run(words: string[], o: { env?: NodeJS.ProcessEnv; before?: string[] } = {}) {
    const places = {
      HOLDFAST_STATE: this.stateDir,
      HOLDFAST_SOCKET: join(this.lab.dir, 's'),
      HOLDFAST_ACCEL: 'tcg',
    };
    return this.lab.exec(this.lab.host, [...(o.before ?? []), HOLDFAST, ...words, '--json'], {
      env: cleanEnv({ ...places, ...o.env }),
      allowFailure: true,
      timeoutMs: 180_000,
    });
  }

  /** The command must fail with that exit status and code; every refusal names what is wrong and says what to do. */
  async refused(
    words: string[],
    status: number,
    code: string,
    message: RegExp,
    o: Parameters<Desk['run']>[1] = {},
  ) {
    const { t } = this;
    const result = await this.run(words, o);
    const error = JSON.parse(result.stderr.trim().split('\n').at(-1)!) as Refusal;
    t.is(error.code, code, result.stderr);
    t.is(result.code, status, words.join(' '));
    t.regex(error.message, message);
    t.true(error.remedy.length > 10, error.remedy);
    return error;
  }

  async status(): Promise<ServiceStatus[]> {
    return JSON.parse((await this.run(['status'])).stdout) as ServiceStatus[];
  }

  async events(): Promise<HoldfastEvent[]> {
    const { stdout } = await this.run(['events']);
    return stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as HoldfastEvent);
  }
}
