#include "record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "confirmed.h"
#include "log/log.h"
#include "lsm/lsm.h"
#include "rt/rt.h"
#include "segment/segment.h"
#include "tap.h"
#include "volume/extent.h"

#define DURABLE_SLOTS 65536u /* data segments of one world, at most half of that */

struct recorder {
    const struct vv_keyring *ring;
    struct request *all;
    size_t count, capacity;
    struct vv_segment_id *durable; /* open addressing; epoch 0 = free */
    size_t durable_count;
    uint64_t logs, references;
    uint64_t removals; /* of segments, looked at */
    uint64_t newest_manifest; /* known to have been put */
    char fault[400];
};

struct recorded {
    struct vv_store store;
    struct vv_store *inner;
    struct vv_store *direct; /* to look at what a manifest says of segments; or NULL */
    struct recorder *recorder;
    struct vv_manifest manifest; /* the last that this server can have confirmed */
    bool is_unsure;              /* ... or a later one whose answer was lost */
};

struct recorder *recorder_new(const struct vv_keyring *ring)
{
    struct recorder *recorder = calloc(1, sizeof(*recorder));
    if (!recorder)
        abort();
    recorder->ring = ring;
    recorder->durable = calloc(DURABLE_SLOTS, sizeof(*recorder->durable));
    if (!recorder->durable)
        abort();
    return recorder;
}

void recorder_free(struct recorder *recorder)
{
    if (!recorder)
        return;
    free(recorder->all);
    free(recorder->durable);
    free(recorder);
}

size_t recorder_count(const struct recorder *recorder)
{
    return recorder->count;
}

const struct request *recorder_at(const struct recorder *recorder, size_t i)
{
    return &recorder->all[i];
}

const char *recorder_fault(const struct recorder *recorder)
{
    return recorder->fault[0] ? recorder->fault : NULL;
}

uint64_t recorder_logs(const struct recorder *recorder)
{
    return recorder->logs;
}

uint64_t recorder_references(const struct recorder *recorder)
{
    return recorder->references;
}

uint64_t recorder_removals(const struct recorder *recorder)
{
    return recorder->removals;
}

void recorder_print(const struct recorder *recorder, size_t first)
{
    static const char *const kinds[] = {"PUT", "GET", "SIZE", "LIST", "REMOVE", "SYNC"};
    for (size_t i = first; i < recorder->count; i++) {
        const struct request *request = &recorder->all[i];
        tap_note("%8.3f to %8.3f %-6s %s %" PRIu64 "+%" PRIu64 ": %" PRId64,
                 (double)request->begun_ns / 1e9, (double)request->ended_ns / 1e9,
                 kinds[request->kind], request->name, request->offset, request->len,
                 request->result);
    }
}

/* ---- order ---- */

static struct vv_segment_id *durable_place(struct recorder *recorder, const struct vv_segment_id *id)
{
    size_t at = (size_t)(id->epoch * 0x9e3779b97f4a7c15ull + id->counter * 0xc2b2ae3d27d4eb4full);
    for (;; at++) {
        struct vv_segment_id *place = &recorder->durable[at % DURABLE_SLOTS];
        if (place->epoch == 0 || (place->epoch == id->epoch && place->counter == id->counter))
            return place;
    }
}

static void note_durable(struct recorder *recorder, const char *name)
{
    struct vv_segment_id id;
    if (vv_segment_name_parse(name, &id) < 0 || id.kind != VV_SEGMENT_DATA)
        return;
    struct vv_segment_id *place = durable_place(recorder, &id);
    if (place->epoch == 0 && ++recorder->durable_count > DURABLE_SLOTS / 2)
        abort();
    *place = id;
}

static void look_at_record(struct recorder *recorder, const char *name, struct vv_bytes value)
{
    struct vv_extent_record record;
    if (vv_extent_decode(value, &record) < 0) {
        snprintf(recorder->fault, sizeof(recorder->fault), "%s has a bad extent record", name);
        return;
    }
    for (unsigned i = 0; i < record.count; i++) {
        const struct vv_segment_id *id = &record.pieces[i].loc.segment;
        char segment[VV_STORE_NAME_MAX + 1];
        if (record.pieces[i].is_zero || id->kind != VV_SEGMENT_DATA)
            continue;
        recorder->references++;
        if (durable_place(recorder, id)->epoch != 0 || recorder->fault[0])
            continue;
        vv_segment_name(id, segment, sizeof(segment));
        snprintf(recorder->fault, sizeof(recorder->fault),
                 "%s is put although %s, which it refers to, is not durable", name, segment);
    }
}

static void look_at_batch(struct recorder *recorder, const char *name, struct vv_bytes batch)
{
    struct vv_cursor cursor = vv_cursor_of(batch.ptr, batch.len);
    struct vv_batch_header header;
    enum vv_lsm_kind kind;
    struct vv_bytes key;
    struct vv_bytes value;
    int found = vv_batch_header_decode(&cursor, &header);
    while (found >= 0 && (found = vv_lsm_record_decode(&cursor, &kind, &key, &value)) > 0) {
        if (kind == VV_LSM_PUT && key.len > 0 && key.ptr[0] == VV_TABLE_EXTENT)
            look_at_record(recorder, name, value);
    }
    if (found < 0 && !recorder->fault[0])
        snprintf(recorder->fault, sizeof(recorder->fault), "%s has a bad batch", name);
}

static void look_at_log(struct recorder *recorder, const char *name, const struct iovec *iov,
                        int count)
{
    struct vv_segment_id id;
    if (!recorder->ring || vv_segment_name_parse(name, &id) < 0 || id.kind != VV_SEGMENT_LOG)
        return;
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    uint8_t *object = malloc(len + 1);
    uint8_t *batch = NULL;
    size_t batch_len;
    struct vv_object_header header;
    size_t at = 0;
    if (!object)
        abort();
    for (int i = 0; i < count; i++) {
        memcpy(object + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    bool is_log = vv_object_header_decode(object, len, &header) == 0 && header.kind == VV_KIND_LOG;
    if (is_log && vv_segment_batch_open(recorder->ring, name, object, len, &batch, &batch_len) == 0) {
        recorder->logs++;
        look_at_batch(recorder, name, (struct vv_bytes){batch, batch_len});
    }
    vv_free(batch);
    free(object);
}

/* ---- deletion ---- */

/* A manifest has been put. It can count as confirmed only if no higher one is there: LIST would show
 * that (PROTOCOL 13). What it lists is what this server must not delete (14). */
static void note_manifest(struct recorded *self, const char *name, const struct iovec *iov, int count,
                          int err)
{
    struct recorder *recorder = self->recorder;
    struct vv_manifest manifest;
    uint64_t number;
    if (!recorder->ring || count != 1 || vv_manifest_name_parse(name, &number) < 0)
        return;
    self->is_unsure = err < 0;
    if (err < 0 || number < recorder->newest_manifest ||
        vv_manifest_decode(recorder->ring, number, iov->iov_base, iov->iov_len, &manifest) < 0)
        return;
    recorder->newest_manifest = number;
    vv_manifest_done(&self->manifest);
    self->manifest = manifest;
}

static void look_at_removal(struct recorded *self, const char *name)
{
    struct recorder *recorder = self->recorder;
    uint64_t epoch;
    uint64_t counter;
    if (self->is_unsure || recorder->fault[0] || vv_table_name_parse(name, &epoch, &counter) < 0)
        return;
    for (size_t i = 0; i < self->manifest.table_count; i++) {
        const struct vv_table_ref *table = &self->manifest.tables[i];
        if (table->epoch == epoch && table->counter == counter)
            snprintf(recorder->fault, sizeof(recorder->fault),
                     "%s is removed by a server whose last confirmed manifest, %" PRIu64 ", lists it",
                     name, self->manifest.number);
    }
}

/* A segment goes only when its last debit is behind the manifest. */
static void look_at_segment(struct recorded *self, const char *name)
{
    struct recorder *recorder = self->recorder;
    struct vv_segment_id id;
    int64_t live = 0;
    if (self->is_unsure || !self->direct || recorder->fault[0] || self->manifest.number == 0 ||
        vv_segment_name_parse(name, &id) < 0)
        return;
    uint64_t number = self->manifest.number;
    int err = confirmed_live(&self->manifest, recorder->ring, self->direct, &id, &live);
    recorder->removals += err == 0;
    if (err == 0 && live != 0 && !recorder->fault[0])
        snprintf(recorder->fault, sizeof(recorder->fault),
                 "%s is removed by a server in whose last confirmed manifest, %" PRIu64 ", %" PRId64
                 " bytes of it are live",
                 name, number, live);
}

/* ---- the store ---- */

/* The request's number: the array may move while it is under way. */
static size_t begin(struct recorder *recorder, enum request_kind kind, const char *name,
                    uint64_t offset, uint64_t len)
{
    if (recorder->count == recorder->capacity) {
        recorder->capacity = recorder->capacity ? 2 * recorder->capacity : 1024;
        recorder->all = realloc(recorder->all, recorder->capacity * sizeof(*recorder->all));
        if (!recorder->all)
            abort();
    }
    struct request *request = &recorder->all[recorder->count];
    memset(request, 0, sizeof(*request));
    request->kind = kind;
    snprintf(request->name, sizeof(request->name), "%s", name);
    request->offset = offset;
    request->len = len;
    request->begun_ns = vv_rt_now_ns();
    return recorder->count++;
}

static int64_t end(struct recorder *recorder, size_t number, int64_t result)
{
    recorder->all[number].ended_ns = vv_rt_now_ns();
    recorder->all[number].result = result;
    return result;
}

static struct recorded *recorded_of(struct vv_store *store)
{
    return vv_container_of(store, struct recorded, store);
}

static int recorded_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct recorded *self = recorded_of(store);
    uint64_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    look_at_log(self->recorder, name, iov, count);
    size_t number = begin(self->recorder, REQUEST_PUT, name, 0, len);
    int err = (int)end(self->recorder, number, vv_store_put(self->inner, name, iov, count));
    /* What is there already is durable, too. */
    if (err == 0 || err == -EEXIST)
        note_durable(self->recorder, name);
    note_manifest(self, name, iov, count, err);
    return err;
}

static ssize_t recorded_get(struct vv_store *store, const char *name, void *buf, size_t len,
                            uint64_t offset)
{
    struct recorded *self = recorded_of(store);
    size_t number = begin(self->recorder, REQUEST_GET, name, offset, len);
    return end(self->recorder, number, vv_store_get(self->inner, name, buf, len, offset));
}

static int recorded_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    struct recorded *self = recorded_of(store);
    size_t number = begin(self->recorder, REQUEST_SIZE, name, 0, 0);
    return (int)end(self->recorder, number, vv_store_size(self->inner, name, out_size));
}

static ssize_t recorded_list(struct vv_store *store, const char *prefix, const char *after,
                             struct vv_store_entry *out_entries, size_t max)
{
    struct recorded *self = recorded_of(store);
    size_t number = begin(self->recorder, REQUEST_LIST, prefix, 0, max);
    return end(self->recorder, number, vv_store_list(self->inner, prefix, after, out_entries, max));
}

static int recorded_remove(struct vv_store *store, const char *name)
{
    struct recorded *self = recorded_of(store);
    look_at_removal(self, name);
    look_at_segment(self, name);
    size_t number = begin(self->recorder, REQUEST_REMOVE, name, 0, 0);
    return (int)end(self->recorder, number, vv_store_remove(self->inner, name));
}

static int recorded_sync(struct vv_store *store, const char *name)
{
    struct recorded *self = recorded_of(store);
    size_t number = begin(self->recorder, REQUEST_SYNC, name, 0, 0);
    return (int)end(self->recorder, number, vv_store_sync(self->inner, name));
}

static int recorded_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    return vv_store_space(recorded_of(store)->inner, out_free, out_total);
}

static void recorded_close(struct vv_store *store)
{
    struct recorded *self = recorded_of(store);
    vv_store_close(self->inner);
    vv_store_close(self->direct);
    vv_manifest_done(&self->manifest);
    vv_free(self);
}

static const struct vv_store_ops recorded_ops = {
    .type = "record",
    .put = recorded_put,
    .get = recorded_get,
    .size = recorded_size,
    .list = recorded_list,
    .remove = recorded_remove,
    .sync = recorded_sync,
    .space = recorded_space,
    .close = recorded_close,
};

int recorder_open(struct recorder *recorder, struct vv_store *inner, struct vv_store **out_store)
{
    struct recorded *recorded = vv_zalloc(sizeof(*recorded));
    if (!recorded)
        return -ENOMEM;
    recorded->store.ops = &recorded_ops;
    recorded->inner = inner;
    recorded->recorder = recorder;
    *out_store = &recorded->store;
    return 0;
}

void recorder_watch_segments(struct vv_store *store, struct vv_store *direct)
{
    recorded_of(store)->direct = direct;
}
