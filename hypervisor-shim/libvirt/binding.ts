import koffi, { type KoffiFunc } from 'koffi';

/** Address of an object of libvirt's. Valid in every thread of the process. */
export type Pointer = bigint;

const library = koffi.load('libvirt.so.0');
const libc = koffi.load('libc.so.6');

function bind<F extends (...args: never[]) => unknown>(definition: string): KoffiFunc<F> {
  return library.func(definition) as KoffiFunc<F>;
}

type OfDomain = (domain: Pointer) => number;

/** The functions of libvirt.so.0 in use. They block: call them in a worker only (`updateTimeout` excepted). */
export const vir = {
  initialize: bind<() => number>('int virInitialize()'),
  setErrorFunc: bind<(userData: null, handler: Pointer) => void>('void virSetErrorFunc(void *, void *)'),
  resetLastError: bind<() => void>('void virResetLastError()'),
  lastErrorCode: bind<() => number>('int virGetLastErrorCode()'),
  lastErrorDomain: bind<() => number>('int virGetLastErrorDomain()'),
  lastErrorMessage: bind<() => string>('const char *virGetLastErrorMessage()'),

  registerDefaultImpl: bind<() => number>('int virEventRegisterDefaultImpl()'),
  runDefaultImpl: bind<() => number>('int virEventRunDefaultImpl()'),
  addTimeout: bind<(ms: number, callback: Pointer, opaque: null, free: null) => number>(
    'int virEventAddTimeout(int, void *, void *, void *)',
  ),
  updateTimeout: bind<(timer: number, ms: number) => void>('void virEventUpdateTimeout(int, int)'),

  connectOpen: bind<(uri: string) => Pointer | null>('void *virConnectOpen(const char *)'),
  connectClose: bind<(connection: Pointer) => number>('int virConnectClose(void *)'),
  connectIsAlive: bind<(connection: Pointer) => number>('int virConnectIsAlive(void *)'),
  setKeepAlive: bind<(connection: Pointer, intervalS: number, count: number) => number>(
    'int virConnectSetKeepAlive(void *, int, unsigned int)',
  ),
  registerClose: bind<(connection: Pointer, callback: Pointer, opaque: null, free: null) => number>(
    'int virConnectRegisterCloseCallback(void *, void *, void *, void *)',
  ),
  unregisterClose: bind<(connection: Pointer, callback: Pointer) => number>(
    'int virConnectUnregisterCloseCallback(void *, void *)',
  ),
  registerEvent: bind<
    (connection: Pointer, domain: null, id: number, callback: Pointer, opaque: null, free: null) => number
  >('int virConnectDomainEventRegisterAny(void *, void *, int, void *, void *, void *)'),
  deregisterEvent: bind<(connection: Pointer, callbackId: number) => number>(
    'int virConnectDomainEventDeregisterAny(void *, int)',
  ),

  listAllDomains: bind<(connection: Pointer, list: [Pointer | null], flags: number) => number>(
    'int virConnectListAllDomains(void *, _Out_ void **, unsigned int)',
  ),
  lookupByName: bind<(connection: Pointer, name: string) => Pointer | null>(
    'void *virDomainLookupByName(void *, const char *)',
  ),
  defineXml: bind<(connection: Pointer, xml: string) => Pointer | null>(
    'void *virDomainDefineXML(void *, const char *)',
  ),
  domainName: bind<(domain: Pointer) => string>('const char *virDomainGetName(void *)'),
  domainFree: bind<OfDomain>('int virDomainFree(void *)'),
  isActive: bind<OfDomain>('int virDomainIsActive(void *)'),
  createWithFlags: bind<(domain: Pointer, flags: number) => number>(
    'int virDomainCreateWithFlags(void *, unsigned int)',
  ),
  suspend: bind<OfDomain>('int virDomainSuspend(void *)'),
  resume: bind<OfDomain>('int virDomainResume(void *)'),
  destroy: bind<OfDomain>('int virDomainDestroy(void *)'),
  undefineFlags: bind<(domain: Pointer, flags: number) => number>(
    'int virDomainUndefineFlags(void *, unsigned int)',
  ),
  attachDevice: bind<(domain: Pointer, xml: string, flags: number) => number>(
    'int virDomainAttachDeviceFlags(void *, const char *, unsigned int)',
  ),
  /** The string is the caller's to free. */
  xmlDescription: bind<(domain: Pointer, flags: number) => Pointer | null>(
    'void *virDomainGetXMLDesc(void *, unsigned int)',
  ),
  coreDump: bind<(domain: Pointer, file: string, format: number, flags: number) => number>(
    'int virDomainCoreDumpWithFormat(void *, const char *, unsigned int, unsigned int)',
  ),
  getState: bind<(domain: Pointer, state: [number], reason: [number], flags: number) => number>(
    'int virDomainGetState(void *, _Out_ int *, _Out_ int *, unsigned int)',
  ),
  blockStats: bind<(domain: Pointer, disk: string, stats: Buffer, bytes: number) => number>(
    'int virDomainBlockStats(void *, const char *, void *, size_t)',
  ),
  getVcpus: bind<(domain: Pointer, info: Buffer, max: number, maps: null, mapBytes: number) => number>(
    'int virDomainGetVcpus(void *, void *, int, void *, int)',
  ),
};

/** `free` of the C library, for arrays that libvirt hands over. */
export const free = libc.func('void free(void *)') as KoffiFunc<(pointer: Pointer) => void>;

/**
 * Makes libvirt usable and quiet in this process. Call it in each worker before anything else.
 *
 * libvirt prints every error on stderr unless it is given a handler. The handler runs on libvirt's own threads,
 * where JavaScript must not, so it is a harmless C function (`labs`).
 */
export function initialize(): void {
  vir.initialize();
  vir.setErrorFunc(null, libc.symbol('labs') as Pointer);
}
