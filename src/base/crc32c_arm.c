/* CRC32C with the instructions of aarch64 (optional in ARMv8.0). They are spelled in assembly
 * because gcc and clang disagree on how to switch their intrinsics on for one function. */
#if defined(__aarch64__)

#include "base/hash_impl.h"

#include <endian.h>
#include <string.h>
#include <sys/auxv.h>

#define HWCAP_HAS_CRC32 (1u << 7)

bool vv_crc32c_has_hardware(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_HAS_CRC32) != 0;
}

static inline uint32_t add_u64(uint32_t crc, uint64_t value)
{
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(value));
    return crc;
}

static inline uint32_t add_u8(uint32_t crc, uint32_t value)
{
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(value));
    return crc;
}

uint32_t vv_crc32c_hardware(uint32_t crc, const uint8_t *bytes, size_t len)
{
    for (; len >= 8; bytes += 8, len -= 8) {
        uint64_t value;
        memcpy(&value, bytes, sizeof(value));
        crc = add_u64(crc, le64toh(value));
    }
    for (; len > 0; bytes++, len--)
        crc = add_u8(crc, *bytes);
    return crc;
}

#endif
