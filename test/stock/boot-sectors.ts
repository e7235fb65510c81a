import { closeSync, openSync, truncateSync, writeSync } from 'node:fs';

const SECTOR = 512;
/** Code of the boot record; the disk's number and the partition table follow. */
const BOOT_CODE = 440;
const TABLE = 446;
const SIGNATURE = 510;

/**
 * Makes a disk that holds one file system bootable by BIOS: GRUB's boot record, its core image from the second sector on (where
 * `boot.img` looks for it unless told otherwise), and a partition table of one active Linux partition.
 */
export function writeBootSectors(
  disk: string,
  parts: { boot: Buffer; core: Buffer; partition: { at: number; bytes: number } },
): void {
  const { boot, core, partition } = parts;
  if (SECTOR + core.length > partition.at) throw new RangeError(`core image of ${core.length} bytes`);
  const record = Buffer.alloc(SECTOR);
  boot.copy(record, 0, 0, BOOT_CODE);
  record.writeUInt8(0x80, TABLE); // active
  record.writeUInt8(0x83, TABLE + 4); // Linux
  record.writeUInt32LE(partition.at / SECTOR, TABLE + 8);
  record.writeUInt32LE(partition.bytes / SECTOR, TABLE + 12);
  record.writeUInt16LE(0xaa55, SIGNATURE);
  truncateSync(disk, partition.at + partition.bytes);
  const fd = openSync(disk, 'r+');
  writeSync(fd, record, 0, SECTOR, 0);
  writeSync(fd, core, 0, core.length, SECTOR);
  closeSync(fd);
}
