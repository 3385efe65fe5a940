/* Sets of blocks that are set aside, against an array of bits; their records; and no memory at the n-th allocation. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "fs/aside.h"
#include "tap.h"

#define BITS 300
#define STEPS 4000

static uint64_t seed = 7;
static uint64_t random_to(uint64_t bound)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % bound;
}

static bool is_like(struct vv_bytes record, const bool *bits)
{
    uint64_t blocks = 0;
    uint64_t wanted = 0;
    for (unsigned i = 0; i < BITS; i++)
        wanted += bits[i];
    if (wanted > 0 ? vv_aside_check(record, &blocks) < 0 || blocks != wanted
                   : vv_aside_check(record, &blocks) != -VV_ERR_FORMAT)
        return false;
    for (unsigned i = 0; i < BITS; i++) {
        uint64_t end;
        unsigned change = i;
        while (change < BITS && bits[change] == bits[i])
            change++;
        bool has = vv_aside_has(record, i, &end);
        if (has != bits[i] || (change < BITS ? end != change : end < BITS))
            return false;
    }
    return true;
}

static void add(struct vv_bytes record, uint64_t from, uint64_t to, struct vv_aside_made *made)
{
    struct vv_aside_made other;
    vv_aside_begin(&other);
    vv_aside_put(&other, from, to);
    vv_aside_end(&other);
    vv_aside_join(record, (struct vv_bytes){other.writer.ptr, other.writer.len}, made);
    vv_aside_done(&other);
}

static void change(struct vv_bytes record, bool *bits, struct vv_aside_made *made)
{
    uint64_t from = random_to(BITS);
    uint64_t to = from + random_to(random_to(2) ? 8 : BITS);
    to = to < BITS ? to : BITS;
    size_t len = to - from;
    switch (random_to(5)) {
    case 0:
        vv_aside_remove(record, from, to, made);
        memset(bits + from, 0, len);
        break;
    case 1:
        vv_aside_collapse(record, from, to, made);
        memmove(bits + from, bits + to, BITS - to);
        memset(bits + BITS - len, 0, len);
        break;
    case 2:
        vv_aside_remove(record, BITS - len, UINT64_MAX, made);
        memset(bits + BITS - len, 0, len);
        break;
    case 3: {
        struct vv_aside_made cut; /* what would leave the array */
        vv_aside_remove(record, BITS - len, UINT64_MAX, &cut);
        vv_aside_insert((struct vv_bytes){cut.writer.ptr, cut.writer.len}, from, len, made);
        vv_aside_done(&cut);
        memmove(bits + to, bits + from, BITS - to);
        memset(bits + from, 0, len);
        break;
    }
    default:
        add(record, from, to, made);
        memset(bits + from, 1, len);
        break;
    }
}

static void test_model(void)
{
    bool bits[BITS] = {false};
    struct vv_aside_made now = {.writer = {.ptr = NULL}};
    unsigned step = 0;
    for (; step < STEPS; step++) {
        struct vv_aside_made next;
        change((struct vv_bytes){now.writer.ptr, now.writer.len}, bits, &next);
        vv_aside_done(&now);
        now = next;
        if (!is_like((struct vv_bytes){now.writer.ptr, now.writer.len}, bits))
            break;
    }
    vv_aside_done(&now);
    tap_is_int(step, STEPS, "random changes are those of an array of bits");
}

static void test_neighbours(void)
{
    struct vv_aside_made now = {.writer = {.ptr = NULL}};
    for (uint64_t i = 0; i < 10000; i++) {
        struct vv_aside_made next;
        add((struct vv_bytes){now.writer.ptr, now.writer.len}, i, i + 1, &next);
        vv_aside_done(&now);
        now = next;
    }
    tap_ok(now.blocks == 10000 && now.writer.len == 4, "ten thousand neighbours are one stretch");
    struct vv_aside_made next;
    add((struct vv_bytes){now.writer.ptr, now.writer.len}, 1ull << 40, VV_ASIDE_BLOCKS_MAX, &next);
    tap_ok(next.writer.len < 20, "a stretch of any length takes a few bytes");
    vv_aside_done(&next);
    vv_aside_done(&now);
}

static void test_hostile(void)
{
    static const struct {
        size_t len;
        uint8_t bytes[8];
        int err;
        const char *what;
    } rows[] = {
        {0, {0}, -VV_ERR_FORMAT, "no bytes"},
        {1, {1}, -VV_ERR_FORMAT, "no stretch"},
        {3, {2, 0, 1}, -VV_ERR_NEWER, "a newer version"},
        {3, {0, 0, 1}, -VV_ERR_FORMAT, "version 0"},
        {3, {1, 0, 0}, -VV_ERR_FORMAT, "an empty stretch"},
        {5, {1, 0, 1, 0, 1}, -VV_ERR_FORMAT, "stretches that touch"},
        {2, {1, 5}, -VV_ERR_FORMAT, "half a stretch"},
        {3, {1, 0x80, 0}, -VV_ERR_FORMAT, "a number of more bytes than it needs"},
        {3, {1, 0, 1}, 0, "a sound one"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t blocks = 99;
        int err = vv_aside_check((struct vv_bytes){rows[i].bytes, rows[i].len}, &blocks);
        tap_ok(err == rows[i].err && blocks == (err == 0 ? 1u : 99u), "%s", rows[i].what);
    }
    uint8_t far[20] = {1};
    struct vv_writer writer = vv_writer_of(far + 1, sizeof(far) - 1);
    uint64_t blocks;
    vv_writer_varint(&writer, VV_ASIDE_BLOCKS_MAX);
    vv_writer_varint(&writer, 1);
    tap_is_int(vv_aside_check((struct vv_bytes){far, 1 + writer.len}, &blocks), -VV_ERR_FORMAT,
               "a block beyond the largest file");
    uint8_t many[VV_ASIDE_RECORD_MAX + 1];
    memset(many, 1, sizeof(many));
    tap_is_int(vv_aside_check((struct vv_bytes){many, sizeof(many)}, &blocks), -VV_ERR_FORMAT,
               "too many");
    tap_is_int(vv_aside_check((struct vv_bytes){many, sizeof(many) - 2}, &blocks), 0,
               "as many as there may be");
}

static void test_no_memory(void)
{
    static const uint8_t three[] = {1, 5, 3, 1, 1, 9, 40};
    struct vv_bytes record = {three, sizeof(three)};
    bool is_good = true;
    unsigned n = 0;
    for (int err = -1; err != 0 && n < 100; n++) {
        struct vv_aside_made made;
        vv_alloc_fail_at(n, true);
        vv_aside_remove(record, 6, 7, &made);
        vv_alloc_fail_at(-1, false);
        err = vv_writer_check(&made.writer);
        is_good &= err == 0 || err == -ENOMEM;
        vv_aside_done(&made);
    }
    tap_ok(is_good && n > 1 && n < 100, "no memory shows in the writer");
}

int main(void)
{
    test_model();
    test_neighbours();
    test_hostile();
    test_no_memory();
    return tap_done();
}
