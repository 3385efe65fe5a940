/* Compaction: picking, moving, what is dropped and folded, failures. */
#include "lsm/lsm_impl.h"

#include "rig.h"

struct seen {
    unsigned deletes, merges, puts;
};

static int see(void *arg, enum vv_lsm_kind kind, struct vv_bytes key, struct vv_bytes value)
{
    struct seen *seen = arg;
    (void)key;
    (void)value;
    seen->deletes += kind == VV_LSM_DELETE;
    seen->merges += kind == VV_LSM_MERGE;
    seen->puts += kind == VV_LSM_PUT;
    return 0;
}

/* All records in all tables; every table is checked. */
static struct seen look(struct rig *rig)
{
    struct vv_table_ref *tables;
    size_t count;
    struct seen seen = {0, 0, 0};
    if (vv_lsm_tables(rig->lsm, NULL, &tables, &count) < 0)
        return seen;
    for (size_t i = 0; i < count; i++) {
        int err = vv_table_check(rig->lsm, &tables[i], see, &seen);
        if (err < 0)
            tap_is_int(err, 0, "table %zu is sound", i);
    }
    vv_table_refs_free(tables, count);
    return seen;
}

static int compact_once(struct rig *rig)
{
    struct vv_lsm_edit *edit;
    int err = vv_lsm_prepare_compaction(rig->lsm, &edit);
    if (err < 0)
        return err;
    if (!edit)
        return 0;
    vv_lsm_apply(rig->lsm, edit);
    rig_sweep(rig);
    return 1;
}

static void merge_sum(struct rig *rig, uint64_t commit, unsigned number, int64_t a, int64_t b)
{
    char key[16];
    if (vv_lsm_reserve(rig->lsm, 1, 80) < 0)
        tap_ok(false, "there is memory");
    vv_lsm_merge(rig->lsm, commit, rig_key(number, key), a, b);
}

static void test_folding(void)
{
    struct rig rig;
    rig_open(&rig);
    tap_is_int(vv_lsm_compaction_score(rig.lsm), 0, "nothing to do in an empty tree");
    tap_is_int(compact_once(&rig), 0, "and nothing is done");
    for (uint64_t commit = 1; commit <= VV_LSM_L0_COMPACT; commit++) {
        for (unsigned i = 0; i < 1000; i++) {
            if (commit == 3 && i < 200)
                rig_delete(&rig, commit, i);
            else if (i < 500)
                rig_write(&rig, commit, i + (commit == 4 ? 200 : 0), (unsigned)commit);
            else
                merge_sum(&rig, commit, 10000 + i, 1, -(int64_t)i);
        }
        tap_ok(vv_lsm_compaction_score(rig.lsm) < 1000, "not due yet");
        tap_is_int(rig_flush(&rig, commit), 0, "a flush");
    }
    tap_ok(vv_lsm_compaction_score(rig.lsm) >= 1000, "due");
    struct seen before = look(&rig);
    tap_ok(before.deletes == 200 && before.merges >= 1500, "deletes and merges in level 0");
    tap_is_int(compact_once(&rig), 1, "a compaction");
    struct seen after = look(&rig);
    tap_is_int(after.deletes, 0, "no delete is left at the bottom");
    tap_is_int(after.merges, 0, "nor any merge");
    tap_is_int(after.puts, 500 + 500, "a record a key");
    unsigned right = 0;
    for (unsigned i = 0; i < 700; i++)
        right += rig_read(&rig, i, i < 200 ? 1 : 4) == (i >= 200);
    tap_is_int(right, 700, "the newest ones");
    int64_t a;
    int64_t b;
    char key[16];
    struct vv_lsm_pins pins;
    struct vv_bytes bytes = rig_key(10777, key);
    vv_lsm_pins_init(&pins);
    tap_is_int(vv_lsm_fetch(rig.lsm, &bytes, 1, &pins), 0, "a sum");
    tap_is_int(vv_lsm_get_sums(rig.lsm, bytes, &a, &b), 0, "is there");
    tap_ok(a == 4 && b == -4 * 777, "added up");
    merge_sum(&rig, 9, 10777, 10, 10);
    tap_ok(vv_lsm_get_sums(rig.lsm, bytes, &a, &b) == 0 && a == 14 && b == -4 * 777 + 10,
           "and can be added to");
    vv_lsm_pins_done(&pins);
    rig_close(&rig);
}

/* A delete must stay as long as a deeper level holds the key. */
static void test_deletes_stay(void)
{
    struct rig rig;
    rig_open_sized(&rig, 64 << 10, 16 << 10, 24 << 10);
    uint64_t commit = 0;
    /* Much below; then deletes of it, level 0 by level 0. */
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = round; i < 4000; i += 2)
            rig_write(&rig, commit + 1, i, 1);
        if (rig_flush(&rig, ++commit) < 0)
            tap_ok(false, "a flush");
    }
    tap_is_int(rig_compact(&rig), 0, "compact");
    tap_ok(rig.lsm->levels[2].count > 0, "there is a level 2");
    for (unsigned round = 0; round < VV_LSM_L0_COMPACT; round++) {
        for (unsigned i = 1000 + round; i < 1400; i += VV_LSM_L0_COMPACT)
            rig_delete(&rig, commit + 1, i);
        if (rig_flush(&rig, ++commit) < 0)
            tap_ok(false, "a flush");
    }
    tap_is_int(compact_once(&rig), 1, "compact level 0");
    tap_ok(look(&rig).deletes > 0, "deletes stay above level 2");
    unsigned right = 0;
    for (unsigned i = 0; i < 4000; i++)
        right += rig_read(&rig, i, 1) == (i < 1000 || i >= 1400);
    tap_is_int(right, 4000, "and hide what they hide");
    rig_close(&rig);
}

static void test_moves(void)
{
    struct rig rig;
    rig_open(&rig);
    uint64_t put = 0;
    for (uint64_t commit = 1; commit <= 40; commit++) {
        for (unsigned i = 0; i < 1500; i++)
            rig_write(&rig, commit, (unsigned)commit * 1500 + i, 1);
        if (rig_flush(&rig, commit) < 0 || rig_compact(&rig) < 0)
            tap_ok(false, "a flush");
    }
    struct vv_lsm_stats stats;
    vv_lsm_stats(rig.lsm, &stats);
    put = stats.bytes_compacted;
    tap_is_int((int64_t)put, 0, "keys written in order are moved down, not merged");
    tap_ok(stats.tables[2] > 0, "down to level 2");
    unsigned right = 0;
    for (unsigned i = 1500; i < 41 * 1500; i += 61)
        right += rig_read(&rig, i, 1) == 1;
    tap_is_int(right, (41 * 1500 - 1500 + 60) / 61, "and found");
    rig_close(&rig);
}

/* Random overwriting: every level keeps to its size, and the amplification is what a levelled tree
 * has. */
static void test_levels(void)
{
    struct rig rig;
    rig_open_sized(&rig, 256 << 10, 16 << 10, 64 << 10);
    uint64_t commit = 0;
    uint64_t random = 5;
    for (unsigned round = 0; round < 120; round++) {
        commit++;
        for (unsigned i = 0; i < 400; i++)
            rig_write(&rig, commit, (unsigned)(model_mix(++random) % 20000), (unsigned)commit);
        if (rig_flush(&rig, commit) < 0 || rig_compact(&rig) < 0)
            tap_ok(false, "a flush");
        if (vv_lsm_compaction_score(rig.lsm) >= 1000)
            tap_ok(false, "nothing is due after compaction");
    }
    struct vv_lsm_stats stats;
    vv_lsm_stats(rig.lsm, &stats);
    double writes = (double)(stats.bytes_flushed + stats.bytes_compacted);
    tap_note("levels %d %d %d tables; write amplification %.1f", (int)stats.tables[0],
             (int)stats.tables[1], (int)stats.tables[2], writes / (double)stats.bytes_flushed);
    tap_ok(stats.bytes[1] <= 64 << 10 && stats.bytes[2] <= 640 << 10, "levels keep to their size");
    tap_ok(writes / (double)stats.bytes_flushed < 12, "write amplification is bounded");
    tap_ok(!vv_lsm_is_stalled(rig.lsm), "writers need not wait");
    look(&rig);
    rig_close(&rig);
}

/* Small flushes are merged with one another before they are merged with a large level 1. */
static void test_small_flushes(void)
{
    struct rig rig;
    struct vv_lsm_stats before;
    struct vv_lsm_stats after;
    uint64_t random = 9;
    uint64_t commit = 0;
    static unsigned versions[20000];
    rig_open_sized(&rig, 256 << 10, 64 << 10, 4 << 20);
    for (unsigned round = 0; round < VV_LSM_L0_COMPACT; round++) {
        commit++;
        for (unsigned i = round; i < 20000; i += VV_LSM_L0_COMPACT)
            rig_write(&rig, commit, i, 0);
        if (rig_flush(&rig, commit) < 0)
            tap_ok(false, "a flush");
    }
    tap_is_int(rig_compact(&rig), 0, "a large level 1");
    vv_lsm_stats(rig.lsm, &before);
    size_t runs_max = 0;
    for (unsigned round = 0; round < 100; round++) {
        commit++;
        for (unsigned i = 0; i < 20; i++) {
            unsigned number = (unsigned)(model_mix(++random) % 20000);
            versions[number] = i % 4 ? (unsigned)commit : UINT32_MAX;
            if (i % 4)
                rig_write(&rig, commit, number, (unsigned)commit);
            else
                rig_delete(&rig, commit, number);
        }
        if (rig_flush(&rig, commit) < 0 || rig_compact(&rig) < 0)
            tap_ok(false, "a flush");
        if (rig.lsm->levels[0].run_count > runs_max)
            runs_max = rig.lsm->levels[0].run_count;
    }
    vv_lsm_stats(rig.lsm, &after);
    uint64_t flushed = after.bytes_flushed - before.bytes_flushed;
    uint64_t compacted = after.bytes_compacted - before.bytes_compacted;
    tap_note("level 1 %d; flushed %d, compacted %d", (int)after.bytes[1], (int)flushed,
             (int)compacted);
    tap_ok(compacted < 10 * flushed, "small flushes do not rewrite level 1 again and again");
    tap_ok(runs_max < VV_LSM_L0_COMPACT, "and level 0 stays short");
    bool is_right = true;
    for (unsigned i = 0; i < 20000; i += 3)
        is_right &= rig_read(&rig, i, versions[i]) == (versions[i] != UINT32_MAX);
    tap_ok(is_right, "with the newest record of each key");
    rig_close(&rig);
}

static void prepare_due(struct rig *rig, uint64_t *commit)
{
    for (unsigned round = 0; round < VV_LSM_L0_COMPACT; round++) {
        ++*commit;
        for (unsigned i = 0; i < 1500; i++)
            rig_write(rig, *commit, i, 9);
        if (rig_flush(rig, *commit) < 0)
            tap_ok(false, "a flush");
    }
}

static void test_failures(void)
{
    struct rig rig;
    struct vv_lsm_edit *edit;
    uint64_t commit = 0;
    rig_open(&rig);
    struct vv_store_fault_plan *plan = vv_store_fault_plan(rig.faults);
    prepare_due(&rig, &commit);
    tap_is_int(rig_compact(&rig), 0, "something in level 1");
    prepare_due(&rig, &commit);
    plan->put_fail = -ENOSPC;
    tap_is_int(vv_lsm_prepare_compaction(rig.lsm, &edit), -ENOSPC, "a put fails");
    plan->put_fail = 0;
    plan->all_fail = -EIO;
    tap_is_int(vv_lsm_prepare_compaction(rig.lsm, &edit), -EIO, "a get fails");
    plan->all_fail = 0;
    rig_sweep(&rig);
    bool is_done = false;
    bool is_right = true;
    for (int64_t n = 0; !is_done; n++) {
        vv_alloc_fail_at(n, false);
        int err = vv_lsm_prepare_compaction(rig.lsm, &edit);
        is_done = !vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= err == 0 || err == -ENOMEM;
        if (err == 0 && !is_done)
            vv_lsm_abandon(rig.lsm, edit);
        rig_sweep(&rig);
        is_right &= rig_read(&rig, (unsigned)n % 1500, 9) == 1;
    }
    tap_ok(is_right, "each allocation fails once");
    vv_lsm_apply(rig.lsm, edit);
    rig_sweep(&rig);
    for (unsigned i = 0; i < 1500; i++)
        is_right &= rig_read(&rig, i, 9) == 1;
    tap_ok(is_right, "and in the end it is done");
    struct vv_table_ref *tables;
    size_t count;
    prepare_due(&rig, &commit);
    if (vv_lsm_tables(rig.lsm, NULL, &tables, &count) == 0) {
        rig_damage(&rig, &tables[0], 8 * 5000);
        vv_table_refs_free(tables, count);
    }
    tap_is_int(vv_lsm_prepare_compaction(rig.lsm, &edit), -VV_ERR_AUTH,
               "a damaged block is not compacted away");
    tap_ok(rig_sweep(&rig) <= 2, "and no input dies");
    rig_close(&rig);
}

/* How many tables of epochs below `epoch` are known; -1 when they are not in order, or not all found. */
static int64_t known_tables(struct rig *rig, uint64_t epoch)
{
    struct vv_table_id *ids;
    size_t count;
    if (vv_lsm_table_ids(rig->lsm, epoch, &ids, &count) < 0)
        return -1;
    bool is_good = !vv_table_ids_have(ids, count, 7, UINT64_MAX);
    for (size_t i = 0; i < count; i++) {
        is_good &= vv_table_ids_have(ids, count, ids[i].epoch, ids[i].counter);
        is_good &= i == 0 || ids[i - 1].counter < ids[i].counter;
    }
    vv_free(ids);
    return is_good ? (int64_t)count : -1;
}

/* Readers keep tables alive that a compaction removed. */
static void test_readers(void)
{
    struct rig rig;
    struct vv_lsm_iter *iter;
    struct vv_bytes none = {NULL, 0};
    struct vv_bytes key;
    struct vv_bytes value;
    uint64_t commit = 0;
    rig_open(&rig);
    prepare_due(&rig, &commit);
    tap_is_int(vv_lsm_iter_open(rig.lsm, none, none, &iter), 0, "a scan begins");
    tap_is_int(vv_lsm_iter_next(iter, &key, &value), 1, "and reads");
    struct vv_lsm_edit *edit;
    tap_is_int(vv_lsm_prepare_compaction(rig.lsm, &edit), 0, "a compaction");
    int64_t before = known_tables(&rig, 8);
    vv_lsm_apply(rig.lsm, edit);
    tap_is_int(rig_sweep(&rig), 0, "its inputs are in use");
    tap_ok(known_tables(&rig, 8) > before, "and known, beside its outputs");
    tap_is_int(known_tables(&rig, 7), 0, "none is of an older epoch");
    unsigned count = 1;
    while (vv_lsm_iter_next(iter, &key, &value) == 1)
        count++;
    tap_is_int(count, 1500, "the scan goes on");
    before = known_tables(&rig, 8);
    vv_lsm_iter_close(iter);
    tap_is_int(known_tables(&rig, 8), before, "dead ones are known until they are given out");
    tap_is_int(rig_sweep(&rig), VV_LSM_L0_COMPACT, "and then they die");
    tap_is_int(known_tables(&rig, 8), before - VV_LSM_L0_COMPACT, "and are forgotten");
    rig_close(&rig);
}

static void test_all(void *arg)
{
    (void)arg;
    test_folding();
    test_deletes_stay();
    test_moves();
    test_levels();
    test_small_flushes();
    test_failures();
    test_readers();
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(6, test_all, NULL);
    return tap_done();
}
