import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../native/native.js';

const PROBES = 3;
/** Between probes; a host on the same network answers within a millisecond. */
const WAIT_MS = 200;
/** Frames read after a probe, at most: the network is not ours. */
const BURST = 1000;

/** A question to a network, who has an address, and how an answer reads. */
export interface AddressProbe {
  /** Ethernet type of question and answers. */
  protocol: number;
  frame: Uint8Array;
  /** The MAC address of whoever claims the address in a frame that came in; undefined for all other frames. */
  claimedBy(frame: Uint8Array): Uint8Array | undefined;
}

/** Asks the network of an interface. Resolves with the MAC address of whoever has the address, or wants it too; undefined for nobody. */
export async function askNetwork(ifindex: number, probe: AddressProbe): Promise<string | undefined> {
  const fd = native.protocolSocket(ifindex, probe.protocol);
  try {
    for (let n = 0; n < PROBES; n++) {
      const sent = native.packetSend(fd, ifindex, probe.frame);
      if (sent < 0) throw new Error(`a probe could not be sent: errno ${-sent}`);
      await sleep(WAIT_MS);
      const answer = answerTo(probe, fd);
      if (answer) return Array.from(answer, byte => byte.toString(16).padStart(2, '0')).join(':');
    }
    return undefined;
  } finally {
    native.closeFd(fd);
  }
}

function answerTo(probe: AddressProbe, fd: number): Uint8Array | undefined {
  const frame = new Uint8Array(2048);
  for (let n = 0; n < BURST; n++) {
    const bytes = native.packetReceive(fd, frame);
    if (bytes < 0) return undefined;
    const answer = probe.claimedBy(frame.subarray(0, bytes));
    if (answer) return answer;
  }
  return undefined;
}

export const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
export const isZero = (bytes: Uint8Array): boolean => bytes.every(byte => byte === 0);
