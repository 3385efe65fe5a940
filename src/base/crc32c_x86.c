/* CRC32C with the instructions of x86-64 (SSE4.2, PCLMULQDQ). */
#if defined(__x86_64__)

#include "base/hash_impl.h"

#include <immintrin.h>
#include <string.h>

/* The crc32 instruction takes three cycles but one can begin each cycle, so three blocks that lie
 * behind each other are run at once and joined: the register after block A, moved over the n bytes
 * that follow, is A * x^8n mod P. A carry-less product with x^(8n-33), reduced by the crc32
 * instruction (which multiplies by x^32; the product of reflected values gives one more x), is that
 * (V. Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", 2011). */
#define LONG_LEN 1024
#define SHORT_LEN 128

/* x^(8n-33) mod P, reflected, for n of one and of two blocks. */
#define LONG_SHIFT_1 0x170076fau
#define LONG_SHIFT_2 0xa51b6135u
#define SHORT_SHIFT_1 0x0d3b6092u
#define SHORT_SHIFT_2 0xb9e02b86u

#define TARGET __attribute__((target("sse4.2,pclmul")))

bool vv_crc32c_has_hardware(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

static uint64_t load(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

/* The register `crc` moved over as many bytes as `shift` stands for. */
TARGET static uint32_t move_over(uint64_t crc, uint32_t shift)
{
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi32_si128((int)shift), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* Three blocks of `len` bytes (a multiple of 8) at once. */
TARGET static inline uint32_t three_blocks(uint32_t crc, const uint8_t *bytes, size_t len,
                                           uint32_t shift_1, uint32_t shift_2)
{
    uint64_t a = crc;
    uint64_t b = 0;
    uint64_t c = 0;
    for (size_t i = 0; i < len; i += 8) {
        a = _mm_crc32_u64(a, load(bytes + i));
        b = _mm_crc32_u64(b, load(bytes + len + i));
        c = _mm_crc32_u64(c, load(bytes + 2 * len + i));
    }
    return move_over(a, shift_2) ^ move_over(b, shift_1) ^ (uint32_t)c;
}

TARGET uint32_t vv_crc32c_hardware(uint32_t crc, const uint8_t *bytes, size_t len)
{
    for (; len >= 3 * LONG_LEN; bytes += 3 * LONG_LEN, len -= 3 * LONG_LEN)
        crc = three_blocks(crc, bytes, LONG_LEN, LONG_SHIFT_1, LONG_SHIFT_2);
    for (; len >= 3 * SHORT_LEN; bytes += 3 * SHORT_LEN, len -= 3 * SHORT_LEN)
        crc = three_blocks(crc, bytes, SHORT_LEN, SHORT_SHIFT_1, SHORT_SHIFT_2);
    for (; len >= 8; bytes += 8, len -= 8)
        crc = (uint32_t)_mm_crc32_u64(crc, load(bytes));
    for (; len > 0; bytes++, len--)
        crc = _mm_crc32_u8(crc, *bytes);
    return crc;
}

#endif
