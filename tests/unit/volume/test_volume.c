/* The volume against arrays of bytes: random writes, clears and drops on several data ids, syncs, reads, and
 * reopening with and without an orderly end, with budgets small enough that everything is moved,
 * flushed and compacted meanwhile. */
#include "volume/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/text.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"
#include "watch.h"

#define FILES 6
#define FILE_BYTES (640u << 10)
#define FIRST_DATA 5000
#define CLOSINGS 2
#define CLEARS 3000 /* several batches of reclaiming */

struct model {
    uint64_t data_id;
    uint8_t *bytes;
};

struct test {
    void (*body)(void *test);
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    struct model files[FILES];
    unsigned steps;
    bool is_journaling;
    uint64_t store_ns;     /* what its requests take */
    uint64_t table_ns;     /* what putting a table takes more; removing: twenty times that */
    uint64_t memory_bytes; /* 0 = 16 MiB, with segments of 256 KiB; else of 1 MiB */
    int bad;
    uint64_t random;
};

static uint64_t draw(struct test *test, uint64_t bound)
{
    uint64_t value = test->random += 0x9e3779b97f4a7c15ull;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return (value ^ value >> 31) % bound;
}

static bool chance(struct test *test, unsigned permille)
{
    return draw(test, 1000) < permille;
}

struct action {
    struct test *test;
    struct model *file;
    uint64_t offset, end;
    const uint8_t *bytes;
    uint64_t new_id;
    struct vv_read *read;
};

static int do_write(struct vv_op *op, void *arg)
{
    struct action *action = arg;
    TRY(vv_op_touch(op, action->file->data_id));
    uint8_t key[9] = "I";
    memcpy(key + 1, &action->file->data_id, 8);
    TRY(vv_op_put(op, (struct vv_bytes){key, 9}, (struct vv_bytes){key, 9}));
    return vv_op_write(op, 77, action->file->data_id, action->offset, action->bytes,
                       action->end - action->offset);
}

static int do_clear(struct vv_op *op, void *arg)
{
    struct action *action = arg;
    TRY(vv_op_touch(op, action->file->data_id));
    return vv_op_clear(op, 77, action->file->data_id, action->offset, action->end);
}

static int do_drop(struct vv_op *op, void *arg)
{
    struct action *action = arg;
    action->new_id = vv_op_new_data_id(op);
    return vv_op_drop(op, 77, action->file->data_id);
}

static int do_read(struct vv_op *op, void *arg)
{
    struct action *action = arg;
    vv_read_reset(action->read);
    return vv_op_read(op, action->file->data_id, action->offset, action->end - action->offset,
                      &action->read);
}

static int read_back(struct test *test, struct model *file, uint64_t from, uint64_t to)
{
    struct action action = {.test = test, .file = file, .offset = from, .end = to};
    uint8_t *bytes = malloc(to - from + 1);
    int err = vv_volume_run(test->volume, VV_OP_READ, 0, do_read, &action);
    ssize_t got = err < 0 ? err : vv_read_finish(test->volume, action.read, bytes);
    vv_read_free(action.read);
    if (got >= 0 && memcmp(bytes, file->bytes + from, to - from) != 0) {
        uint64_t at = 0;
        while (bytes[at] == file->bytes[from + at])
            at++;
        tap_note("file %d differs at %llu of %llu..%llu: %02x, not %02x", (int)(file - test->files),
                 (unsigned long long)(from + at), (unsigned long long)from, (unsigned long long)to,
                 bytes[at], file->bytes[from + at]);
        got = -EILSEQ;
    }
    free(bytes);
    if (got < 0 && test->bad++ == 0)
        tap_note("reading: %s", vv_err_text((int)got));
    return got < 0 ? (int)got : 0;
}

static void check_all(struct test *test)
{
    for (unsigned i = 0; i < FILES; i++) {
        for (uint64_t at = 0; at < FILE_BYTES; at += 128 << 10)
            if (read_back(test, &test->files[i], at, at + (128 << 10)) < 0)
                return;
    }
}

static int open_volume(struct test *test)
{
    struct vv_volume_options options = {
        .store = test->store,
        .ring = test->ring,
        .durability = test->is_journaling ? VV_DURABILITY_JOURNAL : VV_DURABILITY_BUCKET,
        .journal_path = test->is_journaling ? "/journal" : NULL,
        .journal_file_bytes = 1 << 20,
        .memory_bytes = test->memory_bytes ? test->memory_bytes : 16 << 20,
        .segment_bytes = test->memory_bytes ? 1 << 20 : 256 << 10,
        .sync_timeout_ns = 300 * VV_NS_PER_S,
    };
    return vv_volume_open(&options, &test->volume);
}

static void step(struct test *test)
{
    struct model *file = &test->files[draw(test, FILES)];
    struct action action = {.test = test, .file = file};
    static uint8_t buffer[200 << 10];
    uint64_t len = chance(test, 300) ? draw(test, 150 << 10) + 1 : draw(test, 5000) + 1;
    action.offset = draw(test, FILE_BYTES - len);
    if (chance(test, 300))
        action.offset = action.offset / 4096 * 4096;
    action.end = action.offset + len;
    int err = 0;
    unsigned kind = (unsigned)draw(test, 100);
    if (kind < 60) {
        uint8_t fill = (uint8_t)(1 + draw(test, 255));
        for (uint64_t i = 0; i < len; i++)
            buffer[i] = (uint8_t)(fill + i / 7 * (i % 3));
        action.bytes = buffer;
        err = vv_volume_run(test->volume, VV_OP_WRITE, len, do_write, &action);
        if (err >= 0)
            memcpy(file->bytes + action.offset, buffer, len);
    } else if (kind < 70) {
        if (chance(test, 300))
            action.end = UINT64_MAX;
        err = vv_volume_run(test->volume, VV_OP_FREEING, 0, do_clear, &action);
        if (action.end > FILE_BYTES)
            action.end = FILE_BYTES;
        if (err >= 0)
            memset(file->bytes + action.offset, 0, action.end - action.offset);
    } else if (kind < 72) {
        err = vv_volume_run(test->volume, VV_OP_FREEING, 0, do_drop, &action);
        if (err >= 0) {
            file->data_id = action.new_id;
            memset(file->bytes, 0, FILE_BYTES);
        }
    } else if (kind < 90) {
        err = read_back(test, file, action.offset, action.end);
    } else if (kind < 97) {
        err = vv_volume_sync(test->volume, chance(test, 500) ? 0 : file->data_id);
    } else if (kind < 99) {
        err = vv_volume_settle(test->volume);
    }
    if (err < 0 && test->bad++ == 0)
        tap_note("step of kind %u: %s", kind, vv_err_text(err));
}

/* A new volume, open. */
static void make_volume(struct test *test)
{
    struct vv_counters counters = {2, FIRST_DATA};
    struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    uint8_t *keys;
    size_t keys_len;
    struct vv_secret secret = {VV_SECRET_KEY_FILE, "0123456789abcdef0123456789abcdef", 32};
    tap_is_int(vv_store_mem_open(test->backend, &test->store), 0, "open the store");
    if (test->table_ns != 0) {
        struct watch *watch = watch_new(test->store);
        watch->table_ns = test->table_ns;
        watch->remove_ns = 20 * test->table_ns;
        test->store = &watch->store;
    }
    if (test->store_ns != 0)
        tap_is_int(vv_store_latency_new(test->store, test->store_ns, 0, &test->store), 0, "slow it");
    tap_is_int(vv_keyring_new((const uint8_t *)"volume-id-volume", &test->ring), 0, "make a ring");
    tap_is_int(vv_slots_create(test->ring, &secret, &vv_slot_cost_test, &keys, &keys_len), 0,
               "make slots");
    tap_is_int(vv_volume_create(test->store, test->ring, keys, keys_len, &settings, &counters), 0,
               "create");
    vv_free(keys);
    tap_is_int(open_volume(test), 0, "open");
}

static void tear_down(struct test *test)
{
    tap_is_int(vv_volume_close(test->volume), 0, "close at the end");
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
}

#define MANY_EXTENTS 4096

/* Extents one after the other, from *next on; how many could not be written. */
static int write_extents(struct test *test, uint64_t *next, unsigned count)
{
    struct model file = {.data_id = FIRST_DATA + 1000};
    static uint8_t bytes[VV_EXTENT_BYTES];
    int bad_count = 0;
    for (unsigned i = 0; i < count; i++) {
        struct action action = {.test = test, .file = &file, .bytes = bytes};
        action.offset = (*next)++ * VV_EXTENT_BYTES;
        action.end = action.offset + VV_EXTENT_BYTES;
        bad_count += vv_volume_run(test->volume, VV_OP_WRITE, sizeof bytes, do_write, &action) < 0;
    }
    return bad_count;
}

/* Extents of one commit, in data segments already: their records come when it is finalised, after the
 * freeze that asks whether the memtable is full. What is written next must not wait for a freeze that
 * nothing will bring about (then this test does not end), and room is made for what is written only. */
static void many_extents(void *arg)
{
    struct test *test = arg;
    struct vv_volume_stats stats;
    uint64_t next = 0;
    make_volume(test);
    int bad_count = write_extents(test, &next, MANY_EXTENTS);
    vv_rt_sleep_ns(5 * VV_NS_PER_S); /* the timers send all of it */
    bad_count += write_extents(test, &next, 1);
    tap_is_int(bad_count, 0, "%d extents, and one more", MANY_EXTENTS);
    vv_volume_stats(test->volume, &stats);
    tap_ok(stats.memtable_bytes < 3 << 20, "%llu KiB of memtables after %llu commits",
           (unsigned long long)stats.memtable_bytes / 1024, (unsigned long long)stats.commits);
    tear_down(test);
}

/* A commit of many extents that is finalised while the memtable before it is flushed: whoever looks then whether the next flush is
 * due finds one under way, so its end must look again. (Removing dead segments, which brings about a
 * commit, takes longer.) */
static void flush_meanwhile(void *arg)
{
    struct test *test = arg;
    uint64_t next = 0;
    test->table_ns = 5 * VV_NS_PER_S;
    make_volume(test);
    int bad_count = write_extents(test, &next, MANY_EXTENTS / 5);
    vv_rt_sleep_ns(3 * VV_NS_PER_S); /* the timers send all of it, and the flush begins */
    bad_count += write_extents(test, &next, MANY_EXTENTS / 2);
    vv_rt_sleep_ns(20 * VV_NS_PER_S); /* and ends */
    uint64_t from_ns = vv_rt_now_ns();
    bad_count += write_extents(test, &next, 1);
    tap_is_int(bad_count, 0, "%d extents while a table is written, and one more", MANY_EXTENTS / 2);
    tap_ok(vv_rt_now_ns() - from_ns < VV_NS_PER_S, "which does not wait");
    tear_down(test);
}

static int do_count(struct vv_op *op, void *arg)
{
    struct action *action = arg;
    return vv_op_allocated(op, 77, action->file->data_id, &action->new_id);
}

/* A block that is free stays free until it is written to, also when the zeros that freed it are covered by others that
 * each cover only a part of it. */
static void holes(void *arg)
{
    static const struct {
        uint64_t from, to, blocks; /* with data, once that is zeros */
    } clears[] = {{4000, 9000, 7}, {5531, 27271, 3}, {1840, 7463, 3}, {10585, 25183, 3},
                  {4090, 8200, 3}, {1, 5000, 3}, {4999, 8193, 3}};
    struct test *test = arg;
    struct model file = {.data_id = FIRST_DATA + 1000};
    static uint8_t bytes[VV_EXTENT_BYTES];
    struct action action = {.test = test, .file = &file, .end = sizeof bytes, .bytes = bytes};
    make_volume(test);
    tap_is_int(vv_volume_run(test->volume, VV_OP_WRITE, sizeof bytes, do_write, &action), 0,
               "an extent");
    tap_is_int(vv_volume_sync(test->volume, 0), 0, "sync");
    for (size_t i = 0; i < sizeof clears / sizeof clears[0]; i++) {
        action.offset = clears[i].from;
        action.end = clears[i].to;
        tap_is_int(vv_volume_run(test->volume, VV_OP_WRITE, 0, do_clear, &action), 0, "clear %llu to %llu",
                   (unsigned long long)clears[i].from, (unsigned long long)clears[i].to);
        tap_is_int(vv_volume_settle(test->volume), 0, "settle");
        tap_is_int(vv_volume_run(test->volume, VV_OP_READ, 0, do_count, &action), 0, "count");
        tap_is_int((int64_t)(action.new_id / 4096), (int64_t)clears[i].blocks, "blocks with data");
    }
    tear_down(test);
}

#define SLOW_MIB 124 /* nearly the share of dirty bytes */

/* A store so slow that nearly all of it is still in one commit when somebody syncs: that is more than a record of the
 * journal holds. */
static void slow_store(void *arg)
{
    struct test *test = arg;
    struct model file = {.data_id = FIRST_DATA + 1000};
    static uint8_t bytes[1 << 20];
    int bad_count = 0;
    test->memory_bytes = 512 << 20;
    test->store_ns = 2 * VV_NS_PER_S;
    make_volume(test);
    for (uint64_t i = 0; i < SLOW_MIB; i++) {
        struct action action = {.test = test, .file = &file, .bytes = bytes};
        action.offset = i * sizeof bytes;
        action.end = action.offset + sizeof bytes;
        memset(bytes, (int)i, sizeof bytes);
        vv_rt_sleep_ns(VV_NS_PER_MS);
        bad_count += vv_volume_run(test->volume, VV_OP_WRITE, sizeof bytes, do_write, &action) < 0;
    }
    tap_is_int(bad_count, 0, "%d MiB written", SLOW_MIB);
    tap_is_int(vv_volume_sync(test->volume, 0), 0, "and synced");
    struct vv_volume_stats stats;
    vv_volume_stats(test->volume, &stats);
    tap_ok(stats.durable_commit > stats.bucket_commit, "by the journal");
    tap_ok(stats.fresh_extents > 0, "%llu extents found memory ready",
           (unsigned long long)stats.fresh_extents);
    tear_down(test);
}

#define LONG_VALUES 1500 /* of 64 KiB: twice a record of the journal */

struct long_put {
    uint64_t number;
    size_t len;
};

static int do_long_put(struct vv_op *op, void *arg)
{
    static uint8_t value[64 << 10];
    struct long_put *put = arg;
    uint8_t key[9] = "K";
    vv_store_be64(key + 1, put->number);
    memset(value, (int)put->number, sizeof value);
    return vv_op_put(op, (struct vv_bytes){key, 9}, (struct vv_bytes){value, sizeof value});
}

static int do_long_get(struct vv_op *op, void *arg)
{
    struct long_put *put = arg;
    struct vv_bytes value;
    uint8_t key[9] = "K";
    vv_store_be64(key + 1, put->number);
    int found = vv_op_get(op, (struct vv_bytes){key, 9}, &value);
    bool is_right = found > 0 && value.len == 64 << 10 && value.ptr[9] == (uint8_t)put->number;
    return found < 0 ? found : is_right ? 1 : -ENODATA;
}

/* A commit waits for its bytes to be in the store before it goes to the journal, and the store takes long: meanwhile
 * more metadata changes than a record holds, or the batch of a log object. Writers wait then, and all goes on. */
static void much_metadata(void *arg)
{
    struct test *test = arg;
    struct model file = {.data_id = FIRST_DATA + 1000};
    static uint8_t bytes[2 << 20];
    struct action action = {.test = test, .file = &file, .bytes = bytes, .end = sizeof bytes};
    struct vv_volume_stats stats;
    int bad_count = 0;
    test->memory_bytes = 1 << 30;
    test->store_ns = 5 * VV_NS_PER_S;
    make_volume(test);
    bad_count += vv_volume_run(test->volume, VV_OP_WRITE, sizeof bytes, do_write, &action) < 0;
    vv_rt_sleep_ns(1500 * VV_NS_PER_MS); /* it is frozen and waits */
    uint64_t begun_ns = vv_rt_now_ns();
    for (uint64_t i = 0; i < LONG_VALUES; i++) {
        struct long_put put = {.number = i};
        bad_count += vv_volume_run(test->volume, VV_OP_WRITE, 0, do_long_put, &put) < 0;
    }
    tap_is_int(bad_count, 0, "%d values of 64 KiB", LONG_VALUES);
    tap_ok(vv_rt_now_ns() - begun_ns > VV_NS_PER_S, "they had to wait");
    tap_is_int(vv_volume_sync(test->volume, 0), 0, "synced");
    vv_volume_stats(test->volume, &stats);
    tap_ok(!test->is_journaling || stats.durable_commit > stats.bucket_commit, "durable %llu, in the store %llu",
           (unsigned long long)stats.durable_commit, (unsigned long long)stats.bucket_commit);
    vv_volume_shut_down(test->volume);
    tap_is_int(vv_volume_close(test->volume), -VV_ERR_SHUT_DOWN, "gone");
    tap_is_int(open_volume(test), 0, "opened again");
    for (uint64_t i = 0; i < LONG_VALUES; i++) {
        struct long_put put = {.number = i};
        bad_count += vv_volume_run(test->volume, VV_OP_READ, 0, do_long_get, &put) < 0;
    }
    tap_is_int(bad_count, 0, "all of them are there");
    tear_down(test);
}

/* With a store that does not answer, deleting goes on until a commit is full, and then fails after a while. */
static void deleting_ends(void *arg)
{
    struct test *test = arg;
    unsigned done = 0;
    int err = 0;
    test->memory_bytes = 1 << 30;
    test->store_ns = 5000 * VV_NS_PER_S;
    make_volume(test);
    uint64_t begun_ns = vv_rt_now_ns();
    for (; done < 3 * LONG_VALUES && err >= 0; done += err >= 0) {
        struct long_put put = {.number = done};
        err = vv_volume_run(test->volume, VV_OP_FREEING, 0, do_long_put, &put);
    }
    tap_is_int(err, -EIO, "it ends");
    tap_ok(done > 300 && vv_rt_now_ns() - begun_ns >= 300 * VV_NS_PER_S, "after %u changes of 64 KiB", done);
    vv_volume_shut_down(test->volume);
    tap_is_int(vv_volume_close(test->volume), -VV_ERR_SHUT_DOWN, "and the volume can be closed");
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
}

/* Empty files, known to the model. */
static void make_files(struct test *test)
{
    for (unsigned i = 0; i < FILES; i++) {
        test->files[i].data_id = FIRST_DATA + 1000 + i;
        test->files[i].bytes = calloc(1, FILE_BYTES);
    }
}

/* Closing at any moment after much was dropped: what reclaiming still does then is neither waited for
 * nor in the way. */
static void closings(void *arg)
{
    struct test *test = arg;
    make_volume(test);
    make_files(test);
    for (unsigned round = 0; round < CLOSINGS && test->bad == 0; round++) {
        for (unsigned i = 0; i < FILES * 2; i++) {
            struct model *file = &test->files[i % FILES];
            struct action action = {.test = test, .file = file, .end = FILE_BYTES};
            memset(file->bytes, (int)draw(test, 256), FILE_BYTES);
            action.bytes = file->bytes;
            test->bad +=
                vv_volume_run(test->volume, VV_OP_WRITE, FILE_BYTES, do_write, &action) < 0;
            if (i % 3 == 0)
                test->bad += vv_volume_sync(test->volume, 0) < 0;
            if (i >= FILES)
                continue;
            test->bad += vv_volume_run(test->volume, VV_OP_FREEING, 0, do_drop, &action) < 0;
            file->data_id = action.new_id;
        }
        for (unsigned i = 0; i < CLEARS; i++) {
            struct model *file = &test->files[draw(test, FILES)];
            struct action action = {.file = file, .offset = draw(test, 1u << 30)};
            action.offset += FILE_BYTES;
            action.end = action.offset + 1 + draw(test, 1 << 20);
            test->bad += vv_volume_run(test->volume, VV_OP_FREEING, 0, do_clear, &action) < 0;
        }
        vv_rt_sleep_ns(draw(test, round % 4 == 0 ? 3 * VV_NS_PER_S : 2 * VV_NS_PER_MS));
        test->bad += vv_volume_close(test->volume) < 0;
        test->bad += open_volume(test) < 0;
        check_all(test);
    }
    tap_is_int(test->bad, 0, "closed and opened %u times", CLOSINGS);
    tear_down(test);
}

static int write_all(struct test *test, struct model *file, int fill)
{
    struct action action = {.test = test, .file = file, .end = FILE_BYTES, .bytes = file->bytes};
    memset(file->bytes, fill, FILE_BYTES);
    return vv_volume_run(test->volume, VV_OP_WRITE, FILE_BYTES, do_write, &action);
}

struct waiter {
    struct test *test;
    int err;
    bool has_ended;
};

static void wait_for_sync(void *arg)
{
    struct waiter *waiter = arg;
    waiter->err = vv_volume_sync(waiter->test->volume, 0);
    waiter->has_ended = true;
}

static void check_shut_down(struct test *test)
{
    struct vv_volume_stats stats;
    struct vv_lsm_iter *iter = NULL;
    uint8_t lower[1] = {'I'}, upper[1] = {'J'};
    struct model file = {.data_id = FIRST_DATA + 1000};
    static uint8_t byte;
    struct action action = {.test = test, .file = &file, .end = 1, .bytes = &byte};
    tap_is_int(vv_volume_run(test->volume, VV_OP_READ, 0, do_read, &action), -VV_ERR_SHUT_DOWN, "no reads");
    tap_is_int(vv_volume_run(test->volume, VV_OP_WRITE, 1, do_write, &action), -VV_ERR_SHUT_DOWN, "no writes");
    tap_is_int(vv_volume_run(test->volume, VV_OP_FREEING, 0, do_clear, &action), -VV_ERR_SHUT_DOWN,
               "nothing is freed");
    tap_is_int(vv_volume_sync(test->volume, 0), -VV_ERR_SHUT_DOWN, "no sync of all");
    tap_is_int(vv_volume_sync(test->volume, FIRST_DATA + 1000), -VV_ERR_SHUT_DOWN,
               "nor of what is durable already");
    tap_is_int(vv_volume_settle(test->volume), -VV_ERR_SHUT_DOWN, "no settling");
    tap_is_int(vv_volume_set_settings(test->volume, vv_volume_settings(test->volume)),
               -VV_ERR_SHUT_DOWN, "no manifest");
    tap_is_int(vv_volume_scan(test->volume, (struct vv_bytes){lower, 1},
                              (struct vv_bytes){upper, 1}, &iter),
               -VV_ERR_SHUT_DOWN, "no scan");
    vv_volume_stats(test->volume, &stats);
    tap_ok(stats.is_shut_down && !stats.is_fenced && !vv_volume_is_fenced(test->volume) &&
               vv_volume_is_shut_down(test->volume),
           "it says so, and that nobody has taken it over");
}

/* What is synced stays, all else may go: with a slow store nothing arrives but what was on its way. Who waits for a sync is
 * told, and closing waits for nothing. */
static void shut_down(void *arg)
{
    struct test *test = arg;
    struct waiter waiter = {.test = test};
    test->store_ns = 200 * VV_NS_PER_MS;
    make_volume(test);
    make_files(test);
    tap_ok(write_all(test, &test->files[0], 1) >= 0, "write");
    tap_is_int(vv_volume_sync(test->volume, 0), 0, "sync");
    tap_ok(write_all(test, &test->files[1], 2) >= 0, "write more");
    tap_is_int(vv_fiber_start(wait_for_sync, &waiter, "sync"), 0, "somebody syncs");
    vv_rt_sleep_ns(1000);
    tap_ok(!waiter.has_ended, "and waits");
    vv_volume_shut_down(test->volume);
    check_shut_down(test);
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(waiter.has_ended, "who waited is told at once");
    tap_is_int(waiter.err, -VV_ERR_SHUT_DOWN, "why");
    vv_rt_sleep_ns(draw(test, 2) * VV_NS_PER_S);
    tap_is_int(vv_volume_close(test->volume), -VV_ERR_SHUT_DOWN, "closing says it again");
    tap_is_int(open_volume(test), 0, "open again");
    tap_is_int(read_back(test, &test->files[0], 0, FILE_BYTES), 0, "what was synced is there");
    /* The write was one operation: there or not. */
    uint8_t *written = test->files[1].bytes;
    test->files[1].bytes = calloc(1, FILE_BYTES);
    int absent = read_back(test, &test->files[1], 0, FILE_BYTES);
    free(test->files[1].bytes);
    test->files[1].bytes = written;
    tap_ok(absent == 0 || read_back(test, &test->files[1], 0, FILE_BYTES) == 0,
           "what was not is there wholly or not at all: %s", absent == 0 ? "not" : "wholly");
    tear_down(test);
}

static void scenario(void *arg)
{
    struct test *test = arg;
    struct vv_volume_stats stats;
    make_volume(test);
    make_files(test);
    for (unsigned round = 0; round < 4 && test->bad == 0; round++) {
        for (unsigned i = 0; i < test->steps && test->bad == 0; i++)
            step(test);
        check_all(test);
        vv_volume_stats(test->volume, &stats);
        tap_is_int(vv_volume_close(test->volume), 0, "close");
        tap_is_int(open_volume(test), 0, "open again");
        check_all(test);
        tap_ok(test->bad == 0, "round %u: epoch %llu, %llu commits, %llu segments deleted", round,
               (unsigned long long)stats.epoch, (unsigned long long)stats.commits,
               (unsigned long long)stats.segments_deleted);
    }
    for (unsigned i = 0; i < FILES; i++) {
        struct action action = {.test = test, .file = &test->files[i]};
        if (vv_volume_run(test->volume, VV_OP_FREEING, 0, do_drop, &action) < 0)
            test->bad++;
    }
    tap_is_int(vv_volume_settle(test->volume), 0, "settle");
    vv_volume_stats(test->volume, &stats);
    tap_ok(stats.live_bytes == 0, "nothing live is left: %llu", (unsigned long long)stats.live_bytes);
    tap_is_int(vv_volume_settle(test->volume), 0, "settle again");
    vv_volume_stats(test->volume, &stats);
    tap_ok(stats.total_bytes < 64 << 10, "space came back: %llu of %llu segments",
           (unsigned long long)stats.total_bytes, (unsigned long long)stats.segments);
    tap_ok(stats.plan_rounds_max <= 3, "at most 3 plan rounds: %llu",
           (unsigned long long)stats.plan_rounds_max);
    tear_down(test);
}

static void world_main(void *arg)
{
    struct vv_sim_disk *disk = vv_sim_disk_new(0);
    struct test *test = arg;
    int process = vv_sim_process_start(disk, test->body, test);
    tap_ok(process > 0, "process");
    vv_sim_process_wait(process);
}

static void run(void (*body)(void *test), uint64_t seed, unsigned steps, bool is_journaling)
{
    struct test test = {
        .body = body, .random = seed, .steps = steps, .is_journaling = is_journaling};
    if (vv_store_backend_new(&test.backend) < 0)
        abort();
    struct vv_sim_options options = {.seed = seed, .latency_min_ns = 1000, .latency_max_ns = 100000,
                                     .reorder_permille = 100};
    tap_is_int(vv_sim_run(&options, world_main, &test), 0, "world %llu", (unsigned long long)seed);
    for (unsigned i = 0; i < FILES; i++)
        free(test.files[i].bytes);
    vv_store_backend_free(test.backend);
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    vv_alloc_track(true);
    if (argc > 1 && vv_parse_u64(argv[1], &seed) == 0) {
        run(scenario, seed, 500, seed % 2 == 1);
        return tap_done();
    }
    for (uint64_t i = 1; i <= 6; i++)
        run(scenario, i, 150, i % 2 == 1);
    run(many_extents, 1, 0, true);
    run(many_extents, 2, 0, false);
    run(flush_meanwhile, 1, 0, true);
    run(flush_meanwhile, 2, 0, false);
    run(holes, 1, 0, true);
    run(slow_store, 1, 0, true);
    run(much_metadata, 1, 0, true);
    run(much_metadata, 2, 0, false);
    run(deleting_ends, 1, 0, false);
    for (uint64_t i = 1; i <= 4; i++)
        run(shut_down, i, 0, i % 2 == 1);
    run(closings, 15, 0, true);
    run(closings, 17, 0, true);
    return tap_done();
}
