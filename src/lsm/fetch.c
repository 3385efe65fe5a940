/* Bringing what gets need into memory: first all filters that are missing, at once; then for each
 * key the tables in turn, newest first, as long as the key is not settled. */
#include <errno.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "lsm/lsm_impl.h"

#define TABLES_MAX (VV_LSM_L0_STALL * 4 + VV_LSM_LEVELS_MAX) /* that may hold one key */

#define PARALLEL_TURN 32 /* calls that found all in memory, before other fibers get a turn */

/* ---- fibers side by side ---- */

struct parallel {
    size_t next;
    size_t count;
    size_t helpers; /* running */
    void (*fn)(void *arg, size_t i);
    void *arg;
    struct vv_waitq ended;
};

static void parallel_work(struct parallel *parallel)
{
    while (parallel->next < parallel->count) {
        size_t i = parallel->next++;
        parallel->fn(parallel->arg, i);
        if (i % PARALLEL_TURN == PARALLEL_TURN - 1)
            vv_fiber_yield();
    }
}

static void parallel_helper(void *arg)
{
    struct parallel *parallel = arg;
    parallel_work(parallel);
    if (--parallel->helpers == 0)
        vv_waitq_wake_all(&parallel->ended);
}

void vv_lsm_parallel(size_t count, void (*fn)(void *arg, size_t i), void *arg)
{
    struct parallel parallel = {.count = count, .fn = fn, .arg = arg};
    vv_waitq_init(&parallel.ended);
    /* The caller is one of the workers, so that it works without fibers, only slower. */
    while (parallel.helpers + 1 < count && parallel.helpers + 1 < VV_LSM_PARALLEL_MAX &&
           vv_fiber_start(parallel_helper, &parallel, "lsm read") == 0)
        parallel.helpers++;
    parallel_work(&parallel);
    while (parallel.helpers > 0)
        (void)vv_waitq_wait(&parallel.ended, VV_NEVER);
}

/* ---- pins ---- */

void vv_lsm_pins_init(struct vv_lsm_pins *pins)
{
    *pins = (struct vv_lsm_pins){0};
}

void vv_lsm_pins_done(struct vv_lsm_pins *pins)
{
    for (size_t i = 0; i < pins->count; i++)
        vv_block_unref(pins->blocks[i]);
    vv_free(pins->blocks);
    *pins = (struct vv_lsm_pins){0};
}

/* Keys side by side share filters and indexes: a few looks back save most of the doubles. */
static bool is_pinned(const struct vv_lsm_pins *pins, const struct vv_block *block)
{
    size_t first = pins->count > 8 ? pins->count - 8 : 0;
    for (size_t i = first; i < pins->count; i++) {
        if (pins->blocks[i] == block)
            return true;
    }
    return false;
}

int vv_lsm_pin(struct vv_lsm_pins *pins, struct vv_block *block)
{
    if (is_pinned(pins, block)) {
        vv_block_unref(block);
        return 0;
    }
    if (pins->count == pins->capacity) {
        size_t capacity = pins->capacity ? pins->capacity * 2 : 16;
        struct vv_block **blocks = vv_realloc(pins->blocks, capacity * sizeof(struct vv_block *));
        if (!blocks) {
            vv_block_unref(block);
            return -ENOMEM;
        }
        pins->blocks = blocks;
        pins->capacity = capacity;
    }
    pins->blocks[pins->count++] = block;
    return 0;
}

/* ---- fetching ---- */

struct fetch {
    struct vv_lsm *lsm;
    const struct vv_bytes *keys;
    struct vv_lsm_pins *pins;
    int error;              /* the first one */
    struct vv_table **cold; /* tables whose filter is to be read, referenced */
    size_t cold_count;
};

static void note_error(struct fetch *fetch, int err)
{
    if (fetch->error == 0)
        fetch->error = err;
}

/* The tables that may hold a key, newest first. */
static size_t tables_of(const struct vv_lsm *lsm, struct vv_bytes key,
                        struct vv_table *out_tables[TABLES_MAX])
{
    size_t found = 0;
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        const struct vv_level *level = &lsm->levels[i];
        for (size_t run = level->run_count; run-- > 0;) {
            size_t count;
            struct vv_table *const *tables = vv_level_run(level, run, &count);
            struct vv_table *table = vv_run_find(tables, count, key);
            if (table && found < TABLES_MAX)
                out_tables[found++] = table;
        }
    }
    return found;
}

/* One key in one table. */
struct probe {
    struct fetch *fetch;
    struct vv_bytes key;
    uint64_t hash;
    struct vv_table *tables[TABLES_MAX];
    size_t count;
    size_t first; /* of the tables looked into side by side */
};

/* Bring in and pin what a get of the key needs of this table. 1 when the table settles the key, 2
 * when it holds a merge, 0 when it does not hold it. */
static int probe_table(struct probe *probe, struct vv_table *table)
{
    struct vv_lsm_pins *pins = probe->fetch->pins;
    struct vv_block *filter;
    TRY(vv_table_load(table, &filter, NULL));
    bool may_contain = vv_filter_may_contain(filter->data, filter->len, probe->hash);
    TRY(vv_lsm_pin(pins, filter));
    if (!may_contain)
        return 0;
    struct vv_block *index;
    TRY(vv_table_load(table, NULL, &index));
    uint32_t number;
    int found = vv_index_find((struct vv_bytes){index->data, index->len}, probe->key, &number);
    struct vv_block *block = NULL;
    int err = found <= 0 ? found : vv_table_load_block(table, index, number, &block);
    if (err < 0 || !block) {
        vv_block_unref(index);
        return err;
    }
    struct vv_block_iter iter;
    err = vv_block_iter_init(&iter, block->data, block->len);
    found = err < 0 ? err : vv_block_seek(&iter, probe->key);
    bool is_here = found > 0 && vv_bytes_compare(vv_block_key(&iter), probe->key) == 0;
    err = vv_lsm_pin(pins, index);
    int block_err = vv_lsm_pin(pins, block);
    TRY(err);
    TRY(block_err);
    TRY(found);
    if (!is_here)
        return 0;
    return iter.kind == VV_LSM_MERGE ? 2 : 1;
}

static void probe_one(void *arg, size_t i)
{
    struct probe *probe = arg;
    int found = probe_table(probe, probe->tables[probe->first + i]);
    if (found < 0)
        note_error(probe->fetch, found);
}

static void fetch_key(void *arg, size_t i)
{
    struct fetch *fetch = arg;
    if (fetch->lsm->levels[0].run_count + VV_LSM_LEVELS_MAX > TABLES_MAX) {
        note_error(fetch, -VV_ERR_LIMIT); /* nobody waited while it was stalled */
        return;
    }
    struct probe probe = {.fetch = fetch, .key = fetch->keys[i]};
    probe.hash = vv_xxh3(probe.key.ptr, probe.key.len, 0);
    probe.count = tables_of(fetch->lsm, probe.key, probe.tables);
    for (size_t t = 0; t < probe.count; t++)
        vv_table_ref(probe.tables[t]);
    int found = 0;
    for (size_t t = 0; t < probe.count && found == 0; t++) {
        found = probe_table(&probe, probe.tables[t]);
        probe.first = t + 1;
    }
    if (found < 0)
        note_error(fetch, found);
    /* A merge usually lies in several levels: the rest is read side by side. */
    if (found == 2 && probe.first < probe.count)
        vv_lsm_parallel(probe.count - probe.first, probe_one, &probe);
    for (size_t t = 0; t < probe.count; t++)
        vv_table_unref(probe.tables[t]);
}

static bool has_filter(struct vv_table *table)
{
    if (!table->sealer)
        return false;
    if (table->filter)
        return true;
    struct vv_cache_key key = vv_table_cache_key(table, VV_TABLE_FILTER);
    struct vv_block *block = vv_cache_peek(table->lsm->options.cache, &key);
    vv_block_unref(block);
    return block != NULL;
}

static int note_cold(struct fetch *fetch, struct vv_table *table)
{
    for (size_t i = 0; i < fetch->cold_count; i++) {
        if (fetch->cold[i] == table)
            return 0;
    }
    struct vv_table **cold =
        vv_realloc(fetch->cold, (fetch->cold_count + 1) * sizeof(struct vv_table *));
    if (!cold)
        return -ENOMEM;
    vv_table_ref(table);
    fetch->cold = cold;
    fetch->cold[fetch->cold_count++] = table;
    return 0;
}

static void load_cold(void *arg, size_t i)
{
    struct fetch *fetch = arg;
    struct vv_block *filter;
    int err = vv_table_load(fetch->cold[i], &filter, NULL);
    if (err == 0)
        err = vv_lsm_pin(fetch->pins, filter);
    if (err < 0)
        note_error(fetch, err);
}

/* Read the filters that are missing. Errors show again with the keys that they concern. */
static int fetch_filters(struct fetch *fetch, size_t key_count)
{
    int err = 0;
    for (size_t i = 0; i < key_count && err == 0; i++) {
        struct vv_table *tables[TABLES_MAX];
        size_t count = tables_of(fetch->lsm, fetch->keys[i], tables);
        for (size_t t = 0; t < count && err == 0; t++) {
            if (!has_filter(tables[t]))
                err = note_cold(fetch, tables[t]);
        }
    }
    if (err == 0)
        vv_lsm_parallel(fetch->cold_count, load_cold, fetch);
    for (size_t i = 0; i < fetch->cold_count; i++)
        vv_table_unref(fetch->cold[i]);
    vv_free(fetch->cold);
    fetch->cold = NULL;
    return err;
}

/* What memtables hold is looked for in the tables nevertheless: vv_lsm_get_at may ask for it. */
int vv_lsm_fetch(struct vv_lsm *lsm, const struct vv_bytes *keys, size_t count,
                 struct vv_lsm_pins *pins)
{
    struct fetch fetch = {.lsm = lsm, .keys = keys, .pins = pins};
    vv_lsm_release_held(lsm);
    vv_table_pins_trim(lsm);
    TRY(fetch_filters(&fetch, count));
    fetch.error = 0;
    vv_lsm_parallel(count, fetch_key, &fetch);
    return fetch.error;
}
