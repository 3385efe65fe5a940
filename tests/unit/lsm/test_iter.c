/* Scans: ranges, read-ahead, errors. What they show is compared with a model in test_lsm. */
#include "lsm/lsm_impl.h"

#include "rig.h"

#define KEYS 20000

static struct vv_bytes none = {NULL, 0};

/* Counts the records of a range; an error instead. Checks order and bounds. */
static int64_t count_range(struct rig *rig, struct vv_bytes lower, struct vv_bytes upper)
{
    struct vv_lsm_iter *iter;
    struct vv_bytes key;
    struct vv_bytes value;
    uint8_t last[VV_LSM_KEY_MAX];
    size_t last_len = 0;
    int64_t count = 0;
    int err = vv_lsm_iter_open(rig->lsm, lower, upper, &iter);
    if (err < 0)
        return err;
    while ((err = vv_lsm_iter_next(iter, &key, &value)) > 0) {
        if (vv_bytes_compare(key, lower) < 0 ||
            (upper.len > 0 && vv_bytes_compare(key, upper) >= 0) ||
            vv_bytes_compare((struct vv_bytes){last, last_len}, key) >= 0)
            tap_ok(false, "keys ascend within the bounds");
        memcpy(last, key.ptr, key.len);
        last_len = key.len;
        count++;
    }
    if (err < 0 && vv_lsm_iter_next(iter, &key, &value) != err)
        tap_ok(false, "an error is final");
    vv_lsm_iter_close(iter);
    return err < 0 ? err : count;
}

static int64_t count_numbers(struct rig *rig, unsigned lower, unsigned upper)
{
    char texts[2][16];
    return count_range(rig, rig_key(lower, texts[0]), rig_key(upper, texts[1]));
}

static void build(struct rig *rig)
{
    for (unsigned part = 0; part < 4; part++) {
        for (unsigned i = part; i < KEYS; i += 4)
            rig_write(rig, part + 1, i, 1);
        if (rig_flush(rig, part + 1) < 0)
            tap_ok(false, "a flush");
    }
    if (rig_compact(rig) < 0)
        tap_ok(false, "a compaction");
    for (unsigned i = 0; i < KEYS; i += 100)
        rig_write(rig, 5, i, 2);
    if (rig_flush(rig, 5) < 0)
        tap_ok(false, "a flush");
    for (unsigned i = 50; i < KEYS; i += 100)
        rig_delete(rig, 6, i);
}

static void test_ranges(struct rig *rig)
{
    int64_t all = KEYS - KEYS / 100;
    tap_is_int(count_range(rig, none, none), all, "everything");
    tap_is_int(count_range(rig, text_bytes("key"), text_bytes("kez")), all, "between two words");
    tap_is_int(count_range(rig, text_bytes("kez"), none), 0, "above all");
    tap_is_int(count_range(rig, none, text_bytes("key")), 0, "below all");
    tap_is_int(count_numbers(rig, 1000, 1100), 99, "a hundred, one of them deleted");
    tap_is_int(count_numbers(rig, 1050, 1051), 0, "the deleted one");
    tap_is_int(count_numbers(rig, 1051, 1052), 1, "one");
    tap_is_int(count_numbers(rig, 1052, 1051), 0, "the wrong way round");
    tap_is_int(count_numbers(rig, 1052, 1052), 0, "an empty range");
    uint8_t longest[VV_LSM_KEY_MAX + 1] = {0};
    struct vv_lsm_iter *iter;
    tap_is_int(vv_lsm_iter_open(rig->lsm, (struct vv_bytes){longest, sizeof(longest)}, none, &iter),
               -EINVAL, "a bound that is too long");
}

static void test_requests(struct rig *rig)
{
    const struct vv_store_counts *counts = vv_store_counts(rig->store);
    rig_reopen(rig, 64 << 10);
    uint64_t gets = counts->gets;
    tap_is_int(count_numbers(rig, 1051, 1090), 39, "a short range of a cold tree");
    tap_ok(counts->gets - gets <= 2 * 3, "takes two requests a run (%d)",
           (int)(counts->gets - gets));
    rig_reopen(rig, 64 << 10);
    struct vv_lsm_stats stats;
    vv_lsm_stats(rig->lsm, &stats);
    uint64_t bytes = stats.bytes[0] + stats.bytes[1] + stats.bytes[2];
    uint64_t got = counts->bytes_got;
    gets = counts->gets;
    tap_is_int(count_range(rig, none, none), KEYS, "a whole cold tree");
    tap_note("%d tables, %d requests, %d bytes of %d",
             (int)(stats.tables[0] + stats.tables[1] + stats.tables[2]), (int)(counts->gets - gets),
             (int)(counts->bytes_got - got), (int)bytes);
    tap_ok(counts->gets - gets < 12 * (stats.tables[0] + stats.tables[1] + stats.tables[2]),
           "is read in large pieces");
    rig_reopen(rig, 8 << 20);
    (void)count_range(rig, none, none);
    gets = counts->gets;
    (void)count_range(rig, none, none);
    tap_is_int((int64_t)(counts->gets - gets), 0, "what is in the cache is not read again");
}

static void test_failures(struct rig *rig)
{
    bool is_done = false;
    bool is_right = true;
    for (int64_t n = 0; !is_done; n++) {
        vv_alloc_fail_at(n, false);
        int64_t count = count_numbers(rig, 3000, 3300);
        is_done = !vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= count == 300 || count == -ENOMEM;
        vv_cache_resize(rig->cache, 0);
        vv_cache_resize(rig->cache, 64 << 10);
    }
    tap_ok(is_right, "each allocation fails once");
    struct vv_store_fault_plan *plan = vv_store_fault_plan(rig->faults);
    plan->fail_permille = 20;
    unsigned errors = 0;
    for (unsigned i = 0; i < 50; i++) {
        rig_reopen(rig, 64 << 10);
        int64_t count = count_numbers(rig, i * 100, 10000);
        errors += count == -EIO;
        is_right &= count == -EIO || count == 10000 - i * 100;
    }
    plan->fail_permille = 0;
    tap_ok(is_right && errors > 0, "requests fail now and then (%u)", errors);
    struct vv_table_ref *tables;
    size_t count;
    if (vv_lsm_tables(rig->lsm, NULL, &tables, &count) < 0)
        return;
    rig_damage(rig, &tables[count / 2], 8 * 4000);
    vv_table_refs_free(tables, count);
    rig_reopen(rig, 64 << 10);
    tap_is_int(count_range(rig, none, none), -VV_ERR_AUTH, "a damaged block ends a scan");
}

static void test_all(void *arg)
{
    (void)arg;
    struct rig rig;
    rig_open(&rig);
    build(&rig);
    test_ranges(&rig);
    test_requests(&rig);
    test_failures(&rig);
    rig_close(&rig);
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(7, test_all, NULL);
    return tap_done();
}
