#include "rig.h"

#define MANY_COMMITS 40

/* Open, commit `count` batches from the last commit on, with tags tag, tag + 1, ..., and close. */
static void serve(const struct rig *rig, struct seen *seen, unsigned count, uint64_t tag)
{
    struct vv_log *log;
    int err = rig_open(rig, rig->store, seen, &log);
    if (err) {
        tap_is_int(err, 0, "opens");
        return;
    }
    uint64_t commit = vv_log_last_commit(log);
    for (unsigned i = 0; i < count && !err; i++)
        err = rig_commit(rig, log, ++commit, tag + i);
    if (err)
        tap_is_int(err, 0, "commits");
    vv_log_close(log);
}

static bool has_tags(const struct seen *seen, uint64_t first, size_t count)
{
    bool result = seen->count == count;
    for (size_t i = 0; i < count && result; i++)
        result = seen->tags[i] == first + i && seen->first_commits[i] == i + 1;
    return result;
}

static int open_error(const struct rig *rig)
{
    struct seen seen = {0};
    struct vv_log *log;
    int err = rig_open(rig, rig->store, &seen, &log);
    if (!err)
        vv_log_close(log);
    return err;
}

static void test_reopen(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    struct vv_log *log;
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), 0, "a new volume opens");
    tap_ok(vv_log_epoch(log) == 1 && vv_log_last_commit(log) == 0, "as epoch 1 with no commits");
    tap_ok(seen.bases == 1 && seen.manifest_number == 2, "replay is told the claim");
    tap_ok(vv_log_counters(log).next_inode == 2, "counters are the manifest's");
    tap_is_int(rig_commit(&rig, log, 1, 500), 0, "a commit");
    tap_is_int(rig_commit(&rig, log, 2, 501), 0, "another");
    vv_log_close(log);
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), 0, "opens again");
    tap_ok(has_tags(&seen, 500, 2), "both are replayed in order");
    tap_ok(vv_log_epoch(log) == 2 && vv_log_last_commit(log) == 2, "as the next epoch");
    tap_is_int((int64_t)vv_log_counters(log).next_inode, 102, "counters are the greatest seen");
    tap_ok(rig_has(&rig, "log/0000000000000001/0000000000000002"), "the old epoch has its fence");
    vv_log_close(log);
    serve(&rig, &seen, 3, 502);
    serve(&rig, &seen, 0, 0);
    tap_ok(has_tags(&seen, 500, 5), "epochs that are all live are replayed one after the other");
    tap_ok(seen.epochs[1] == 1 && seen.epochs[2] == 3, "each from its own log");
    rig_free(&rig);
}

static void test_flush(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    struct vv_log *log;
    serve(&rig, &seen, 3, 100);
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), 0, "opens");
    for (uint64_t commit = 4; commit <= 6; commit++) {
        if (rig_commit(&rig, log, commit, 99 + commit) < 0)
            tap_ok(false, "commits");
    }
    tap_is_int(rig_flush(log, 3, 0, true), 0, "the older epoch is in the tables");
    vv_log_close(log);
    serve(&rig, &seen, 0, 0);
    tap_ok(seen.count == 3 && seen.first_commits[0] == 4, "and is not replayed any more");
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), 0, "opens");
    tap_is_int(rig_commit(&rig, log, 7, 106), 0, "commits");
    tap_is_int(rig_flush(log, 6, 0, true), 0, "flushes what was replayed");
    tap_is_int(rig_flush(log, 7, 1, true), 0, "flushes its own commit");
    tap_is_int(rig_commit(&rig, log, 8, 107), 0, "commits");
    vv_log_close(log);
    serve(&rig, &seen, 0, 0);
    tap_ok(seen.count == 1 && seen.tags[0] == 107, "replay begins at the epoch's own point");
    rig_free(&rig);
}

static void test_large(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    struct vv_log *log;
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), 0, "opens");
    int err = 0;
    size_t bytes = 0;
    for (uint64_t i = 0; i < MANY_COMMITS && !err; i++) {
        size_t len = i % 5 == 3 ? 400000 + i : i % 7 == 0 ? 262144 - 300 + i : 8;
        struct object object = object_new(&rig, log, i + 1, i, len);
        err = object_put(log, &object);
        bytes += object.bytes;
        object_free(&object);
    }
    tap_is_int(err, 0, "commits of all sizes");
    vv_log_close(log);
    serve(&rig, &seen, 0, 0);
    tap_ok(has_tags(&seen, 0, MANY_COMMITS), "are replayed in order");
    tap_ok(seen.payload_bytes[3] == 400003 && seen.payload_bytes[0] == 261844, "whole");
    tap_ok(seen.object_bytes == bytes, "with their sizes");
    rig_free(&rig);
}

static void test_gap(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    serve(&rig, &seen, 5, 100);
    serve(&rig, &seen, 0, 0);
    tap_is_int(vv_store_remove(rig.store, "log/0000000000000001/0000000000000002"), 0, "lose one");
    tap_is_int(open_error(&rig), -VV_ERR_GAP, "a missing position before the fence is an error");
    tap_is_int(open_error(&rig), -VV_ERR_GAP, "every time");
    rig_free(&rig);
}

static void test_gap_without_fence(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    serve(&rig, &seen, VV_LOG_WINDOW_MAX + 2, 100);
    tap_is_int(vv_store_remove(rig.store, "log/0000000000000001/0000000000000001"), 0, "lose one");
    tap_is_int(open_error(&rig), -VV_ERR_GAP, "no writer is that far ahead of what is confirmed");
    rig_free(&rig);
}

/* Put an object at (1, seq) with the given first commit and previous attempt id. */
static void forge(const struct rig *rig, uint64_t seq, uint64_t commit, const uint8_t previous[16])
{
    struct vv_batch_header header = {.first_commit = commit, .count = 1};
    struct vv_segment_id id = {.epoch = 1, .counter = seq, .kind = VV_SEGMENT_LOG};
    char name[VV_STORE_NAME_MAX + 1];
    memcpy(header.previous_attempt_id, previous, 16);
    struct object object = object_seal(rig, &id, &header, NULL, 1, 8);
    vv_segment_name(&id, name, sizeof(name));
    if (vv_store_put(rig->store, name, object.iov, object.count) < 0)
        tap_ok(false, "forges");
    object_free(&object);
}

static void test_order(void)
{
    static const uint8_t zero[16] = {0}, other[16] = {1};
    struct seen seen = {0};
    struct rig rig = rig_with_volume();
    serve(&rig, &seen, 0, 0);
    forge(&rig, 0, 2, zero);
    tap_is_int(open_error(&rig), -VV_ERR_CORRUPT, "the first commit must be the last one + 1");
    rig_free(&rig);
    rig = rig_with_volume();
    serve(&rig, &seen, 0, 0);
    forge(&rig, 0, 1, other);
    tap_is_int(open_error(&rig), -VV_ERR_CORRUPT, "the first object has none before it");
    rig_free(&rig);
    rig = rig_with_volume();
    serve(&rig, &seen, 1, 100);
    forge(&rig, 1, 2, other);
    tap_is_int(open_error(&rig), -VV_ERR_CORRUPT, "the others name the one before");
    rig_free(&rig);
}

/* A fence lands between two puts of a window: what is behind it never counts. */
static void test_behind_fence(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    struct vv_log *old, *log;
    tap_is_int(rig_open(&rig, rig.store, &seen, &old), 0, "opens");
    tap_is_int(rig_commit(&rig, old, 1, 100), 0, "commits");
    struct object second = object_new(&rig, old, 2, 101, 8);
    struct object third = object_new(&rig, old, 3, 102, 8);
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(&third.id, name, sizeof(name));
    tap_is_int(vv_store_put(rig.store, name, third.iov, third.count), 0, "the third overtakes");
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), 0, "another opens");
    tap_ok(has_tags(&seen, 100, 1), "and sees what lies before its fence");
    tap_is_int(object_put(old, &second), -VV_ERR_FENCED, "the second finds the fence");
    tap_is_int(object_put(old, &third), -VV_ERR_FENCED, "the third is not acknowledged");
    tap_ok(vv_log_is_fenced(old), "for good");
    tap_is_int(rig_commit(&rig, log, 2, 101), 0, "the new owner goes on");
    tap_is_int(rig_commit(&rig, log, 3, 102), 0, "at the same numbers");
    object_free(&second);
    object_free(&third);
    vv_log_close(old);
    vv_log_close(log);
    serve(&rig, &seen, 0, 0);
    tap_ok(has_tags(&seen, 100, 3), "all is replayed once");
    rig_free(&rig);
}

/* ---- journals ---- */

static int open_with_journal(const struct rig *rig, const uint8_t *id, bool is_abandoning,
                             bool is_holding, bool *is_current)
{
    struct seen seen = {0};
    struct vv_log_options options = rig_options(rig, rig->store);
    struct vv_log_replay replay = rig_replay(&seen);
    struct vv_log *log;
    options.journal_id = id;
    options.is_abandoning_journal = is_abandoning;
    options.is_journal_holding_records = is_holding;
    int err = vv_log_open(&options, &replay, &log, is_current);
    if (!err)
        vv_log_close(log);
    return err;
}

static void test_journal_rules(void)
{
    static const uint8_t a[16] = {1}, b[16] = {2};
    struct rig rig = rig_with_volume();
    bool is_current = true;
    tap_is_int(open_with_journal(&rig, a, false, false, &is_current), 0, "a first journal");
    tap_ok(!is_current, "is not the one that the manifest named");
    tap_is_int(open_with_journal(&rig, a, false, true, &is_current), 0, "it comes back");
    tap_ok(is_current, "and is current");
    tap_is_int(open_with_journal(&rig, NULL, false, false, &is_current), -VV_ERR_JOURNAL,
               "the volume is not opened without it");
    tap_is_int(open_with_journal(&rig, b, false, false, &is_current), -VV_ERR_JOURNAL,
               "or with another");
    tap_is_int(open_with_journal(&rig, b, true, true, &is_current), -VV_ERR_JOURNAL,
               "a strange journal with records is refused in any case");
    tap_is_int(open_with_journal(&rig, b, true, false, &is_current), 0, "unless it is abandoned");
    tap_ok(!is_current, "the new one is not current");
    tap_is_int(open_with_journal(&rig, NULL, true, false, &is_current), 0, "abandoned for none");
    tap_ok(!is_current, "none is not current");
    tap_is_int(open_with_journal(&rig, a, false, true, &is_current), -VV_ERR_JOURNAL,
               "the first one, still holding records, is kept out");
    rig_free(&rig);
}

/* ---- failures ---- */

static void test_errors(void)
{
    struct rig rig = rig_new();
    struct seen seen = {0};
    struct vv_log *log;
    tap_is_int(open_error(&rig), -VV_ERR_NOT_VOLUME, "nothing there");
    tap_is_int(rig_create(&rig, rig.store), 0, "create");
    serve(&rig, &seen, 2, 100);
    seen.fail_base = -EDOM;
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), -EDOM, "base may refuse");
    seen.fail_base = 0;
    seen.fail_batch = -ERANGE;
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), -ERANGE, "batch may refuse");
    struct vv_keyring *ring = rig.ring;
    if (vv_keyring_new(rig.volume_id, &rig.ring) < 0)
        abort();
    tap_is_int(open_error(&rig), -VV_ERR_AUTH, "another key does not open it");
    vv_keyring_free(rig.ring);
    rig.ring = ring;
    struct vv_store *faulty = rig_faulty(&rig);
    vv_store_fault_plan(faulty)->all_fail = EACCES;
    tap_is_int(rig_open(&rig, faulty, &seen, &log), -EACCES, "a store's refusal is passed on");
    vv_store_fault_plan(faulty)->all_fail = EIO;
    tap_is_int(rig_open(&rig, faulty, &seen, &log), -EIO, "a failure after some tries");
    vv_store_close(faulty);
    rig_free(&rig);
}

static void test_no_memory(void)
{
    bool is_clean = true;
    bool has_failed = true;
    int64_t n = 0;
    for (; has_failed; n++) {
        /* A new volume each time: every opening leaves a live epoch. */
        struct rig rig = rig_with_volume();
        struct seen seen = {0};
        struct vv_log *log = NULL;
        serve(&rig, &seen, 20, 100);
        vv_alloc_fail_at(n, false);
        int err = rig_open(&rig, rig.store, &seen, &log);
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_clean &= err == 0 || (err == -ENOMEM && has_failed);
        is_clean &= err != 0 || has_tags(&seen, 100, 20);
        vv_log_close(log);
        rig_free(&rig);
    }
    tap_ok(is_clean, "opening with the n-th allocation failing, %d times", (int)n);
}

static void test_faults(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    struct vv_store *faulty = rig_faulty(&rig);
    serve(&rig, &seen, 30, 100);
    *vv_store_fault_plan(faulty) = (struct vv_store_fault_plan){.fail_permille = 50,
                                                                .unknown_permille = 300,
                                                                .late_max_ns = 30 * VV_NS_PER_MS,
                                                                .slow_permille = 500,
                                                                .slow_max_ns = 3 * VV_NS_PER_MS};
    unsigned opened = 0;
    bool is_whole = true;
    for (int i = 0; i < 20; i++) {
        struct vv_log *log;
        int err = rig_open(&rig, faulty, &seen, &log);
        if (err)
            continue;
        opened++;
        is_whole &= has_tags(&seen, 100, 30);
        vv_log_close(log);
    }
    tap_ok(is_whole && opened > 10, "a bad store only makes it slower: %u of 20 open", opened);
    vv_store_close(faulty);
    rig_free(&rig);
}

/* ---- two at once ---- */

struct opener {
    struct rig *rig;
    struct vv_log *log;
    struct seen seen;
    int err;
    unsigned *running;
    struct vv_waitq *done;
};

static void run_opener(void *arg)
{
    struct opener *opener = arg;
    struct vv_store *store = rig_faulty(opener->rig);
    *vv_store_fault_plan(store) =
        (struct vv_store_fault_plan){.slow_permille = 1000, .slow_max_ns = 2 * VV_NS_PER_MS};
    opener->err = rig_open(opener->rig, store, &opener->seen, &opener->log);
    if (!opener->err)
        opener->err = rig_commit(opener->rig, opener->log, vv_log_last_commit(opener->log) + 1,
                                 vv_log_epoch(opener->log));
    vv_log_close(opener->log);
    vv_store_close(store);
    (*opener->running)--;
    vv_waitq_wake_all(opener->done);
}

static void test_race(void)
{
    struct rig rig = rig_with_volume();
    unsigned running = 3;
    struct vv_waitq done;
    vv_waitq_init(&done);
    struct opener *openers = vv_calloc(3, sizeof(*openers));
    for (int i = 0; i < 3; i++) {
        openers[i].rig = &rig;
        openers[i].running = &running;
        openers[i].done = &done;
        if (vv_fiber_start(run_opener, &openers[i], "opener") < 0)
            abort();
    }
    while (running > 0)
        vv_waitq_wait(&done, VV_NEVER);
    unsigned served = 0;
    bool is_right = true;
    for (int i = 0; i < 3; i++) {
        served += openers[i].err == 0;
        is_right &= openers[i].err == 0 || openers[i].err == -VV_ERR_FENCED;
    }
    struct seen seen = {0};
    serve(&rig, &seen, 0, 0);
    tap_ok(is_right && served >= 1, "three openers: each serves, or is fenced at its next put");
    tap_ok(seen.count >= served, "what was acknowledged is there");
    vv_free(openers);
    rig_free(&rig);
}

/* ---- reading ---- */

static void test_read(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    struct vv_manifest manifest = {0};
    struct vv_log_options options = rig_options(&rig, rig.store);
    struct vv_log_replay replay = rig_replay(&seen);
    tap_is_int(vv_log_read(&options, &replay, &manifest), 0, "reading a new volume");
    tap_ok(manifest.number == 1 && seen.count == 0, "claims nothing");
    vv_manifest_done(&manifest);
    serve(&rig, &seen, 3, 100);
    serve(&rig, &seen, 2, 103);
    tap_is_int(vv_log_read(&options, &replay, &manifest), 0, "reading");
    tap_ok(manifest.number == 3 && has_tags(&seen, 100, 5), "goes through all epochs");
    vv_manifest_done(&manifest);
    tap_is_int(vv_store_remove(rig.store, "log/0000000000000001/0000000000000001"), 0, "lose one");
    tap_is_int(vv_log_read(&options, &replay, &manifest), -VV_ERR_GAP, "and sees gaps");
    rig_free(&rig);
}

/* Rule 8, as the store sees it: the dir store does more by itself than it must. */
static void test_syncs(void)
{
    struct rig rig = rig_with_volume();
    struct seen seen = {0};
    struct vv_log_options options = rig_options(&rig, NULL);
    struct vv_log_replay replay = rig_replay(&seen);
    serve(&rig, &seen, 5, 100);
    serve(&rig, &seen, 20, 105);
    if (vv_store_mem_open(rig.backend, &options.store) < 0 ||
        vv_store_count_new(options.store, &options.store) < 0)
        abort();
    struct vv_log *log;
    bool is_current;
    tap_is_int(vv_log_open(&options, &replay, &log, &is_current), 0, "opens");
    tap_is_int((int64_t)vv_store_counts(options.store)->syncs, 0, "no syncs unless asked for");
    vv_log_close(log);
    options.is_syncing_replay = true;
    tap_is_int(vv_log_open(&options, &replay, &log, &is_current), 0, "opens");
    tap_is_int((int64_t)vv_store_counts(options.store)->syncs, 25 + 2 + 2,
               "every object is synced, every fence that was there, and what is below one, first");
    vv_log_close(log);
    vv_store_close(options.store);
    rig_free(&rig);
}

/* ---- opening with what was seen when the keys were looked for ---- */

struct late {
    struct rig rig;
    struct vv_store *store; /* counted */
    struct vv_log_seen look;
    struct seen seen;
    uint64_t lists;
    struct vv_log *log;
};

static struct late late_new(void)
{
    struct late late = {.rig = rig_with_volume()};
    uint8_t *keys = NULL;
    size_t len;
    uint64_t number;
    serve(&late.rig, &late.seen, 3, 100);
    if (vv_store_mem_open(late.rig.backend, &late.store) < 0 ||
        vv_store_count_new(late.store, &late.store) < 0)
        abort();
    tap_is_int(vv_volume_keys(late.store, &keys, &len, &number, &late.look), 0, "finds the keys");
    vv_free(keys);
    return late;
}

static int late_open(struct late *late)
{
    struct vv_log_options options = rig_options(&late->rig, late->store);
    struct vv_log_replay replay = rig_replay(&late->seen);
    bool is_current;
    options.seen = &late->look;
    uint64_t before = vv_store_counts(late->store)->lists;
    int err = vv_log_open(&options, &replay, &late->log, &is_current);
    late->lists = vv_store_counts(late->store)->lists - before;
    return err;
}

static void late_free(struct late *late)
{
    vv_log_seen_done(&late->look);
    vv_store_close(late->store);
    rig_free(&late->rig);
}

static void test_seen(void)
{
    struct late late = late_new();
    tap_is_int(late_open(&late), 0, "opens with the manifest that it has seen");
    tap_is_int((int64_t)late.lists, 3, "with the LISTs of rules 6, 7 and 9, and not that of rule 4");
    tap_ok(has_tags(&late.seen, 100, 3) && vv_log_epoch(late.log) == 2, "and has everything");
    vv_log_close(late.log);
    late_free(&late);
}

static void test_seen_is_late(void)
{
    struct late late = late_new();
    serve(&late.rig, &late.seen, 2, 103);
    tap_is_int(late_open(&late), 0, "opens though another was faster");
    tap_ok(has_tags(&late.seen, 100, 5) && vv_log_epoch(late.log) == 3, "and has what that wrote");
    vv_log_close(late.log);
    late_free(&late);
}

/* Others were faster, and the manifest after the one seen is deleted by now: the claim of its number succeeds. */
static void test_seen_is_deleted(void)
{
    struct late late = late_new();
    serve(&late.rig, &late.seen, 2, 103);
    serve(&late.rig, &late.seen, 1, 105);
    char name[VV_STORE_NAME_MAX + 1];
    for (uint64_t n = late.look.number; n <= late.look.number + 1; n++) {
        vv_manifest_name(n, name, sizeof(name));
        tap_is_int(vv_store_remove(late.store, name), 0, "a manifest is deleted");
    }
    tap_is_int(late_open(&late), 0, "opens though the manifest seen is gone");
    tap_ok(has_tags(&late.seen, 100, 6) && vv_log_epoch(late.log) == 4, "and has everything");
    vv_log_close(late.log);
    late_free(&late);
}

static void test_seen_is_old(void)
{
    struct late late = late_new();
    vv_rt_sleep_ns(VV_LOG_SEEN_MAX_NS);
    tap_is_int(late_open(&late), 0, "opens after a long time");
    tap_is_int((int64_t)late.lists, 4, "and has looked for itself");
    vv_log_close(late.log);
    vv_log_seen_done(&late.look);
    late.look = (struct vv_log_seen){.number = 3, .bytes = NULL, .len = 0, .at_ns = vv_rt_now_ns()};
    tap_ok(late_open(&late) < 0, "what is no manifest opens nothing");
    late_free(&late);
}

static void test_main(void *arg)
{
    (void)arg;
    test_reopen();
    test_flush();
    test_large();
    test_gap();
    test_gap_without_fence();
    test_order();
    test_behind_fence();
    test_journal_rules();
    test_errors();
    test_no_memory();
    test_faults();
    for (int i = 0; i < 20; i++)
        test_race();
    test_read();
    test_syncs();
    test_seen();
    test_seen_is_late();
    test_seen_is_deleted();
    test_seen_is_old();
}

int main(void)
{
    rig_main();
    run_world(1, test_main, NULL);
    return tap_done();
}
