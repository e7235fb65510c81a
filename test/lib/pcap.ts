/**
 * Reader of classic pcap files (libpcap's savefile(5); micro- or nanosecond stamps, either byte order) with Ethernet frames.
 * Frames are views: the callback gets offsets into one buffer, nothing is copied.
 */
export interface Frame {
  /** Moment of capture, ms since 1970 with fractions. */
  atMs: number;
  /** First byte of the frame in `file`, bytes kept of it, and its length on the wire. */
  offset: number;
  captured: number;
  length: number;
}

const LINKTYPE_ETHERNET = 1;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;

/** Calls `visit` for each frame; the `Frame` object is reused between calls. A last record cut short is ignored. */
export function forEachFrame(file: Buffer, visit: (frame: Frame) => void): void {
  if (file.length < FILE_HEADER) throw new Error(`pcap file of ${file.length} bytes: header is missing`);
  const magic = file.readUInt32LE(0);
  const little = magic === 0xa1b2c3d4 || magic === 0xa1b23c4d;
  const nano = magic === 0xa1b23c4d || magic === 0x4d3cb2a1;
  if (!little && magic !== 0xd4c3b2a1 && magic !== 0x4d3cb2a1)
    throw new Error(`not a pcap file: magic 0x${magic.toString(16)}`);
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const link = view.getUint32(20, little) & 0xffff;
  if (link !== LINKTYPE_ETHERNET) throw new Error(`pcap link type ${link}: only Ethernet (1) is read`);
  const perMs = nano ? 1e6 : 1e3;
  const frame: Frame = { atMs: 0, offset: 0, captured: 0, length: 0 };
  for (let at = FILE_HEADER; at + RECORD_HEADER <= file.length; ) {
    frame.atMs = view.getUint32(at, little) * 1e3 + view.getUint32(at + 4, little) / perMs;
    frame.captured = view.getUint32(at + 8, little);
    frame.length = view.getUint32(at + 12, little);
    frame.offset = at + RECORD_HEADER;
    at = frame.offset + frame.captured;
    if (at > file.length) return;
    visit(frame);
  }
}
