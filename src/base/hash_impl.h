/* The variants of CRC32C, one file each. All take and give the inverted register, as the
 * processor's instructions do; vv_crc32c inverts. Private to base; any thread; never suspends. */
#ifndef VV_BASE_HASH_IMPL_H
#define VV_BASE_HASH_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether this processor has the instructions that vv_crc32c_hardware needs. */
bool vv_crc32c_has_hardware(void);
uint32_t vv_crc32c_hardware(uint32_t crc, const uint8_t *bytes, size_t len);
/* Runs everywhere. */
uint32_t vv_crc32c_table(uint32_t crc, const uint8_t *bytes, size_t len);

#endif
