#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "lsm/lsm_impl.h"
#include "lsm/run_source_impl.h"

#define SKIP_MAX 1024 /* deletes passed over before other fibers get a turn */
#define READ_AHEAD_TOTAL (2u << 20)
#define READ_AHEAD_SHARE_MIN (128u << 10)

struct vv_lsm_iter {
    struct vv_lsm *lsm;
    struct vv_merge merge;
    struct vv_mem_source *mems;
    size_t mem_count;
    struct vv_run_source *runs;
    size_t run_count;
    struct vv_run_source **starved;
    size_t starved_count;
    int error; /* sticky */
    uint8_t lower[VV_LSM_KEY_MAX];
    uint8_t upper[VV_LSM_KEY_MAX];
    uint8_t passed[VV_LSM_KEY_MAX]; /* the key given out last */
    struct vv_writer value; /* a copy of a value from a memtable, which may be overwritten */
};

static int add_memtables(struct vv_lsm_iter *iter, struct vv_bytes lower, struct vv_bytes upper)
{
    size_t count = 0;
    vv_list_each (node, &iter->lsm->memtables)
        count++;
    iter->mems = vv_calloc(count, sizeof(*iter->mems));
    if (!iter->mems)
        return -ENOMEM;
    uint32_t rank = (uint32_t)count;
    vv_list_each (node, &iter->lsm->memtables) {
        struct vv_memtable *mem = vv_list_entry(node, struct vv_memtable, link);
        vv_memtable_ref(mem);
        vv_mem_source_init(&iter->mems[iter->mem_count++], mem, --rank, lower, upper);
    }
    return 0;
}

static int add_runs(struct vv_lsm_iter *iter, struct vv_bytes lower, struct vv_bytes upper)
{
    size_t count = 0;
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++)
        count += iter->lsm->levels[i].run_count;
    iter->runs = vv_calloc(count + 1, sizeof(*iter->runs));
    iter->starved = vv_calloc(count + 1, sizeof(struct vv_run_source *));
    if (!iter->runs || !iter->starved)
        return -ENOMEM;
    uint32_t rank = (uint32_t)iter->mem_count;
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        const struct vv_level *level = &iter->lsm->levels[i];
        for (size_t run = level->run_count; run-- > 0;) {
            size_t first;
            size_t table_count;
            struct vv_table *const *tables = vv_level_run(level, run, &table_count);
            table_count = vv_run_range(tables, table_count, lower, upper, &first);
            if (table_count == 0)
                continue;
            TRY(vv_run_source_init(&iter->runs[iter->run_count], tables + first, table_count,
                                   rank++, iter->lsm->options.cache, lower, upper));
            iter->run_count++;
        }
    }
    return 0;
}

static int add_sources(struct vv_lsm_iter *iter, struct vv_bytes lower, struct vv_bytes upper)
{
    TRY(add_memtables(iter, lower, upper));
    TRY(add_runs(iter, lower, upper));
    TRY(vv_merge_init(&iter->merge, iter->mem_count + iter->run_count));
    for (size_t i = 0; i < iter->mem_count; i++)
        vv_merge_add(&iter->merge, &iter->mems[i].source);
    for (size_t i = 0; i < iter->run_count; i++) {
        size_t share = READ_AHEAD_TOTAL / iter->run_count;
        share = share < READ_AHEAD_SHARE_MIN ? READ_AHEAD_SHARE_MIN : share;
        iter->runs[i].stretch_max = share < VV_READ_AHEAD_MAX ? share : VV_READ_AHEAD_MAX;
        vv_merge_add(&iter->merge, &iter->runs[i].source);
    }
    return 0;
}

int vv_lsm_iter_open(struct vv_lsm *lsm, struct vv_bytes lower, struct vv_bytes upper,
                     struct vv_lsm_iter **out_iter)
{
    if (lower.len > VV_LSM_KEY_MAX || upper.len > VV_LSM_KEY_MAX)
        return -EINVAL;
    struct vv_lsm_iter *iter = vv_zalloc(sizeof(*iter));
    if (!iter)
        return -ENOMEM;
    iter->lsm = lsm;
    iter->value = vv_writer_new();
    if (lower.len)
        memcpy(iter->lower, lower.ptr, lower.len);
    if (upper.len)
        memcpy(iter->upper, upper.ptr, upper.len);
    int err = add_sources(iter, (struct vv_bytes){iter->lower, lower.len},
                          (struct vv_bytes){iter->upper, upper.len});
    if (err < 0) {
        vv_lsm_iter_close(iter);
        return err;
    }
    *out_iter = iter;
    return 0;
}

void vv_lsm_iter_close(struct vv_lsm_iter *iter)
{
    if (!iter)
        return;
    for (size_t i = 0; i < iter->mem_count; i++)
        vv_memtable_unref(iter->mems[i].mem);
    for (size_t i = 0; i < iter->run_count; i++)
        vv_run_source_done(&iter->runs[i]);
    vv_free(iter->mems);
    vv_free(iter->runs);
    vv_free(iter->starved);
    vv_merge_done(&iter->merge);
    vv_writer_done(&iter->value);
    vv_free(iter);
}

static void fill_one(void *arg, size_t i)
{
    struct vv_lsm_iter *iter = arg;
    int err = vv_run_source_fill(iter->starved[i]);
    if (err < 0 && iter->error == 0)
        iter->error = err;
}

static int fill_starved(struct vv_lsm_iter *iter)
{
    iter->starved_count = 0;
    for (size_t i = 0; i < iter->run_count; i++) {
        if (iter->runs[i].source.is_starved)
            iter->starved[iter->starved_count++] = &iter->runs[i];
    }
    vv_lsm_release_held(iter->lsm);
    vv_lsm_parallel(iter->starved_count, fill_one, iter);
    return iter->error;
}

/* Memtables that were written to since the last look may hold something new ahead. */
static void refresh_memtables(struct vv_lsm_iter *iter)
{
    for (size_t i = 0; i < iter->mem_count; i++) {
        struct vv_mem_source *source = &iter->mems[i];
        if (source->changes != source->mem->changes)
            vv_merge_restart(&iter->merge, &source->source);
    }
}

static int next_record(struct vv_lsm_iter *iter, struct vv_record *out_record)
{
    for (;;) {
        refresh_memtables(iter);
        int found = vv_merge_next(&iter->merge, out_record);
        if (found != -VV_ERR_MISS)
            return found;
        TRY(fill_starved(iter));
    }
}

static void note_passed(struct vv_lsm_iter *iter, struct vv_bytes key)
{
    memcpy(iter->passed, key.ptr, key.len);
    for (size_t i = 0; i < iter->mem_count; i++)
        iter->mems[i].passed = (struct vv_bytes){iter->passed, key.len};
}

int vv_lsm_iter_next(struct vv_lsm_iter *iter, struct vv_bytes *out_key, struct vv_bytes *out_value)
{
    TRY(iter->error);
    struct vv_record record;
    unsigned skipped = 0;
    do {
        if (++skipped % SKIP_MAX == 0)
            vv_fiber_yield();
        int found = next_record(iter, &record);
        if (found <= 0) {
            iter->error = found;
            return found;
        }
        note_passed(iter, record.key);
    } while (record.kind == VV_LSM_DELETE);
    vv_writer_reset(&iter->value);
    vv_writer_bytes(&iter->value, record.value.ptr, record.value.len);
    iter->error = vv_writer_check(&iter->value);
    TRY(iter->error);
    *out_key = record.key;
    *out_value = (struct vv_bytes){iter->value.ptr, iter->value.len};
    return 1;
}
