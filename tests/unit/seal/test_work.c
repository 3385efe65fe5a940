#include "seal/work_impl.h"

#include <string.h>

#include "base/alloc.h"
#include "unit/seal/fixture.h"

#define LEN_MAX (1u << 20)

static uint8_t plain[LEN_MAX];
static uint8_t out[LEN_MAX];
static uint8_t back[LEN_MAX];

static const char *method_name(const struct vv_work_method *method)
{
    return vv_compression_name(method->compression);
}

static void test_round_trip(const struct vv_work_method *method, size_t len)
{
    struct vv_bytes packed = {NULL, 0};
    fixture_text(plain, len);
    struct vv_work *work = vv_work_take();
    int err = vv_work_compress(work, method, (struct vv_bytes){plain, len}, out, &packed);
    tap_is_int(err, 0, "%s of %zu", method_name(method), len);
    tap_ok(packed.len > 0 && packed.len < len * 3 / 4, "shrinks to %zu", packed.len);
    static uint8_t copy[LEN_MAX];
    memcpy(copy, packed.ptr, packed.len);
    packed.ptr = copy;
    memset(back, 0, len);
    tap_is_int(vv_work_decompress(work, method->compression, packed, back, len), 0, "comes back");
    tap_is_bytes(back, plain, len, "as it was");
    tap_is_int(vv_work_decompress(work, method->compression, packed, back, len - 1), -VV_ERR_FORMAT,
               "does not fit into less");
    tap_is_int(vv_work_decompress(work, method->compression, packed, back, len + 1), -VV_ERR_FORMAT,
               "does not fill more");
    packed.len--;
    tap_is_int(vv_work_decompress(work, method->compression, packed, back, len), -VV_ERR_FORMAT,
               "nothing may be missing");
    vv_work_give(work);
}

static void test_incompressible(const struct vv_work_method *method, size_t len)
{
    struct vv_bytes packed = {plain, 1};
    fixture_noise(plain, len, len);
    struct vv_work *work = vv_work_take();
    int err = vv_work_compress(work, method, (struct vv_bytes){plain, len}, out, &packed);
    vv_work_give(work);
    tap_ok(err == 0 && packed.len == 0, "%s of %zu random bytes gives up", method_name(method),
           len);
}

/* A text after noise, or after anything else, packs as it does at first. */
static void test_determinism(const struct vv_work_method *method, size_t len)
{
    static uint8_t first[LEN_MAX];
    struct vv_bytes packed = {NULL, 0};
    size_t first_len = 0;
    int differing_count = 0;
    for (size_t round = 0; round < 12; round++) {
        struct vv_work *work = vv_work_take();
        size_t noise_len = round * 4999;
        fixture_noise(plain, noise_len, round);
        fixture_text(plain + noise_len / 2, noise_len / 3);
        if (vv_work_compress(work, method, (struct vv_bytes){plain, noise_len}, out, &packed) < 0)
            differing_count++;
        /* Halves that repeat each other, from a table that knows them already. */
        fixture_text(plain, len);
        fixture_noise(plain, len / 8, 3);
        if (vv_work_compress(work, method, (struct vv_bytes){plain, len}, out, &packed) < 0)
            differing_count++;
        if (round == 0) {
            first_len = packed.len;
            memcpy(first, packed.ptr, packed.len);
        }
        differing_count += packed.len != first_len || memcmp(packed.ptr, first, first_len) != 0;
        vv_work_give(work);
    }
    tap_ok(first_len > 0, "%s of %zu bytes packs", method_name(method), len);
    tap_is_int(differing_count, 0, "the same every time");
}

/* The samples must not all lie in the part that does not shrink. */
static void test_hope(void)
{
    struct vv_work_method method = {VV_COMPRESSION_LZ4, 0};
    struct vv_bytes packed = {NULL, 0};
    int missed_count = 0;
    for (size_t page = 0; page < 8; page++) {
        fixture_noise(plain, 32768, page);
        memset(plain + page * 4096, 0, 4096);
        struct vv_work *work = vv_work_take();
        struct vv_bytes text = {plain, 32768};
        missed_count += vv_work_compress(work, &method, text, out, &packed) != 0;
        missed_count += packed.len == 0;
        vv_work_give(work);
    }
    tap_is_int(missed_count, 0, "one page of eight that shrinks is enough");
}

/* Bytes that look random one by one, but come again: behind a first page that does not shrink. */
static void test_repeats(void)
{
    struct vv_work_method method = {VV_COMPRESSION_LZ4, 0};
    struct vv_bytes packed = {NULL, 0};
    int missed_count = 0;
    for (size_t period = 16; period <= 64; period *= 2) {
        for (size_t len = 16384; len <= LEN_MAX && len <= 262144; len *= 4) {
            fixture_noise(plain, len, period);
            for (size_t at = 4096; at < len; at++)
                plain[at] = plain[at - at % 4096 + at % period];
            struct vv_work *work = vv_work_take();
            struct vv_bytes text = {plain, len};
            missed_count += vv_work_compress(work, &method, text, out, &packed) != 0;
            missed_count += packed.len == 0;
            vv_work_give(work);
        }
    }
    tap_is_int(missed_count, 0, "random bytes that repeat themselves are found out");
}

static void test_scratch(void)
{
    struct vv_work *work = vv_work_take();
    struct vv_work *other = vv_work_take();
    tap_ok(work != other, "two at once are not the same");
    size_t live = vv_alloc_domain_count(0);
    uint8_t *scratch = vv_work_scratch(work, 64u << 10);
    tap_is_int((int64_t)vv_alloc_domain_count(0), (int64_t)live, "64 KiB need no allocation");
    memset(scratch, 1, 64u << 10);
    scratch = vv_work_scratch(other, 1u << 20);
    tap_is_int((int64_t)vv_alloc_domain_count(0), (int64_t)live + 1, "1 MiB needs one");
    memset(scratch, 1, 1u << 20);
    vv_work_give(work);
    vv_work_give(other);
    tap_is_int((int64_t)vv_alloc_domain_count(0), (int64_t)live, "which is freed");
    work = vv_work_take();
    vv_alloc_fail_at(0, false);
    tap_ok(!vv_work_scratch(work, 1u << 20), "NULL when there is no memory");
    vv_alloc_fail_at(-1, false);
    vv_work_give(work);
}

int main(void)
{
    static const size_t lens[] = {100, 4096, 16384, 32768, 65536, 65537, 1u << 20};
    static const struct vv_work_method methods[] = {
        {VV_COMPRESSION_LZ4, 0},
        {VV_COMPRESSION_ZSTD, 0},
        {VV_COMPRESSION_ZSTD, 3},
        {VV_COMPRESSION_ZSTD, 9},
    };
    vv_alloc_track(true);
    for (size_t m = 0; m < sizeof(methods) / sizeof(methods[0]); m++) {
        for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
            test_round_trip(&methods[m], lens[i]);
        test_incompressible(&methods[m], 0);
        test_incompressible(&methods[m], 1);
        test_incompressible(&methods[m], 4096);
        test_incompressible(&methods[m], 32768);
        test_incompressible(&methods[m], 1u << 20);
        test_determinism(&methods[m], 2000);
        test_determinism(&methods[m], 32768);
        test_determinism(&methods[m], 100000);
    }
    test_hope();
    test_repeats();
    test_scratch();
    return tap_done();
}
