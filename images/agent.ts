import { chmodSync, copyFileSync, cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './commands.js';
import type { AgentInputs } from './inputs.js';

/** Where the agent lies in a guest. */
export const AGENT_ROOT = 'opt/holdfast';

/** Puts the agent below `root`: Node, the compiled scripts, the addon, the heart, and what brings up the network. */
export async function furnishAgent(inputs: AgentInputs, root: string): Promise<void> {
  const to = (path: string) => join(root, AGENT_ROOT, path);
  mkdirSync(to('bin'), { recursive: true });
  copyFileSync(inputs.node, to('bin/node'));
  chmodSync(to('bin/node'), 0o755);
  cpSync(inputs.agent, to('guest-agent'), { recursive: true, filter: f => !f.endsWith('.map') });
  writeFileSync(to('package.json'), '{ "type": "module" }\n');
  copyFileSync(inputs.network, to('network.sh'));
  await compileAddon(inputs, to('guest-agent/native/agent.node'));
  await run('gcc', ['-O2', '-Wall', '-static', '-o', to('bin/holdfast-heart'), inputs.heartSource]);
}

/** By hand instead of by node-gyp: a few files, and the guest runs the pinned Node whose headers are used. */
async function compileAddon(inputs: AgentInputs, output: string): Promise<void> {
  const include = ['-I', inputs.addonApi, '-I', inputs.nodeHeaders, '-I', inputs.watchSource];
  const sources = readdirSync(inputs.addonSource)
    .filter(name => name.endsWith('.cc'))
    .sort()
    .map(name => join(inputs.addonSource, name));
  const flags = ['-std=c++17', '-O2', '-fPIC', '-shared', '-Wall', '-DNAPI_VERSION=8'];
  await run('g++', [...flags, ...include, '-o', output, ...sources, '-lbpf']);
}
