#include "base/hash.h"

#include "base/hash_impl.h"

uint32_t vv_crc32c(uint32_t crc, const void *bytes, size_t len)
{
    if (vv_crc32c_has_hardware())
        return ~vv_crc32c_hardware(~crc, bytes, len);
    return ~vv_crc32c_table(~crc, bytes, len);
}
