#include "lsm/lsm_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/text.h"

/* ---- life ---- */

static struct vv_memtable *newest(const struct vv_lsm *lsm)
{
    return vv_list_last(&lsm->memtables, struct vv_memtable, link);
}

static int add_memtable(struct vv_lsm *lsm)
{
    struct vv_memtable *mem;
    TRY(vv_memtable_new(lsm->options.mem_budget, &mem));
    vv_list_push_back(&lsm->memtables, &mem->link);
    return 0;
}

int vv_lsm_new(const struct vv_lsm_options *options, struct vv_lsm **out_lsm)
{
    struct vv_lsm *lsm = vv_zalloc(sizeof(*lsm));
    if (!lsm)
        return -ENOMEM;
    lsm->options = *options;
    if (lsm->options.table_bytes == 0)
        lsm->options.table_bytes = VV_LSM_TABLE_BYTES_DEFAULT;
    if (lsm->options.level1_bytes == 0)
        lsm->options.level1_bytes = VV_LSM_LEVEL1_BYTES_DEFAULT;
    lsm->next_order = 1;
    vv_list_init(&lsm->memtables);
    vv_list_init(&lsm->dying);
    vv_list_init(&lsm->dead);
    vv_list_init(&lsm->pinned);
    int err = add_memtable(lsm);
    if (err < 0) {
        vv_lsm_free(lsm);
        return err;
    }
    *out_lsm = lsm;
    return 0;
}

static void drop_memtables(struct vv_list *memtables)
{
    while (!vv_list_is_empty(memtables)) {
        struct vv_memtable *mem = vv_list_first(memtables, struct vv_memtable, link);
        vv_list_remove(&mem->link);
        vv_memtable_unref(mem);
    }
}

static void drop_tables(struct vv_lsm *lsm)
{
    vv_lsm_release_held(lsm);
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        struct vv_level *level = &lsm->levels[i];
        for (size_t j = 0; j < level->count; j++)
            vv_table_unref(level->tables[j]);
        vv_free(level->tables);
        vv_free(level->run_starts);
        *level = (struct vv_level){0};
        vv_free(lsm->compact_key[i]);
        lsm->compact_key[i] = NULL;
        lsm->compact_key_len[i] = 0;
    }
    while (!vv_list_is_empty(&lsm->dead))
        vv_table_free(vv_list_first(&lsm->dead, struct vv_table, link));
}

void vv_lsm_free(struct vv_lsm *lsm)
{
    if (!lsm)
        return;
    drop_memtables(&lsm->memtables);
    drop_tables(lsm);
    vv_free(lsm);
}

static int load_levels(struct vv_lsm *lsm, const struct vv_table_ref *tables, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct vv_table_ref *ref = &tables[i];
        if (ref->level >= VV_LSM_LEVELS_MAX || ref->bytes > VV_STORE_OBJECT_MAX)
            return -VV_ERR_CORRUPT;
        struct vv_table *table;
        TRY(vv_table_new(lsm, ref, &table));
        int err = vv_level_promise(&lsm->levels[ref->level], 1);
        if (err < 0) {
            vv_table_unref(table);
            return err;
        }
        vv_level_add(&lsm->levels[ref->level], table);
        if (ref->order >= lsm->next_order)
            lsm->next_order = ref->order + 1;
    }
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        vv_level_settle(&lsm->levels[i]);
        if (!vv_level_is_sound(&lsm->levels[i]))
            return -VV_ERR_CORRUPT;
    }
    return 0;
}

/* The new state is made first, so that a failure leaves the old one. */
int vv_lsm_load(struct vv_lsm *lsm, const struct vv_table_ref *tables, size_t count)
{
    struct vv_lsm *fresh;
    TRY(vv_lsm_new(&lsm->options, &fresh));
    int err = load_levels(fresh, tables, count);
    if (err < 0) {
        vv_lsm_free(fresh);
        return err;
    }
    drop_memtables(&lsm->memtables);
    drop_tables(lsm);
    vv_list_splice(&lsm->memtables, &fresh->memtables);
    memcpy(lsm->levels, fresh->levels, sizeof(lsm->levels));
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        for (size_t j = 0; j < lsm->levels[i].count; j++)
            lsm->levels[i].tables[j]->lsm = lsm;
    }
    lsm->next_order = fresh->next_order;
    lsm->flushed_commit = 0;
    memset(fresh->levels, 0, sizeof(fresh->levels));
    vv_lsm_free(fresh);
    return 0;
}

void vv_lsm_set_epoch(struct vv_lsm *lsm, uint64_t epoch)
{
    lsm->options.epoch = epoch;
    lsm->next_counter = 0;
}

/* ---- names ---- */

void vv_table_name(uint64_t epoch, uint64_t counter, char *name, size_t size)
{
    vv_format(name, size, "sst/%02x/%016llx-%016llx", (unsigned)(counter & 0xff),
              (unsigned long long)epoch, (unsigned long long)counter);
}

int vv_table_name_parse(const char *name, uint64_t *out_epoch, uint64_t *out_counter)
{
    char text[VV_TABLE_NAME_MAX];
    uint8_t epoch[8];
    uint8_t counter[8];
    size_t prefix_len = strlen("sst/00/");
    if (vv_copy_text(text, sizeof(text), name) < 0 || strlen(text) != prefix_len + 33)
        return -EINVAL;
    char *dash = text + prefix_len + 16;
    *dash = '\0';
    TRY(vv_unhex(text + prefix_len, epoch, sizeof(epoch)));
    TRY(vv_unhex(dash + 1, counter, sizeof(counter)));
    /* Only the name that vv_table_name writes: one spelling, the right shard. */
    char again[VV_TABLE_NAME_MAX];
    vv_table_name(vv_load_be64(epoch), vv_load_be64(counter), again, sizeof(again));
    if (strcmp(again, name) != 0)
        return -EINVAL;
    *out_epoch = vv_load_be64(epoch);
    *out_counter = vv_load_be64(counter);
    return 0;
}

void vv_table_refs_free(struct vv_table_ref *tables, size_t count)
{
    for (size_t i = 0; tables && i < count; i++) {
        vv_free(tables[i].min_key);
        vv_free(tables[i].max_key);
    }
    vv_free(tables);
}

/* ---- writing ---- */

static struct vv_memtable *memtable_of(const struct vv_lsm *lsm, uint64_t commit)
{
    assert(commit > lsm->flushed_commit);
    vv_list_each (node, &lsm->memtables) {
        struct vv_memtable *mem = vv_list_entry(node, struct vv_memtable, link);
        if (commit <= mem->last_commit)
            return mem;
    }
    assert(!"the newest memtable takes every commit");
    return NULL;
}

int vv_lsm_reserve(struct vv_lsm *lsm, size_t records, size_t bytes)
{
    vv_list_each (node, &lsm->memtables) {
        struct vv_memtable *mem = vv_list_entry(node, struct vv_memtable, link);
        if (!mem->is_sealed)
            TRY(vv_memtable_reserve(mem, records, bytes));
    }
    return 0;
}

static uint64_t hash_of(struct vv_bytes key)
{
    return vv_xxh3(key.ptr, key.len, 0);
}

void vv_lsm_put(struct vv_lsm *lsm, uint64_t commit, struct vv_bytes key, struct vv_bytes value)
{
    vv_memtable_put(memtable_of(lsm, commit), commit, hash_of(key), key, value);
}

void vv_lsm_delete(struct vv_lsm *lsm, uint64_t commit, struct vv_bytes key)
{
    vv_memtable_delete(memtable_of(lsm, commit), commit, hash_of(key), key);
}

void vv_lsm_merge(struct vv_lsm *lsm, uint64_t commit, struct vv_bytes key, int64_t a, int64_t b)
{
    vv_memtable_merge(memtable_of(lsm, commit), commit, hash_of(key), key, a, b);
}

int vv_lsm_rotate(struct vv_lsm *lsm, uint64_t commit)
{
    struct vv_memtable *mem = newest(lsm);
    assert(!mem->commits || mem->commits->number <= commit);
    TRY(add_memtable(lsm));
    mem->last_commit = commit;
    return 0;
}

uint64_t vv_lsm_version(const struct vv_lsm *lsm)
{
    return lsm->version;
}

uint64_t vv_lsm_flushable_commit(const struct vv_lsm *lsm)
{
    const struct vv_memtable *mem = vv_list_first(&lsm->memtables, struct vv_memtable, link);
    return mem == newest(lsm) ? 0 : mem->last_commit;
}

size_t vv_lsm_memtable_bytes(const struct vv_lsm *lsm)
{
    size_t bytes = 0;
    vv_list_each (node, &lsm->memtables)
        bytes += vv_list_entry(node, struct vv_memtable, link)->bytes;
    return bytes;
}

size_t vv_lsm_newest_memtable_bytes(const struct vv_lsm *lsm)
{
    return newest(lsm)->bytes;
}

/* ---- reading ---- */

void vv_lsm_hold(struct vv_lsm *lsm, struct vv_block *block)
{
    size_t last = (lsm->held_next + VV_LSM_HELD_MAX - 1) % VV_LSM_HELD_MAX;
    if (lsm->held[last] == block) {
        vv_block_unref(block);
        return;
    }
    vv_block_unref(lsm->held[lsm->held_next]);
    lsm->held[lsm->held_next] = block;
    lsm->held_next = (lsm->held_next + 1) % VV_LSM_HELD_MAX;
}

void vv_lsm_release_held(struct vv_lsm *lsm)
{
    for (size_t i = 0; i < VV_LSM_HELD_MAX; i++) {
        vv_block_unref(lsm->held[i]);
        lsm->held[i] = NULL;
    }
}

/* A read on its way down: merges found so far are added up. */
struct lookup {
    struct vv_bytes key;
    uint64_t hash;
    uint64_t commit;
    bool is_merging;
    int64_t a, b;
    struct vv_lsm_value *out_value;
};

static void give_sums(const struct lookup *lookup)
{
    struct vv_lsm_value *value = lookup->out_value;
    value->len = vv_sums_encode(lookup->a, lookup->b, value->merged);
    value->ptr = value->merged;
}

/* One record, newer ones having been added already. 1 or 0 when it settles the matter, -EAGAIN to
 * go on. */
static int lookup_record(struct lookup *lookup, enum vv_lsm_kind kind, struct vv_bytes value)
{
    if (kind == VV_LSM_DELETE) {
        if (lookup->is_merging)
            give_sums(lookup);
        return lookup->is_merging;
    }
    if (kind == VV_LSM_PUT && !lookup->is_merging) {
        lookup->out_value->ptr = value.ptr;
        lookup->out_value->len = value.len;
        return 1;
    }
    int64_t a;
    int64_t b;
    TRY(vv_sums_decode(value, &a, &b));
    lookup->a = vv_sum(lookup->a, a);
    lookup->b = vv_sum(lookup->b, b);
    lookup->is_merging = true;
    if (kind == VV_LSM_MERGE)
        return -EAGAIN;
    give_sums(lookup);
    return 1;
}

static int lookup_memtables(struct lookup *lookup, const struct vv_lsm *lsm)
{
    for (struct vv_list *node = lsm->memtables.prev; node != &lsm->memtables; node = node->prev) {
        const struct vv_memtable *mem = vv_list_entry(node, struct vv_memtable, link);
        const struct vv_mem_entry *entry = vv_memtable_find(mem, lookup->hash, lookup->key);
        const struct vv_mem_version *version =
            entry ? vv_mem_version_at(entry, lookup->commit) : NULL;
        if (!version)
            continue;
        if (version->kind != VV_LSM_MERGE)
            return lookup_record(lookup, version->kind,
                                 (struct vv_bytes){version->value, version->value_len});
        lookup->a = vv_sum(lookup->a, version->sums->total_a);
        lookup->b = vv_sum(lookup->b, version->sums->total_b);
        lookup->is_merging = true;
        if (version->is_complete) {
            give_sums(lookup);
            return 1;
        }
    }
    return -EAGAIN;
}

static int lookup_table(struct lookup *lookup, struct vv_lsm *lsm, struct vv_table *table)
{
    struct vv_table_hit hit;
    int found = vv_table_find(table, lookup->key, lookup->hash, &hit);
    if (found == 0)
        return -EAGAIN;
    if (found < 0)
        return found;
    vv_lsm_hold(lsm, hit.block);
    return lookup_record(lookup, hit.kind, hit.value);
}

static int lookup_tables(struct lookup *lookup, struct vv_lsm *lsm)
{
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        const struct vv_level *level = &lsm->levels[i];
        for (size_t run = level->run_count; run-- > 0;) {
            size_t count;
            struct vv_table *const *tables = vv_level_run(level, run, &count);
            struct vv_table *table = vv_run_find(tables, count, lookup->key);
            if (!table)
                continue;
            int found = lookup_table(lookup, lsm, table);
            if (found != -EAGAIN)
                return found;
        }
    }
    if (lookup->is_merging)
        give_sums(lookup);
    return lookup->is_merging;
}

int vv_lsm_get_at(struct vv_lsm *lsm, struct vv_bytes key, uint64_t commit,
                  struct vv_lsm_value *out_value)
{
    struct lookup lookup = {
        .key = key, .hash = hash_of(key), .commit = commit, .out_value = out_value};
    lsm->stats.gets++;
    int found = lookup_memtables(&lookup, lsm);
    return found == -EAGAIN ? lookup_tables(&lookup, lsm) : found;
}

int vv_lsm_get(struct vv_lsm *lsm, struct vv_bytes key, struct vv_lsm_value *out_value)
{
    return vv_lsm_get_at(lsm, key, UINT64_MAX, out_value);
}

int vv_lsm_get_sums(struct vv_lsm *lsm, struct vv_bytes key, int64_t *out_a, int64_t *out_b)
{
    struct vv_lsm_value value;
    int64_t a = 0;
    int64_t b = 0;
    int found = vv_lsm_get(lsm, key, &value);
    if (found < 0)
        return found;
    if (found)
        TRY(vv_sums_decode((struct vv_bytes){value.ptr, value.len}, &a, &b));
    *out_a = a;
    *out_b = b;
    return 0;
}

void vv_lsm_stats(const struct vv_lsm *lsm, struct vv_lsm_stats *out_stats)
{
    *out_stats = lsm->stats;
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        out_stats->tables[i] = lsm->levels[i].count;
        out_stats->bytes[i] = lsm->levels[i].bytes;
    }
    out_stats->memtable_bytes = vv_lsm_memtable_bytes(lsm);
}
