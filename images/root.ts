import { chmodSync, copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { furnishAgent } from './agent.js';
import { progress, run } from './commands.js';
import { type KnownFile, writeKnownFiles } from './content.js';
import type { Inputs } from './inputs.js';
import type { Appliance } from './schema.js';

/** What every image has: the tools of holdfast-init and of the agent's storage, and the libraries of Node and of the agent's addon. */
const BASE_PACKAGES = ['busybox-static', 'e2fsprogs', 'libstdc++6', 'libbpf1'];

/** Installs the packages into `root`, and fetches the kernel's package into `debs` without installing it. */
export async function installPackages(
  inputs: Inputs,
  appliance: Appliance,
  kernelPackage: string,
  dirs: { root: string; debs: string; temp: string },
): Promise<void> {
  const packages = [...BASE_PACKAGES, ...appliance.packages];
  progress(`installing ${packages.join(' ')}`);
  mkdirSync(dirs.debs, { recursive: true });
  // The kernel is a dependency of a package that follows it; neither's scripts are wanted in the root.
  const fetchKernel = [
    `cd '${dirs.debs}'`,
    'export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"',
    `kernel=$(apt-cache depends ${kernelPackage} | sed -n 's/.*Depends: \\(linux-image-.*\\)/\\1/p')`,
    // Headers, for the one module that is built; of the same version, and without the compiler that they ask for.
    `headers="linux-headers-\${kernel#linux-image-}"`,
    `more=$(apt-cache depends "$headers" | sed -n 's/.*Depends: \\(linux-\\(headers\\|kbuild\\)-.*\\)/\\1/p')`,
    'apt-get download -o APT::Sandbox::User=root "$kernel" "$headers" $more',
  ].join(' && ');
  const options = ['--format=directory', '--variant=essential', `--customize-hook=${fetchKernel}`];
  await installDebian(inputs.aptSources, packages, options, dirs.root, dirs.temp);
}

/** A root of Debian packages from those archives, without documentation. `options` are mmdebstrap's. */
export async function installDebian(
  aptSources: string[],
  packages: string[],
  options: string[],
  target: string,
  temp: string,
): Promise<void> {
  const lean = ['doc', 'man', 'locale', 'info'].map(name => `--dpkgopt=path-exclude=/usr/share/${name}/*`);
  // Mounts made for package scripts stay in a namespace that ends with the last process of the build.
  await run(
    'unshare',
    ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc', 'mmdebstrap']
      .concat('--mode=root', `--include=${packages.join(',')}`, lean, options)
      .concat([suiteOf(aptSources), target, ...aptSources]),
    { env: { TMPDIR: temp }, label: 'mmdebstrap', remedy: aptRemedy },
  );
}

/** The suite that the sources name first: the release itself, by order of every stock file. */
function suiteOf(files: string[]): string {
  for (const file of files) {
    const text = readFileSync(file, 'utf8');
    const suite =
      /^Suites:\s*(\S+)/m.exec(text)?.[1] ?? /^deb\s+(?:\[[^\]]*\]\s+)?\S+\s+(\S+)/m.exec(text)?.[1];
    if (suite !== undefined) return suite;
  }
  return 'stable';
}

function aptRemedy(output: string): string {
  const unknown =
    /Unable to locate package (\S+)/.exec(output)?.[1] ??
    /Package '?(\S+?)'? has no installation/.exec(output)?.[1];
  if (unknown !== undefined)
    return `Correct or remove '${unknown}' in \`packages\`: the archive has no such package.`;
  if (
    /Temporary failure resolving|Could not connect|Network is unreachable|Could not resolve|Connection (refused|timed out)/.test(
      output,
    )
  ) {
    return 'The package archive cannot be reached: check network and proxy (`apt-get update` must work), then repeat.';
  }
  if (/No space left/.test(output))
    return 'Free some 5 GiB where the cache is, or move it with HOLDFAST_CACHE.';
  return 'Check that `apt-get update` works on this host, then repeat.';
}

/** Adds what is ours and the appliance's. `kernel.modules` is its /lib/modules. Returns the known files. */
export async function furnishRoot(
  inputs: Inputs,
  appliance: Appliance,
  root: string,
  kernel: { modules: string; halt: string },
): Promise<KnownFile[]> {
  progress('adding node, the agent and the declared files');
  const to = (path: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    return join(root, path);
  };
  await furnishAgent(inputs, root);
  copyFileSync(join(inputs.boot, 'holdfast-init'), to('/sbin/holdfast-init'));
  copyFileSync(join(inputs.boot, 'holdfast-guest'), to('/usr/local/bin/holdfast-guest'));
  copyFileSync(kernel.halt, to('/opt/holdfast/holdfast-halt.ko'));
  cpSync(kernel.modules, join(root, 'usr/lib/modules'), { recursive: true });
  writeFileSync(to('/etc/holdfast/services.json'), `${JSON.stringify(appliance.services, null, 2)}\n`);
  for (const name of ['/etc/hostname', '/etc/machine-id']) writeFileSync(to(name), '');
  writeFileSync(to('/etc/hosts'), '127.0.0.1 localhost\n::1 localhost\n');
  for (const file of appliance.files) {
    writeFileSync(to(file.path), file.content ?? readFileSync(join(inputs.base, file.source!)));
    chmodSync(to(file.path), Number.parseInt(file.mode, 8));
  }
  for (const { path, source } of appliance.programs) {
    await run('gcc', ['-O2', '-Wall', '-o', to(path), join(inputs.base, source)]);
  }
  if (appliance.content === undefined) return [];
  progress('writing files of known content');
  return writeKnownFiles(root, appliance.content);
}
