import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';
import { HoldfastError } from '../hypervisor-shim/errors.js';

const path = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path in the guest');
const name = z.string().regex(/^[a-z0-9][a-z0-9+.-]*$/, 'may hold a-z, 0-9, +, . and -');
const mode = z.string().regex(/^0?[0-7]{3,4}$/, "must be octal in quotes, such as '0644'");

const schema = z.strictObject({
  name,
  /** Debian packages beside the base, with what they depend on. */
  packages: z.array(name).default([]),
  /** `source` is relative to the YAML file. */
  files: z
    .array(
      z
        .strictObject({
          path,
          source: z.string().optional(),
          content: z.string().optional(),
          mode: mode.default('0644'),
        })
        .refine(
          f => (f.source === undefined) !== (f.content === undefined),
          'needs one of source and content',
        ),
    )
    .default([]),
  /** C programs of one main file, compiled on the build host. */
  programs: z.array(z.strictObject({ path, source: z.string() })).default([]),
  /** Files of reproducible content, see content.ts. `%02d` in the path is the number of the file. */
  content: z
    .strictObject({
      seed: z.string(),
      sets: z.array(
        z.strictObject({ path, bytes: z.int().min(0), count: z.int().min(1).max(10_000).default(1) }),
      ),
    })
    .optional(),
  services: z
    .array(
      z.strictObject({
        name,
        command: z.union([z.string().min(1), z.array(z.string()).min(1)]),
        ports: z.array(z.int().min(1).max(65_535)).default([]),
        /** What an end with status 0 is, of a process that is not the main one. */
        cleanExit: z.enum(['close', 'crash']).default('close'),
        /** It gives signs of life, at most so long apart, ms. */
        watchdogMs: z.int().min(1000).max(86_400_000).optional(),
      }),
    )
    .min(1),
  /** Room left free on the root, MiB. */
  freeMiB: z.int().min(64).default(512),
});

export type Appliance = z.infer<typeof schema>;

/** Reads and checks an appliance. Throws `HF_IMAGE_INVALID` naming every wrong field. */
export function readAppliance(file: string): Appliance {
  const invalid = (what: string, cause?: unknown) =>
    new HoldfastError(
      'HF_IMAGE_INVALID',
      `${file}: ${what}`,
      'Correct the file; images/README.md lists the keys.',
      {
        cause,
      },
    );
  let text: unknown;
  try {
    text = parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw invalid((error as Error).message, error);
  }
  const result = schema.safeParse(text);
  if (result.success) return result.data;
  throw invalid(result.error.issues.map(i => `${i.path.join('.') || 'file'}: ${i.message}`).join('; '));
}
