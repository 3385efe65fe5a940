/* Repacking: what is picked and what is not, that it comes to an end, the order of frames, tiny segments, damaged ones,
 * and every allocation and every request of it failing in turn. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "rig.h"
#include "tap.h"
#include "volume/volume_impl.h"
#include "watch.h"

#define KEPT 5000
#define DROPPED 5001
#define EXTENTS 10 /* of each */
#define SEGMENT_BYTES (128u << 10)
#define PER_SEGMENT (SEGMENT_BYTES / (VV_EXTENT_BYTES + VV_FRAME_OVERHEAD)) /* frames */
#define TINY 5100 /* data ids of small files */
#define TINY_FILES 40
#define TINY_BYTES 900
#define ROUNDS_MAX 2000
#define HOUR_NS (3600 * VV_NS_PER_S)

struct test {
    struct vv_store_backend *backend;
    struct watch *watch;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    struct vv_repack_options repack;
    uint8_t *bytes;
    uint32_t part; /* of an operation's write */
    uint64_t data_id;
    struct vv_read *read;
};

static const struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_NONE, 0};
static const struct vv_repack_options eager = {
    .waste_bytes = 1, .waste_percent = 1, .live_percent = 90, .tiny_count = 1000000};
static const struct vv_repack_options off = {.is_off = true};

/* ---- things to do ---- */

static void open_volume(struct test *test, const struct vv_repack_options *repack)
{
    struct vv_volume_options options = {.store = &test->watch->store, .ring = test->ring,
                                        .durability = VV_DURABILITY_BUCKET,
                                        .memory_bytes = 16 << 20, .segment_bytes = SEGMENT_BYTES,
                                        .repack = *repack};
    int err = vv_volume_open(&options, &test->volume);
    if (err < 0)
        tap_is_int(err, 0, "the volume opens");
}

static struct vv_volume_stats stats_of(const struct test *test)
{
    struct vv_volume_stats stats;
    vv_volume_stats(test->volume, &stats);
    return stats;
}

/* Bytes that stand for themselves, wherever they are written. */
static const uint8_t *bytes_of(const struct test *test, uint64_t data_id, uint32_t part)
{
    return test->bytes + (data_id * 977 + part * 389) % 4096;
}

static int do_write(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    uint64_t at = (uint64_t)test->part * VV_EXTENT_BYTES;
    TRY(vv_op_write(op, 77, KEPT, at, bytes_of(test, KEPT, test->part), VV_EXTENT_BYTES));
    return vv_op_write(op, 78, DROPPED, at, bytes_of(test, DROPPED, test->part), VV_EXTENT_BYTES);
}

static int do_write_tiny(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    return vv_op_write(op, 79, test->data_id, 0, bytes_of(test, test->data_id, 0), TINY_BYTES);
}

static int do_drop(struct vv_op *op, void *arg)
{
    (void)arg;
    return vv_op_drop(op, 78, DROPPED);
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
    uint64_t at = (uint64_t)test->part * VV_EXTENT_BYTES;
    size_t len = test->data_id < TINY ? VV_EXTENT_BYTES : TINY_BYTES;
    vv_read_reset(test->read);
    return vv_op_read(op, test->data_id, at, len, &test->read);
}

/* 0, an error, or -EILSEQ when there are other bytes. */
static int read_part(struct test *test, uint64_t data_id, uint32_t part)
{
    uint8_t *out = vv_zalloc(VV_EXTENT_BYTES);
    test->read = NULL;
    test->data_id = data_id;
    test->part = part;
    ssize_t got = out ? vv_volume_run(test->volume, VV_OP_READ, 0, do_read, test) : -ENOMEM;
    if (got >= 0)
        got = vv_read_finish(test->volume, test->read, out);
    vv_read_free(test->read);
    if (got > 0)
        got = memcmp(out, bytes_of(test, data_id, part), (size_t)got) == 0 ? 0 : -EILSEQ;
    vv_free(out);
    return (int)got;
}

static int read_kept(struct test *test)
{
    for (uint32_t i = 0; i < EXTENTS; i++)
        TRY(read_part(test, KEPT, i));
    return 0;
}

static int flush(struct test *test)
{
    TRY(vv_volume_run(test->volume, VV_OP_WRITE, 0, do_touch, test));
    return vv_volume_settle(test->volume);
}

/* Each segment has as much of what is dropped as of what is kept. */
static void make_sparse(struct test *test)
{
    int err = 0;
    open_volume(test, &off);
    for (uint32_t i = 0; i < EXTENTS && err == 0; i++) {
        test->part = i;
        err = vv_volume_run(test->volume, VV_OP_WRITE, 2 * VV_EXTENT_BYTES, do_write, test);
    }
    err = err == 0 ? vv_volume_settle(test->volume) : err;
    err = err == 0 ? vv_volume_run(test->volume, VV_OP_FREEING, 0, do_drop, test) : err;
    err = err == 0 ? vv_volume_settle(test->volume) : err;
    err = err == 0 ? vv_volume_close(test->volume) : err;
    if (err < 0)
        tap_is_int(err, 0, "a volume with sparse segments is made");
}

static unsigned count_objects(struct test *test, const char *prefix)
{
    struct vv_store_entry *page = calloc(VV_STORE_LIST_MAX, sizeof *page);
    ssize_t count = vv_store_list(test->watch->inner, prefix, "", page, VV_STORE_LIST_MAX);
    free(page);
    return count < 0 ? 0 : (unsigned)count;
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
    test->bytes = malloc(VV_EXTENT_BYTES + 4096);
    for (size_t i = 0; i < VV_EXTENT_BYTES + 4096; i++)
        test->bytes[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
    test->watch = watch;
    if (vv_store_backend_new(&test->backend) < 0 ||
        vv_store_mem_open(test->backend, &watch->inner) < 0 ||
        vv_keyring_new((const uint8_t *)"volume-id-volume", &test->ring) < 0 ||
        vv_slots_create(test->ring, &secret, &vv_slot_cost_test, &keys, &keys_len) < 0)
        abort();
    tap_is_int(vv_volume_create(&watch->store, test->ring, keys, keys_len, &settings, &counters), 0,
               "create");
    vv_free(keys);
}

/* Not below the thresholds. */
static void what_is_not_worth_it(struct test *test)
{
    struct vv_repack_options none = {0};
    struct vv_repack_options dense = {.waste_bytes = 1, .waste_percent = 1, .live_percent = 40};
    struct vv_repack_options little = {.waste_bytes = 1, .waste_percent = 150, .live_percent = 90};
    const struct vv_repack_options *all[] = {&off, &none, &dense, &little};
    make_sparse(test);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        open_volume(test, all[i]);
        int err = flush(test);
        tap_ok(err == 0 && stats_of(test).repacked_frames == 0, "nothing is repacked (%zu)", i);
        tap_is_int(vv_volume_close(test->volume), 0, "close");
    }
}

/* Are the frames of every data segment in the order of their origins, and all of data that is kept? */
static bool are_in_order(struct test *test)
{
    struct vv_store_entry *page = calloc(VV_STORE_LIST_MAX, sizeof *page);
    ssize_t count = vv_store_list(test->watch->inner, "data/", "", page, VV_STORE_LIST_MAX);
    bool is_good = count > 0;
    for (ssize_t i = 0; i < count; i++) {
        struct vv_segment_id id;
        struct vv_segment_entry *entries = NULL;
        uint32_t entry_count = 0;
        is_good &= vv_segment_name_parse(page[i].name, &id) == 0 &&
                   vv_segment_directory(test->volume, &id, &entries, &entry_count) == 0;
        for (uint32_t j = 0; j < entry_count && is_good; j++) {
            is_good &= entries[j].origin.data_id == KEPT;
            is_good &= j == 0 || entries[j].origin.extent > entries[j - 1].origin.extent;
        }
        vv_free(entries);
    }
    free(page);
    return is_good;
}

static void what_is_repacked(struct test *test)
{
    unsigned before = count_objects(test, "data/");
    open_volume(test, &eager);
    unsigned requests = test->watch->requests;
    vv_rt_sleep_ns(HOUR_NS);
    tap_is_int(test->watch->requests - requests, 0, "opened, it asks for nothing by itself");
    tap_is_int(flush(test), 0, "a flush");
    struct vv_volume_stats stats = stats_of(test);
    tap_ok(stats.repacked_segments >= before, "each of %u segments is emptied", before);
    tap_is_int((int64_t)stats.repacked_frames, EXTENTS, "each frame is moved once");
    tap_is_int((int64_t)stats.repack_refused, 0, "and none in vain");
    tap_is_int((int64_t)(stats.total_bytes - stats.live_bytes), 0, "nothing dead is left");
    tap_is_int(count_objects(test, "data/"), (EXTENTS + PER_SEGMENT - 1) / PER_SEGMENT,
               "the new segments are full, but for the last");
    tap_ok(are_in_order(test), "frames are sorted by their origins");
    tap_is_int(read_kept(test), 0, "everything can be read");
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    requests = test->watch->requests;
    vv_rt_sleep_ns(HOUR_NS);
    tap_is_int(test->watch->requests - requests, 0, "an idle hour: no request");
    uint64_t bytes = stats.repacked_bytes;
    for (int i = 0; i < 3; i++)
        tap_is_int(flush(test), 0, "another flush");
    tap_is_int((int64_t)(stats_of(test).repacked_bytes - bytes), 0, "has nothing to repack");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
    open_volume(test, &eager);
    tap_is_int(read_kept(test), 0, "after opening again everything can be read");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

/* Log objects with a small file each. */
static void tiny_ones(struct test *test)
{
    struct vv_repack_options some = {.waste_bytes = UINT64_MAX, .tiny_count = TINY_FILES / 2};
    int err = 0;
    open_volume(test, &some);
    uint64_t epoch = stats_of(test).epoch;
    for (uint64_t i = 0; i < TINY_FILES && err == 0; i++) {
        test->data_id = TINY + i;
        err = vv_volume_run(test->volume, VV_OP_WRITE, TINY_BYTES, do_write_tiny, test);
        err = err == 0 ? vv_volume_sync(test->volume, 0) : err;
    }
    tap_is_int(err, 0, "%d small files, each in a commit of its own", TINY_FILES);
    tap_is_int(flush(test), 0, "a flush");
    struct vv_volume_stats stats = stats_of(test);
    tap_ok(stats.repacked_frames >= TINY_FILES, "all are moved: %llu",
           (unsigned long long)stats.repacked_frames);
    char prefix[32];
    snprintf(prefix, sizeof prefix, "log/%016llx/", (unsigned long long)epoch);
    tap_ok(count_objects(test, prefix) < TINY_FILES / 2, "their log objects are gone: %u are left",
           count_objects(test, prefix));
    for (uint64_t i = 0; i < TINY_FILES && err == 0; i++)
        err = read_part(test, TINY + i, 0);
    tap_is_int(err, 0, "they can be read");
    uint64_t bytes = stats.repacked_bytes;
    for (int i = 0; i < 3; i++)
        tap_is_int(flush(test), 0, "another flush");
    tap_is_int((int64_t)(stats_of(test).repacked_bytes - bytes), 0, "has nothing to repack");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

/* A frame of what is kept, in one of the segments that were made last. */
static void damage(struct test *test)
{
    struct vv_segment_id id = {.epoch = stats_of(test).epoch - 1, .kind = VV_SEGMENT_DATA};
    struct vv_segment_entry *entries = NULL;
    uint32_t count = 0;
    if (vv_segment_directory(test->volume, &id, &entries, &count) < 0)
        count = 0;
    vv_segment_name(&id, test->watch->damaged, sizeof test->watch->damaged);
    test->watch->damaged_at = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i].origin.data_id == KEPT)
            test->watch->damaged_at = entries[i].offset + 1000;
    }
    vv_free(entries);
    tap_ok(test->watch->damaged_at > 0, "a frame is damaged");
}

/* A frame that does not authenticate stays where it is; the others go, and it is not tried for ever. */
static void damaged_frame(struct test *test)
{
    make_sparse(test);
    open_volume(test, &eager);
    damage(test);
    tap_is_int(flush(test), 0, "a flush");
    struct vv_volume_stats stats = stats_of(test);
    unsigned errors = 0;
    for (uint32_t i = 0; i < EXTENTS; i++) {
        int err = read_part(test, KEPT, i);
        errors += err == -VV_ERR_AUTH ? 1 : err == 0 ? 0 : 100;
    }
    tap_is_int(errors, 1, "one extent cannot be read, as before");
    tap_ok(stats.repacked_frames >= EXTENTS - 1, "the others are moved");
    uint64_t bytes = stats.repacked_bytes;
    unsigned requests = test->watch->requests;
    for (int i = 0; i < 3; i++)
        tap_is_int(flush(test), 0, "another flush");
    tap_is_int((int64_t)(stats_of(test).repacked_bytes - bytes), 0, "writes nothing for it");
    tap_note("%u requests", test->watch->requests - requests);
    test->watch->damaged[0] = '\0';
    tap_is_int(vv_volume_close(test->volume), 0, "close");
}

static bool is_space_back(const struct test *test)
{
    struct vv_volume_stats stats = stats_of(test);
    return stats.total_bytes - stats.live_bytes < 3 * VV_EXTENT_BYTES;
}

/* Without memory, that a segment may be deleted can be forgotten until the volume is opened again. */
static bool is_done(struct test *test)
{
    bool is_good = flush(test) == 0;
    if (!is_space_back(test)) {
        is_good &= vv_volume_close(test->volume) == 0;
        open_volume(test, &eager);
        is_good &= flush(test) == 0;
    }
    is_good &= is_space_back(test);
    is_good &= read_kept(test) == 0;
    is_good &= vv_volume_close(test->volume) == 0;
    return is_good;
}

static void requests_fail(struct test *test)
{
    bool is_good = true;
    int n = 0;
    test->watch->has_failed = true;
    for (; n < ROUNDS_MAX && test->watch->has_failed && is_good; n++) {
        make_sparse(test);
        open_volume(test, &eager);
        test->watch->has_failed = false;
        test->watch->fail_at = n;
        int err = flush(test);
        test->watch->fail_at = -1;
        is_good &= err == 0 || err == -EIO;
        is_good &= flush(test) == 0 && is_done(test);
        if (!is_good)
            tap_note("request %d: %s", n, vv_err_text(err));
    }
    tap_ok(is_good && n > 20 && !test->watch->has_failed, "with each of %d requests failing", n - 1);
}

static void no_memory(struct test *test)
{
    bool has_failed = true;
    bool is_good = true;
    int64_t n = 0;
    for (; n < ROUNDS_MAX && has_failed && is_good; n++) {
        make_sparse(test);
        open_volume(test, &eager);
        vv_alloc_fail_at(n, false);
        int err = flush(test);
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_good &= err == 0 || err == -ENOMEM;
        is_good &= flush(test) == 0 && is_done(test);
        if (!is_good)
            tap_note("allocation %d: %s", (int)n, vv_err_text(err));
    }
    tap_ok(is_good && n > 50 && !has_failed, "with each of %d allocations failing", (int)n - 1);
}

static void process_main(void *arg)
{
    struct test *test = arg;
    make_volume(test);
    what_is_not_worth_it(test);
    what_is_repacked(test);
    tiny_ones(test);
    damaged_frame(test);
    requests_fail(test);
    no_memory(test);
    vv_keyring_free(test->ring);
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
    if (!getenv("SIM_VERBOSE"))
        vv_log_set_sink(discard_line, NULL);
    return rig_main(process_main, &test);
}
