#include "base/bytes.h"
#include "base/hash.h"
#include "tap.h"

int main(void)
{
    char text[33];
    uint8_t out[16];
    tap_ok(vv_xxh3("", 0, 0) == UINT64_C(0x2d06800538d394c2), "XXH3-64 of nothing");
    vv_xxh3_128("", 0, 0, out);
    vv_hex(out, 16, text);
    tap_is_str(text, "99aa06d3014798d86001c324468d497f", "XXH3-128 of nothing, canonical");
    tap_ok(vv_xxh3("varve", 5, 1) != vv_xxh3("varve", 5, 2), "the seed matters");
    tap_ok(vv_mix64(0) == UINT64_C(0xe220a8397b1dcdaf), "SplitMix64's first number for seed 0");
    return tap_done();
}
