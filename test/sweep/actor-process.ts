import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { waitFor } from '../lib/run.js';
import type { NetnsBed } from '../netns/lib/bed.js';

const ACTOR = fileURLToPath(new URL('./actor.js', import.meta.url));

export interface Done {
  sent: number;
  got: number;
  sentHash: string;
  gotHash: string;
  error?: string;
}

/** A process of actor.ts and what it has told, by stage and the other end's address; of more of the same, how many. */
export class Actor {
  readonly at = new Map<string, Set<string>>();
  readonly done = new Map<string, Done>();
  /** Connections by the gate at which they have stood, and those that have ended. */
  readonly counts = new Map<string, number>();
  readonly errors: string[] = [];
  private ready = false;

  constructor(private readonly child: ChildProcess) {
    createInterface({ input: child.stdout! }).on('line', line => {
      const m = JSON.parse(line);
      if (m.ready) this.ready = true;
      const what = m.at ?? (m.done && 'done');
      if (what) this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
      if (m.error) this.errors.push(m.error);
      const key = `${m.stage}/${m.peer}`;
      if (m.at) this.gates(key).add(m.at);
      if (m.done) this.done.set(key, m);
    });
  }

  static async start(bed: NetnsBed, namespace: string, ...words: string[]): Promise<Actor> {
    const child = bed.lab.spawn(namespace, [process.execPath, ACTOR, ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const actor = new Actor(child);
    await waitFor('the actor', 20_000, () => actor.ready || undefined);
    return actor;
  }

  gates(key: string): Set<string> {
    let gates = this.at.get(key);
    if (!gates) {
      gates = new Set();
      this.at.set(key, gates);
    }
    return gates;
  }

  tell(message: object): void {
    this.child.stdin!.write(`${JSON.stringify(message)}\n`);
  }
}
