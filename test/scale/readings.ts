import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { CONST } from '../../hypervisor-shim/datapath/layout.generated.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { namespacePids } from '../lib/namespaces.js';

/** What holds a connection, in bytes of the whole machine, but for the clients. */
export interface Memory {
  flowRecords: number;
  indexEntries: number;
  logSegments: number;
  /** The guest's kernel sockets, and what belongs to each: inode, file, epoll entry. The clients' are as many. */
  sockets: number;
  guestHeap: number;
  supervisorHeap: number;
}

/** Caches of the kernel in which an open TCP socket has one object. */
const SOCKET_CACHES = ['TCP', 'sock_inode_cache', 'filp', 'eventpoll_epi'];
const TICKS_PER_SECOND = 100;

const field = (text: string, name: string): number =>
  Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? Number.NaN);

/** Memory of a map by the kernel's own account, which is that of all its entries: they are made ahead. */
function bytesPerEntry(path: DataPath, map: string): number {
  const fd = path.fd(map);
  return field(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), 'memlock') / native.mapInfo(fd).maxEntries;
}

/** Objects in use and their size, of one cache of the kernel's. */
function slab(name: string): { objects: number; bytes: number } {
  const line = readFileSync('/proc/slabinfo', 'latin1')
    .split('\n')
    .find(l => l.startsWith(`${name} `));
  const [, objects = 0, , bytes = 0] = line?.split(/\s+/).map(Number) ?? [];
  return { objects, bytes };
}

const anonymous = (pid: number | 'self'): number =>
  1024 * field(readFileSync(`/proc/${pid}/status`, 'latin1'), 'RssAnon');

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** What this thread's heap holds once all garbage is gone: else the garbage of earlier recoveries would be counted. */
function heap(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

export async function readMemory(path: DataPath, guest: string): Promise<Memory> {
  const { small_free, large_free } = path.control;
  const total = (map: string) => native.mapInfo(path.fd(map)).maxEntries;
  const small = total('free_small') - small_free;
  const large = total('free_large') - large_free;
  const flows = [...path.flows()].length;
  return {
    flowRecords: flows * bytesPerEntry(path, 'flows'),
    indexEntries:
      flows * bytesPerEntry(path, 'wire_index') + (small + large) * bytesPerEntry(path, 'segments'),
    logSegments: small * CONST.SMALL_STRIDE + large * CONST.LARGE_STRIDE,
    sockets: SOCKET_CACHES.map(slab).reduce((sum, { objects, bytes }) => sum + objects * bytes, 0) / 2,
    guestHeap: (await namespacePids(guest)).reduce((sum, pid) => sum + anonymous(pid), 0),
    supervisorHeap: heap(),
  };
}

/** CPU time so far, ms. */
export interface Cpu {
  /** All threads of this process: supervisor, replay worker. */
  user: number;
  system: number;
  guest: number;
  /** Of the whole machine, whoever caused it. */
  softirq: number;
  machine: number;
}

/** @param guest processes of the guest */
export function readCpu(guest: number[]): Cpu {
  const own = process.cpuUsage();
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'latin1')
    .split('\n')[0]!
    .split(/\s+/)
    .map(Number);
  const ms = (ticks: number) => (1000 * ticks) / TICKS_PER_SECOND;
  return {
    user: own.user / 1000,
    system: own.system / 1000,
    guest: guest.reduce((sum, pid) => sum + onCpu(pid), 0),
    softirq: ms(softirq),
    machine: ms(user + nice + system + irq + softirq),
  };
}

/** From schedstat, ms. */
function onCpu(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const ns = (task: string) => readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'latin1').split(' ')[0];
  return tasks.reduce((sum, task) => sum + Number(ns(task)) / 1e6, 0);
}

export const difference = <T extends { [K in keyof T]: number }>(after: T, before: T): T =>
  Object.fromEntries(
    Object.keys(after).map(key => [key, after[key as keyof T] - before[key as keyof T]]),
  ) as T;

/** The peak of this process's resident memory begins anew. */
export const resetPeak = (): void => writeFileSync('/proc/self/clear_refs', '5');

/** Bytes: now, the most since `resetPeak`, and what is this process's own: the log, which is mapped, is in the other two. */
export function readResident(): { now: number; peak: number; own: number } {
  const status = readFileSync('/proc/self/status', 'latin1');
  return { now: 1024 * field(status, 'VmRSS'), peak: 1024 * field(status, 'VmHWM'), own: anonymous('self') };
}

export const openSockets = (): number => slab('TCP').objects;
