#include "base/alloc.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "tap.h"

static void test_basics(const char *mode)
{
    uint8_t *zeroes = vv_zalloc(100);
    bool is_zero = zeroes != NULL;
    for (int i = 0; i < 100; i++)
        is_zero &= zeroes[i] == 0;
    tap_ok(is_zero, "%s: zalloc gives zeroes", mode);
    memset(zeroes, 7, 100);
    zeroes = vv_realloc(zeroes, 100000);
    tap_ok(zeroes && zeroes[0] == 7 && zeroes[99] == 7, "%s: realloc keeps the content", mode);
    zeroes = vv_realloc(zeroes, 10);
    tap_ok(zeroes && zeroes[9] == 7, "%s: so it does when it shrinks", mode);
    vv_free(zeroes);

    void *empty = vv_alloc(0);
    void *other = vv_realloc(vv_alloc(1), 0);
    tap_ok(empty && other && empty != other, "%s: size 0 gives unique pointers", mode);
    vv_free(empty);
    vv_free(other);
    volatile size_t huge = SIZE_MAX / 2;
    tap_ok(vv_calloc(huge, 3) == NULL, "%s: calloc sees the overflow", mode);

    bool is_aligned = true;
    for (size_t align = 16; align <= 65536; align *= 2) {
        uint8_t *block = vv_alloc_aligned(align, align + 1);
        is_aligned &= block && ((uintptr_t)block & (align - 1)) == 0;
        memset(block, 1, align + 1);
        vv_free(block);
    }
    tap_ok(is_aligned, "%s: alignments from 16 to 65536", mode);

    CLEANUP(vv_free_ptr) char *text = vv_strdup("varve");
    tap_is_str(text, "varve", "%s: strdup", mode);
    CLEANUP(vv_free_ptr) void *copy = vv_memdup("a\0b", 3);
    tap_is_bytes(copy, "a\0b", 3, "%s: memdup", mode);
    vv_free(NULL);
}

/* Bit i tells whether the i-th of eight allocations succeeded. */
static unsigned successes(void)
{
    unsigned bits = 0;
    for (int i = 0; i < 8; i++) {
        void *ptr = vv_alloc(8);
        bits |= (unsigned)(ptr != NULL) << i;
        vv_free(ptr);
    }
    return bits;
}

static void test_failures(const char *mode)
{
    vv_alloc_fail_at(0, false);
    tap_is_int(successes(), 0xfe, "%s: the first call fails, once", mode);
    tap_ok(vv_alloc_failed(), "%s: and is reported", mode);
    vv_alloc_fail_at(3, true);
    tap_ok(!vv_alloc_failed(), "%s: the report is cleared", mode);
    tap_is_int(successes(), 0x07, "%s: all from the fourth on fail", mode);
    vv_alloc_fail_at(20, true);
    tap_is_int(successes(), 0xff, "%s: fewer calls than that", mode);
    tap_ok(!vv_alloc_failed(), "%s: no call failed", mode);
    vv_alloc_fail_at(0, true);
    void *ptr = vv_calloc(1, 1);
    void *aligned = vv_alloc_aligned(64, 1);
    void *text = vv_strdup("x");
    vv_alloc_fail_at(-1, false);
    tap_ok(!ptr && !aligned && !text, "%s: every door fails", mode);
    tap_ok(vv_alloc_failed(), "%s: switching off keeps the report", mode);
    tap_is_int(successes(), 0xff, "%s: all work again", mode);

    char *kept = vv_strdup("kept");
    vv_alloc_fail_at(0, false);
    tap_ok(vv_realloc(kept, 1000) == NULL, "%s: realloc fails", mode);
    vv_alloc_fail_at(-1, false);
    tap_is_str(kept, "kept", "%s: and leaves the block alone", mode);
    vv_free(kept);
}

static void test_domains(void)
{
    size_t world_count = vv_alloc_domain_count(0);
    tap_is_int(vv_alloc_domain_set(5), 0, "the world is current at first");
    void *blocks[3] = {vv_alloc(100), vv_zalloc(20), vv_alloc_aligned(4096, 3)};
    tap_is_int(vv_alloc_domain(), 5, "domain 5 is current");
    tap_is_int(vv_alloc_domain_set(VV_ALLOC_DOMAIN_MAX - 1), 5, "domain_set tells the one before");
    void *last = vv_alloc(1);
    vv_alloc_domain_set(0);
    tap_is_int(vv_alloc_domain_count(5), 3, "domain 5 owns three blocks");
    tap_is_int(vv_alloc_domain_count(VV_ALLOC_DOMAIN_MAX - 1), 1, "the last domain owns one");
    blocks[0] = vv_realloc(blocks[0], 1000);
    tap_is_int(vv_alloc_domain_count(5), 3, "a reallocated block keeps its domain");
    vv_free(blocks[1]);
    tap_is_int(vv_alloc_domain_count(5), 2, "freed from another domain");
    tap_is_int(vv_alloc_domain_drop(5), 1003, "dropping tells the bytes");
    tap_is_int(vv_alloc_domain_count(5), 0, "and leaves nothing");
    tap_is_int(vv_alloc_domain_drop(5), 0, "dropping an empty domain");
    vv_free(last);
    tap_is_int(vv_alloc_domain_count(VV_ALLOC_DOMAIN_MAX - 1), 0, "nothing left in the last");
    tap_is_int(vv_alloc_domain_count(0), world_count, "nothing came into the world");
}

#define POPULATED_BYTES (4u << 20)
#define PAGE_BYTES_MIN 4096u

static void test_populate(void)
{
    uint8_t *block = vv_alloc(POPULATED_BYTES);
    unsigned char is_there[POPULATED_BYTES / PAGE_BYTES_MIN] = {0};
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *first = (uint8_t *)(((uintptr_t)block + page - 1) & ~(page - 1));
    size_t count = (size_t)(block + POPULATED_BYTES - first) / page;
    size_t before = 0, after = 0;
    block[0] = 7;
    block[POPULATED_BYTES - 1] = 9;
    tap_is_int(mincore(first, count * page, is_there), 0, "looking which pages are there");
    for (size_t i = 0; i < count; i++)
        before += is_there[i] & 1;
    vv_alloc_populate(block, POPULATED_BYTES);
    tap_is_int(mincore(first, count * page, is_there), 0, "and again");
    for (size_t i = 0; i < count; i++)
        after += is_there[i] & 1;
    tap_ok(after == count, "populate finds all pages (%zu, then %zu of %zu)", before,
           after, count);
    tap_ok(block[0] == 7 && block[POPULATED_BYTES - 1] == 9, "what was written stays");
    vv_alloc_populate(block + 1, 0);
    vv_alloc_populate(block + 1, 1);
    vv_alloc_populate(block + 100, 5000);
    tap_is_int(block[0], 7, "parts of pages, and nothing, are fine");
    vv_free(block);
}

int main(void)
{
    test_populate();
    test_basics("plain");
    test_failures("plain");
    vv_alloc_track(true);
    test_basics("tracked");
    test_failures("tracked");
    test_domains();
    tap_is_int(vv_alloc_domain_count(0), 0, "no leak");
    return tap_done();
}
