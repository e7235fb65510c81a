import { normalize } from '../api/http-errors.js';
import { parseServiceConfig, readConfigFile, type ServiceConfig } from '../config/config.js';
import { ServiceFiles, savedServices } from '../service/state-file.js';
import type { Finding } from './finding.js';

/** What is looked at: this host, and perhaps one configuration. */
export interface Subject {
  stateDir: string;
  /** Control socket of the daemon that may run. */
  socket: string;
  /** Undefined if none was given, or it is wrong, which is a finding by then. */
  config: ServiceConfig | undefined;
  /** Configurations of the services of the state directory; those it cannot tell are left out. */
  services: ServiceConfig[];
}

export async function readSubject(
  { stateDir, socket, config: file }: { stateDir: string; socket: string; config?: string },
  take: (finding: Finding) => void,
): Promise<Subject> {
  const services = savedServices(stateDir).flatMap(name => savedConfig(stateDir, name) ?? []);
  if (file === undefined) return { stateDir, socket, config: undefined, services };
  try {
    const { text, source } = await readConfigFile(file);
    const config = parseServiceConfig(text, source);
    take({ check: 'configuration', level: 'ok', found: `${source} is valid` });
    return { stateDir, socket, config, services };
  } catch (thrown) {
    const { message, remedy } = normalize(thrown).error;
    take({ check: 'configuration', level: 'failure', found: message, remedy });
    return { stateDir, socket, config: undefined, services };
  }
}

function savedConfig(stateDir: string, name: string): ServiceConfig | undefined {
  try {
    const saved = new ServiceFiles(stateDir, name).load();
    return saved && parseServiceConfig(saved.config, saved.source);
  } catch {
    return undefined;
  }
}
