/* Commits that begin before a sync asks for them: when, and that a sync then waits less and promises no less. */
#include "volume/volume_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "rt/sim.h"
#include "tap.h"

#define FIRST_DATA 5000
#define SMALL 4096u

/* ---- the rule ---- */

/* So many operations and a sync, in a commit of its own; whether the commit was to begin behind the last one, and behind no other. */
static bool round_of(struct vv_early *early, uint64_t *commit, unsigned ops)
{
    unsigned due = 0;
    bool is_due = false;
    (*commit)++;
    for (unsigned i = 0; i < ops; i++) {
        is_due = vv_early_is_due(early, *commit, SMALL);
        due += is_due;
    }
    vv_early_learn(early, *commit);
    return is_due && due == 1;
}

/* Rounds until the first that is foreseen; bounded. */
static unsigned rounds_until_due(struct vv_early *early, uint64_t *commit, unsigned ops)
{
    for (unsigned i = 0; i < 5000; i++) {
        if (round_of(early, commit, ops))
            return i;
    }
    return 5000;
}

static void rule(void)
{
    struct vv_early early;
    uint64_t commit = 0;
    vv_early_init(&early, 0);
    tap_is_int(rounds_until_due(&early, &commit, 1), 8, "after 8 rounds of one operation and a sync");
    tap_ok(round_of(&early, &commit, 1), "and then each");
    tap_ok(!round_of(&early, &commit, 2), "not when there is another operation");
    tap_is_int(rounds_until_due(&early, &commit, 2), 15, "a wrong guess: twice as many rounds of the new rule, with the one that was wrong");
    for (unsigned i = 0; i < 8; i++)
        round_of(&early, &commit, 2);
    tap_is_int(early.needed, 8, "right guesses make up for it");
    vv_early_init(&early, 0);
    tap_is_int(rounds_until_due(&early, &commit, 8), 8, "rounds of 8");
    vv_early_init(&early, 0);
    tap_is_int(rounds_until_due(&early, &commit, 9), 5000, "never of 9");
    vv_early_init(&early, 0);
    unsigned due = 0;
    for (unsigned i = 0; i < 1000; i++)
        due += round_of(&early, &commit, 1 + i % 2);
    tap_is_int(due, 0, "never when rounds differ");
    for (unsigned i = 0; i < 5000; i++) {
        rounds_until_due(&early, &commit, 1);
        vv_early_is_due(&early, ++commit, SMALL); /* never synced */
    }
    vv_early_is_due(&early, ++commit, SMALL);
    tap_is_int(early.needed, 1024, "a limit to the rounds that it takes");
}

static void exceptions(void)
{
    struct vv_early early;
    uint64_t commit = 0;
    vv_early_init(&early, 0);
    rounds_until_due(&early, &commit, 1);
    tap_ok(!vv_early_is_due(&early, ++commit, (64u << 10) + 1), "not of much");
    vv_early_learn(&early, commit);
    tap_ok(vv_early_is_due(&early, ++commit, 64u << 10), "of little");
    vv_early_learn(&early, commit - 1);
    tap_ok(early.is_begun, "a sync of something older says nothing");
    vv_early_learn(&early, commit);
    vv_early_learn(&early, commit);
    vv_early_learn(&early, commit);
    tap_ok(!early.is_begun && early.streak > 8, "nor does one of nothing new");
    early.waiting = 1;
    tap_ok(!vv_early_is_due(&early, ++commit, SMALL), "not while another sync waits");
    vv_early_learn(&early, commit);
    early.waiting = 0;
    tap_ok(early.streak == 0, "then they come from more than one");
    tap_is_int(rounds_until_due(&early, &commit, 1), 8, "alone again");
}

/* ---- a volume ---- */

struct test {
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    bool is_journaling;
    uint64_t number; /* of the write */
    uint64_t step;
};

static int do_write(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    uint8_t bytes[SMALL];
    memset(bytes, (int)(test->number % 251), sizeof bytes);
    TRY(vv_op_touch(op, FIRST_DATA));
    return vv_op_write(op, FIRST_DATA, FIRST_DATA, test->number % 64 * SMALL, bytes, sizeof bytes);
}

static int write_one(struct test *test)
{
    test->number++;
    return vv_volume_run(test->volume, VV_OP_WRITE, SMALL, do_write, test);
}

static int open_volume(struct test *test)
{
    struct vv_volume_options options = {
        .store = test->store,
        .ring = test->ring,
        .durability = test->is_journaling ? VV_DURABILITY_JOURNAL : VV_DURABILITY_BUCKET,
        .journal_path = test->is_journaling ? "/journal" : NULL,
        .journal_file_bytes = 1 << 20,
        .memory_bytes = 16 << 20,
        .sync_timeout_ns = 300 * VV_NS_PER_S,
    };
    return vv_volume_open(&options, &test->volume);
}

static void make_volume(struct test *test)
{
    struct vv_counters counters = {2, FIRST_DATA + 10};
    struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    struct vv_secret secret = {VV_SECRET_KEY_FILE, "0123456789abcdef0123456789abcdef", 32};
    uint8_t *keys;
    size_t keys_len;
    tap_is_int(vv_store_mem_open(test->backend, &test->store), 0, "open the store");
    tap_is_int(vv_keyring_new((const uint8_t *)"volume-id-volume", &test->ring), 0, "make a ring");
    tap_is_int(vv_slots_create(test->ring, &secret, &vv_slot_cost_test, &keys, &keys_len), 0, "make slots");
    tap_is_int(vv_volume_create(test->store, test->ring, keys, keys_len, &settings, &counters), 0, "create");
    vv_free(keys);
    tap_is_int(open_volume(test), 0, "open");
}

static uint64_t early_commits(const struct test *test)
{
    struct vv_volume_stats stats;
    vv_volume_stats(test->volume, &stats);
    return stats.early_commits;
}

static bool is_durable(const struct test *test)
{
    return vv_durable_commit(test->volume) >= test->volume->open->number - vv_commit_is_empty(test->volume->open);
}

/* Writes, each synced 10 ms later, which is longer than a record takes and shorter than what sends commits by itself. */
static void write_and_sync(struct test *test, unsigned count, unsigned *out_waited)
{
    int bad_count = 0;
    *out_waited = 0;
    for (unsigned i = 0; i < count; i++) {
        bad_count += write_one(test) < 0;
        vv_rt_sleep_ns(10 * VV_NS_PER_MS);
        uint64_t from_ns = vv_rt_now_ns();
        bad_count += vv_volume_sync(test->volume, FIRST_DATA) < 0 || !is_durable(test);
        *out_waited += vv_rt_now_ns() > from_ns;
    }
    tap_is_int(bad_count, 0, "%u times written and synced", count);
}

/* The journal takes time, here of the simulation's clock; who thinks longer than that between write and sync waits only
 * until it is known that a sync will come. */
static void overlap(void *arg)
{
    struct test *test = arg;
    unsigned waited;
    make_volume(test);
    write_and_sync(test, 40, &waited);
    tap_is_int(waited, test->is_journaling ? 8 : 40, "so many of them waited");
    tap_is_int((int64_t)early_commits(test), test->is_journaling ? 32 : 0, "commits that began early");
    for (unsigned i = 0; i < 30; i++)
        write_one(test);
    tap_is_int((int64_t)early_commits(test), test->is_journaling ? 33 : 0, "writes that nobody syncs: one guess");
    tap_ok(!is_durable(test), "nor are they durable");
    tap_is_int(vv_volume_sync(test->volume, FIRST_DATA), 0, "sync them");
    tap_ok(is_durable(test), "now they are");
    tap_is_int(vv_volume_close(test->volume), 0, "close");
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
}

static void world_main(void *arg)
{
    vv_sim_process_wait(vv_sim_process_start(vv_sim_disk_new(0), overlap, arg));
}

static void in_world(bool is_journaling)
{
    struct test test = {.is_journaling = is_journaling};
    struct vv_sim_options options = {.seed = 1, .latency_min_ns = 1000, .latency_max_ns = 100000};
    tap_is_int(vv_store_backend_new(&test.backend), 0, "a store");
    tap_is_int(vv_sim_run(&options, world_main, &test), 0, "world");
    vv_store_backend_free(test.backend);
}

int main(void)
{
    vv_alloc_track(true);
    rule();
    exceptions();
    in_world(true);
    in_world(false);
    return tap_done();
}
