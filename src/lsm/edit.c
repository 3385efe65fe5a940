/* Edits: what a flush or compaction changes in the tree, and the lists of tables for manifests. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "lsm/lsm_impl.h"

int vv_edit_new(unsigned level, struct vv_lsm_edit **out_edit)
{
    struct vv_lsm_edit *edit = vv_zalloc(sizeof(*edit));
    if (!edit)
        return -ENOMEM;
    edit->level = level;
    *out_edit = edit;
    return 0;
}

int vv_edit_add(struct vv_lsm_edit *edit, struct vv_table *table)
{
    if (edit->added_count == edit->added_capacity) {
        size_t capacity = edit->added_capacity ? edit->added_capacity * 2 : 8;
        struct vv_table **added = vv_realloc(edit->added, capacity * sizeof(struct vv_table *));
        if (!added) {
            vv_table_unref(table);
            return -ENOMEM;
        }
        edit->added = added;
        edit->added_capacity = capacity;
    }
    edit->added[edit->added_count++] = table;
    return 0;
}

int vv_edit_promise(struct vv_lsm *lsm, struct vv_lsm_edit *edit)
{
    size_t count = edit->is_move ? edit->removed_count : edit->added_count;
    TRY(vv_level_promise(&lsm->levels[edit->level], count));
    edit->promised = count;
    return 0;
}

static void edit_free(struct vv_lsm *lsm, struct vv_lsm_edit *edit)
{
    lsm->levels[edit->level].promised -= edit->promised;
    if (edit->is_flush)
        lsm->is_flushing = false;
    else
        lsm->is_compacting = false;
    for (size_t i = 0; i < edit->added_count; i++)
        vv_table_unref(edit->added[i]);
    for (size_t i = 0; i < edit->removed_count; i++)
        vv_table_unref(edit->removed[i]);
    vv_free(edit->added);
    vv_free(edit->removed);
    vv_free(edit);
}

/* ---- lists ---- */

static int copy_ref(const struct vv_table_ref *ref, struct vv_table_ref *out_copy)
{
    *out_copy = *ref;
    out_copy->min_key = vv_memdup(ref->min_key, ref->min_key_len);
    out_copy->max_key = vv_memdup(ref->max_key, ref->max_key_len);
    return out_copy->min_key && out_copy->max_key ? 0 : -ENOMEM;
}

static bool is_removed(const struct vv_lsm_edit *edit, const struct vv_table *table)
{
    for (size_t i = 0; edit && i < edit->removed_count; i++) {
        if (edit->removed[i] == table)
            return true;
    }
    return false;
}

/* Whether b stands before a in the manifest's order. */
static bool is_after(const struct vv_table_ref *a, const struct vv_table_ref *b)
{
    if (a->level != b->level)
        return a->level > b->level;
    if (a->level == 0 && a->order != b->order)
        return a->order > b->order;
    return vv_bytes_compare((struct vv_bytes){a->min_key, a->min_key_len},
                            (struct vv_bytes){b->min_key, b->min_key_len}) > 0;
}

struct list {
    struct vv_table_ref *refs;
    size_t count;
};

/* Insert a copy where it belongs. Most of a list comes in order. */
static int list_add(struct list *list, const struct vv_table_ref *ref, unsigned level)
{
    struct vv_table_ref copy;
    int err = copy_ref(ref, &copy);
    if (err < 0) {
        vv_free(copy.min_key);
        vv_free(copy.max_key);
        return err;
    }
    copy.level = (uint8_t)level;
    size_t low = 0;
    size_t high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (is_after(&copy, &list->refs[middle]))
            low = middle + 1;
        else
            high = middle;
    }
    memmove(list->refs + low + 1, list->refs + low, (list->count - low) * sizeof(*list->refs));
    list->refs[low] = copy;
    list->count++;
    return 0;
}

static int list_all(const struct vv_lsm *lsm, const struct vv_lsm_edit *edit, struct list *list)
{
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        for (size_t j = 0; j < lsm->levels[i].count; j++) {
            const struct vv_table *table = lsm->levels[i].tables[j];
            bool is_gone = is_removed(edit, table);
            if (is_gone && !edit->is_move)
                continue;
            TRY(list_add(list, &table->ref, is_gone ? edit->level : i));
        }
    }
    for (size_t i = 0; edit && i < edit->added_count; i++)
        TRY(list_add(list, &edit->added[i]->ref, edit->level));
    return 0;
}

int vv_lsm_tables(const struct vv_lsm *lsm, const struct vv_lsm_edit *edit,
                  struct vv_table_ref **out_tables, size_t *out_count)
{
    size_t max = 1 + (edit ? edit->added_count : 0);
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++)
        max += lsm->levels[i].count;
    struct list list = {.refs = vv_calloc(max, sizeof(*list.refs))};
    if (!list.refs)
        return -ENOMEM;
    int err = list_all(lsm, edit, &list);
    if (err < 0) {
        vv_table_refs_free(list.refs, list.count);
        return err;
    }
    *out_tables = list.refs;
    *out_count = list.count;
    return 0;
}

/* ---- ids ---- */

static int compare_ids(const void *a, const void *b)
{
    const struct vv_table_id *first = a;
    const struct vv_table_id *second = b;
    if (first->epoch != second->epoch)
        return first->epoch < second->epoch ? -1 : 1;
    if (first->counter != second->counter)
        return first->counter < second->counter ? -1 : 1;
    return 0;
}

static size_t count_of(const struct vv_list *tables)
{
    size_t count = 0;
    vv_list_each (node, tables)
        count++;
    return count;
}

struct ids {
    struct vv_table_id *ids;
    size_t count;
    uint64_t epoch;
};

static void take_id(struct ids *ids, const struct vv_table *table)
{
    if (table->ref.epoch < ids->epoch)
        ids->ids[ids->count++] = (struct vv_table_id){table->ref.epoch, table->ref.counter};
}

static void take_ids(struct ids *ids, const struct vv_list *tables)
{
    vv_list_each (node, tables)
        take_id(ids, vv_list_entry(node, struct vv_table, link));
}

int vv_lsm_table_ids(const struct vv_lsm *lsm, uint64_t epoch, struct vv_table_id **out_ids,
                     size_t *out_count)
{
    size_t max = 1 + count_of(&lsm->dying) + count_of(&lsm->dead);
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++)
        max += lsm->levels[i].count;
    struct ids ids = {.ids = vv_calloc(max, sizeof(*ids.ids)), .epoch = epoch};
    if (!ids.ids)
        return -ENOMEM;
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        for (size_t j = 0; j < lsm->levels[i].count; j++)
            take_id(&ids, lsm->levels[i].tables[j]);
    }
    take_ids(&ids, &lsm->dying);
    take_ids(&ids, &lsm->dead);
    qsort(ids.ids, ids.count, sizeof(*ids.ids), compare_ids);
    *out_ids = ids.ids;
    *out_count = ids.count;
    return 0;
}

bool vv_table_ids_have(const struct vv_table_id *ids, size_t count, uint64_t epoch,
                       uint64_t counter)
{
    const struct vv_table_id id = {epoch, counter};
    return count > 0 && bsearch(&id, ids, count, sizeof(*ids), compare_ids) != NULL;
}

/* ---- applying ---- */

static void drop_flushed(struct vv_lsm *lsm, uint64_t commit)
{
    vv_list_each_safe (node, &lsm->memtables) {
        struct vv_memtable *mem = vv_list_entry(node, struct vv_memtable, link);
        if (mem->last_commit > commit)
            break;
        vv_list_remove(&mem->link);
        vv_memtable_unref(mem);
    }
    if (commit > lsm->flushed_commit)
        lsm->flushed_commit = commit;
}

/* Room was promised when the edit was prepared, so that nothing here can fail. */
void vv_lsm_apply(struct vv_lsm *lsm, struct vv_lsm_edit *edit)
{
    struct vv_level *to = &lsm->levels[edit->level];
    lsm->version++;
    vv_lsm_release_held(lsm);
    for (size_t i = 0; i < edit->removed_count; i++) {
        struct vv_table *table = edit->removed[i];
        struct vv_level *from = &lsm->levels[table->ref.level];
        vv_level_remove(from, table);
        if (edit->is_move) {
            table->ref.level = (uint8_t)edit->level;
            vv_level_add(to, table);
            edit->promised--;
        } else {
            table->is_dead = true;
            vv_list_push_back(&lsm->dying, &table->link);
            vv_table_unref(table);
        }
    }
    for (size_t i = 0; i < edit->added_count; i++) {
        vv_level_add(to, edit->added[i]);
        edit->promised--;
    }
    edit->added_count = 0;
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++)
        vv_level_settle(&lsm->levels[i]);
    if (edit->is_flush)
        drop_flushed(lsm, edit->flushed);
    edit_free(lsm, edit);
}

void vv_lsm_abandon(struct vv_lsm *lsm, struct vv_lsm_edit *edit)
{
    if (!edit)
        return;
    for (size_t i = 0; i < edit->added_count; i++)
        edit->added[i]->is_dead = true;
    edit_free(lsm, edit);
}

bool vv_lsm_next_dead(struct vv_lsm *lsm, struct vv_table_ref *out_table)
{
    if (vv_list_is_empty(&lsm->dead))
        return false;
    struct vv_table *table = vv_list_first(&lsm->dead, struct vv_table, link);
    /* Here and not when they die: a compaction's inputs die together, and have many blocks. */
    struct vv_cache_key key = vv_table_cache_key(table, 0);
    vv_cache_drop_all(lsm->options.cache, key.space, key.a);
    *out_table = table->ref;
    out_table->min_key = NULL;
    out_table->max_key = NULL;
    out_table->min_key_len = 0;
    out_table->max_key_len = 0;
    vv_table_free(table);
    return true;
}
