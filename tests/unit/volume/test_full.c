/* A store on a small disk that fills faster than its free space is asked for: the journal's files lie on it too.
 * Writing must end with -ENOSPC while there is still room to send what is dirty, and freeing must bring
 * space back, whatever the speed and the disk's size. */
#include "volume/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/err.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"

#define FIRST_DATA 5000
#define CHUNK (1u << 20)

struct test {
    uint64_t disk_bytes;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    uint64_t data_id;
    uint64_t offset;
    uint8_t *bytes;
};

static int do_write(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    TRY(vv_op_touch(op, FIRST_DATA));
    TRY(vv_op_put(op, (struct vv_bytes){(const uint8_t *)"Ifullfull", 9},
                  (struct vv_bytes){(const uint8_t *)"x", 1}));
    return vv_op_write(op, FIRST_DATA, test->data_id, test->offset, test->bytes, CHUNK);
}

static int do_drop(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    return vv_op_drop(op, FIRST_DATA, test->data_id);
}

static int make(struct test *test)
{
    struct vv_counters counters = {2, FIRST_DATA + 10};
    struct vv_seal_settings settings = {VV_CIPHER_NONE, VV_COMPRESSION_NONE, 0};
    struct vv_secret secret = {VV_SECRET_KEY_FILE, "0123456789abcdef0123456789abcdef", 32};
    uint8_t *keys;
    size_t keys_len;
    TRY(vv_store_dir_open("/store", true, &test->store));
    TRY(vv_keyring_new((const uint8_t *)"volume-id-volume", &test->ring));
    TRY(vv_slots_create(test->ring, &secret, &vv_slot_cost_test, &keys, &keys_len));
    int err = vv_volume_create(test->store, test->ring, keys, keys_len, &settings, &counters);
    vv_free(keys);
    TRY(err);
    struct vv_volume_options options = {
        .store = test->store,
        .ring = test->ring,
        .durability = VV_DURABILITY_JOURNAL,
        .journal_path = "/store/journal",
        .memory_bytes = 32 << 20,
        .is_syncing_replay = true,
    };
    return vv_volume_open(&options, &test->volume);
}

/* Write until there is no room; *out_written = what fitted. */
static int fill(struct test *test, uint64_t *out_written)
{
    for (test->offset = 0; test->offset < 2 * test->disk_bytes; test->offset += CHUNK) {
        int err = vv_volume_run(test->volume, VV_OP_WRITE, CHUNK, do_write, test);
        *out_written = test->offset;
        if (err < 0)
            return err;
    }
    return 0;
}

static void scenario(void *arg)
{
    struct test *test = arg;
    struct vv_volume_stats stats;
    uint64_t written = 0, journaled = 0;
    test->bytes = calloc(1, CHUNK);
    memset(test->bytes, 7, CHUNK);
    tap_is_int(make(test), 0, "a volume on %llu MiB", (unsigned long long)test->disk_bytes >> 20);
    for (unsigned round = 0; round < 3; round++) {
        /* The first round begins with a file of the journal, the others find it there. */
        test->data_id = FIRST_DATA + round;
        test->offset = 0;
        tap_is_int(vv_volume_run(test->volume, VV_OP_WRITE, CHUNK, do_write, test), 0, "begin");
        tap_is_int(vv_volume_sync(test->volume, 0), 0, "and sync");
        tap_is_int(fill(test, &written), -ENOSPC, "filling it ends with no space");
        vv_volume_stats(test->volume, &stats);
        tap_ok(written > test->disk_bytes / 4, "%llu MiB fitted",
               (unsigned long long)written >> 20);
        tap_is_int(vv_volume_sync(test->volume, 0), 0, "what was taken can be made durable");
        tap_is_int(vv_volume_run(test->volume, VV_OP_FREEING, 0, do_drop, test), 0, "drop it");
        tap_is_int(vv_volume_settle(test->volume), 0, "settle");
        vv_volume_stats(test->volume, &stats);
        tap_ok(stats.total_bytes < 1 << 20, "space came back: %llu bytes held",
               (unsigned long long)stats.total_bytes);
        tap_is_int(stats.store_error, 0, "the store was never overfilled");
        tap_ok(stats.journal_bytes > journaled, "the journal is in use");
        journaled = stats.journal_bytes;
    }
    tap_is_int(vv_volume_close(test->volume), 0, "close");
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
    free(test->bytes);
}

static void world_main(void *arg)
{
    struct test *test = arg;
    int process = vv_sim_process_start(vv_sim_disk_new(test->disk_bytes), scenario, test);
    tap_ok(process > 0, "process");
    vv_sim_process_wait(process);
}

int main(void)
{
    static const uint64_t sizes[] = {96ull << 20, 160ull << 20};
    vv_alloc_track(true);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct test test = {.disk_bytes = sizes[i]};
        struct vv_sim_options options = {.seed = i + 1, .latency_min_ns = 1000,
                                         .latency_max_ns = 20000};
        tap_is_int(vv_sim_run(&options, world_main, &test), 0, "world");
    }
    return tap_done();
}
