/* Hashes that are not cryptography: CRC32C for formats, XXH3 for maps, filters and checksums.
 * Any thread; no state; never suspends. */
#ifndef VV_BASE_HASH_H
#define VV_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* CRC32C (Castagnoli, RFC 3720 appendix B.4), continued from `crc` (0 to begin). Uses the
 * processor's instruction where it has one. */
uint32_t vv_crc32c(uint32_t crc, const void *bytes, size_t len);

/* XXH3, 64 bits with a seed. */
uint64_t vv_xxh3(const void *bytes, size_t len, uint64_t seed);

/* XXH3, 128 bits, as 16 bytes in canonical (big-endian) order. */
void vv_xxh3_128(const void *bytes, size_t len, uint64_t seed, uint8_t out[16]);

/* A good mix of one integer, for hash tables. */
uint64_t vv_mix64(uint64_t value);

#endif
