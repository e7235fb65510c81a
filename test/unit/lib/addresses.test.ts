import test from 'ava';
import {
  formatAddress,
  formatEndpoint,
  linkLocal,
  parseAddress,
} from '../../../hypervisor-shim/datapath/addresses.js';

test('addresses: text to bytes and back, in the form of RFC 5952', t => {
  for (const [text, canonical] of [
    ['10.77.0.10', '10.77.0.10'],
    ['2001:DB8::0010', '2001:db8::10'],
    ['::', '::'],
    ['::1', '::1'],
    ['fd77::', 'fd77::'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['1:0:0:2:3:0:0:4', '1::2:3:0:0:4'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
  ] as const) {
    const bytes = parseAddress(text);
    t.is(bytes && formatAddress(bytes), canonical, text);
  }
  for (const text of ['', 'fe80::1%eth0', '10.0.0', ':::', '1::2::3', 'host'])
    t.is(parseAddress(text), undefined);
});

test('addresses: an endpoint puts IPv6 in brackets', t => {
  t.is(formatEndpoint('10.0.0.1', 80), '10.0.0.1:80');
  t.is(formatEndpoint('fd77::1', 80), '[fd77::1]:80');
});

test('addresses: the link-local address of a MAC', t => {
  t.is(formatAddress(linkLocal(Uint8Array.of(0x02, 0x48, 0x46, 0, 0, 0x10))), 'fe80::48:46ff:fe00:10');
});
