/* Commits as bytes: what is sealed into the log, and how it comes back. */
#include <errno.h>

#include "base/hash.h"
#include "base/plant.h"
#include "lsm/lsm_impl.h"

/* kind, two varint lengths */
#define RECORD_HEAD_MAX (1 + 2 + 3)

static void encode_record(struct vv_writer *writer, enum vv_lsm_kind kind, struct vv_bytes key,
                          struct vv_bytes value)
{
    vv_writer_u8(writer, (uint8_t)kind);
    vv_writer_string(writer, key.ptr, key.len);
    if (kind != VV_LSM_DELETE)
        vv_writer_string(writer, value.ptr, value.len);
}

/* The commits asked for. */
struct range {
    const struct vv_lsm *lsm;
    uint64_t first;
    uint64_t last;
};

/* The newest version of the range in one memtable, or NULL. */
static const struct vv_mem_version *
newest_in(const struct range *range, const struct vv_memtable *mem, const struct vv_mem_entry *like)
{
    const struct vv_mem_entry *entry = vv_memtable_find(mem, like->hash, vv_mem_entry_key(like));
    const struct vv_mem_version *version = entry ? vv_mem_version_at(entry, range->last) : NULL;
    return version && version->commit >= range->first ? version : NULL;
}

/* Whether a memtable newer than `mem` holds a version of the range. */
static bool is_outdated(const struct range *range, const struct vv_memtable *mem,
                        const struct vv_mem_entry *entry)
{
    const struct vv_list *end = &range->lsm->memtables;
    for (const struct vv_list *node = mem->link.next; node != end; node = node->next) {
        const struct vv_memtable *newer = vv_container_of(node, struct vv_memtable, link);
        if (newest_in(range, newer, entry))
            return true;
    }
    return false;
}

/* What one version adds to a sum. */
static void add_own(const struct vv_mem_version *version, int64_t *a, int64_t *b)
{
    int64_t own_a = 0;
    int64_t own_b = 0;
    if (version->kind == VV_LSM_MERGE) {
        own_a = version->sums->own_a;
        own_b = version->sums->own_b;
    } else if (version->kind == VV_LSM_PUT) {
        struct vv_bytes value = {version->value, version->value_len};
        if (vv_sums_decode(value, &own_a, &own_b) < 0)
            return; /* not a sum: by contract nobody merges onto it */
    }
    *a = vv_sum(*a, own_a);
    *b = vv_sum(*b, own_b);
}

/* Add up the merges of the range from `version` down. A put or delete below them ends it, and makes
 * a put of the sum: one record can't both delete and add. */
static void encode_sums(struct vv_writer *writer, const struct range *range,
                        const struct vv_memtable *mem, const struct vv_mem_version *version)
{
    const struct vv_mem_entry *entry = version->entry;
    enum vv_lsm_kind kind = VV_LSM_MERGE;
    int64_t a = 0;
    int64_t b = 0;
    const struct vv_list *end = &range->lsm->memtables;
    const struct vv_list *node = &mem->link;
    while (kind == VV_LSM_MERGE && node != end) {
        for (; version && version->commit >= range->first; version = version->older) {
            if (version->kind != VV_LSM_MERGE || version->is_reset)
                kind = VV_LSM_PUT;
            add_own(version, &a, &b);
            if (kind == VV_LSM_PUT)
                break;
        }
        node = node->prev;
        if (node != end)
            version = newest_in(range, vv_container_of(node, struct vv_memtable, link), entry);
    }
    uint8_t sums[VV_SUMS_LEN_MAX];
    size_t len = vv_sums_encode(a, b, sums);
    encode_record(writer, kind, vv_mem_entry_key(entry), (struct vv_bytes){sums, len});
}

static void encode_version(struct vv_writer *writer, const struct range *range,
                           const struct vv_memtable *mem, const struct vv_mem_version *version)
{
    const struct vv_mem_entry *entry = version->entry;
    if (vv_mem_version_at(entry, range->last) != version || is_outdated(range, mem, entry))
        return;
    if (vv_planted(VV_PLANT_MERGED_DELETES) && version->kind == VV_LSM_DELETE &&
        version->commit < range->last)
        return;
    if (version->kind == VV_LSM_MERGE)
        encode_sums(writer, range, mem, version);
    else
        encode_record(writer, version->kind, vv_mem_entry_key(entry),
                      (struct vv_bytes){version->value, version->value_len});
}

int vv_lsm_changes_encode(struct vv_lsm *lsm, uint64_t first, uint64_t last,
                          struct vv_writer *writer)
{
    struct range range = {lsm, first, last};
    vv_list_each (node, &lsm->memtables) {
        const struct vv_memtable *mem = vv_list_entry(node, struct vv_memtable, link);
        for (const struct vv_mem_commit *commit = mem->commits; commit; commit = commit->older) {
            if (commit->number < first)
                break;
            if (commit->number > last)
                continue;
            const struct vv_mem_version *version = commit->first;
            for (; version; version = version->commit_next)
                encode_version(writer, &range, mem, version);
        }
    }
    return vv_writer_check(writer);
}

size_t vv_lsm_changes_bytes(const struct vv_lsm *lsm, uint64_t first, uint64_t last)
{
    size_t bytes = 0;
    vv_list_each (node, &lsm->memtables) {
        const struct vv_memtable *mem = vv_list_entry(node, struct vv_memtable, link);
        for (const struct vv_mem_commit *commit = mem->commits; commit; commit = commit->older) {
            if (commit->number >= first && commit->number <= last)
                bytes += commit->bytes + commit->records * RECORD_HEAD_MAX;
        }
    }
    return bytes;
}

int vv_lsm_record_decode(struct vv_cursor *cursor, enum vv_lsm_kind *out_kind,
                         struct vv_bytes *out_key, struct vv_bytes *out_value)
{
    if (cursor->len == 0 && !cursor->is_bad)
        return 0;
    uint8_t kind = vv_cursor_u8(cursor);
    struct vv_bytes key = vv_cursor_string(cursor, VV_LSM_KEY_MAX);
    struct vv_bytes value = {NULL, 0};
    if (kind != VV_LSM_DELETE)
        value = vv_cursor_string(cursor, VV_LSM_VALUE_MAX);
    TRY(vv_cursor_check(cursor));
    int64_t a;
    int64_t b;
    if (kind > VV_LSM_MERGE)
        return -VV_ERR_FORMAT;
    if (kind == VV_LSM_MERGE)
        TRY(vv_sums_decode(value, &a, &b));
    *out_kind = kind;
    *out_key = key;
    *out_value = value;
    return 1;
}

/* Look at all records before the first one is written: a payload is applied wholly or not at all.
 */
static int measure(struct vv_bytes payload, size_t *out_records)
{
    struct vv_cursor cursor = vv_cursor_of(payload.ptr, payload.len);
    enum vv_lsm_kind kind;
    struct vv_bytes key;
    struct vv_bytes value;
    size_t records = 0;
    int found;
    while ((found = vv_lsm_record_decode(&cursor, &kind, &key, &value)) > 0)
        records++;
    *out_records = records;
    return found;
}

int vv_lsm_changes_apply(struct vv_lsm *lsm, uint64_t commit, struct vv_bytes payload)
{
    size_t records;
    TRY(measure(payload, &records));
    TRY(vv_lsm_reserve(lsm, records, payload.len));
    struct vv_cursor cursor = vv_cursor_of(payload.ptr, payload.len);
    enum vv_lsm_kind kind;
    struct vv_bytes key;
    struct vv_bytes value;
    while (vv_lsm_record_decode(&cursor, &kind, &key, &value) > 0) {
        int64_t a = 0;
        int64_t b = 0;
        if (kind == VV_LSM_PUT) {
            vv_lsm_put(lsm, commit, key, value);
        } else if (kind == VV_LSM_DELETE) {
            vv_lsm_delete(lsm, commit, key);
        } else {
            TRY(vv_sums_decode(value, &a, &b)); /* was checked */
            vv_lsm_merge(lsm, commit, key, a, b);
        }
    }
    return 0;
}
