/* Reading one table wholly, for fsck. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "lsm/lsm_impl.h"
#include "lsm/run_source_impl.h"

struct check {
    struct vv_table *table;
    struct vv_block *filter;
    struct vv_run_source run;
    uint64_t entries;
    uint8_t last[VV_LSM_KEY_MAX];
    size_t last_len;
    int (*record)(void *arg, enum vv_lsm_kind kind, struct vv_bytes key, struct vv_bytes value);
    void *arg;
};

/* The header at the start is not read otherwise: it must be the one that the trailer repeats, which
 * is the one that the frames were opened with. */
static int check_header(const struct check *check)
{
    const struct vv_table_ref *ref = &check->table->ref;
    uint8_t first[VV_OBJECT_HEADER_LEN];
    uint8_t second[VV_OBJECT_HEADER_LEN];
    TRY(vv_table_read(check->table, 0, sizeof(first), first));
    TRY(vv_table_read(check->table, ref->bytes - VV_TABLE_TRAILER_LEN, sizeof(second), second));
    return memcmp(first, second, sizeof(first)) == 0 ? 0 : -VV_ERR_CORRUPT;
}

static int check_record(struct check *check, const struct vv_source *source)
{
    struct vv_bytes key = source->key;
    struct vv_bytes last = {check->last, check->last_len};
    struct vv_bytes min = vv_table_min(check->table);
    if (check->entries > 0 && vv_bytes_compare(last, key) >= 0)
        return -VV_ERR_CORRUPT;
    if (check->entries == 0 && vv_bytes_compare(min, key) != 0)
        return -VV_ERR_CORRUPT;
    uint64_t hash = vv_xxh3(key.ptr, key.len, 0);
    if (!vv_filter_may_contain(check->filter->data, check->filter->len, hash))
        return -VV_ERR_CORRUPT;
    uint32_t block;
    const struct vv_block *index = check->run.index;
    int found = vv_index_find((struct vv_bytes){index->data, index->len}, key, &block);
    if (found < 0)
        return found;
    if (found == 0 || block + 1 != check->run.block_next)
        return -VV_ERR_CORRUPT;
    int64_t a;
    int64_t b;
    if (source->kind == VV_LSM_MERGE)
        TRY(vv_sums_decode(source->value, &a, &b));
    check->entries++;
    memcpy(check->last, key.ptr, key.len);
    check->last_len = key.len;
    return check->record ? check->record(check->arg, source->kind, key, source->value) : 0;
}

static int check_records(struct check *check)
{
    struct vv_source *source = &check->run.source;
    for (unsigned count = 1;; count++) {
        int found = source->next(source);
        if (found == -VV_ERR_MISS) {
            TRY(vv_run_source_fill(&check->run));
            continue;
        }
        if (found <= 0)
            return found;
        TRY(check_record(check, source));
        if (count % 256 == 0)
            vv_fiber_yield();
    }
}

static int check_table(struct check *check)
{
    struct vv_bytes all = {NULL, 0};
    TRY(vv_table_load(check->table, &check->filter, NULL));
    TRY(check_header(check));
    TRY(vv_run_source_init(&check->run, &check->table, 1, 0, NULL, all, all));
    TRY(check_records(check));
    struct vv_bytes last = {check->last, check->last_len};
    if (check->entries != check->table->ref.entries ||
        vv_bytes_compare(vv_table_max(check->table), last) != 0)
        return -VV_ERR_CORRUPT;
    return 0;
}

int vv_table_check(struct vv_lsm *lsm, const struct vv_table_ref *ref,
                   int (*record)(void *arg, enum vv_lsm_kind kind, struct vv_bytes key,
                                 struct vv_bytes value),
                   void *arg)
{
    struct check check = {.record = record, .arg = arg};
    TRY(vv_table_new(lsm, ref, &check.table));
    /* What is in the cache says nothing about the store. */
    check.table->is_checked = true;
    int err = check_table(&check);
    struct vv_cache_key key = vv_table_cache_key(check.table, 0);
    vv_run_source_done(&check.run);
    vv_block_unref(check.filter);
    vv_cache_drop_all(lsm->options.cache, key.space, key.a);
    vv_table_unref(check.table);
    return err;
}
