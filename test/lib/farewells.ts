import type { ConnectionTrace, Trace } from './tcp-trace.js';

/** What ended `connection` before its client had closed it, in words: a FIN or RST of the server's, at either end of the data path. */
export function earlyFarewell({ client, clientPort, toClient, toServer }: ConnectionTrace): string[] {
  const { farewellMs, resets } = toClient;
  if (farewellMs === undefined || (toServer.finMs !== undefined && toServer.finMs < farewellMs)) return [];
  return [`${client}:${clientPort} was told ${resets > 0 ? 'RST' : 'FIN'} before it had closed`];
}

/**
 * What of a connection did not pass the data path as if nothing were there. Of `guest`, captured at its tap, and at the `client`'s
 * device, from before it began until after its end: each packet of the guest came out, the client's bytes went in, and nobody spoke
 * to the guest in the client's name. (Of the client's packets, late acknowledgements may be missing: the data path drops those at all times.)
 */
export function notPassed(guest: ConnectionTrace | undefined, client: ConnectionTrace): string[] {
  const name = `${client.client}:${client.clientPort}`;
  if (guest === undefined) return [`${name} is not known at the guest`];
  const differs = (what: string, there: number, here: number) =>
    there === here ? [] : [`${name}: ${what}: ${here} at the client, ${there} at the guest`];
  return [
    ...differs('packets of the guest', guest.toClient.packets, client.toClient.packets),
    ...differs('bytes of the client', guest.toServer.bytes, client.toServer.bytes),
    ...differs('SYN', guest.syns, client.syns),
    ...differs('RST of the client', guest.toServer.resets, client.toServer.resets),
  ];
}

/** The connection of a trace by its client, as `address:port`. */
export function byClient({ connections }: Trace): Map<string, ConnectionTrace> {
  return new Map(connections.map(c => [`${c.client}:${c.clientPort}`, c]));
}
