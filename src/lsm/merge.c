#include "lsm/merge_impl.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

int vv_merge_init(struct vv_merge *merge, size_t capacity)
{
    struct vv_source **heap = vv_calloc(capacity + 1, sizeof(*heap));
    struct vv_source **waiting = vv_calloc(capacity + 1, sizeof(*waiting));
    if (!heap || !waiting) {
        vv_free(heap);
        vv_free(waiting);
        return -ENOMEM;
    }
    *merge = (struct vv_merge){.heap = heap, .waiting = waiting};
    return 0;
}

void vv_merge_done(struct vv_merge *merge)
{
    vv_free(merge->heap);
    vv_free(merge->waiting);
    *merge = (struct vv_merge){0};
}

void vv_merge_add(struct vv_merge *merge, struct vv_source *source)
{
    merge->waiting[merge->waiting_count++] = source;
}

/* ---- heap ---- */

static bool is_before(const struct vv_source *a, const struct vv_source *b)
{
    int order = vv_bytes_compare(a->key, b->key);
    return order < 0 || (order == 0 && a->rank < b->rank);
}

static void sift_up(struct vv_merge *merge, size_t index)
{
    struct vv_source *source = merge->heap[index];
    while (index > 0 && is_before(source, merge->heap[(index - 1) / 2])) {
        merge->heap[index] = merge->heap[(index - 1) / 2];
        index = (index - 1) / 2;
    }
    merge->heap[index] = source;
}

static void sift_down(struct vv_merge *merge, size_t index)
{
    struct vv_source *source = merge->heap[index];
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= merge->heap_count)
            break;
        if (child + 1 < merge->heap_count && is_before(merge->heap[child + 1], merge->heap[child]))
            child++;
        if (is_before(source, merge->heap[child]))
            break;
        merge->heap[index] = merge->heap[child];
        index = child;
    }
    merge->heap[index] = source;
}

static void heap_remove(struct vv_merge *merge, size_t index)
{
    struct vv_source *last = merge->heap[--merge->heap_count];
    if (index == merge->heap_count)
        return;
    merge->heap[index] = last;
    sift_up(merge, index);
    sift_down(merge, index);
}

/* ---- merging ---- */

void vv_merge_restart(struct vv_merge *merge, struct vv_source *source)
{
    for (size_t i = 0; i < merge->heap_count; i++) {
        if (merge->heap[i] != source)
            continue;
        heap_remove(merge, i);
        source->is_consumed = false;
        merge->waiting[merge->waiting_count++] = source;
        return;
    }
    for (size_t i = 0; i < merge->waiting_count; i++) {
        if (merge->waiting[i] == source)
            return;
    }
    merge->waiting[merge->waiting_count++] = source; /* it had come to its end */
}

static int advance(struct vv_merge *merge)
{
    bool is_starved = false;
    for (size_t i = merge->waiting_count; i-- > 0;) {
        struct vv_source *source = merge->waiting[i];
        int found = source->next(source);
        source->is_starved = found == -VV_ERR_MISS;
        if (source->is_starved) {
            is_starved = true;
            continue;
        }
        if (found < 0)
            return found;
        merge->waiting[i] = merge->waiting[--merge->waiting_count];
        if (found) {
            source->is_consumed = false;
            merge->heap[merge->heap_count] = source;
            sift_up(merge, merge->heap_count++);
        }
    }
    return is_starved ? -VV_ERR_MISS : 0;
}

static struct vv_source *consume_first(struct vv_merge *merge)
{
    struct vv_source *source = merge->heap[0];
    heap_remove(merge, 0);
    source->is_consumed = true;
    merge->waiting[merge->waiting_count++] = source;
    return source;
}

/* Add up to the first put or delete. Older records of the key are passed over. */
int vv_merge_next(struct vv_merge *merge, struct vv_record *out_record)
{
    TRY(advance(merge));
    if (merge->heap_count == 0)
        return 0;
    const struct vv_source *source = consume_first(merge);
    struct vv_record record = {source->kind, source->key, source->value};
    int64_t a = 0;
    int64_t b = 0;
    if (record.kind == VV_LSM_MERGE)
        TRY(vv_sums_decode(record.value, &a, &b));
    bool is_added = false;
    while (merge->heap_count > 0 && vv_bytes_compare(merge->heap[0]->key, record.key) == 0) {
        source = consume_first(merge);
        if (record.kind != VV_LSM_MERGE)
            continue;
        is_added = true;
        record.kind = source->kind == VV_LSM_MERGE ? VV_LSM_MERGE : VV_LSM_PUT;
        if (source->kind == VV_LSM_DELETE)
            continue;
        int64_t older_a;
        int64_t older_b;
        TRY(vv_sums_decode(source->value, &older_a, &older_b));
        a = vv_sum(a, older_a);
        b = vv_sum(b, older_b);
    }
    if (is_added)
        record.value = (struct vv_bytes){merge->sums, vv_sums_encode(a, b, merge->sums)};
    *out_record = record;
    return 1;
}

/* ---- memtables ---- */

/* What was written behind the place of the reader since the last look is not shown. */
static bool is_behind(const struct vv_mem_source *source, struct vv_bytes key)
{
    if (source->passed.len > 0)
        return vv_bytes_compare(key, source->passed) <= 0;
    return vv_bytes_compare(key, source->lower) < 0;
}

static int mem_next(struct vv_source *base)
{
    struct vv_mem_source *source = vv_container_of(base, struct vv_mem_source, source);
    if (base->is_consumed && source->entry)
        source->before = source->entry;
    source->changes = source->mem->changes;
    struct vv_mem_entry *entry = source->before->next;
    while (entry && is_behind(source, vv_mem_entry_key(entry))) {
        source->before = entry;
        entry = entry->next;
    }
    source->entry = NULL;
    if (!entry)
        return 0;
    base->key = vv_mem_entry_key(entry);
    if (source->upper.len > 0 && vv_bytes_compare(base->key, source->upper) >= 0)
        return 0;
    source->entry = entry;
    const struct vv_mem_version *version = entry->newest;
    base->kind = version->kind;
    base->value = (struct vv_bytes){NULL, 0};
    if (version->kind == VV_LSM_PUT) {
        base->value = (struct vv_bytes){version->value, version->value_len};
    } else if (version->kind == VV_LSM_MERGE) {
        base->kind = version->is_complete ? VV_LSM_PUT : VV_LSM_MERGE;
        size_t len = vv_sums_encode(version->sums->total_a, version->sums->total_b, source->sums);
        base->value = (struct vv_bytes){source->sums, len};
    }
    return 1;
}

void vv_mem_source_init(struct vv_mem_source *source, struct vv_memtable *mem, uint32_t rank,
                        struct vv_bytes lower, struct vv_bytes upper)
{
    *source = (struct vv_mem_source){
        .source = {.next = mem_next, .rank = rank},
        .mem = mem,
        .before = vv_memtable_before(mem, lower),
        .lower = lower,
        .upper = upper,
        .changes = mem->changes,
    };
}
