/* The rows of tables that make a level. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "lsm/lsm_impl.h"

/* The first table of a run that does not end below `key`. */
static size_t lower_bound(struct vv_table *const *tables, size_t count, struct vv_bytes key)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (vv_bytes_compare(vv_table_max(tables[middle]), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct vv_table *vv_run_find(struct vv_table *const *tables, size_t count, struct vv_bytes key)
{
    size_t index = lower_bound(tables, count, key);
    if (index == count || vv_bytes_compare(vv_table_min(tables[index]), key) > 0)
        return NULL;
    return tables[index];
}

size_t vv_run_range(struct vv_table *const *tables, size_t count, struct vv_bytes lower,
                    struct vv_bytes upper, size_t *out_first)
{
    size_t first = lower_bound(tables, count, lower);
    size_t end = first;
    while (end < count &&
           (upper.len == 0 || vv_bytes_compare(vv_table_min(tables[end]), upper) < 0))
        end++;
    *out_first = first;
    return end - first;
}

size_t vv_run_overlap(struct vv_table *const *tables, size_t count, struct vv_bytes min,
                      struct vv_bytes max, size_t *out_first)
{
    size_t first = lower_bound(tables, count, min);
    size_t end = first;
    while (end < count && vv_bytes_compare(vv_table_min(tables[end]), max) <= 0)
        end++;
    *out_first = first;
    return end - first;
}

struct vv_table *const *vv_level_run(const struct vv_level *level, size_t number, size_t *out_count)
{
    assert(number < level->run_count);
    size_t first = level->run_starts[number];
    size_t end = number + 1 < level->run_count ? level->run_starts[number + 1] : level->count;
    *out_count = end - first;
    return level->tables + first;
}

int vv_level_promise(struct vv_level *level, size_t count)
{
    size_t need = level->count + level->promised + count;
    if (need > level->capacity) {
        size_t capacity = need > level->capacity * 2 ? need : level->capacity * 2;
        struct vv_table **tables = vv_realloc(level->tables, capacity * sizeof(*tables));
        if (!tables)
            return -ENOMEM;
        level->tables = tables;
        size_t *starts = vv_realloc(level->run_starts, capacity * sizeof(*starts));
        if (!starts)
            return -ENOMEM;
        level->run_starts = starts;
        level->capacity = capacity;
    }
    level->promised += count;
    return 0;
}

void vv_level_settle(struct vv_level *level)
{
    level->run_count = 0;
    for (size_t i = 0; i < level->count; i++) {
        const struct vv_table_ref *ref = &level->tables[i]->ref;
        if (i == 0 || (ref->level == 0 && ref->order != level->tables[i - 1]->ref.order))
            level->run_starts[level->run_count++] = i;
    }
}

static bool is_after(const struct vv_table *a, const struct vv_table *b)
{
    if (a->ref.level == 0 && a->ref.order != b->ref.order)
        return a->ref.order > b->ref.order;
    return vv_bytes_compare(vv_table_min(a), vv_table_min(b)) > 0;
}

void vv_level_add(struct vv_level *level, struct vv_table *table)
{
    assert(level->promised > 0);
    assert(level->count < level->capacity);
    size_t low = 0;
    size_t high = level->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (is_after(table, level->tables[middle]))
            low = middle + 1;
        else
            high = middle;
    }
    memmove(level->tables + low + 1, level->tables + low,
            (level->count - low) * sizeof(*level->tables));
    level->tables[low] = table;
    level->count++;
    level->promised--;
    level->bytes += table->ref.bytes;
}

void vv_level_remove(struct vv_level *level, struct vv_table *table)
{
    size_t index = 0;
    while (index < level->count && level->tables[index] != table)
        index++;
    assert(index < level->count);
    level->count--;
    memmove(level->tables + index, level->tables + index + 1,
            (level->count - index) * sizeof(*level->tables));
    level->bytes -= table->ref.bytes;
}

bool vv_level_is_sound(const struct vv_level *level)
{
    for (size_t run = 0; run < level->run_count; run++) {
        size_t count;
        struct vv_table *const *tables = vv_level_run(level, run, &count);
        for (size_t i = 0; i < count; i++) {
            if (vv_bytes_compare(vv_table_min(tables[i]), vv_table_max(tables[i])) > 0)
                return false;
            if (i > 0 &&
                vv_bytes_compare(vv_table_max(tables[i - 1]), vv_table_min(tables[i])) >= 0)
                return false;
        }
    }
    return true;
}
