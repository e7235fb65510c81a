import { z } from 'zod';
import {
  formatIpv4,
  isHostOf,
  isHostOf6,
  isLinkLocal6,
  isUnicast6,
  overlaps,
  parseCidr,
  parseCidr6,
  parseIpv4,
  parseIpv6,
} from './cidr.js';
import { SERVICE_NAME, SERVICE_NAME_IS } from './service-name.js';

/**
 * Schema of one protected service. Every message completes the sentence "<field> is <value>, expected ...", because
 * it is printed both as the finding and as the remedy.
 */

/** A mapping that refuses unknown fields: a misspelt option that is silently ignored is found at the first fault. */
function mapping<Shape extends z.core.$ZodShape>(shape: Shape) {
  const fields = Object.keys(shape).join(', ');
  return z.strictObject(shape, {
    error: issue =>
      issue.code === 'unrecognized_keys'
        ? `one of the fields ${fields}`
        : `a mapping with the fields ${fields}`,
  });
}

/** Whole number in a range, with one message for every way to miss it. */
function whole(min: number, max: number) {
  const error = `a whole number from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

function text(pattern: RegExp, error: string) {
  return z.string({ error }).regex(pattern, { error });
}

function oneOf<const Values extends readonly [string, ...string[]]>(...values: Values) {
  return z.enum(values, { error: values.length === 1 ? values[0] : `one of ${values.join(', ')}` });
}

/** The service address: a host of its network, which needs room for at least a client or gateway beside it. */
const serviceAddress = (() => {
  const error = 'an IPv4 host address with prefix from /8 to /30, such as 192.0.2.10/24';
  return z.string({ error }).refine(
    value => {
      const cidr = parseCidr(value);
      return cidr !== undefined && cidr.prefix >= 8 && cidr.prefix <= 30 && isHostOf(cidr, cidr.address);
    },
    { error },
  );
})();

/** The same for IPv6. */
const serviceAddress6 = (() => {
  const error = 'an IPv6 unicast host address with prefix from /8 to /126, such as 2001:db8::10/64';
  return z.string({ error }).refine(
    value => {
      const cidr = parseCidr6(value);
      if (cidr === undefined || cidr.prefix < 8 || cidr.prefix > 126) return false;
      return isUnicast6(cidr.address) && isHostOf6(cidr, cidr.address);
    },
    { error },
  );
})();

/** Room for the host and for every guest made over the service's life, successors included. */
const managementSubnet = (() => {
  const error = 'an IPv4 network from /8 to /28 without host bits, such as 192.168.77.0/24';
  return z.string({ error }).refine(
    value => {
      const cidr = parseCidr(value);
      return cidr !== undefined && cidr.prefix >= 8 && cidr.prefix <= 28 && cidr.address === cidr.network;
    },
    { error },
  );
})();

const gateway = z
  .string({ error: 'an IPv4 address' })
  .refine(value => parseIpv4(value) !== undefined, { error: 'an IPv4 address' });

const gateway6 = z
  .string({ error: 'an IPv6 address' })
  .refine(value => parseIpv6(value) !== undefined, { error: 'an IPv6 address' });

const ports = z
  .array(whole(1, 65535), { error: 'a list of 1 to 16 ports' })
  .min(1, { error: 'a list of 1 to 16 ports' })
  .max(16, { error: 'a list of 1 to 16 ports' })
  .refine(list => new Set(list).size === list.length, { error: 'a list without repeated ports' });

/** By port: what its connections speak, for which it can be told where one exchange ends and the next begins. */
const protocols = (() => {
  const error = 'a mapping from ports to http';
  return z
    .record(z.string().regex(/^\d+$/, { error }), oneOf('http'), { error })
    .transform(given => given as Record<number, 'http'>);
})();

/** Where the guests come from. The kinds are kept apart by `kind`, so that no code can use half of each. */
const source = mapping({
  image: text(/\S/, 'a path to an appliance directory or its YAML').optional(),
  disk: text(/\S/, 'a path to a disk image that boots').optional(),
  domain: text(/^[^\s/]+$/, 'the name of a libvirt domain').optional(),
}).transform(({ image, disk, domain, ...rest }, context) => {
  const given = [image, disk, domain].filter(value => value !== undefined);
  if (given.length === 1) {
    if (image !== undefined) return { kind: 'image' as const, image };
    if (disk !== undefined) return { kind: 'disk' as const, disk };
    if (domain !== undefined) return { kind: 'domain' as const, domain };
  }
  context.issues.push({ code: 'custom', input: rest, message: 'exactly one of image, disk and domain' });
  return z.NEVER;
});

/** In the guest. It becomes a word of the kernel's command line, or of the machine's SMBIOS. */
const mountPoint = text(
  /^(\/(?!\.{1,2}(\/|$))[\w.-]+)+$/,
  'an absolute path of letters, digits and ._- such as /srv/data',
);

const hostPath = text(/^\/[^\0]*$/, 'an absolute path on this host');

/** Where the service's data outlives its guest: nowhere, on a disk that moves at a takeover, in a directory of the host's. */
const storage = z.preprocess(
  value => (value === 'none' ? { mode: 'none' } : value),
  z.discriminatedUnion(
    'mode',
    [
      mapping({ mode: z.literal('none') }),
      mapping({ mode: z.literal('handed-over'), disk: hostPath, mount: mountPoint }),
      mapping({ mode: z.literal('shared'), directory: hostPath, mount: mountPoint }),
    ],
    {
      error:
        'none, or a mapping with mode handed-over, disk and mount, or with mode shared, directory and mount',
    },
  ),
);

/** Room that a dump of a guest's memory takes at most, MiB: its RAM, what its devices have (video, firmware, shared page), and headers. */
export const dumpSizeMiB = (memoryMiB: number): number => memoryMiB + 64;

export const serviceSchema = mapping({
  name: text(SERVICE_NAME, SERVICE_NAME_IS),
  address: serviceAddress,
  gateway: gateway.optional(),
  address6: serviceAddress6.optional(),
  gateway6: gateway6.optional(),
  ports,
  protocols: protocols.default({}),
  source,
  uplink: mapping({
    bridge: text(/^(?!\.{1,2}$)[^\s/:]{1,15}$/, 'the name of a bridge on this host (at most 15 characters)'),
  }),
  management: mapping({ subnet: managementSubnet.default('192.168.77.0/24') }).prefault({}),
  guest: mapping({
    memoryMiB: whole(64, 1_048_576).default(384),
    vcpus: whole(1, 64).default(1),
  }).prefault({}),
  hypervisor: mapping({
    uri: text(/^[a-z+]+:\/\/\S*$/, 'a libvirt URI such as qemu:///system').optional(),
  }).prefault({}),
  detect: mapping({
    heartbeatMs: whole(10, 10_000).default(50),
    misses: whole(1, 100).default(3),
    // Without a value: what suits the accelerator, see recovery/evidence.ts.
    haltedMs: whole(10, 60_000).optional(),
    busyMs: whole(10, 60_000).optional(),
    stillMs: whole(10, 60_000).optional(),
    silentMs: whole(10, 60_000).optional(),
    // Absent: nobody looks whether services accept connections.
    acceptQueueMs: whole(3000, 3_600_000).optional(),
    // Absent: nobody asks the service itself.
    probe: mapping({
      port: whole(1, 65_535).optional(),
      http: text(/^\/[!-~]*$/, 'a path that begins with /, such as /healthz').optional(),
      status: whole(100, 599).optional(),
      intervalMs: whole(100, 3_600_000).default(5000),
      timeoutMs: whole(100, 600_000).default(5000),
      failures: whole(1, 100).default(3),
    }).optional(),
  }).prefault({}),
  recovery: mapping({
    compare: oneOf('sampled', 'full').default('sampled'),
    masks: z.array(oneOf('http-date'), { error: 'a list of masks' }).default(['http-date']),
    former: oneOf('keep', 'aside', 'dump', 'destroy').optional(),
    replayDeadlineMs: whole(100, 3_600_000).default(30_000),
    onApplicationExit: oneOf('failover', 'restart').default('failover'),
    restartWindowMs: whole(1000, 3_600_000).default(60_000),
  }).prefault({}),
  incidents: mapping({
    keep: whole(1, 10_000).default(50),
    sizeMiB: whole(16, 16_777_216).default(4096),
  }).prefault({}),
  log: mapping({
    sizeMiB: whole(1, 65_536).default(256),
    onFull: oneOf('backpressure', 'unprotected').default('backpressure'),
    perConnectionMiB: whole(1, 65_536).optional(),
    // Absent: the log has its memory alone. Without a directory: below the state directory.
    spill: mapping({
      directory: hostPath.optional(),
      sizeMiB: whole(1, 16_777_216).default(4096),
    }).optional(),
  }).prefault({}),
  connections: mapping({
    max: whole(16, 1_048_576).default(65_536),
    onFull: oneOf('wait', 'refuse').default('wait'),
  }).prefault({}),
  storage: storage.default({ mode: 'none' }),
})
  .superRefine((config, context) => {
    // Fields that are wrong on their own have been reported, and are compared with nothing.
    const network = parseCidr(config.address);
    const management = parseCidr(config.management.subnet);
    const address = parseIpv4(config.gateway ?? '');
    if (network && address !== undefined) {
      if (!isHostOf(network, address) || address === network.address) {
        const message = `another host of the network of address, ${formatIpv4(network.network)}/${network.prefix}`;
        context.addIssue({ code: 'custom', path: ['gateway'], message });
      }
    }
    const network6 = parseCidr6(config.address6 ?? '');
    const address6 = parseIpv6(config.gateway6 ?? '');
    if (address6 && config.address6 === undefined) {
      context.addIssue({ code: 'custom', path: ['gateway6'], message: 'nothing without address6' });
    } else if (network6 && address6 && !isLinkLocal6(address6)) {
      const itself = address6.every((byte, i) => byte === network6.address[i]);
      if (itself || !isHostOf6(network6, address6)) {
        const message = `another host of the network of address6, ${config.address6}, or a link-local address`;
        context.addIssue({ code: 'custom', path: ['gateway6'], message });
      }
    }
    if (network && management && overlaps(network, management)) {
      const message = `a network that does not overlap the service's own, ${config.address}`;
      context.addIssue({ code: 'custom', path: ['management', 'subnet'], message });
    }
    for (const port of Object.keys(config.protocols)) {
      if (config.ports.includes(Number(port))) continue;
      const message = `one of ports, ${config.ports.join(', ')}`;
      context.addIssue({ code: 'custom', path: ['protocols', port], message });
    }
    const { probe } = config.detect;
    if (probe?.port !== undefined && !config.ports.includes(probe.port)) {
      const message = `one of ports, ${config.ports.join(', ')}`;
      context.addIssue({ code: 'custom', path: ['detect', 'probe', 'port'], message });
    }
    if (probe?.status !== undefined && probe.http === undefined) {
      context.addIssue({
        code: 'custom',
        path: ['detect', 'probe', 'status'],
        message: 'nothing without http',
      });
    }
    const { former } = config.recovery;
    if (config.storage.mode === 'handed-over' && (former === 'keep' || former === 'aside')) {
      const message =
        'destroy or dump: with storage handed-over the failed machine must end before its disk moves';
      context.addIssue({ code: 'custom', path: ['recovery', 'former'], message });
    }
    if (config.storage.mode === 'shared' && former === 'aside') {
      const message =
        'keep, dump or destroy: a failed machine that runs on would write to the shared directory';
      context.addIssue({ code: 'custom', path: ['recovery', 'former'], message });
    }
    const dumpMiB = dumpSizeMiB(config.guest.memoryMiB);
    if (former === 'dump' && config.incidents.sizeMiB < dumpMiB) {
      const message = `at least ${dumpMiB}, what a dump of guest.memoryMiB takes`;
      context.addIssue({ code: 'custom', path: ['incidents', 'sizeMiB'], message });
    }
  })
  .transform(({ recovery, detect, ...config }) => {
    const former = recovery.former ?? (config.storage.mode === 'handed-over' ? 'destroy' : 'keep');
    const { probe, ...limits } = detect;
    const asked = probe && { probe: { ...probe, port: probe.port ?? config.ports[0]! } };
    return { ...config, detect: { ...limits, ...asked }, recovery: { ...recovery, former } };
  });

/** One protected service, validated, with every default filled in. */
export type ServiceConfig = z.output<typeof serviceSchema>;
