/* The whole tree against a model: random writes, reads, scans, flushes and compactions side by
 * side. */
#include "lsm/lsm.h"

#include "rig.h"

#define STEPS 5000
#define READERS 3

struct life {
    struct rig rig;
    struct model *model;
    uint64_t commit;  /* the open one; the one before may still be added to */
    uint64_t flushed; /* all up to this are in tables */
    uint64_t flush_goal;
    uint64_t applies;
    bool is_ending;
    unsigned running; /* background fibers */
    struct vv_waitq ended;
    struct vv_waitq work;
    uint64_t flushes, compactions, misses, errors, scans;
    uint64_t seed;
    uint64_t counter;
};

static uint64_t draw(struct life *life, uint64_t bound)
{
    return model_mix(life->seed * 7919 + ++life->counter) % bound;
}

static bool is_right = true;

/* ---- background ---- */

static void flush_once(struct life *life)
{
    struct vv_lsm_edit *edit;
    uint64_t goal = vv_lsm_flushable_commit(life->rig.lsm);
    if (goal == 0 || goal + 2 > life->commit) {
        vv_rt_sleep_ns(20000);
        return;
    }
    int err = vv_lsm_prepare_flush(life->rig.lsm, goal, &edit);
    if (err < 0) {
        life->errors++;
        return;
    }
    vv_rt_sleep_ns(draw(life, 100000));
    if (draw(life, 8) == 0) {
        vv_lsm_abandon(life->rig.lsm, edit);
        return;
    }
    vv_lsm_apply(life->rig.lsm, edit);
    life->applies++;
    life->flushes++;
    life->flushed = goal;
    rig_sweep(&life->rig);
}

static void flusher(void *arg)
{
    struct life *life = arg;
    while (!life->is_ending) {
        flush_once(life);
        vv_fiber_yield();
    }
    life->running--;
    vv_waitq_wake_all(&life->ended);
}

static void compact_once(struct life *life)
{
    struct vv_lsm_edit *edit;
    int err = vv_lsm_prepare_compaction(life->rig.lsm, &edit);
    if (err < 0)
        life->errors++;
    if (err < 0 || !edit) {
        vv_rt_sleep_ns(20000);
        return;
    }
    vv_rt_sleep_ns(draw(life, 100000));
    if (draw(life, 8) == 0) {
        vv_lsm_abandon(life->rig.lsm, edit);
    } else {
        vv_lsm_apply(life->rig.lsm, edit);
        life->applies++;
        life->compactions++;
    }
    rig_sweep(&life->rig);
}

static void compactor(void *arg)
{
    struct life *life = arg;
    while (!life->is_ending) {
        compact_once(life);
        vv_fiber_yield();
    }
    life->running--;
    vv_waitq_wake_all(&life->ended);
}

/* ---- reading ---- */

/* Get a key until it does not miss; the model is asked at the moment of the answer. */
static void read_key(struct life *life, unsigned key)
{
    struct vv_lsm_value value;
    struct vv_bytes bytes = model_key(life->model, key);
    for (unsigned tries = 0;; tries++) {
        int found = vv_lsm_get(life->rig.lsm, bytes, &value);
        if (found >= 0) {
            is_right &= model_agrees(life->model, key, life->commit, found, &value);
            return;
        }
        is_right &= found == -VV_ERR_MISS;
        life->misses++;
        uint64_t applies = life->applies;
        struct vv_bytes keys[4] = {bytes};
        for (unsigned i = 1; i < 4; i++)
            keys[i] = model_key(life->model, (unsigned)draw(life, MODEL_KEYS));
        struct vv_lsm_pins pins;
        vv_lsm_pins_init(&pins);
        int err = vv_lsm_fetch(life->rig.lsm, keys, 1 + (size_t)draw(life, 4), &pins);
        found = vv_lsm_get(life->rig.lsm, bytes, &value);
        if (err == 0 && life->applies == applies && found == -VV_ERR_MISS)
            is_right = tap_ok(false, "a fetched key does not miss");
        if (found >= 0)
            is_right &= model_agrees(life->model, key, life->commit, found, &value);
        vv_lsm_pins_done(&pins);
        life->errors += err < 0;
        if (found >= 0 || (err < 0 && tries > 10))
            return;
    }
}

static void reader(void *arg)
{
    struct life *life = arg;
    while (!life->is_ending) {
        read_key(life, (unsigned)draw(life, MODEL_KEYS));
        vv_rt_sleep_ns(draw(life, 50000));
    }
    life->running--;
    vv_waitq_wake_all(&life->ended);
}

static void read_at(struct life *life, unsigned key)
{
    struct vv_lsm_value value;
    uint64_t commit = life->flushed + draw(life, life->commit - life->flushed + 1);
    struct vv_bytes bytes = model_key(life->model, key);
    int found = vv_lsm_get_at(life->rig.lsm, bytes, commit, &value);
    if (found == -VV_ERR_MISS) {
        struct vv_lsm_pins pins;
        vv_lsm_pins_init(&pins);
        int err = vv_lsm_fetch(life->rig.lsm, &bytes, 1, &pins);
        if (err == 0 && commit >= life->flushed)
            found = vv_lsm_get_at(life->rig.lsm, bytes, commit, &value);
        if (found >= 0)
            is_right &= model_agrees(life->model, key, commit, found, &value);
        vv_lsm_pins_done(&pins);
    } else {
        is_right &= found >= 0 && model_agrees(life->model, key, commit, found, &value);
    }
}

static void write_some(struct life *life, unsigned count)
{
    if (vv_lsm_reserve(life->rig.lsm, count,
                       count * (size_t)(VV_LSM_KEY_MAX + 256) + VV_LSM_VALUE_MAX) < 0) {
        is_right = tap_ok(false, "there is memory");
        return;
    }
    size_t left = count * 256 + VV_LSM_VALUE_MAX;
    for (unsigned i = 0; i < count; i++) {
        unsigned key = (unsigned)draw(life, MODEL_KEYS);
        uint64_t commit = life->commit - (draw(life, 4) == 0);
        if (commit <= life->flushed)
            commit = life->commit;
        uint64_t random = model_mix(life->seed + ++life->counter);
        size_t len = model_value(life->model, key, (uint32_t)random).len;
        if (len > left)
            continue;
        left -= len;
        model_write(life->model, life->rig.lsm, key, commit, random);
    }
}

/* A scan of a range; between two records there may be writes, which show when they lie ahead. */
static void scan(struct life *life)
{
    unsigned from = (unsigned)draw(life, MODEL_KEYS + 1);
    unsigned to = (unsigned)draw(life, MODEL_KEYS + 1);
    bool is_writing = draw(life, 2) == 0;
    struct vv_bytes none = {NULL, 0};
    struct model *model = life->model;
    struct vv_bytes lower = from < MODEL_KEYS ? model_key(model, model->order[from]) : none;
    struct vv_bytes upper = to < MODEL_KEYS ? model_key(model, model->order[to]) : none;
    if (from == MODEL_KEYS)
        from = 0;
    struct vv_lsm_iter *iter;
    if (vv_lsm_iter_open(life->rig.lsm, lower, upper, &iter) < 0) {
        is_right = tap_ok(false, "a scan begins");
        return;
    }
    life->scans++;
    for (unsigned at = from;; at++) {
        struct vv_bytes key;
        struct vv_bytes value;
        if (is_writing && draw(life, 8) == 0)
            write_some(life, 1);
        int found = vv_lsm_iter_next(iter, &key, &value);
        if (found < 0) {
            life->errors++;
            break;
        }
        while (at < to && at < MODEL_KEYS &&
               !model_get(model, model->order[at], life->commit).is_there)
            at++;
        if (at >= to || at >= MODEL_KEYS) {
            if (found != 0)
                is_right = tap_ok(false, "a scan ends");
            break;
        }
        struct model_state state = model_get(model, model->order[at], life->commit);
        if (found != 1 || vv_bytes_compare(key, model_key(model, model->order[at])) != 0 ||
            vv_bytes_compare(value, state.value) != 0) {
            is_right = tap_ok(false, "a scan gives the model's records (at %u)", at);
            break;
        }
    }
    vv_lsm_iter_close(iter);
}

static void next_commit(struct life *life)
{
    if (life->commit + 2 >= MODEL_COMMITS)
        return;
    if (draw(life, 3) == 0 && vv_lsm_rotate(life->rig.lsm, life->commit) < 0)
        is_right = tap_ok(false, "a memtable is rotated");
    life->commit++;
}

static void step(struct life *life)
{
    switch (draw(life, 16)) {
    case 0:
        if (draw(life, 3) == 0)
            next_commit(life);
        break;
    case 1:
        if (draw(life, 8) == 0)
            scan(life);
        break;
    case 2:
        read_at(life, (unsigned)draw(life, MODEL_KEYS));
        break;
    case 3:
        vv_rt_sleep_ns(draw(life, 500000));
        break;
    case 4:
    case 5:
    case 6:
        read_key(life, (unsigned)draw(life, MODEL_KEYS));
        break;
    default:
        write_some(life, 1 + (unsigned)draw(life, 8));
        break;
    }
}

static void start(struct life *life, void (*fn)(void *), const char *name)
{
    if (vv_fiber_start(fn, life, name) == 0)
        life->running++;
}

/* ---- at the end ---- */

static void compare_all(struct life *life, struct vv_lsm *lsm, uint64_t commit)
{
    for (unsigned key = 0; key < MODEL_KEYS; key++) {
        struct vv_bytes bytes = model_key(life->model, key);
        struct vv_lsm_pins pins;
        struct vv_lsm_value value;
        vv_lsm_pins_init(&pins);
        int err = vv_lsm_fetch(lsm, &bytes, 1, &pins);
        int found = err < 0 ? err : vv_lsm_get(lsm, bytes, &value);
        is_right &= model_agrees(life->model, key, commit, found, &value);
        vv_lsm_pins_done(&pins);
    }
}

static int count_record(void *arg, enum vv_lsm_kind kind, struct vv_bytes key,
                        struct vv_bytes value)
{
    (void)kind;
    (void)key;
    (void)value;
    ++*(uint64_t *)arg;
    return 0;
}

/* A second tree from the tables of the first, and its later commits as changes: what a volume does
 * that is opened again. */
static void reopen(struct life *life)
{
    struct vv_table_ref *tables;
    size_t count;
    uint64_t records = 0;
    uint64_t entries = 0;
    if (vv_lsm_tables(life->rig.lsm, NULL, &tables, &count) < 0)
        return;
    struct vv_lsm_options options = rig_options(&life->rig);
    struct vv_lsm *lsm;
    is_right &= vv_lsm_new(&options, &lsm) == 0 && vv_lsm_load(lsm, tables, count) == 0;
    for (size_t i = 0; i < count; i++) {
        int err = vv_table_check(lsm, &tables[i], count_record, &records);
        if (err < 0)
            is_right = tap_ok(false, "table %zu is sound: %s", i, vv_err_text(err));
        entries += tables[i].entries;
    }
    is_right &= records == entries;
    uint64_t first = life->flushed + 1;
    while (first <= life->commit) {
        uint64_t last = first + draw(life, 3);
        last = last < life->commit ? last : life->commit;
        struct vv_writer writer = vv_writer_new();
        int err = vv_lsm_changes_encode(life->rig.lsm, first, last, &writer);
        if (writer.len > vv_lsm_changes_bytes(life->rig.lsm, first, last))
            is_right = tap_ok(false, "changes take no more bytes than foretold");
        struct vv_bytes payload = {writer.ptr, writer.len};
        if (err == 0)
            err = vv_lsm_changes_apply(lsm, last, payload);
        is_right &= err == 0;
        vv_writer_done(&writer);
        first = last + 1;
    }
    compare_all(life, lsm, life->commit);
    vv_lsm_free(lsm);
    vv_table_refs_free(tables, count);
}

static void live(void *arg)
{
    struct life *life = arg;
    uint64_t size = (uint64_t)2048 << life->seed % 5;
    rig_open_sized(&life->rig, (uint64_t)4096 << draw(life, 6), size,
                   size * (life->seed % 3 ? 2 : 64));
    struct vv_store_fault_plan *plan = vv_store_fault_plan(life->rig.faults);
    plan->slow_permille = 100;
    plan->slow_max_ns = 200000;
    if (life->seed % 2 == 0)
        plan->fail_permille = 5;
    life->model = model_new();
    life->commit = 2;
    vv_waitq_init(&life->ended);
    start(life, flusher, "flusher");
    start(life, compactor, "compactor");
    for (unsigned i = 0; i < READERS; i++)
        start(life, reader, "reader");
    for (unsigned i = 0; i < STEPS && is_right; i++)
        step(life);
    life->is_ending = true;
    while (life->running > 0)
        (void)vv_waitq_wait(&life->ended, VV_NEVER);
    plan->fail_permille = 0;
    compare_all(life, life->rig.lsm, life->commit);
    reopen(life);
    struct vv_lsm_stats stats;
    vv_lsm_stats(life->rig.lsm, &stats);
    tap_note("seed %llu: %llu flushes, %llu compactions, %llu scans, %llu misses, %llu errors; "
             "tables %llu %llu %llu %llu",
             (unsigned long long)life->seed, (unsigned long long)life->flushes,
             (unsigned long long)life->compactions, (unsigned long long)life->scans,
             (unsigned long long)life->misses, (unsigned long long)life->errors,
             (unsigned long long)stats.tables[0], (unsigned long long)stats.tables[1],
             (unsigned long long)stats.tables[2], (unsigned long long)stats.tables[3]);
    rig_close(&life->rig);
    free(life->model);
}

int main(int argc, char **argv)
{
    vv_alloc_track(true);
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 6;
    for (uint64_t seed = first; seed < first + count && is_right; seed++) {
        struct life *life = calloc(1, sizeof(*life));
        life->seed = seed;
        run_sim(seed, live, life);
        free(life);
        tap_ok(is_right, "seed %llu: the tree and the model agree", (unsigned long long)seed);
        if (vv_alloc_domain_count(0) != 0)
            tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    }
    return tap_done();
}
