/* Cold reads with each allocation failing in turn, and with a store that fails now and then: what is read is right
 * or an error, the next try is right, nothing waits for ever and nothing leaks. Read-ahead included. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rig.h"
#include "tap.h"
#include "volume/volume.h"

#define DATA 5000
#define BYTES (3u << 20)
#define READ (256u << 10)

struct test {
    struct vv_store_backend *backend;
    struct vv_store *store, *fault;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    uint8_t *bytes;
    uint64_t offset;
    size_t len;
    struct vv_read *read;
};

static void open_volume(struct test *test)
{
    struct vv_volume_options options = {.store = test->store, .ring = test->ring,
                                        .durability = VV_DURABILITY_BUCKET,
                                        .memory_bytes = 16 << 20, .segment_bytes = 256 << 10};
    int err = vv_volume_open(&options, &test->volume);
    if (err < 0)
        tap_is_int(err, 0, "the volume opens");
}

static int do_write(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    return vv_op_write(op, 77, DATA, test->offset, test->bytes + test->offset, test->len);
}

static int do_read(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    vv_read_reset(test->read);
    int err = vv_op_read(op, DATA, test->offset, test->len, &test->read);
    vv_read_expect(test->read, BYTES);
    return err;
}

/* 1 = right, 0 = wrong, or an error. */
static int read_at(struct test *test, uint64_t offset, size_t len)
{
    static uint8_t out[READ];
    test->offset = offset;
    test->len = len;
    test->read = NULL;
    ssize_t got = vv_volume_run(test->volume, VV_OP_READ, 0, do_read, test);
    if (got >= 0)
        got = vv_read_finish(test->volume, test->read, out);
    vv_read_free(test->read);
    if (got < 0)
        return (int)got;
    return (size_t)got == len && memcmp(out, test->bytes + offset, len) == 0;
}

static void fill_volume(struct test *test)
{
    struct vv_counters counters = {2, 9000};
    struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    struct vv_secret secret = {VV_SECRET_KEY_FILE, "0123456789abcdef0123456789abcdef", 32};
    uint8_t *keys;
    size_t keys_len;
    uint32_t random = 1;
    test->bytes = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        test->bytes[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
    if (vv_store_backend_new(&test->backend) < 0 ||
        vv_store_mem_open(test->backend, &test->store) < 0 ||
        vv_store_fault_new(test->store, &test->store) < 0 ||
        vv_keyring_new((const uint8_t *)"volume-id-volume", &test->ring) < 0 ||
        vv_slots_create(test->ring, &secret, &vv_slot_cost_test, &keys, &keys_len) < 0)
        abort();
    test->fault = test->store;
    if (vv_store_latency_new(test->store, 20 * VV_NS_PER_MS, 0, &test->store) < 0)
        abort();
    tap_is_int(vv_volume_create(test->store, test->ring, keys, keys_len, &settings, &counters), 0,
               "create");
    vv_free(keys);
    open_volume(test);
    for (test->offset = 0; test->offset < BYTES; test->offset += test->len) {
        test->len = READ;
        int err = vv_volume_run(test->volume, VV_OP_WRITE, test->len, do_write, test);
        if (err < 0)
            tap_is_int(err, 0, "write");
    }
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

static void no_memory(struct test *test)
{
    bool is_good = true;
    int64_t n = 0;
    bool has_failed = true;
    for (; has_failed && n < 2000 && is_good; n += n < 40 ? 1 : 5) {
        open_volume(test);
        is_good = read_at(test, 0, 1000) == 1;
        vv_alloc_fail_at(n, false);
        for (unsigned i = 0; i < 3; i++) {
            int got = read_at(test, (uint64_t)i * READ, READ);
            is_good &= got == 1 || got == -ENOMEM;
        }
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        for (unsigned i = 0; i < 4; i++)
            is_good &= read_at(test, (uint64_t)i * READ, READ) == 1;
        is_good &= vv_volume_close(test->volume) == 0;
    }
    tap_ok(is_good && n > 50 && !has_failed, "with each of %d allocations failing", (int)n);
}

static void bad_store(struct test *test)
{
    unsigned errors = 0;
    bool is_good = true;
    for (unsigned round = 0; round < 10; round++) {
        open_volume(test);
        vv_store_fault_plan(test->fault)->fail_permille = 200;
        for (unsigned i = 0; i < BYTES / READ; i++) {
            int got = read_at(test, (uint64_t)i * READ, READ);
            is_good &= got == 1 || got == -EIO;
            errors += got == -EIO;
        }
        vv_store_fault_plan(test->fault)->fail_permille = 0;
        for (unsigned i = 0; i < BYTES / READ; i++)
            is_good &= read_at(test, (uint64_t)i * READ, READ) == 1;
        is_good &= vv_volume_close(test->volume) == 0;
    }
    tap_ok(is_good && errors > 5, "with a fifth of the requests failing (%u reads met it)", errors);
}

/* ---- views ---- */

static ssize_t view_at(struct test *test, uint64_t offset, size_t len, uint8_t *buf,
                       struct vv_view *out_view)
{
    test->offset = offset;
    test->len = len;
    test->read = NULL;
    ssize_t got = vv_volume_run(test->volume, VV_OP_READ, 0, do_read, test);
    if (got >= 0)
        got = vv_read_finish_view(test->volume, test->read, buf, out_view);
    vv_read_free(test->read);
    return got;
}

static bool is_view_of(const struct vv_view *view, const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    for (unsigned i = 0; i < view->count && at <= len; i++) {
        const struct iovec *piece = &view->pieces[i];
        if (piece->iov_len > len - at || memcmp(piece->iov_base, bytes + at, piece->iov_len) != 0)
            return false;
        at += piece->iov_len;
    }
    return at == len;
}

/* What is in the cache is not copied, what is dirty is, and a view stays as it was when more is written and the
 * cache is filled with other things. */
static void views(struct test *test)
{
    static uint8_t first_buf[READ + 40000], buf[READ + 40000];
    struct vv_view first = {0}, view;
    uint32_t random = 7;
    bool is_good = true;
    open_volume(test);
    is_good &= read_at(test, 5000, READ) == 1; /* into the cache */
    is_good &= view_at(test, 5000, READ, first_buf, &first) == READ;
    tap_ok(is_good && is_view_of(&first, test->bytes + 5000, READ), "a view of what is in the cache");
    tap_is_int(first.block_count, 9, "no byte of it copied");
    tap_is_int(first.count, 9, "one piece a block");
    uint8_t *before = vv_memdup(test->bytes, BYTES);
    for (unsigned i = 0; i < 60 && is_good; i++) {
        random = random * 1664525 + 1013904223;
        test->offset = random % (BYTES - 20000);
        test->len = 1 + random % 20000;
        memset(test->bytes + test->offset, (int)i, test->len);
        is_good &= vv_volume_run(test->volume, VV_OP_WRITE, test->len, do_write, test) >= 0;
        uint64_t offset = (random >> 7) % (BYTES - READ);
        size_t len = 1 + (random >> 3) % READ;
        is_good &= view_at(test, offset, len, buf, &view) == (ssize_t)len;
        is_good &= is_view_of(&view, test->bytes + offset, len);
        vv_view_done(&view);
    }
    tap_ok(is_good, "views of what is in the cache and dirty by turns");
    tap_ok(is_view_of(&first, before + 5000, READ), "the first is as it was");
    vv_view_done(&first);
    vv_free(before);
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

static void process_main(void *arg)
{
    struct test *test = arg;
    fill_volume(test);
    no_memory(test);
    bad_store(test);
    views(test);
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
    vv_store_backend_free(test->backend);
    free(test->bytes);
}

int main(void)
{
    struct test test = {0};
    return rig_main(process_main, &test);
}
