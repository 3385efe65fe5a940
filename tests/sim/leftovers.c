#include "leftovers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "counted.h"
#include "log/manifest.h"
#include "segment/segment.h"
#include "volume/extent.h"

#define MANIFEST_MAX (8u << 20)

struct known_segment {
    struct vv_segment_id id;
    int64_t live;
    int64_t counted; /* bytes of its frames that extent records name */
    bool is_there;
};

struct check {
    struct server *server;
    struct vv_manifest manifest; /* the newest that is there */
    bool *is_table_there;
    struct known_segment *segments; /* in the order of their keys */
    size_t segment_count, segment_capacity;
    struct vv_store_entry *page;
};

static void *checked(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

/* ---- what is known ---- */

static int add_segment(struct check *check, struct vv_bytes key, struct vv_bytes value)
{
    struct known_segment known = {0};
    struct vv_cursor cursor = vv_cursor_of(value.ptr, value.len);
    TRY(vv_key_segment_parse(key, &known.id));
    (void)vv_cursor_svarint(&cursor);
    known.live = vv_cursor_svarint(&cursor);
    if (check->segment_count == check->segment_capacity) {
        check->segment_capacity = check->segment_capacity ? 2 * check->segment_capacity : 256;
        check->segments = checked(
            realloc(check->segments, check->segment_capacity * sizeof(*check->segments)));
    }
    check->segments[check->segment_count++] = known;
    return vv_cursor_end(&cursor);
}

/* Each record of a table. */
static int each_record(struct check *check, uint8_t table,
                       int (*fn)(struct check *check, struct vv_bytes key, struct vv_bytes value))
{
    const uint8_t lower[] = {table};
    const uint8_t upper[] = {table + 1};
    struct vv_lsm_iter *iter;
    struct vv_bytes key;
    struct vv_bytes value;
    TRY(vv_volume_scan(check->server->volume, (struct vv_bytes){lower, 1},
                       (struct vv_bytes){upper, 1}, &iter));
    int found;
    while ((found = vv_lsm_iter_next(iter, &key, &value)) > 0) {
        found = fn(check, key, value);
        if (found < 0)
            break;
    }
    vv_lsm_iter_close(iter);
    return found;
}

static int compare_segments(const void *a, const void *b)
{
    const struct vv_segment_id *x = &((const struct known_segment *)a)->id;
    const struct vv_segment_id *y = &((const struct known_segment *)b)->id;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    return x->counter < y->counter ? -1 : x->counter > y->counter;
}

static struct known_segment *find_segment(struct check *check, const struct vv_segment_id *id)
{
    struct known_segment wanted = {.id = *id};
    if (check->segment_count == 0)
        return NULL;
    return bsearch(&wanted, check->segments, check->segment_count, sizeof(*check->segments),
                   compare_segments);
}

static int count_extent(struct check *check, struct vv_bytes key, struct vv_bytes value)
{
    struct vv_extent_record record;
    TRY(vv_extent_decode(value, &record));
    for (unsigned i = 0; i < record.count; i++) {
        const struct vv_piece *piece = &record.pieces[i];
        struct known_segment *known = piece->is_zero ? NULL : find_segment(check, &piece->loc.segment);
        if (known)
            known->counted += piece->loc.len;
        else if (!piece->is_zero)
            world_fail(check->server->world, "at the end an extent names a segment without a record");
    }
    return 0;
}

/* Every sum must add up. */
static int count_live(struct check *check)
{
    int found = each_record(check, VV_TABLE_EXTENT, count_extent);
    for (size_t i = 0; i < check->segment_count && found >= 0; i++) {
        const struct known_segment *known = &check->segments[i];
        char name[VV_STORE_NAME_MAX + 1];
        vv_segment_name(&known->id, name, sizeof(name));
        if (known->counted != known->live)
            world_fail(check->server->world,
                       "at the end %s has %" PRId64 " live bytes, and extents name %" PRId64, name,
                       known->live, known->counted);
    }
    return found;
}

static int read_manifest(struct check *check, const char *name)
{
    struct server *server = check->server;
    uint64_t number;
    uint8_t *bytes;
    size_t len;
    TRY(vv_manifest_name_parse(name, &number));
    TRY(vv_store_get_all(server->store, name, MANIFEST_MAX, &bytes, &len));
    int err = vv_manifest_decode(server->world->ring, number, bytes, len, &check->manifest);
    vv_free(bytes);
    return err;
}

/* ---- what is there ---- */

static bool is_known_table(struct check *check, const char *name)
{
    uint64_t epoch;
    uint64_t counter;
    if (vv_table_name_parse(name, &epoch, &counter) < 0)
        return false;
    for (size_t i = 0; i < check->manifest.table_count; i++) {
        const struct vv_table_ref *table = &check->manifest.tables[i];
        if (table->epoch == epoch && table->counter == counter)
            return check->is_table_there[i] = true;
    }
    return false;
}

static bool is_known_segment(struct check *check, const struct vv_store_entry *entry)
{
    struct known_segment wanted = {0};
    if (vv_segment_name_parse(entry->name, &wanted.id) < 0)
        return false;
    if (wanted.id.kind == VV_SEGMENT_LOG && entry->size <= VV_OBJECT_HEADER_LEN)
        return true; /* a fence */
    struct known_segment *known = find_segment(check, &wanted.id);
    if (known)
        known->is_there = true;
    /* Its own log may grow by a commit that forgets what was deleted, at any time. */
    return known || (wanted.id.kind == VV_SEGMENT_LOG && wanted.id.epoch == check->manifest.epoch);
}

static void look_at(struct check *check, const struct vv_store_entry *entry)
{
    char keys[64];
    char manifest[64];
    snprintf(keys, sizeof(keys), "keys/%" PRIu64, check->manifest.keys_number);
    vv_manifest_name(check->manifest.number, manifest, sizeof(manifest));
    if (is_known_table(check, entry->name) || is_known_segment(check, entry) ||
        strcmp(entry->name, keys) == 0 || strcmp(entry->name, manifest) == 0)
        return;
    world_fail(check->server->world, "at the end %s (%" PRIu64 " bytes) is there, and nothing names it",
               entry->name, entry->size);
}

/* Calls fn for each object; `last`, if given, gets the last name. */
static int list_all(struct check *check, const char *prefix,
                    void (*fn)(struct check *check, const struct vv_store_entry *entry),
                    char *last)
{
    char after[VV_STORE_NAME_MAX + 1] = "";
    ssize_t count;
    do {
        count = vv_store_list(check->server->store, prefix, after, check->page, VV_STORE_LIST_MAX);
        TRY(count);
        for (ssize_t i = 0; i < count && fn; i++)
            fn(check, &check->page[i]);
        if (count > 0)
            memcpy(after, check->page[count - 1].name, sizeof(after));
    } while (count == VV_STORE_LIST_MAX);
    if (last)
        memcpy(last, after, sizeof(after));
    return 0;
}

static void look_for_missing(const struct check *check)
{
    struct world *world = check->server->world;
    char name[VV_STORE_NAME_MAX + 1];
    for (size_t i = 0; i < check->manifest.table_count; i++) {
        const struct vv_table_ref *table = &check->manifest.tables[i];
        vv_table_name(table->epoch, table->counter, name, sizeof(name));
        if (!check->is_table_there[i])
            world_fail(world, "at the end %s, which the manifest lists, is not there", name);
    }
    for (size_t i = 0; i < check->segment_count; i++) {
        const struct known_segment *known = &check->segments[i];
        vv_segment_name(&known->id, name, sizeof(name));
        if (known->live > 0 && !known->is_there)
            world_fail(world, "at the end %s, with %" PRId64 " live bytes, is not there", name,
                       known->live);
    }
}

/* ---- the whole ---- */

/* A change, so that there is something to flush: until then an epoch that crashed may be live, which the
 * sweep waits for. */
static int flush(struct server *server)
{
    struct vv_create create = {.mode = S_IFDIR | 0755};
    struct vv_attr attr;
    TRY(vv_fs_mkdir(server->fs, &engine_call, VV_ROOT_INODE, "swept", 5, &create, &attr));
    TRY(vv_fs_sync(server->fs, 0));
    return vv_volume_settle(server->volume);
}

static int run(struct check *check)
{
    static const char *const prefixes[] = {"data/", "keys/", "log/", "manifest/", "sst/"};
    char newest[VV_STORE_NAME_MAX + 1];
    TRY(flush(check->server));
    TRY(list_all(check, "manifest/", NULL, newest));
    TRY(read_manifest(check, newest));
    TRY(each_record(check, VV_TABLE_SEGMENT, add_segment));
    TRY(count_live(check));
    TRY(counted_check(check->server));
    check->is_table_there = checked(calloc(check->manifest.table_count + 1, sizeof(bool)));
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        TRY(list_all(check, prefixes[i], look_at, NULL));
    look_for_missing(check);
    return 0;
}

void leftovers_check(struct server *server)
{
    struct check check = {.server = server};
    check.page = checked(calloc(VV_STORE_LIST_MAX, sizeof(*check.page)));
    int err = run(&check);
    if (err < 0)
        world_fail(server->world, "the last flush and sweep: %s", vv_err_text(err));
    vv_manifest_done(&check.manifest);
    free(check.is_table_there);
    free(check.segments);
    free(check.page);
}
