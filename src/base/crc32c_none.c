/* CRC32C on processors for which there is no variant with instructions. */
#if !defined(__x86_64__) && !defined(__aarch64__)

#include "base/hash_impl.h"

bool vv_crc32c_has_hardware(void)
{
    return false;
}

uint32_t vv_crc32c_hardware(uint32_t crc, const uint8_t *bytes, size_t len)
{
    return vv_crc32c_table(crc, bytes, len);
}

#endif
