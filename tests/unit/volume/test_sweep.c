/* The orphan sweep: what it deletes and what it must not, that it asks for nothing before there is a manifest of one's
 * own, many pages of names, and every allocation and every request of it failing in turn. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rig.h"
#include "tap.h"
#include "volume/volume.h"
#include "watch.h"

#define DATA 5000
#define BYTES (1u << 20)
#define MANY 2300 /* names: three pages */
#define PADDING 200
#define ROUNDS_MAX 400

struct test {
    struct vv_store_backend *backend;
    struct watch *watch;
    struct vv_keyring *ring, *foreign;
    struct vv_volume *volume;
    uint8_t *bytes;
    uint64_t epoch; /* of the next opening */
    struct vv_read *read;
};

static const struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_NONE, 0};

/* ---- things to do ---- */

static void open_volume(struct test *test)
{
    struct vv_volume_options options = {.store = &test->watch->store, .ring = test->ring,
                                        .durability = VV_DURABILITY_BUCKET,
                                        .memory_bytes = 16 << 20, .segment_bytes = 256 << 10};
    int err = vv_volume_open(&options, &test->volume);
    if (err < 0)
        tap_is_int(err, 0, "the volume opens");
    test->epoch++;
}

static int do_write(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    return vv_op_write(op, 77, DATA, 0, test->bytes, BYTES);
}

static int do_touch(struct vv_op *op, void *arg)
{
    uint8_t key[9] = "I";
    (void)arg;
    return vv_op_put(op, (struct vv_bytes){key, 9}, (struct vv_bytes){key, 9});
}

static int do_read(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    vv_read_reset(test->read);
    return vv_op_read(op, DATA, 0, BYTES, &test->read);
}

/* A change, and a flush: after it there is a manifest of one's own. */
static int flush(struct test *test)
{
    TRY(vv_volume_run(test->volume, VV_OP_WRITE, 0, do_touch, test));
    return vv_volume_settle(test->volume);
}

static bool is_file_there(struct test *test)
{
    uint8_t *out = malloc(BYTES);
    test->read = NULL;
    ssize_t got = vv_volume_run(test->volume, VV_OP_READ, 0, do_read, test);
    if (got >= 0)
        got = vv_read_finish(test->volume, test->read, out);
    vv_read_free(test->read);
    bool is_there = got == BYTES && memcmp(out, test->bytes, BYTES) == 0;
    free(out);
    return is_there;
}

static void put_bytes(struct test *test, const char *name, const uint8_t *bytes, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    if (vv_store_put(test->watch->inner, name, &iov, 1) < 0)
        abort();
}

static void put_object(struct test *test, const struct vv_keyring *ring, enum vv_object_kind kind,
                       const char *name, size_t padding)
{
    uint8_t bytes[VV_OBJECT_HEADER_LEN + PADDING] = {0};
    struct vv_object_header header;
    struct vv_sealer *sealer;
    if (vv_sealer_new(ring, kind, name, 0, &settings, &header, &sealer) < 0)
        abort();
    vv_sealer_free(sealer);
    vv_object_header_encode(&header, bytes);
    put_bytes(test, name, bytes, VV_OBJECT_HEADER_LEN + padding);
}

static void put_segment(struct test *test, uint64_t epoch, uint64_t counter)
{
    char name[VV_STORE_NAME_MAX + 1];
    struct vv_segment_id id = {.epoch = epoch, .counter = counter, .kind = VV_SEGMENT_DATA};
    vv_segment_name(&id, name, sizeof name);
    put_object(test, test->ring, VV_KIND_DATA, name, PADDING);
}

static void put_log_object(struct test *test, enum vv_object_kind kind, uint64_t counter,
                           size_t padding)
{
    char name[VV_STORE_NAME_MAX + 1];
    struct vv_segment_id id = {.epoch = 1, .counter = counter, .kind = VV_SEGMENT_LOG};
    vv_segment_name(&id, name, sizeof name);
    put_object(test, test->ring, kind, name, padding);
}

static void put_table(struct test *test, uint64_t epoch, uint64_t counter)
{
    char name[VV_STORE_NAME_MAX + 1];
    vv_table_name(epoch, counter, name, sizeof name);
    put_object(test, test->ring, VV_KIND_SST, name, PADDING);
}

static bool is_there(struct test *test, const char *name)
{
    uint64_t size;
    return vv_store_size(test->watch->inner, name, &size) == 0;
}

static bool is_segment_there(struct test *test, uint64_t epoch, uint64_t counter)
{
    char name[VV_STORE_NAME_MAX + 1];
    struct vv_segment_id id = {.epoch = epoch, .counter = counter, .kind = VV_SEGMENT_DATA};
    vv_segment_name(&id, name, sizeof name);
    return is_there(test, name);
}

static bool is_table_there(struct test *test, uint64_t epoch, uint64_t counter)
{
    char name[VV_STORE_NAME_MAX + 1];
    vv_table_name(epoch, counter, name, sizeof name);
    return is_there(test, name);
}

static uint64_t deleted(const struct test *test)
{
    struct vv_volume_stats stats;
    vv_volume_stats(test->volume, &stats);
    return stats.leftovers_deleted;
}

/* ---- the tests ---- */

static void make_volume(struct test *test)
{
    struct vv_counters counters = {2, 9000};
    struct vv_secret secret = {VV_SECRET_KEY_FILE, "0123456789abcdef0123456789abcdef", 32};
    uint8_t *keys;
    size_t keys_len;
    struct watch *watch = watch_new(NULL);
    uint32_t random = 1;
    test->bytes = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        test->bytes[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
    watch->is_sparing_puts = true;
    test->watch = watch;
    if (vv_store_backend_new(&test->backend) < 0 ||
        vv_store_mem_open(test->backend, &watch->inner) < 0 ||
        vv_keyring_new((const uint8_t *)"volume-id-volume", &test->ring) < 0 ||
        vv_keyring_new((const uint8_t *)"foreign-id-forei", &test->foreign) < 0 ||
        vv_slots_create(test->ring, &secret, &vv_slot_cost_test, &keys, &keys_len) < 0)
        abort();
    tap_is_int(vv_volume_create(&watch->store, test->ring, keys, keys_len, &settings, &counters), 0,
               "create");
    vv_free(keys);
    open_volume(test);
    tap_is_int(vv_volume_run(test->volume, VV_OP_WRITE, BYTES, do_write, test), 0, "write a file");
    tap_is_int(vv_volume_settle(test->volume), 0, "which is in segments and tables of epoch 1");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

/* One of each kind, in the first epoch or (not to be touched) later. */
static void what_is_deleted(struct test *test)
{
    static const uint8_t damaged[300] = "vvob";
    put_segment(test, 1, 1000);
    put_table(test, 1, 1000);
    put_log_object(test, VV_KIND_LOG, 1000, PADDING);
    put_log_object(test, VV_KIND_FENCE, 1001, 0);
    put_log_object(test, VV_KIND_FENCE, 1002, PADDING);
    put_segment(test, 2, 1001);
    put_table(test, 2, 1001);
    put_segment(test, 3, 1002);
    put_table(test, 9, 1002);
    put_object(test, test->foreign, VV_KIND_DATA, "data/eb/0000000000000001-00000000000003eb",
               PADDING);
    put_object(test, test->ring, VV_KIND_SST, "data/ec/0000000000000001-00000000000003ec", PADDING);
    put_bytes(test, "data/ed/0000000000000001-00000000000003ed", damaged, sizeof damaged);
    put_bytes(test, "data/ee/0000000000000001-00000000000003ee", damaged, 0);
    put_object(test, test->ring, VV_KIND_DATA, "data/ff/0000000000000001-00000000000003ee", PADDING);
    put_object(test, test->ring, VV_KIND_DATA, "data/readme.txt", PADDING);
    open_volume(test); /* epoch 2 */
    unsigned asked = test->watch->requests;
    vv_rt_sleep_ns(600 * VV_NS_PER_S);
    tap_is_int(test->watch->requests - asked, 0, "opened and left alone, it asks for nothing");
    tap_is_int(flush(test), 0, "the first flush");
    tap_is_int((int64_t)deleted(test), 3, "three objects are deleted");
    tap_ok(!is_segment_there(test, 1, 1000), "a data segment");
    tap_ok(!is_table_there(test, 1, 1000), "a table");
    tap_ok(!is_there(test, "log/0000000000000001/00000000000003e8"), "a log object");
    tap_ok(is_there(test, "log/0000000000000001/00000000000003e9"), "no fence");
    tap_ok(is_there(test, "log/0000000000000001/00000000000003ea"), "whatever its length");
    tap_ok(is_segment_there(test, 2, 1001) && is_table_there(test, 2, 1001),
           "nothing of one's own epoch");
    tap_ok(is_segment_there(test, 3, 1002) && is_table_there(test, 9, 1002), "or of later ones");
    tap_ok(is_there(test, "data/eb/0000000000000001-00000000000003eb"), "not another volume's");
    tap_ok(is_there(test, "data/ec/0000000000000001-00000000000003ec"), "not of another kind");
    tap_ok(is_there(test, "data/ed/0000000000000001-00000000000003ed") &&
               is_there(test, "data/ee/0000000000000001-00000000000003ee"),
           "not what is damaged");
    tap_ok(is_there(test, "data/ff/0000000000000001-00000000000003ee") &&
               is_there(test, "data/readme.txt"),
           "and no other names");
    tap_ok(is_file_there(test), "the file is there");
    put_segment(test, 1, 1010);
    unsigned lists = test->watch->lists_of_data;
    tap_is_int(flush(test), 0, "another flush");
    tap_is_int(test->watch->lists_of_data - lists, 0, "looks no more: once for each opening");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
    open_volume(test); /* epoch 3 */
    tap_is_int(vv_volume_settle(test->volume), 0, "after an orderly end its manifest counts");
    tap_is_int((int64_t)deleted(test), 3, "one that came later, and the second epoch's two");
    tap_ok(!is_segment_there(test, 1, 1010) && !is_segment_there(test, 2, 1001) &&
               !is_table_there(test, 2, 1001) && is_segment_there(test, 3, 1002),
           "are gone, its own is not");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

/* After a crash, a volume that nobody changes: a flush ends the crashed server's epoch, and looks. */
static void untouched(struct test *test)
{
    for (unsigned i = 0; i < 2; i++) {
        open_volume(test);
        vv_volume_shut_down(test->volume);
        tap_is_int(vv_volume_close(test->volume), -VV_ERR_SHUT_DOWN, "a crash");
    }
    put_segment(test, 1, 2000);
    open_volume(test);
    tap_is_int(vv_volume_settle(test->volume), 0, "a flush, with nothing to be flushed");
    tap_ok(!is_segment_there(test, 1, 2000), "what was left is gone");
    tap_ok(is_file_there(test), "the file is there");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
    open_volume(test);
    tap_ok(is_file_there(test), "and again");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

static void many_pages(struct test *test)
{
    for (unsigned i = 0; i < MANY; i++)
        put_segment(test, 1, 5000 + i);
    open_volume(test);
    unsigned lists = test->watch->lists_of_data;
    tap_is_int(flush(test), 0, "a flush");
    tap_is_int((int64_t)deleted(test), MANY, "all of %d", MANY);
    tap_ok(test->watch->lists_of_data - lists <= MANY / VV_STORE_LIST_MAX + 1, "in %u pages",
           test->watch->lists_of_data - lists);
    tap_ok(is_file_there(test), "the file is there");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

/* Orphans again, and everything that can be asked for before the sweep is in memory. */
static void begin_round(struct test *test)
{
    for (unsigned i = 0; i < 3; i++)
        put_segment(test, 1, 20 + i);
    put_table(test, 1, 20);
    put_log_object(test, VV_KIND_LOG, 20, PADDING);
    open_volume(test);
}

static bool are_gone(struct test *test)
{
    bool is_gone = !is_table_there(test, 1, 20) &&
                   !is_there(test, "log/0000000000000001/0000000000000014");
    for (unsigned i = 0; i < 3; i++)
        is_gone &= !is_segment_there(test, 1, 20 + i);
    return is_gone;
}

/* After whatever failed: the next flush does it, and nothing else is gone. */
static bool end_round(struct test *test)
{
    bool is_good = flush(test) == 0;
    is_good &= are_gone(test) && is_file_there(test);
    is_good &= vv_volume_close(test->volume) == 0;
    return is_good;
}

static void requests_fail(struct test *test)
{
    bool is_good = true;
    test->watch->has_failed = true;
    int n = 0;
    for (; n < ROUNDS_MAX && test->watch->has_failed && is_good; n++) {
        begin_round(test);
        test->watch->has_failed = false;
        test->watch->fail_at = n;
        int err = flush(test);
        test->watch->fail_at = -1;
        is_good &= err == 0 || err == -EIO;
        is_good &= end_round(test);
    }
    tap_ok(is_good && n > 10 && !test->watch->has_failed, "with each of %d requests failing", n - 1);
}

static void no_memory(struct test *test)
{
    bool has_failed = true;
    bool is_good = true;
    int64_t n = 0;
    for (; n < ROUNDS_MAX && has_failed && is_good; n++) {
        begin_round(test);
        /* After an orderly end the sweep is due at once: there is nothing to flush. */
        vv_alloc_fail_at(n, false);
        int err = vv_volume_settle(test->volume);
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_good &= err == 0 || err == -ENOMEM;
        is_good &= end_round(test);
    }
    tap_ok(is_good && n > 6 && !has_failed, "with each of %d allocations failing", (int)n - 1);
}

static void process_main(void *arg)
{
    struct test *test = arg;
    make_volume(test);
    what_is_deleted(test);
    untouched(test);
    many_pages(test);
    requests_fail(test);
    no_memory(test);
    vv_keyring_free(test->ring);
    vv_keyring_free(test->foreign);
    vv_store_close(&test->watch->store);
    vv_store_backend_free(test->backend);
    free(test->bytes);
}

static void discard_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(void)
{
    struct test test = {0};
    vv_log_set_sink(discard_line, NULL);
    return rig_main(process_main, &test);
}
