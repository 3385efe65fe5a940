/* The store's objects: is everything there that is named, and what is there that nothing names? And
 * each metadata table by itself. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cache/cache.h"
#include "cmd/fsck_impl.h"
#include "lsm/lsm.h"

#define KEYS_LEN_MAX (1u << 20)
#define VOLUME_LEN_MAX 4096

struct objects {
    struct vv_fsck *fsck;
    const struct vv_table_ref **tables; /* by epoch and counter */
    bool *is_there;                     /* of each table */
    bool *is_pin_there;                 /* of each pin of the manifest */
    bool is_volume_there, is_keys_there;
    char keys_name[64];
};

static int compare_ids(uint64_t epoch_a, uint64_t counter_a, uint64_t epoch_b, uint64_t counter_b)
{
    if (epoch_a != epoch_b)
        return epoch_a < epoch_b ? -1 : 1;
    if (counter_a != counter_b)
        return counter_a < counter_b ? -1 : 1;
    return 0;
}

static int compare_tables(const void *a, const void *b)
{
    const struct vv_table_ref *const *first = a;
    const struct vv_table_ref *const *second = b;
    return compare_ids((*first)->epoch, (*first)->counter, (*second)->epoch, (*second)->counter);
}

static bool take_table(struct objects *objects, const struct vv_store_entry *entry)
{
    struct vv_fsck *fsck = objects->fsck;
    uint64_t epoch, counter;
    if (vv_table_name_parse(entry->name, &epoch, &counter) < 0)
        return false;
    size_t low = 0;
    size_t high = fsck->manifest.table_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct vv_table_ref *ref = objects->tables[middle];
        int order = compare_ids(epoch, counter, ref->epoch, ref->counter);
        if (order == 0) {
            objects->is_there[middle] = true;
            if (entry->size != ref->bytes)
                vv_fsck_add(fsck->report, VV_FSCK_TABLE_DAMAGED, "%s has %llu bytes, not %llu",
                            entry->name, (unsigned long long)entry->size,
                            (unsigned long long)ref->bytes);
            return true;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

static bool take_segment(struct objects *objects, const struct vv_store_entry *entry)
{
    struct vv_segment_id id;
    if (vv_segment_name_parse(entry->name, &id) < 0)
        return false;
    struct vv_fsck_segment *segment =
        vv_fsck_segment_find(objects->fsck, id.kind, id.epoch, id.counter);
    if (segment != NULL) {
        segment->is_present = true;
        segment->size = entry->size;
        return true;
    }
    if (id.kind == VV_SEGMENT_LOG && entry->size == VV_OBJECT_HEADER_LEN) {
        objects->fsck->report->fences++;
        return true;
    }
    return false;
}

static bool take_manifest(struct objects *objects, const struct vv_store_entry *entry)
{
    const struct vv_manifest *manifest = &objects->fsck->manifest;
    uint64_t number;
    if (vv_manifest_name_parse(entry->name, &number) < 0)
        return false;
    bool is_known = number == manifest->number;
    for (size_t i = 0; i < manifest->pin_count; i++) {
        if (manifest->pins[i].manifest == number) {
            objects->is_pin_there[i] = true;
            is_known = true;
        }
    }
    if (!is_known && number < manifest->number) {
        objects->fsck->report->old_manifests++;
        is_known = true;
    }
    return is_known;
}

static void take(struct objects *objects, const struct vv_store_entry *entry)
{
    struct vv_fsck_report *report = objects->fsck->report;
    if (strcmp(entry->name, "varve.volume") == 0)
        objects->is_volume_there = true;
    else if (strcmp(entry->name, objects->keys_name) == 0)
        objects->is_keys_there = true;
    else if (!take_manifest(objects, entry) && !take_segment(objects, entry) &&
             !take_table(objects, entry)) {
        report->garbage_objects++;
        report->garbage_bytes += entry->size;
    }
    vv_fsck_step(objects->fsck, 1);
}

/* Only what a volume may have put there: a local directory also holds its server's socket. */
static int list_prefix(struct objects *objects, const char *prefix, struct vv_store_entry *page)
{
    char after[VV_STORE_NAME_MAX + 1] = "";
    ssize_t count;
    do {
        count =
            vv_store_list(objects->fsck->options->store, prefix, after, page, VV_STORE_LIST_MAX);
        TRY(count);
        for (ssize_t i = 0; i < count; i++)
            take(objects, &page[i]);
        if (count > 0)
            memcpy(after, page[count - 1].name, sizeof after);
    } while (count == VV_STORE_LIST_MAX);
    return 0;
}

static int list_all(struct objects *objects)
{
    static const char *const prefixes[] = {"data/",  "keys/", "log/",        "manifest/",
                                           "probe/", "sst/",  "varve.volume"};
    CLEANUP(vv_free_ptr)
    struct vv_store_entry *page = vv_calloc(VV_STORE_LIST_MAX, sizeof *page);
    if (page == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        TRY(list_prefix(objects, prefixes[i], page));
    return 0;
}

/* ---- single objects ---- */

static int open_volume_object(struct vv_fsck *fsck, const uint8_t *bytes, size_t len)
{
    struct vv_object_header header;
    struct vv_sealer *sealer;
    struct vv_origin origin = {VV_ORIGIN_VOLUME, 0};
    uint8_t plain[VOLUME_LEN_MAX];
    TRY(vv_object_header_decode(bytes, len, &header));
    if (header.kind != VV_KIND_VOLUME)
        return -VV_ERR_FORMAT;
    TRY(vv_sealer_open(fsck->options->ring, &header, "varve.volume", &sealer));
    ssize_t opened = vv_frame_open(sealer, 0, &origin, bytes + VV_OBJECT_HEADER_LEN,
                                   len - VV_OBJECT_HEADER_LEN, plain, sizeof plain);
    vv_sealer_free(sealer);
    return opened < 0 ? (int)opened : 0;
}

static int check_single(struct objects *objects, const char *name, bool is_there, bool is_keys)
{
    struct vv_fsck *fsck = objects->fsck;
    enum vv_fsck_kind kind = is_keys ? VV_FSCK_KEYS_OBJECT : VV_FSCK_VOLUME_OBJECT;
    uint8_t *bytes;
    size_t len;
    struct vv_object_header header;
    if (!is_there) {
        vv_fsck_add(fsck->report, kind, "%s is missing", name);
        return 0;
    }
    int err = vv_store_get_all(fsck->options->store, name, is_keys ? KEYS_LEN_MAX : VOLUME_LEN_MAX,
                               &bytes, &len);
    if (err == 0) {
        err = vv_object_header_decode(bytes, len, &header);
        if (err == 0 && is_keys && header.kind != VV_KIND_KEYS)
            err = -VV_ERR_FORMAT;
        if (err == 0 && !is_keys)
            err = open_volume_object(fsck, bytes, len);
        vv_free(bytes);
    }
    if (err < 0 && (vv_fsck_is_damage(err) || err == -EFBIG)) {
        vv_fsck_add(fsck->report, kind, "%s: %s", name, vv_err_text(err));
        err = 0;
    }
    return err;
}

/* ---- the whole ---- */

static void report_missing(struct objects *objects)
{
    struct vv_fsck *fsck = objects->fsck;
    const struct vv_manifest *manifest = &fsck->manifest;
    char name[VV_STORE_NAME_MAX + 1];
    for (size_t i = 0; i < manifest->table_count; i++) {
        vv_table_name(objects->tables[i]->epoch, objects->tables[i]->counter, name, sizeof name);
        if (!objects->is_there[i])
            vv_fsck_add(fsck->report, VV_FSCK_TABLE_MISSING, "%s is missing", name);
    }
    for (size_t i = 0; i < manifest->pin_count; i++) {
        if (!objects->is_pin_there[i])
            vv_fsck_add(fsck->report, VV_FSCK_PIN_MISSING, "manifest %llu of pin \"%s\" is missing",
                        (unsigned long long)manifest->pins[i].manifest, manifest->pins[i].name);
    }
    for (size_t i = 0; i < fsck->segment_count; i++) {
        const struct vv_fsck_segment *segment = &fsck->segments[i];
        struct vv_segment_id id = {segment->epoch, segment->counter, segment->kind, 0};
        /* Deleting removes the object first, the record later (PROTOCOL 14). */
        if (segment->is_present || segment->live == 0)
            continue;
        vv_segment_name(&id, name, sizeof name);
        vv_fsck_add(fsck->report, VV_FSCK_SEGMENT_MISSING, "%s is missing: %lld bytes in use", name,
                    (long long)segment->live);
    }
}

static int check_objects(struct objects *objects)
{
    struct vv_fsck *fsck = objects->fsck;
    const struct vv_manifest *manifest = &fsck->manifest;
    objects->tables = vv_calloc(manifest->table_count + 1, sizeof(struct vv_table_ref *));
    objects->is_there = vv_calloc(manifest->table_count + 1, sizeof(bool));
    objects->is_pin_there = vv_calloc(manifest->pin_count + 1, sizeof(bool));
    if (objects->tables == NULL || objects->is_there == NULL || objects->is_pin_there == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < manifest->table_count; i++)
        objects->tables[i] = &manifest->tables[i];
    qsort(objects->tables, manifest->table_count, sizeof(struct vv_table_ref *), compare_tables);
    vv_format(objects->keys_name, sizeof objects->keys_name, "keys/%llu",
              (unsigned long long)manifest->keys_number);
    TRY(list_all(objects));
    report_missing(objects);
    TRY(check_single(objects, "varve.volume", objects->is_volume_there, false));
    return check_single(objects, objects->keys_name, objects->is_keys_there, true);
}

int vv_fsck_objects(struct vv_fsck *fsck)
{
    struct objects objects = {.fsck = fsck};
    vv_fsck_stage(fsck, "objects");
    int err = check_objects(&objects);
    vv_free(objects.tables);
    vv_free(objects.is_there);
    vv_free(objects.is_pin_there);
    return err;
}

/* ---- tables ---- */

static int on_record(void *arg, enum vv_lsm_kind kind, struct vv_bytes key, struct vv_bytes value)
{
    struct vv_fsck *fsck = arg;
    (void)kind;
    (void)key;
    (void)value;
    fsck->report->records++;
    vv_fsck_step(fsck, 1);
    return 0;
}

static int check_each(struct vv_fsck *fsck, struct vv_lsm *lsm)
{
    int damage = 0;
    for (size_t i = 0; i < fsck->manifest.table_count; i++) {
        const struct vv_table_ref *ref = &fsck->manifest.tables[i];
        char name[VV_STORE_NAME_MAX + 1];
        vv_table_name(ref->epoch, ref->counter, name, sizeof name);
        int err = vv_table_check(lsm, ref, on_record, fsck);
        if (err < 0 && !vv_fsck_is_damage(err))
            return err;
        if (err == -ENOENT && fsck->volume == NULL)
            vv_fsck_add(fsck->report, VV_FSCK_TABLE_MISSING, "%s is missing", name);
        else if (err < 0 && err != -ENOENT)
            vv_fsck_add(fsck->report, VV_FSCK_TABLE_DAMAGED, "%s: %s", name, vv_err_text(err));
        damage = err < 0 ? err : damage;
        fsck->report->tables++;
        fsck->report->table_bytes += ref->bytes;
    }
    return damage;
}

int vv_fsck_tables(struct vv_fsck *fsck)
{
    struct vv_budget budget;
    struct vv_cache *cache;
    struct vv_lsm *lsm = NULL;
    struct vv_seal_settings settings = fsck->manifest.settings;
    vv_fsck_stage(fsck, "tables");
    vv_budget_init(&budget, NULL, fsck->memory_bytes / 8);
    TRY(vv_cache_new(&budget, budget.limit, &cache));
    struct vv_lsm_options options = {
        .store = fsck->options->store,
        .ring = fsck->options->ring,
        .cache = cache,
        .mem_budget = &budget,
        .settings = &settings,
    };
    int err = vv_lsm_new(&options, &lsm);
    if (err == 0)
        err = check_each(fsck, lsm);
    vv_lsm_free(lsm);
    vv_cache_free(cache);
    return err;
}
