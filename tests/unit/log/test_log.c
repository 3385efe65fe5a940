#include "log/log.h"

#include "rig.h"

#define WRITERS 5

static struct vv_log *open_log(const struct rig *rig, struct vv_store *store)
{
    struct seen seen = {0};
    struct vv_log *log = NULL;
    int err = rig_open(rig, store, &seen, &log);
    if (err) {
        tap_is_int(err, 0, "opens");
        abort();
    }
    return log;
}

/* ---- fibers that put ---- */

struct putter {
    struct vv_log *log;
    struct object object;
    uint64_t delay_ns;
    int err;
    unsigned *running;
    unsigned *order; /* counts returns */
    unsigned returned;
    struct vv_waitq *done;
};

static void run_putter(void *arg)
{
    struct putter *putter = arg;
    if (putter->delay_ns)
        vv_rt_sleep_ns(putter->delay_ns);
    putter->err = object_put(putter->log, &putter->object);
    putter->returned = ++*putter->order;
    object_free(&putter->object);
    (*putter->running)--;
    vv_waitq_wake_all(putter->done);
}

struct putters {
    struct putter each[WRITERS];
    unsigned running;
    unsigned order;
    struct vv_waitq done;
};

static struct putters *start_putters(const struct rig *rig, struct vv_log *log,
                                     const uint64_t delays_ms[WRITERS])
{
    struct putters *putters = vv_zalloc(sizeof(*putters));
    vv_waitq_init(&putters->done);
    putters->running = WRITERS;
    for (int i = 0; i < WRITERS; i++) {
        struct putter *putter = &putters->each[i];
        putter->log = log;
        putter->object = object_new(rig, log, (uint64_t)i + 1, 100 + (uint64_t)i, 8);
        putter->delay_ns = delays_ms[i] * VV_NS_PER_MS;
        putter->running = &putters->running;
        putter->order = &putters->order;
        putter->done = &putters->done;
        if (vv_fiber_start(run_putter, putter, "putter") < 0)
            abort();
    }
    return putters;
}

static void wait_putters(struct putters *putters)
{
    while (putters->running > 0)
        vv_waitq_wait(&putters->done, VV_NEVER);
}

static void test_in_order(void)
{
    static const uint64_t delays[WRITERS] = {5, 3, 0, 9, 1};
    struct rig rig = rig_with_volume();
    struct vv_log *log = open_log(&rig, rig.store);
    struct putters *putters = start_putters(&rig, log, delays);
    vv_rt_sleep_ns(7 * VV_NS_PER_MS);
    tap_ok(rig_has(&rig, "log/0000000000000001/0000000000000004"), "the last is there early");
    tap_ok(putters->each[4].returned == 0, "but not acknowledged");
    tap_is_int((int64_t)vv_log_confirmed_seq(log), 3, "the first three are confirmed");
    wait_putters(putters);
    bool is_right = true;
    for (int i = 0; i < WRITERS; i++)
        is_right &= putters->each[i].err == 0;
    tap_ok(is_right, "all are acknowledged in the end");
    tap_ok(putters->each[3].returned > putters->each[0].returned, "not before those before them");
    tap_is_int((int64_t)vv_log_confirmed_seq(log), WRITERS, "confirmed up to the end");
    vv_free(putters);
    vv_log_close(log);
    rig_free(&rig);
}

static void test_window(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *log = open_log(&rig, rig.store);
    struct object first = object_new(&rig, log, 1, 0, 8);
    for (uint64_t i = 1; i < VV_LOG_WINDOW_MAX; i++) {
        struct object object = object_new(&rig, log, i + 1, i, 8);
        object_free(&object);
    }
    struct putters putters = {.running = 1};
    vv_waitq_init(&putters.done);
    struct putter far = {.log = log,
                         .object = object_new(&rig, log, VV_LOG_WINDOW_MAX + 1, 9, 8),
                         .running = &putters.running,
                         .order = &putters.order,
                         .done = &putters.done};
    if (vv_fiber_start(run_putter, &far, "putter") < 0)
        abort();
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(!rig_has(&rig, "log/0000000000000001/0000000000000040"),
           "a put beyond the window waits");
    tap_is_int(object_put(log, &first), 0, "until the first is confirmed");
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(rig_has(&rig, "log/0000000000000001/0000000000000040"), "then it is made");
    vv_log_close(log);
    tap_ok(putters.running == 0 && far.err == -VV_ERR_STOPPED, "closing ends it");
    object_free(&first);
    rig_free(&rig);
}

/* ---- ambiguity ---- */

struct store_state {
    unsigned errors;
    unsigned recoveries;
    int last;
};

static void note_state(void *arg, int err)
{
    struct store_state *state = arg;
    state->errors += err < 0;
    state->recoveries += err == 0;
    state->last = err;
}

static void test_retries(void)
{
    struct rig rig = rig_with_volume();
    struct vv_store *faulty = rig_faulty(&rig);
    struct vv_store_fault_plan *plan = vv_store_fault_plan(faulty);
    struct store_state state = {0};
    struct seen seen = {0};
    struct vv_log_options options = rig_options(&rig, faulty);
    struct vv_log_replay replay = rig_replay(&seen);
    struct vv_log *log;
    bool is_current;
    options.on_store_state = note_state;
    options.on_store_state_arg = &state;
    tap_is_int(vv_log_open(&options, &replay, &log, &is_current), 0, "opens");
    static const uint64_t delays[WRITERS] = {0};
    plan->put_fail = ENOSPC;
    struct putters *putters = start_putters(&rig, log, delays);
    vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    tap_ok(putters->running == WRITERS && state.errors >= WRITERS && state.last == -ENOSPC,
           "a full store: the puts go on trying, and tell");
    plan->put_fail = 0;
    wait_putters(putters);
    tap_ok(putters->each[WRITERS - 1].err == 0 && state.recoveries == 1 && state.last == 0,
           "when there is room they succeed, and tell once");
    vv_free(putters);
    *plan = (struct vv_store_fault_plan){.unknown_permille = 700,
                                         .fail_permille = 200,
                                         .late_max_ns = 100 * VV_NS_PER_MS,
                                         .slow_permille = 300,
                                         .slow_max_ns = 5 * VV_NS_PER_MS};
    int err = 0;
    for (uint64_t commit = WRITERS + 1; commit <= 60 && !err; commit++)
        err = rig_commit(&rig, log, commit, 99 + commit);
    tap_is_int(err, 0, "time-outs that take effect late, or not at all, are resolved");
    tap_ok(!vv_log_is_fenced(log), "our own objects are no fence");
    vv_log_close(log);
    log = NULL;
    tap_is_int(rig_open(&rig, rig.store, &seen, &log), 0, "opens");
    bool is_whole = seen.count == 60;
    for (size_t i = 0; i < seen.count; i++)
        is_whole &= seen.tags[i] == 100 + i;
    tap_ok(is_whole, "each is there once");
    vv_log_close(log);
    vv_store_close(faulty);
    rig_free(&rig);
}

static void test_late_put_of_the_dead(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *old = open_log(&rig, rig.store);
    tap_is_int(rig_commit(&rig, old, 1, 100), 0, "commits");
    struct object late = object_new(&rig, old, 2, 101, 8);
    struct vv_log *log = open_log(&rig, rig.store);
    tap_is_int(object_put(old, &late), -VV_ERR_FENCED, "a put after the takeover is fenced");
    tap_is_int(rig_commit(&rig, old, 3, 102), -VV_ERR_FENCED, "so is every other");
    struct iovec iov = rig_text("x");
    tap_is_int(vv_log_put_object(old, "data/00/x", late.attempt_id, &iov, 1), -VV_ERR_FENCED,
               "data objects too");
    tap_is_int(rig_flush(old, 0, 0, false), -VV_ERR_FENCED, "and manifests");
    tap_is_int(vv_log_remove_old_manifests(old), -VV_ERR_FENCED, "and deletions");
    tap_is_int(vv_log_check_fenced(old), -VV_ERR_FENCED, "a check says so");
    tap_is_int(rig_commit(&rig, log, 2, 201), 0, "the owner is not disturbed");
    object_free(&late);
    vv_log_close(old);
    vv_log_close(log);
    rig_free(&rig);
}

/* What a put finds is gone when it looks: that is not ours either (1). */
static void test_absent(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *log = open_log(&rig, rig.store);
    struct iovec iov = rig_text("strange");
    tap_is_int(vv_store_put(rig.store, "log/0000000000000001/0000000000000000", &iov, 1), 0,
               "something strange is at our next name");
    tap_is_int(rig_commit(&rig, log, 1, 100), -VV_ERR_FENCED, "what is not ours fences");
    vv_log_close(log);
    rig_free(&rig);
}

static void test_put_object(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *log = open_log(&rig, rig.store);
    struct vv_segment_id id = {.epoch = 1, .counter = 5, .kind = VV_SEGMENT_LOG};
    struct vv_batch_header header = {.first_commit = 1, .count = 1};
    struct object mine = object_seal(&rig, &id, &header, NULL, 1, 8);
    struct object other = object_seal(&rig, &id, &header, NULL, 1, 8);
    tap_is_int(vv_log_put_object(log, "data/05/a", mine.attempt_id, mine.iov, mine.count), 0,
               "an object");
    tap_is_int(vv_log_put_object(log, "data/05/a", mine.attempt_id, mine.iov, mine.count), 0,
               "the same again");
    tap_is_int(vv_log_put_object(log, "data/05/a", other.attempt_id, other.iov, other.count),
               -VV_ERR_NOT_OURS, "another under its name");
    tap_ok(!vv_log_is_fenced(log), "which is no fence");
    object_free(&mine);
    object_free(&other);
    vv_log_close(log);
    rig_free(&rig);
}

static void test_close(void)
{
    static const uint64_t delays[WRITERS] = {0};
    struct rig rig = rig_with_volume();
    struct vv_store *faulty = rig_faulty(&rig);
    struct vv_log *log = open_log(&rig, faulty);
    vv_store_fault_plan(faulty)->all_fail = EIO;
    struct putters *putters = start_putters(&rig, log, delays);
    vv_rt_sleep_ns(5 * VV_NS_PER_MS);
    vv_log_close(log);
    bool is_right = putters->running == 0;
    for (int i = 0; i < WRITERS; i++)
        is_right &= putters->each[i].err == -VV_ERR_STOPPED;
    tap_ok(is_right, "closing stops the retries and waits for their callers");
    vv_free(putters);
    vv_store_close(faulty);
    rig_free(&rig);
}

/* ---- manifests ---- */

static void test_manifests(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *log = open_log(&rig, rig.store);
    tap_is_int((int64_t)vv_log_manifest(log)->number, 2, "at first the claim is the manifest");
    tap_is_int(rig_commit(&rig, log, 1, 100), 0, "commits");
    tap_is_int(rig_flush(log, 1, 1, false), 0, "flushes");
    const struct vv_manifest *manifest = vv_log_manifest(log);
    tap_ok(manifest->number == 3 && manifest->last_commit == 1 && manifest->epoch == 1,
           "number and epoch are filled in");
    struct vv_manifest pinned;
    if (vv_manifest_copy(manifest, &pinned) < 0)
        abort();
    pinned.pins = vv_zalloc(sizeof(*pinned.pins));
    pinned.pin_count = 1;
    pinned.pins[0].manifest = 2;
    tap_is_int(vv_log_write_manifest(log, &pinned), 0, "a pin");
    vv_manifest_done(&pinned);
    tap_is_int(vv_log_remove_old_manifests(log), 0, "removes old ones");
    tap_ok(!rig_has(&rig, "manifest/00000000000000000001") &&
               rig_has(&rig, "manifest/00000000000000000002") &&
               !rig_has(&rig, "manifest/00000000000000000003") &&
               rig_has(&rig, "manifest/00000000000000000004"),
           "those that are not pinned");
    tap_is_int(vv_log_check_fenced(log), 0, "nobody else is there");
    vv_log_close(log);
    rig_free(&rig);
}

static void test_lost_number(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *old = open_log(&rig, rig.store);
    struct vv_log *log = open_log(&rig, rig.store);
    tap_is_int(rig_flush(old, 0, 0, false), -VV_ERR_FENCED,
               "a manifest number that was lost fences");
    tap_ok(vv_log_is_fenced(old), "for good");
    tap_ok(!rig_has(&rig, "manifest/00000000000000000004"), "it is not abandoned for the next");
    vv_log_close(old);
    old = log;
    log = open_log(&rig, rig.store);
    tap_is_int(vv_log_check_fenced(old), -VV_ERR_FENCED, "a check finds a newer manifest");
    vv_log_close(old);
    vv_log_close(log);
    rig_free(&rig);
}

/* The manifest takes effect in a number that was deleted already: only the LIST shows it. */
static void test_buried_manifest(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *old = open_log(&rig, rig.store);
    struct vv_log *log = open_log(&rig, rig.store);
    tap_is_int(rig_flush(log, 0, 0, false), 0, "the new owner flushes");
    tap_is_int(vv_log_remove_old_manifests(log), 0, "and removes old manifests");
    tap_ok(!rig_has(&rig, "manifest/00000000000000000003"), "its claim too");
    tap_is_int(rig_flush(old, 0, 0, false), -VV_ERR_FENCED, "the old one's flush is fenced");
    struct vv_log *next = open_log(&rig, rig.store);
    tap_is_int((int64_t)vv_log_epoch(next), 3, "and does not count for who opens next");
    vv_log_close(old);
    vv_log_close(log);
    vv_log_close(next);
    rig_free(&rig);
}

struct flusher {
    struct vv_log *log;
    int err;
    unsigned *running;
    struct vv_waitq *done;
};

static void run_flusher(void *arg)
{
    struct flusher *flusher = arg;
    flusher->err = rig_flush(flusher->log, 0, 0, false);
    (*flusher->running)--;
    vv_waitq_wake_all(flusher->done);
}

static void test_manifest_queue(void)
{
    struct rig rig = rig_with_volume();
    struct vv_store *faulty = rig_faulty(&rig);
    struct vv_log *log = open_log(&rig, faulty);
    *vv_store_fault_plan(faulty) = (struct vv_store_fault_plan){.slow_permille = 900,
                                                                .unknown_permille = 300,
                                                                .late_max_ns = 9 * VV_NS_PER_MS,
                                                                .slow_max_ns = 5 * VV_NS_PER_MS};
    unsigned running = WRITERS;
    struct vv_waitq done;
    vv_waitq_init(&done);
    struct flusher flushers[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        flushers[i] = (struct flusher){.log = log, .running = &running, .done = &done};
        if (vv_fiber_start(run_flusher, &flushers[i], "flusher") < 0)
            abort();
    }
    bool is_right = true;
    while (running > 0) {
        vv_waitq_wait(&done, VV_NEVER);
        is_right &= vv_log_check_fenced(log) == 0;
    }
    for (int i = 0; i < WRITERS; i++)
        is_right &= flushers[i].err == 0;
    tap_ok(is_right && vv_log_manifest(log)->number == 2 + WRITERS, "manifests queue");
    vv_log_close(log);
    vv_store_close(faulty);
    rig_free(&rig);
}

static void test_no_memory(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *log = open_log(&rig, rig.store);
    int64_t n = 0;
    bool is_right = true;
    for (;; n++) {
        struct object object = object_new(&rig, log, (uint64_t)n + 1, 1, 8);
        vv_alloc_fail_at(n, false);
        int err = object_put(log, &object);
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        object_free(&object);
        is_right &= err == 0;
        if (!has_failed)
            break;
    }
    tap_ok(is_right && n > 0, "a put is repeated when there is no memory");
    for (n = 0;; n++) {
        uint64_t number = vv_log_manifest(log)->number;
        vv_alloc_fail_at(n, false);
        int err = rig_flush(log, 0, 0, false);
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= err == 0 || (err == -ENOMEM && has_failed);
        is_right &= vv_log_manifest(log)->number == number + (err == 0);
        if (!has_failed)
            break;
    }
    tap_ok(is_right && n > 0, "a manifest is written, or nothing has changed");
    vv_log_close(log);
    rig_free(&rig);
}

/* An orderly end: the next opening has nothing to fence, the number of the epoch is used up. */
static void test_end(void)
{
    struct rig rig = rig_with_volume();
    struct vv_log *log = open_log(&rig, rig.store);
    tap_is_int(rig_commit(&rig, log, 1, 11), 0, "a commit");
    tap_is_int(vv_log_end(log), 0, "an end with a commit outside the tables");
    vv_log_close(log);
    log = open_log(&rig, rig.store);
    tap_is_int((int64_t)vv_log_last_commit(log), 1, "loses nothing");
    tap_is_int((int64_t)vv_log_manifest(log)->epoch_count, 2, "nor its epoch");
    tap_is_int(rig_commit(&rig, log, 2, 12), 0, "another commit");
    tap_is_int(rig_flush(log, 2, 1, true), 0, "all in the tables");
    uint64_t epoch = vv_log_epoch(log);
    tap_is_int(vv_log_end(log), 0, "an end in good order");
    tap_is_int(rig_commit(&rig, log, 3, 13), -VV_ERR_STOPPED, "after which nothing is taken");
    vv_log_close(log);
    struct vv_store *counting;
    struct vv_store *mem;
    if (vv_store_mem_open(rig.backend, &mem) < 0 || vv_store_count_new(mem, &counting) < 0)
        abort();
    log = open_log(&rig, counting);
    const struct vv_store_counts *counts = vv_store_counts(counting);
    tap_ok(counts->lists == 2 && counts->puts == 1 && counts->gets == 1,
           "the next opening: two LISTs, one GET, the claim");
    tap_is_int((int64_t)vv_log_epoch(log), (int64_t)epoch + 1, "with the next epoch");
    tap_is_int((int64_t)vv_log_manifest(log)->epoch_count, 1, "the only one that is live");
    tap_is_int((int64_t)vv_log_last_commit(log), 2, "behind the last commit");
    /* A rival takes over: the end does not pass over it. */
    struct vv_log *rival = open_log(&rig, rig.store);
    tap_is_int(vv_log_end(log), -VV_ERR_FENCED, "who was taken over ends nothing");
    tap_is_int(vv_log_end(rival), 0, "the other does");
    vv_log_close(rival);
    vv_log_close(log);
    vv_store_close(counting);
    rig_free(&rig);
}

static void test_main(void *arg)
{
    (void)arg;
    test_end();
    test_in_order();
    test_window();
    test_retries();
    test_late_put_of_the_dead();
    test_absent();
    test_put_object();
    test_close();
    test_manifests();
    test_lost_number();
    test_buried_manifest();
    test_manifest_queue();
    test_no_memory();
}

int main(void)
{
    rig_main();
    run_world(1, test_main, NULL);
    return tap_done();
}
