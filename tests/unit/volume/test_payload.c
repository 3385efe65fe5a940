/* Payloads: which pieces are handed over and which are copied, whose budget holds them, and what is left when an operation
 * or an allocation fails. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "rig.h"
#include "tap.h"
#include "volume/payload_impl.h"

#define DATA 5000
#define BYTES (1u << 20)
#define STEPS 400

struct test {
    struct rig rig;
    uint8_t *bytes; /* what the data id holds */
    uint64_t offset;
    size_t len;
    struct vv_payload *payload;
    int result; /* of the write's function, once it has staged everything */
    struct vv_read *read;
    uint32_t random;
};

static uint32_t draw(struct test *test, uint32_t bound)
{
    test->random = test->random * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(test->random ^ test->random >> 15) * bound >> 32);
}

static int do_write(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    struct vv_payload_part part = {test->payload, 0, test->len};
    TRY(vv_op_write_payload(op, 77, DATA, test->offset, &part));
    return test->result;
}

static int do_read(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    vv_read_reset(test->read);
    return vv_op_read(op, DATA, 0, BYTES, &test->read);
}

static bool is_as_written(struct test *test)
{
    static uint8_t out[BYTES];
    test->read = NULL;
    ssize_t got = vv_volume_run(test->rig.volume, VV_OP_READ, 0, do_read, test);
    if (got >= 0)
        got = vv_read_finish(test->rig.volume, test->read, out);
    vv_read_free(test->read);
    return got == BYTES && memcmp(out, test->bytes, BYTES) == 0;
}

/* New bytes into a payload, which is then written; the model follows if that was well. */
static int write_through(struct test *test, struct vv_payload *payload, uint64_t offset)
{
    static uint8_t bytes[BYTES];
    size_t len = vv_payload_len(payload);
    size_t at = 0;
    uint8_t fill = (uint8_t)draw(test, 256);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(fill + i / 5 * (i % 3));
    for (unsigned i = 0; i < vv_payload_count(payload) && at < len; i++) {
        struct iovec piece = vv_payload_piece(payload, i);
        memcpy(piece.iov_base, bytes + at, piece.iov_len);
        at += piece.iov_len;
    }
    test->payload = payload;
    test->offset = offset;
    test->len = len;
    int err = vv_volume_run(test->rig.volume, VV_OP_WRITE, len, do_write, test);
    vv_payload_settle(payload);
    if (err >= 0)
        memcpy(test->bytes + offset, bytes, len);
    return err;
}

static uint64_t handed(const struct test *test)
{
    struct vv_volume_stats stats;
    vv_volume_stats(test->rig.volume, &stats);
    return stats.handed_layers;
}

static uint64_t dirty(const struct test *test)
{
    struct vv_volume_stats stats;
    vv_volume_stats(test->rig.volume, &stats);
    return stats.dirty_bytes;
}

static void make_volume(struct test *test)
{
    test->bytes = calloc(1, BYTES);
    rig_make(&test->rig);
}

/* Each row: what a payload for `made_for` and `len` bytes comes to when it is written at `offset`. */
static void rows(struct test *test)
{
    static const struct {
        uint64_t made_for, offset;
        size_t len, cut;
        unsigned handed;
        const char *what;
    } rows[] = {
        {65536, 65536, 65536, 65536, 2, "two extents"},
        {0, 131072, 65536, 65536, 2, "two extents, made for others"},
        {196608 + 8192, 196608 + 8192, 65536, 65536, 3, "a part, an extent, a part"},
        {0, 524288 + 5, 65536, 65536, 0, "not where extents begin: copied"},
        {327680, 327680, 65536, 50000, 1, "fewer bytes than room: the last is copied"},
        {393216, 393216, 100, 100, 1, "a short one of its own size"},
        {458752, 458752, 65536, 100, 0, "a short one does not hold an extent's memory"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct vv_payload *payload;
        uint64_t handed_before = handed(test), dirty_before = dirty(test);
        if (vv_payload_new(test->rig.volume, rows[i].made_for, rows[i].len, &payload) < 0)
            abort();
        tap_is_int((int64_t)(dirty(test) - dirty_before), 0, "what is not written is not dirty");
        vv_payload_cut(payload, rows[i].cut);
        tap_is_int(write_through(test, payload, rows[i].offset), 0, "%s", rows[i].what);
        tap_is_int((int64_t)(handed(test) - handed_before), rows[i].handed, "handed over");
        uint64_t charged = dirty(test) - dirty_before;
        tap_ok(charged >= rows[i].cut && charged < rows[i].cut + 2 * 4096 + VV_EXTENT_BYTES / 4,
               "%llu dirty bytes for %zu", (unsigned long long)charged, rows[i].cut);
        tap_is_int(vv_payload_renew(payload), 0, "renewed");
        tap_is_int((int64_t)vv_payload_len(payload), (int64_t)rows[i].len, "as long as it was");
        vv_payload_free(payload);
        tap_ok(is_as_written(test), "read back");
        tap_is_int((int64_t)(dirty(test) - dirty_before), (int64_t)charged, "its memory was not counted");
    }
}

/* An operation that fails leaves the payload as it was, and nothing charged. */
static void refused(struct test *test)
{
    struct vv_payload *payload;
    uint64_t dirty_before = dirty(test);
    if (vv_payload_new(test->rig.volume, 0, 100000, &payload) < 0)
        abort();
    test->result = -EACCES;
    tap_is_int(write_through(test, payload, 0), -EACCES, "refused after staging");
    tap_is_int((int64_t)(dirty(test) - dirty_before), 0, "nothing is dirty");
    unsigned there = 0;
    for (unsigned i = 0; i < vv_payload_count(payload); i++)
        there += payload->bufs[i] != NULL;
    tap_is_int(there, 4, "the payload has its bytes");
    test->result = 0;
    tap_is_int(write_through(test, payload, 0), 0, "and can be written");
    vv_payload_free(payload);
    tap_ok(is_as_written(test), "read back");
}

/* Anything anywhere, with one payload that is used again and again beside new ones, while units and segments take what
 * was handed over. */
static void random_writes(struct test *test)
{
    struct vv_payload *kept;
    bool is_good = true;
    if (vv_payload_new(test->rig.volume, 0, 6 * VV_EXTENT_BYTES, &kept) < 0)
        abort();
    for (unsigned i = 0; i < STEPS && is_good; i++) {
        size_t len = 1 + draw(test, draw(test, 2) ? 6 * VV_EXTENT_BYTES : 5000);
        uint64_t offset = draw(test, BYTES - (uint32_t)len);
        if (draw(test, 2))
            offset -= offset % VV_EXTENT_BYTES;
        struct vv_payload *payload = kept;
        if (draw(test, 2) && vv_payload_new(test->rig.volume, offset, len, &payload) < 0)
            abort();
        is_good &= payload != kept || vv_payload_renew(kept) == 0;
        vv_payload_cut(payload, len);
        is_good &= write_through(test, payload, offset) == 0;
        if (payload != kept)
            vv_payload_free(payload);
        if (i % 8 == 0)
            is_good &= is_as_written(test);
        if (i % 50 == 0)
            is_good &= vv_volume_sync(test->rig.volume, 0) == 0;
        vv_rt_sleep_ns(draw(test, 20) * VV_NS_PER_MS);
    }
    vv_payload_free(kept);
    tap_ok(is_good, "%d writes, read back", STEPS);
    tap_ok(handed(test) > STEPS, "%llu layers handed over", (unsigned long long)handed(test));
    tap_is_int(vv_volume_close(test->rig.volume), 0, "close");
    rig_open(&test->rig);
    tap_ok(is_as_written(test), "and read back after opening");
}

static void no_memory(struct test *test)
{
    bool is_good = true;
    bool has_failed = true;
    int64_t n = 0;
    for (; has_failed && n < 500 && is_good; n++) {
        struct vv_payload *payload = NULL;
        vv_alloc_fail_at(n, false);
        int err = vv_payload_new(test->rig.volume, 8192, 3 * VV_EXTENT_BYTES, &payload);
        int written = err < 0 ? err : write_through(test, payload, 8192);
        int renewed = err < 0 ? err : vv_payload_renew(payload);
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_good &= written == 0 || written == -ENOMEM;
        is_good &= renewed == 0 || renewed == -ENOMEM;
        if (err == 0) {
            is_good &= vv_payload_renew(payload) == 0;
            is_good &= write_through(test, payload, 8192) == 0;
        }
        vv_payload_free(payload);
        is_good &= is_as_written(test);
    }
    tap_ok(is_good && n > 10 && !has_failed, "with each of %d allocations failing", (int)n);
}

static void process_main(void *arg)
{
    struct test *test = arg;
    make_volume(test);
    rows(test);
    refused(test);
    random_writes(test);
    no_memory(test);
    rig_close(&test->rig);
    free(test->bytes);
}

int main(void)
{
    struct test test = {.random = 1};
    return rig_main(process_main, &test);
}
