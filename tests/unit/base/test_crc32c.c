#include <string.h>

#include "base/hash.h"
#include "base/hash_impl.h"
#include "tap.h"

static uint8_t buf[10000];

int main(void)
{
    uint8_t bytes[32] = {0};
    tap_ok(vv_crc32c(0, "123456789", 9) == 0xe3069283, "the check value");
    tap_ok(vv_crc32c(0, bytes, 32) == 0x8a9136aa, "RFC 3720: 32 bytes of zeroes");
    memset(bytes, 0xff, 32);
    tap_ok(vv_crc32c(0, bytes, 32) == 0x62a8ab43, "RFC 3720: 32 bytes of ones");
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    tap_ok(vv_crc32c(0, bytes, 32) == 0x46dd794e, "RFC 3720: 32 ascending bytes");
    tap_ok(vv_crc32c(0, NULL, 0) == 0, "nothing");

    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)vv_mix64(i);
    uint32_t whole = vv_crc32c(0, buf, sizeof(buf));
    bool is_same = true;
    for (size_t cut = 0; cut <= sizeof(buf); cut += 7)
        is_same &= vv_crc32c(vv_crc32c(0, buf, cut), buf + cut, sizeof(buf) - cut) == whole;
    tap_ok(is_same, "may be continued at any place");

    if (!vv_crc32c_has_hardware()) {
        tap_skip("this processor has no instruction for it");
        return tap_done();
    }
    is_same = true;
    for (size_t len = 0; len < sizeof(buf) - 8; len += len < 1000 ? 1 : 13)
        is_same &= vv_crc32c_hardware(~(uint32_t)len, buf + len % 8, len) ==
                   vv_crc32c_table(~(uint32_t)len, buf + len % 8, len);
    tap_ok(is_same, "the hardware and the table agree");
    return tap_done();
}
