import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type Document, isNode, LineCounter, parseDocument } from 'yaml';
import type { ServiceAddresses } from '../../hypervisor-shim/datapath/addresses.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { type ServiceConfig, serviceSchema } from './schema.js';

export type { ServiceConfig } from './schema.js';

const EXAMPLE = 'supervisor/config/example.yaml';

/** One thing wrong, with the place in the file it is about. */
interface Finding {
  path: PropertyKey[];
  received: string;
  expected: string;
}

/**
 * Validates the YAML text of one service. `source` is the file it came from: errors name it, and a relative
 * `source.image` or `source.disk` is resolved against its folder.
 *
 * Throws `HF_CONFIG_SYNTAX` if it is not YAML, `HF_CONFIG_INVALID` naming every wrong field at once.
 */
export function parseServiceConfig(text: string, source: string): ServiceConfig {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const data = toData(document, lines, source);
  const result = serviceSchema.safeParse(data);
  if (!result.success) {
    throw invalid(findings(result.error.issues, data), document, lines, source);
  }
  const config = result.data;
  const here = (path: string) => resolve(dirname(source), path);
  switch (config.source.kind) {
    case 'image':
      return { ...config, source: { kind: 'image', image: here(config.source.image) } };
    case 'disk':
      return { ...config, source: { kind: 'disk', disk: here(config.source.disk) } };
    default:
      return config;
  }
}

const host = (cidr: string): string => cidr.split('/')[0]!;

/** The service's addresses without their prefixes. */
export function hostAddresses(config: ServiceConfig): ServiceAddresses {
  const { address, address6 } = config;
  return { address: host(address), ...(address6 === undefined ? {} : { address6: host(address6) }) };
}

/** Reads a configuration file; `source` is its absolute path. Throws `HF_CONFIG_UNREADABLE`. */
export async function readConfigFile(file: string): Promise<{ text: string; source: string }> {
  const source = resolve(file);
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(await readFile(source)), source };
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError(
      'HF_CONFIG_UNREADABLE',
      `cannot read the configuration ${source}: ${detail}`,
      `Give the path of a readable YAML file in UTF-8; ${EXAMPLE} is one to start from.`,
      { cause },
    );
  }
}

/** Plain data of the document, or the first syntax error with its line and column. */
function toData(document: Document.Parsed, lines: LineCounter, source: string): unknown {
  const [error] = document.errors;
  if (error) {
    const { line, col } = lines.linePos(error.pos[0]);
    const message =
      error.code === 'MULTIPLE_DOCS' ? 'the file holds more than one YAML document' : error.message;
    throw syntaxError(`${source}:${line}:${col}: ${message}`);
  }
  try {
    return document.toJS();
  } catch (cause) {
    // Aliases that expand without bound are only noticed here.
    throw syntaxError(`${source}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

function syntaxError(message: string): HoldfastError {
  return new HoldfastError(
    'HF_CONFIG_SYNTAX',
    message,
    `Correct the YAML at that place (one document, one service per file); compare with ${EXAMPLE}.`,
  );
}

type Issue = { code: string; path: PropertyKey[]; message: string; keys?: string[] };

/** One finding per field: the first complaint about a value is the useful one. */
function findings(issues: readonly object[], data: unknown): Finding[] {
  const found = new Map<string, Finding>();
  for (const issue of issues as readonly Issue[]) {
    const paths = issue.keys ? issue.keys.map(key => [...issue.path, key]) : [issue.path];
    for (const path of paths) {
      const received = issue.keys ? 'not a known field' : describe(at(data, path));
      const name = fieldName(path);
      if (!found.has(name)) {
        found.set(name, { path, received, expected: issue.message });
      }
    }
  }
  return [...found.values()];
}

function invalid(
  all: Finding[],
  document: Document.Parsed,
  lines: LineCounter,
  source: string,
): HoldfastError {
  const located = all
    .map(finding => ({ ...finding, ...position(document, lines, finding.path) }))
    .sort((a, b) => a.line - b.line || a.col - b.col);
  const text = located.map(
    ({ path, received, expected, line, col }) =>
      `${source}:${line}:${col}: ${fieldName(path)} is ${received}, expected ${expected}`,
  );
  const [first] = located;
  const remedy =
    located.length > 1 || first === undefined
      ? `Correct the ${located.length} fields named above; ${EXAMPLE} explains every field.`
      : first.received === 'not a known field'
        ? `Remove ${fieldName(first.path)} or correct its spelling; ${EXAMPLE} explains every field.`
        : `Set ${fieldName(first.path)} to ${first.expected}.`;
  return new HoldfastError('HF_CONFIG_INVALID', text.join('\n'), remedy);
}

/** Where the field stands, or, if it is missing, the nearest mapping that should hold it. */
function position(document: Document.Parsed, lines: LineCounter, path: PropertyKey[]) {
  for (let depth = path.length; depth >= 0; depth--) {
    const node = depth === 0 ? document.contents : document.getIn(path.slice(0, depth), true);
    if (isNode(node) && node.range) {
      return lines.linePos(node.range[0]);
    }
  }
  return { line: 1, col: 1 };
}

function at(data: unknown, path: PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key],
    data,
  );
}

/** `ports[1]`, `guest.memoryMiB`. */
function fieldName(path: PropertyKey[]): string {
  const name = path.map(key => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('');
  return name.replace(/^\./, '') || 'the configuration';
}

function describe(value: unknown): string {
  if (value === undefined) {
    return 'missing';
  }
  if (value === null) {
    return 'empty';
  }
  const shown = shownAs(value);
  return shown.length > 60 ? `${shown.slice(0, 57)}...` : shown;
}

function shownAs(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    // Aliases may refer to what holds them.
    return 'a structure that contains itself';
  }
}
