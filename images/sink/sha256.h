// SHA-256 (FIPS 180-4) in plain C: an emulated CPU runs this faster than the vector code of a crypto library.
#pragma once
#include <stdint.h>
#include <string.h>

struct sha256 {
  uint32_t state[8];
  uint64_t bytes;
  uint8_t block[64];
};

static inline uint32_t sha256_ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_init(struct sha256 *s) {
  static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(s->state, initial, sizeof initial);
  s->bytes = 0;
}

// One round, with the roles of the variables rotated by the caller instead of moved. Constants are immediates, the
// rotations are nested and majority reuses a ^ b of the round before: an emulated CPU pays most for memory and copies.
#define SHA256_ROUND(a, b, c, d, e, f, g, h, k, word)                                                        \
  do {                                                                                                       \
    uint32_t x = h + k + (word) + (g ^ (e & (f ^ g)));                                                       \
    uint32_t r = sha256_ror(sha256_ror(sha256_ror(e, 14) ^ e, 5) ^ e, 6);                                    \
    uint32_t s = sha256_ror(sha256_ror(sha256_ror(a, 9) ^ a, 11) ^ a, 2);                                    \
    uint32_t ab = a ^ b;                                                                                     \
    x += r;                                                                                                  \
    d += x;                                                                                                  \
    h = x + s + (b ^ (ab & bc));                                                                             \
    bc = ab;                                                                                                 \
  } while (0)

// Message schedule: the first 16 words are the block, big-endian; the ring of 16 is then extended in place.
#define SHA256_LOAD(i) (w[i] = sha256_be32(data + 4 * (i)))
#define SHA256_NEXT(i)                                                                                       \
  (w[i] += w[((i) + 9) & 15] + sha256_sigma0(w[((i) + 1) & 15]) + sha256_sigma1(w[((i) + 14) & 15]))
#define SHA256_8(word, i, k0, k1, k2, k3, k4, k5, k6, k7)                                                    \
  SHA256_ROUND(a, b, c, d, e, f, g, h, k0, word(i));                                                         \
  SHA256_ROUND(h, a, b, c, d, e, f, g, k1, word(i + 1));                                                     \
  SHA256_ROUND(g, h, a, b, c, d, e, f, k2, word(i + 2));                                                     \
  SHA256_ROUND(f, g, h, a, b, c, d, e, k3, word(i + 3));                                                     \
  SHA256_ROUND(e, f, g, h, a, b, c, d, k4, word(i + 4));                                                     \
  SHA256_ROUND(d, e, f, g, h, a, b, c, k5, word(i + 5));                                                     \
  SHA256_ROUND(c, d, e, f, g, h, a, b, k6, word(i + 6));                                                     \
  SHA256_ROUND(b, c, d, e, f, g, h, a, k7, word(i + 7))

static inline uint32_t sha256_be32(const uint8_t *p) {
  uint32_t word;
  memcpy(&word, p, 4);
  return __builtin_bswap32(word);
}

static inline uint32_t sha256_sigma0(uint32_t x) { return sha256_ror(sha256_ror(x, 11) ^ x, 7) ^ x >> 3; }
static inline uint32_t sha256_sigma1(uint32_t x) { return sha256_ror(sha256_ror(x, 2) ^ x, 17) ^ x >> 10; }

static void sha256_blocks(struct sha256 *s, const uint8_t *data, size_t count) {
  uint32_t w[16];
  uint32_t *v = s->state;
  for (; count > 0; count--, data += 64) {
    uint32_t a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5], g = v[6], h = v[7], bc = b ^ c;
    SHA256_8(SHA256_LOAD, 0, 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5,
             0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5);
    SHA256_8(SHA256_LOAD, 8, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
             0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174);
    SHA256_8(SHA256_NEXT, 0, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
             0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da);
    SHA256_8(SHA256_NEXT, 8, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
             0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967);
    SHA256_8(SHA256_NEXT, 0, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
             0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85);
    SHA256_8(SHA256_NEXT, 8, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
             0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070);
    SHA256_8(SHA256_NEXT, 0, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5,
             0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3);
    SHA256_8(SHA256_NEXT, 8, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
             0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2);
    v[0] += a, v[1] += b, v[2] += c, v[3] += d, v[4] += e, v[5] += f, v[6] += g, v[7] += h;
  }
}

static void sha256_update(struct sha256 *s, const uint8_t *data, size_t n) {
  size_t used = s->bytes % 64;
  s->bytes += n;
  if (used > 0) {
    size_t take = n < 64 - used ? n : 64 - used;
    memcpy(s->block + used, data, take);
    data += take, n -= take;
    if (used + take < 64) return;
    sha256_blocks(s, s->block, 1);
  }
  sha256_blocks(s, data, n / 64);
  memcpy(s->block, data + n / 64 * 64, n % 64);
}

// Writes 64 hexadecimal digits.
static void sha256_hex(struct sha256 *s, char *out) {
  uint64_t bits = s->bytes * 8;
  uint8_t pad[72] = {0x80};
  size_t n = (119 - s->bytes % 64) % 64 + 1;
  for (int i = 0; i < 8; i++) pad[n + i] = bits >> (56 - 8 * i);
  sha256_update(s, pad, n + 8);
  for (int i = 0; i < 64; i++) out[i] = "0123456789abcdef"[s->state[i / 8] >> (28 - 4 * (i % 8)) & 15];
}
