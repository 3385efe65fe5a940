/* Flushing: what is written, edits given up, failing puts, no memory. */
#include "lsm/lsm_impl.h"

#include "rig.h"

static uint64_t tables_at(const struct rig *rig, unsigned level)
{
    struct vv_lsm_stats stats;
    vv_lsm_stats(rig->lsm, &stats);
    return stats.tables[level];
}

static unsigned count_right(struct rig *rig, unsigned count, unsigned version)
{
    unsigned right = 0;
    for (unsigned i = 0; i < count; i++)
        right += rig_read(rig, i, version) == 1;
    return right;
}

static void test_plain(struct rig *rig)
{
    struct vv_lsm_edit *edit;
    tap_is_int((int64_t)vv_lsm_flushable_commit(rig->lsm), 0, "nothing to flush");
    for (unsigned i = 0; i < 3000; i++)
        rig_write(rig, 1 + i / 1000, i, 1);
    tap_is_int(vv_lsm_rotate(rig->lsm, 3), 0, "rotate");
    tap_is_int((int64_t)vv_lsm_flushable_commit(rig->lsm), 3, "up to the boundary");
    for (unsigned i = 0; i < 100; i++)
        rig_write(rig, 4, i, 2);
    size_t bytes = vv_lsm_memtable_bytes(rig->lsm);
    tap_ok(vv_lsm_newest_memtable_bytes(rig->lsm) < bytes, "there are two memtables");
    tap_is_int(vv_lsm_prepare_flush(rig->lsm, 3, &edit), 0, "prepare");
    tap_is_int((int64_t)tables_at(rig, 0), 0, "no table is used yet");
    tap_is_int((int64_t)count_right(rig, 100, 2), 100, "memtables still serve");
    struct vv_table_ref *tables;
    size_t count;
    tap_is_int(vv_lsm_tables(rig->lsm, edit, &tables, &count), 0, "the tables to come");
    tap_ok(count >= 2, "more than one table");
    bool is_sorted = true;
    uint64_t entries = 0;
    for (size_t i = 0; i < count; i++) {
        is_sorted &= i == 0 || memcmp(tables[i - 1].max_key, tables[i].min_key, 10) < 0;
        is_sorted &= tables[i].order == tables[0].order && tables[i].level == 0;
        is_sorted &= tables[i].counter == i && tables[i].epoch == 7;
        is_sorted &= tables[i].bytes < 80 << 10;
        entries += tables[i].entries;
    }
    tap_ok(is_sorted, "which make one run");
    tap_is_int((int64_t)entries, 3000, "of all records");
    vv_table_refs_free(tables, count);
    vv_lsm_apply(rig->lsm, edit);
    tap_is_int((int64_t)tables_at(rig, 0), (int64_t)count, "apply");
    tap_is_int((int64_t)vv_lsm_flushable_commit(rig->lsm), 0, "the memtable is gone");
    tap_is_int((int64_t)count_right(rig, 100, 2), 100, "newer records are in memory");
    tap_is_int((int64_t)count_right(rig, 3000, 1), 2900, "older ones in tables");
    tap_is_int(rig_sweep(rig), 0, "nothing is dead");
}

static void test_abandon(struct rig *rig)
{
    struct vv_lsm_edit *edit;
    for (unsigned i = 0; i < 3000; i++)
        rig_write(rig, 5, i, 3);
    tap_is_int(vv_lsm_rotate(rig->lsm, 5), 0, "rotate");
    tap_is_int(vv_lsm_prepare_flush(rig->lsm, 5, &edit), 0, "prepare");
    vv_lsm_abandon(rig->lsm, edit);
    tap_ok(rig_sweep(rig) >= 2, "the tables of an edit given up are dead");
    tap_is_int((int64_t)vv_lsm_flushable_commit(rig->lsm), 5, "the memtable is still there");
    rig_write(rig, 6, 0, 4);
    tap_is_int(vv_lsm_rotate(rig->lsm, 6), 0, "rotate");
    tap_is_int(vv_lsm_prepare_flush(rig->lsm, 5, &edit), 0, "only the older one");
    vv_lsm_apply(rig->lsm, edit);
    tap_is_int((int64_t)vv_lsm_flushable_commit(rig->lsm), 6, "the newer one is left");
    tap_is_int(rig_read(rig, 0, 4), 1, "and read");
    tap_is_int((int64_t)count_right(rig, 3000, 3), 2999, "over the older one");
}

/* Several memtables at once become one run; what was deleted stays deleted. */
static void test_several(struct rig *rig)
{
    struct vv_lsm_edit *edit;
    for (uint64_t commit = 7; commit < 10; commit++) {
        for (unsigned i = 0; i < 300; i++) {
            if (commit == 8 && i % 3 == 0)
                rig_delete(rig, commit, i);
            else if (commit != 9 || i % 2 == 0)
                rig_write(rig, commit, i, (unsigned)commit);
        }
        if (vv_lsm_rotate(rig->lsm, commit) < 0)
            tap_ok(false, "rotate");
    }
    uint64_t before = rig->lsm->levels[0].run_count;
    tap_is_int(vv_lsm_prepare_flush(rig->lsm, UINT64_MAX - 1, &edit), 0, "four memtables");
    vv_lsm_apply(rig->lsm, edit);
    tap_is_int((int64_t)(rig->lsm->levels[0].run_count - before), 1, "become one run");
    bool is_right = true;
    for (unsigned i = 0; i < 300; i++) {
        if (i % 2 == 0)
            is_right &= rig_read(rig, i, 9) == 1;
        else
            is_right &= rig_read(rig, i, 8) == (i % 3 != 0);
    }
    tap_ok(is_right, "with the newest record of each key");
    tap_is_int(rig_flush(rig, 12), 0, "an empty memtable is flushed");
    tap_is_int((int64_t)(rig->lsm->levels[0].run_count - before), 1, "and makes no table");
}

static void test_failures(struct rig *rig)
{
    struct vv_store_fault_plan *plan = vv_store_fault_plan(rig->faults);
    struct vv_lsm_edit *edit;
    for (unsigned i = 0; i < 3000; i++)
        rig_write(rig, 13, i, 13);
    tap_is_int(vv_lsm_rotate(rig->lsm, 13), 0, "rotate");
    plan->put_fail = -ENOSPC;
    tap_is_int(vv_lsm_prepare_flush(rig->lsm, 13, &edit), -ENOSPC, "a put fails");
    plan->put_fail = 0;
    rig_sweep(rig);
    bool is_done = false;
    bool is_right = true;
    for (int64_t n = 0; !is_done; n++) {
        vv_alloc_fail_at(n, false);
        int err = vv_lsm_prepare_flush(rig->lsm, 13, &edit);
        is_done = !vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= err == 0 || err == -ENOMEM;
        if (err == 0 && !is_done)
            vv_lsm_abandon(rig->lsm, edit);
        rig_sweep(rig);
        is_right &= rig_read(rig, (unsigned)n % 3000, 13) == 1;
    }
    tap_ok(is_right, "each allocation fails once");
    vv_lsm_apply(rig->lsm, edit);
    tap_is_int((int64_t)count_right(rig, 3000, 13), 3000, "and in the end it is flushed");
    vv_table_refs_free(NULL, 0);
    struct vv_table_ref *tables;
    size_t count;
    vv_alloc_fail_at(3, false);
    tap_is_int(vv_lsm_tables(rig->lsm, NULL, &tables, &count), -ENOMEM, "no list of tables");
    vv_alloc_fail_at(-1, false);
}

static void test_all(void *arg)
{
    (void)arg;
    struct rig rig;
    rig_open(&rig);
    test_plain(&rig);
    test_abandon(&rig);
    test_several(&rig);
    test_failures(&rig);
    rig_close(&rig);
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(5, test_all, NULL);
    return tap_done();
}
