/* Tables in a store: opening, finding, few requests; damaged ones give errors and nothing else. */
#include "lsm/table_impl.h"

#include "base/hash.h"
#include "lsm/lsm_impl.h"
#include "lsm/table_build_impl.h"
#include "rig.h"

#define KEYS 3000

/* Put a table of even keys of 0..2*count-1; the caller unrefs it. */
static struct vv_table *put_table(struct rig *rig, unsigned count, uint64_t counter)
{
    struct vv_table_builder *builder;
    struct vv_table_ref ref = {.epoch = 7, .counter = counter, .level = 1};
    struct vv_table *table = NULL;
    char name[VV_TABLE_NAME_MAX];
    bool is_built =
        vv_table_builder_new(rig->ring, &rig->settings, ref.epoch, ref.counter, &builder) == 0;
    for (unsigned i = 0; is_built && i < count; i++) {
        char key[16];
        char value[64];
        struct vv_bytes bytes = rig_key(i * 2, key);
        is_built =
            vv_table_builder_add(builder, VV_LSM_PUT, bytes, vv_xxh3(bytes.ptr, bytes.len, 0),
                                 rig_value(i * 2, 0, value)) == 0;
    }
    is_built = is_built && vv_table_builder_finish(builder) == 0 &&
               vv_table_builder_ref(builder, &ref) == 0;
    int iov_count;
    const struct iovec *iov = vv_table_builder_iov(builder, &iov_count);
    vv_table_name(ref.epoch, ref.counter, name, sizeof(name));
    is_built = is_built && vv_store_put(rig->store, name, iov, iov_count) == 0 &&
               vv_table_new(rig->lsm, &ref, &table) == 0;
    if (!is_built)
        tap_ok(false, "a table is built");
    vv_free(ref.min_key);
    vv_free(ref.max_key);
    vv_table_builder_free(builder);
    return table;
}

static int find(struct vv_table *table, unsigned number)
{
    char key[16];
    char value[64];
    struct vv_table_hit hit;
    struct vv_bytes bytes = rig_key(number, key);
    int found = vv_table_find(table, bytes, vv_xxh3(bytes.ptr, bytes.len, 0), &hit);
    if (found == 1) {
        bool is_equal =
            hit.kind == VV_LSM_PUT && vv_bytes_compare(hit.value, rig_value(number, 0, value)) == 0;
        vv_block_unref(hit.block);
        return is_equal ? 1 : -EBADMSG;
    }
    return found;
}

/* As find, but what is missing is loaded. */
static int load_and_find(struct vv_table *table, unsigned number)
{
    char key[16];
    struct vv_bytes bytes = rig_key(number, key);
    struct vv_block *filter;
    struct vv_block *index;
    struct vv_block *block = NULL;
    uint32_t at;
    int err = vv_table_load(table, &filter, &index);
    if (err < 0)
        return err;
    err = vv_index_find((struct vv_bytes){index->data, index->len}, bytes, &at);
    if (err > 0)
        err = vv_table_load_block(table, index, at, &block);
    int found = err < 0 ? err : find(table, number);
    vv_block_unref(filter);
    vv_block_unref(index);
    vv_block_unref(block);
    return found;
}

static void test_finding(struct rig *rig)
{
    struct vv_table *table = put_table(rig, KEYS, 100);
    const struct vv_store_counts *counts = vv_store_counts(rig->store);
    tap_is_int(find(table, 0), -VV_ERR_MISS, "a table that is not in memory");
    uint64_t gets = counts->gets;
    tap_is_int(load_and_find(table, 2000), 1, "is opened");
    tap_is_int((int64_t)(counts->gets - gets), 1, "and read by one request, being small");
    tap_is_int(find(table, 2000), 1, "and is then in memory");
    bool is_right = true;
    for (unsigned i = 0; i < 2 * KEYS; i++)
        is_right &= load_and_find(table, i) == (i % 2 == 0);
    tap_ok(is_right, "every key is found, and no other");
    unsigned passed = 0;
    for (unsigned i = 1; i < 2 * KEYS; i += 2)
        passed += find(table, i) == -VV_ERR_MISS;
    tap_ok(passed < KEYS / 10, "absent keys need no block most of the time (%u)", passed);
    tap_is_int(load_and_find(table, 2 * KEYS + 5), 0, "above all keys");
    vv_table_unref(table);
}

/* Filters and indexes that are used stay, but give way when the cache is small. */
static void test_pins(struct rig *rig)
{
    struct vv_table *tables[40];
    for (unsigned i = 0; i < 40; i++)
        tables[i] = put_table(rig, 1000, 200 + i);
    bool is_bounded = true;
    for (unsigned i = 0; i < 400; i++) {
        if (load_and_find(tables[i % 40], i % 100 * 2) != 1)
            tap_ok(false, "a key is found");
        struct vv_cache_stats stats;
        vv_cache_stats(rig->cache, &stats);
        is_bounded &= stats.bytes < 128 << 10;
        is_bounded &= rig->lsm->pinned_bytes < 64 << 10;
    }
    tap_ok(is_bounded, "the cache stays near its size");
    for (unsigned i = 0; i < 40; i++)
        vv_table_unref(tables[i]);
    tap_is_int((int64_t)rig->lsm->pinned_bytes, 0, "all pins are given back");
}

struct racer {
    struct vv_table *table;
    unsigned *left;
    unsigned number;
    int found;
};

static void race(void *arg)
{
    struct racer *racer = arg;
    racer->found = load_and_find(racer->table, racer->number);
    --*racer->left;
}

static void test_sharing(struct rig *rig)
{
    struct vv_table *table = put_table(rig, KEYS, 300);
    struct racer racers[20];
    unsigned left = 20;
    uint64_t gets = vv_store_counts(rig->store)->gets;
    for (unsigned i = 0; i < 20; i++) {
        racers[i] = (struct racer){table, &left, 1000, 0};
        if (vv_fiber_start(race, &racers[i], "racer") < 0)
            tap_ok(false, "a fiber starts");
    }
    while (left > 0)
        vv_rt_sleep_ns(1000000);
    bool is_right = true;
    for (unsigned i = 0; i < 20; i++)
        is_right &= racers[i].found == 1;
    tap_ok(is_right, "twenty fibers find a key of a cold table");
    tap_ok(vv_store_counts(rig->store)->gets - gets <= 2, "with two requests at most");
    vv_table_unref(table);
    table = put_table(rig, 40 * KEYS, 301);
    tap_ok(table->ref.bytes > 1 << 20, "a larger table");
    gets = vv_store_counts(rig->store)->gets;
    tap_is_int(load_and_find(table, 2000), 1, "is searched");
    tap_is_int((int64_t)(vv_store_counts(rig->store)->gets - gets), 2, "with two requests");
    vv_table_unref(table);
}

/* A flipped bit anywhere: what is found is right, the rest is an error. */
static void test_damage(struct rig *rig)
{
    unsigned errors = 0;
    bool is_right = true;
    for (unsigned i = 0; i < 120; i++) {
        struct vv_table *table = put_table(rig, 600, 1000 + i);
        uint64_t bits = table->ref.bytes * 8;
        /* The last bytes in turn, then all over. */
        uint64_t bit = i < 40 ? bits - 1 - i * 27 : model_mix(i) % bits;
        rig_damage(rig, &table->ref, i == 119 ? UINT64_MAX : bit);
        int err = vv_table_check(rig->lsm, &table->ref, NULL, NULL);
        is_right &= err < 0;
        for (unsigned number = 0; number < 1200; number += 37) {
            int found = load_and_find(table, number);
            is_right &= found < 0 || found == (number % 2 == 0);
            is_right &= found != -EBADMSG;
            errors += found < 0;
        }
        vv_table_unref(table);
    }
    tap_ok(is_right, "damage is found by a check, and misleads nobody");
    tap_ok(errors > 0, "errors are returned (%u)", errors);
}

static void test_failures(struct rig *rig)
{
    struct vv_store_fault_plan *plan = vv_store_fault_plan(rig->faults);
    plan->all_fail = -ETIMEDOUT;
    struct vv_table_ref ref = {.epoch = 1, .counter = 1, .bytes = 1000, .entries = 5};
    struct vv_table *table;
    struct vv_block *filter;
    if (vv_table_new(rig->lsm, &ref, &table) < 0)
        return;
    tap_is_int(vv_table_load(table, &filter, NULL), -ETIMEDOUT, "the store's error");
    plan->all_fail = 0;
    tap_is_int(vv_table_load(table, &filter, NULL), -ENOENT, "no such object");
    table->ref.bytes = 10;
    tap_ok(vv_table_load(table, &filter, NULL) < 0, "an object that is too small");
    vv_table_unref(table);

    table = put_table(rig, 600, 5000);
    bool is_done = false;
    bool is_right = true;
    for (int64_t n = 0; !is_done && n < 1000; n++) {
        vv_alloc_fail_at(n, false);
        int found = load_and_find(table, 500);
        is_done = !vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= found == 1 || found == -ENOMEM;
        vv_cache_resize(rig->cache, 0);
        vv_table_unref(table);
        vv_cache_resize(rig->cache, 64 << 10);
        table = put_table(rig, 600, 5001 + (uint64_t)n);
    }
    tap_ok(is_done && is_right, "each allocation fails once");
    vv_table_unref(table);
}

static void test_all(void *arg)
{
    (void)arg;
    struct rig rig;
    rig_open(&rig);
    vv_cache_resize(rig.cache, 4 << 20);
    test_finding(&rig);
    test_sharing(&rig);
    vv_cache_resize(rig.cache, 64 << 10);
    test_pins(&rig);
    test_damage(&rig);
    test_failures(&rig);
    rig_close(&rig);
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(3, test_all, NULL);
    return tap_done();
}
