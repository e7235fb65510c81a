/** One direction of a connection, as far as it is known. */
export interface Stream {
  /** End of what was sent so far, a position. */
  readonly end: bigint;
  /** At most `most` bytes from `from` on without a gap; fewer, or none, where the log does not have them. */
  read(from: bigint, most: number): Uint8Array;
}

/** A place in both directions at which all that was asked has been answered whole: what comes next depends on nothing before it. */
export interface Boundary {
  in: bigint;
  out: bigint;
}

/** Follows one connection of a protocol in which such places can be told. */
export interface Tracker {
  /** Whether the connection is one that can be followed, as far as can be told. */
  readonly isKnown: boolean;
  /** Takes in what is new. The last place known, or undefined if there was none, or the connection is none that can be followed. */
  follow(input: Stream, output: Stream): Boundary | undefined;
}
