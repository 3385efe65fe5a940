/* A volume for the tests of fs: records in a sorted array, file data in pages, everything in RAM. A
 * key may be "missing" the first time that an operation asks for it, staging allocates (so that it
 * can be made to fail), and misuse aborts. It defines the functions of volume/volume.h, so that the
 * linker leaves the real ones out: include it in one file of a program. */
#ifndef FAKE_VOLUME_H
#define FAKE_VOLUME_H

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "rt/rt.h"
#include "tap.h"
#include "volume/payload_impl.h" /* payloads are the real ones */

#define FAKE_PAGE 4096u

struct fake_record {
    size_t key_len, value_len;
    uint8_t *key, *value;
};

struct fake_page {
    uint64_t index;
    bool is_aside; /* it lies in space that was set aside */
    uint8_t bytes[FAKE_PAGE];
};

struct fake_data {
    uint64_t id, inode;
    bool is_dropped;
    size_t page_count;
    struct fake_page **pages; /* sorted by index */
};

enum fake_kind { FAKE_PUT, FAKE_DELETE, FAKE_WRITE, FAKE_CLEAR, FAKE_DROP };

struct fake_stage {
    enum fake_kind kind;
    struct vv_bytes key, value; /* owned by the stage */
    uint64_t inode, data_id, from, to;
    bool is_aside;
    const uint8_t *bytes;
    void *memory;
};

struct vv_volume {
    struct fake_record *records;
    size_t record_count;
    struct fake_data *data;
    size_t data_count;
    uint64_t next_inode, next_data_id;
    uint64_t random;
    unsigned miss_permille; /* how often a key is missing the first time */
    unsigned rounds_max;    /* of any operation since it was set to 0 */
    unsigned syncs;
    unsigned refreshes;
    unsigned writes; /* operations that changed something */
    uint64_t store_free;
    bool is_read_only, is_shut_down;
    int apply_error; /* of the next operation that changes something */
    void (*meanwhile)(void); /* what others do when the next operation has taken effect and has not returned */
};

struct vv_op {
    struct vv_volume *volume;
    unsigned miss_count;
    bool is_aside; /* what is written lies in space set aside */
    unsigned round;
    struct fake_fetched {
        struct vv_bytes key;
        unsigned missed_in; /* the round, 0 = was there */
    } * fetched;
    size_t fetched_count;
    struct fake_stage *stages;
    size_t stage_count;
    unsigned touch_count;
    uint64_t touches[16];
};

struct vv_read {
    uint8_t *bytes;
    size_t len;
};

struct vv_lsm_iter {
    struct vv_volume *volume;
    uint8_t at[VV_FS_KEY_MAX + 1];
    size_t at_len;
    struct vv_bytes upper;
    uint8_t upper_bytes[VV_FS_KEY_MAX];
    uint8_t *value;
};

static inline uint64_t fake_random(struct vv_volume *volume, uint64_t bound)
{
    volume->random = volume->random * 6364136223846793005ull + 1442695040888963407ull;
    return (volume->random >> 33) % bound;
}

/* ---- records ---- */

static int fake_compare(struct vv_bytes a, const struct fake_record *record)
{
    return vv_bytes_compare(a, (struct vv_bytes){record->key, record->key_len});
}

/* The first record not below key. */
static size_t fake_lower_bound(struct vv_volume *volume, struct vv_bytes key)
{
    size_t low = 0;
    size_t high = volume->record_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (fake_compare(key, &volume->records[mid]) > 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct fake_record *fake_find(struct vv_volume *volume, struct vv_bytes key)
{
    size_t at = fake_lower_bound(volume, key);
    if (at < volume->record_count && fake_compare(key, &volume->records[at]) == 0)
        return &volume->records[at];
    return NULL;
}

static uint8_t *fake_dup(struct vv_bytes bytes)
{
    uint8_t *copy = malloc(bytes.len + 1);
    if (bytes.len > 0)
        memcpy(copy, bytes.ptr, bytes.len);
    return copy;
}

static void fake_put(struct vv_volume *volume, struct vv_bytes key, struct vv_bytes value)
{
    struct fake_record *record = fake_find(volume, key);
    if (!record) {
        size_t at = fake_lower_bound(volume, key);
        volume->records =
            realloc(volume->records, (volume->record_count + 1) * sizeof(volume->records[0]));
        record = &volume->records[at];
        memmove(record + 1, record, (volume->record_count - at) * sizeof(*record));
        *record = (struct fake_record){.key_len = key.len, .key = fake_dup(key)};
        volume->record_count++;
    }
    free(record->value);
    record->value = fake_dup(value);
    record->value_len = value.len;
}

static void fake_delete(struct vv_volume *volume, struct vv_bytes key)
{
    struct fake_record *record = fake_find(volume, key);
    if (!record)
        return;
    free(record->key);
    free(record->value);
    size_t at = (size_t)(record - volume->records);
    volume->record_count--;
    memmove(record, record + 1, (volume->record_count - at) * sizeof(*record));
}

/* ---- data ---- */

static struct fake_data *fake_data_find(struct vv_volume *volume, uint64_t id)
{
    for (size_t i = 0; i < volume->data_count; i++) {
        if (volume->data[i].id == id)
            return &volume->data[i];
    }
    return NULL;
}

static struct fake_data *fake_data_make(struct vv_volume *volume, uint64_t id, uint64_t inode)
{
    struct fake_data *data = fake_data_find(volume, id);
    if (!data) {
        volume->data = realloc(volume->data, (volume->data_count + 1) * sizeof(volume->data[0]));
        data = &volume->data[volume->data_count++];
        *data = (struct fake_data){.id = id, .inode = inode};
    }
    assert(!data->is_dropped && data->inode == inode);
    return data;
}

static size_t fake_page_at(const struct fake_data *data, uint64_t index)
{
    size_t i = 0;
    while (i < data->page_count && data->pages[i]->index < index)
        i++;
    return i;
}

static struct fake_page *fake_page_find(const struct fake_data *data, uint64_t index)
{
    size_t i = fake_page_at(data, index);
    return i < data->page_count && data->pages[i]->index == index ? data->pages[i] : NULL;
}

static void fake_write(struct fake_data *data, uint64_t offset, const uint8_t *bytes, uint64_t len,
                       bool is_aside)
{
    for (uint64_t done = 0; done < len;) {
        uint64_t index = (offset + done) / FAKE_PAGE;
        size_t from = (size_t)((offset + done) % FAKE_PAGE);
        size_t part = FAKE_PAGE - from < len - done ? FAKE_PAGE - from : (size_t)(len - done);
        struct fake_page *page = fake_page_find(data, index);
        if (!page) {
            size_t at = fake_page_at(data, index);
            data->pages = realloc(data->pages, (data->page_count + 1) * sizeof(data->pages[0]));
            memmove(&data->pages[at + 1], &data->pages[at],
                    (data->page_count - at) * sizeof(data->pages[0]));
            page = calloc(1, sizeof(*page));
            page->index = index;
            page->is_aside = is_aside;
            data->pages[at] = page;
            data->page_count++;
        }
        assert(page->is_aside == is_aside); /* as long as it is not cleared whole */
        memcpy(page->bytes + from, bytes + done, part);
        done += part;
    }
}

static void fake_clear(struct fake_data *data, uint64_t from, uint64_t to)
{
    size_t kept = 0;
    for (size_t i = 0; i < data->page_count; i++) {
        struct fake_page *page = data->pages[i];
        uint64_t start = page->index * FAKE_PAGE;
        uint64_t a = from > start ? from - start : 0;
        uint64_t b = to > start ? to - start : 0;
        b = b < FAKE_PAGE ? b : FAKE_PAGE;
        if (a < b)
            memset(page->bytes + a, 0, b - a);
        if (a == 0 && b == FAKE_PAGE)
            free(page);
        else
            data->pages[kept++] = page;
    }
    data->page_count = kept;
}

/* ---- operations ---- */

static void fake_drop_stages(struct vv_op *op)
{
    for (size_t i = 0; i < op->stage_count; i++)
        vv_free(op->stages[i].memory);
    vv_free(op->stages);
    op->stages = NULL;
    op->stage_count = 0;
    op->touch_count = 0;
}

static void fake_apply(struct vv_volume *volume, const struct fake_stage *stage)
{
    switch (stage->kind) {
    case FAKE_PUT:
        fake_put(volume, stage->key, stage->value);
        break;
    case FAKE_DELETE:
        fake_delete(volume, stage->key);
        break;
    case FAKE_WRITE:
        fake_write(fake_data_make(volume, stage->data_id, stage->inode), stage->from, stage->bytes,
                   stage->to - stage->from, stage->is_aside);
        break;
    case FAKE_CLEAR:
        fake_clear(fake_data_make(volume, stage->data_id, stage->inode), stage->from, stage->to);
        break;
    case FAKE_DROP: {
        struct fake_data *data = fake_data_make(volume, stage->data_id, stage->inode);
        fake_clear(data, 0, UINT64_MAX);
        data->is_dropped = true;
        break;
    }
    }
}

/* Clears take effect before writes, as in the real one. */
static int fake_apply_all(struct vv_op *op)
{
    struct vv_volume *volume = op->volume;
    if (op->stage_count == 0)
        return 0;
    int err = volume->apply_error;
    volume->apply_error = 0;
    if (err < 0)
        return err;
    for (size_t i = 0; i < op->stage_count; i++) {
        if (op->stages[i].kind != FAKE_WRITE)
            fake_apply(volume, &op->stages[i]);
    }
    for (size_t i = 0; i < op->stage_count; i++) {
        if (op->stages[i].kind == FAKE_WRITE)
            fake_apply(volume, &op->stages[i]);
    }
    volume->writes++;
    return 0;
}

int vv_volume_run(struct vv_volume *volume, enum vv_op_mode mode, size_t write_bytes,
                  int (*fn)(struct vv_op *op, void *arg), void *arg)
{
    if (volume->is_shut_down)
        return -VV_ERR_SHUT_DOWN;
    if (mode != VV_OP_READ && volume->is_read_only)
        return -EROFS;
    struct vv_op *op = calloc(1, sizeof(*op));
    op->volume = volume;
    int result;
    for (unsigned round = 1;; round++) {
        size_t known = op->fetched_count;
        assert(round < 100000);
        op->miss_count = 0;
        op->is_aside = false;
        op->round = round;
        if (round > volume->rounds_max)
            volume->rounds_max = round;
        result = fn(op, arg);
        assert(mode != VV_OP_READ || op->stage_count == 0);
        if (op->miss_count == 0)
            break;
        assert(result < 0 && op->fetched_count > known);
        fake_drop_stages(op);
        vv_fiber_yield();
    }
    assert(result != -VV_ERR_MISS);
    if (result >= 0) {
        int err = fake_apply_all(op);
        result = err < 0 ? err : result;
    }
    fake_drop_stages(op);
    for (size_t i = 0; i < op->fetched_count; i++)
        free((void *)op->fetched[i].key.ptr);
    free(op->fetched);
    free(op);
    void (*meanwhile)(void) = volume->meanwhile;
    volume->meanwhile = NULL;
    if (meanwhile)
        meanwhile();
    return result;
}

bool vv_op_is_missing(const struct vv_op *op)
{
    return op->miss_count > 0;
}

void vv_op_follow(struct vv_op *op, void (*fn)(struct vv_op *op, uint64_t arg), uint64_t arg)
{
    /* A hint; the rounds here do without. */
}

struct vv_volume *vv_op_volume(struct vv_op *op)
{
    return op->volume;
}

/* 0, or -VV_ERR_MISS and the key is there in the next round. */
static int fake_miss(struct vv_op *op, struct vv_bytes key)
{
    size_t i = 0;
    while (i < op->fetched_count && vv_bytes_compare(op->fetched[i].key, key) != 0)
        i++;
    if (i == VV_OP_MISSES_MAX)
        return 0;
    if (i == op->fetched_count) {
        bool is_missing = fake_random(op->volume, 1000) < op->volume->miss_permille;
        op->fetched = realloc(op->fetched, (i + 1) * sizeof(op->fetched[0]));
        op->fetched[i].key = (struct vv_bytes){fake_dup(key), key.len};
        op->fetched[i].missed_in = is_missing ? op->round : 0;
        op->fetched_count++;
    }
    if (op->fetched[i].missed_in != op->round)
        return 0;
    op->miss_count++;
    return -VV_ERR_MISS;
}

int vv_op_get(struct vv_op *op, struct vv_bytes key, struct vv_bytes *out_value)
{
    assert(key.len > 0 && key.len <= VV_FS_KEY_MAX);
    TRY(fake_miss(op, key));
    struct fake_record *record = fake_find(op->volume, key);
    if (!record)
        return 0;
    *out_value = (struct vv_bytes){record->value, record->value_len};
    return 1;
}

int vv_op_allocated(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t *out_bytes)
{
    uint8_t key[17] = {'I'};
    vv_store_be64(key + 1, inode);
    vv_store_be64(key + 9, data_id);
    TRY(fake_miss(op, (struct vv_bytes){key, sizeof(key)}));
    const struct fake_data *data = fake_data_find(op->volume, data_id);
    *out_bytes = 0;
    for (size_t i = 0; data && i < data->page_count; i++)
        *out_bytes += data->pages[i]->is_aside ? 0 : FAKE_PAGE;
    return 0;
}

static int fake_stage(struct vv_op *op, struct fake_stage stage)
{
    if (op->volume->is_read_only)
        return -EROFS;
    if (op->stage_count == VV_OP_WRITES_MAX)
        return -VV_ERR_LIMIT;
    struct fake_stage *stages =
        vv_realloc(op->stages, (op->stage_count + 1) * sizeof(op->stages[0]));
    if (!stages) {
        vv_free(stage.memory);
        return -ENOMEM;
    }
    op->stages = stages;
    op->stages[op->stage_count++] = stage;
    return 0;
}

static int fake_stage_record(struct vv_op *op, enum fake_kind kind, struct vv_bytes key,
                             struct vv_bytes value)
{
    struct fake_stage stage = {.kind = kind};
    uint8_t *memory = vv_alloc(key.len + value.len);
    if (!memory)
        return -ENOMEM;
    memcpy(memory, key.ptr, key.len);
    if (value.len > 0)
        memcpy(memory + key.len, value.ptr, value.len);
    stage.key = (struct vv_bytes){memory, key.len};
    stage.value = (struct vv_bytes){memory + key.len, value.len};
    stage.memory = memory;
    return fake_stage(op, stage);
}

int vv_op_put(struct vv_op *op, struct vv_bytes key, struct vv_bytes value)
{
    return fake_stage_record(op, FAKE_PUT, key, value);
}

int vv_op_delete(struct vv_op *op, struct vv_bytes key)
{
    return fake_stage_record(op, FAKE_DELETE, key, (struct vv_bytes){NULL, 0});
}

int vv_op_touch(struct vv_op *op, uint64_t inode)
{
    if (op->touch_count == 16)
        return -VV_ERR_LIMIT;
    op->touches[op->touch_count++] = inode;
    return 0;
}

uint64_t vv_op_new_inode(struct vv_op *op)
{
    return op->volume->next_inode++;
}

uint64_t vv_op_new_data_id(struct vv_op *op)
{
    return op->volume->next_data_id++;
}

void vv_op_into_aside(struct vv_op *op, bool is_aside)
{
    op->is_aside = is_aside;
}

int vv_op_write(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t offset,
                const void *bytes, size_t len)
{
    assert(len > 0 && len <= VV_OP_DATA_MAX && offset <= VV_DATA_BYTES_MAX - len && data_id != 0);
    return fake_stage(op, (struct fake_stage){.kind = FAKE_WRITE,
                                              .inode = inode,
                                              .data_id = data_id,
                                              .from = offset,
                                              .to = offset + len,
                                              .is_aside = op->is_aside,
                                              .bytes = bytes});
}

int vv_payload_new(struct vv_volume *volume, uint64_t offset, size_t len,
                   struct vv_payload **out_payload)
{
    (void)volume;
    struct vv_payload *payload = vv_payload_plan(offset, len);
    int err = payload ? vv_payload_fill(payload, NULL, NULL) : -ENOMEM;
    if (err < 0)
        vv_payload_free(payload);
    else
        *out_payload = payload;
    return err;
}

/* Piece by piece; nothing is handed over. */
int vv_op_write_payload(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t offset,
                        const struct vv_payload_part *part)
{
    size_t begin = 0;
    for (unsigned i = 0; i < vv_payload_count(part->payload); i++) {
        struct iovec piece = vv_payload_piece(part->payload, i);
        size_t end = begin + piece.iov_len;
        size_t from = begin > part->at ? begin : part->at;
        size_t to = end < part->at + part->len ? end : part->at + part->len;
        const uint8_t *bytes = piece.iov_base;
        if (from < to)
            TRY(vv_op_write(op, inode, data_id, offset + from - part->at, bytes + (from - begin),
                            to - from));
        begin = end;
    }
    return 0;
}

int vv_op_clear(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t from, uint64_t to)
{
    assert(from <= to && data_id != 0);
    return fake_stage(
        op, (struct fake_stage){
                .kind = FAKE_CLEAR, .inode = inode, .data_id = data_id, .from = from, .to = to});
}

int vv_op_drop(struct vv_op *op, uint64_t inode, uint64_t data_id)
{
    return fake_stage(op,
                      (struct fake_stage){.kind = FAKE_DROP, .inode = inode, .data_id = data_id});
}

/* ---- reading ---- */

int vv_op_read(struct vv_op *op, uint64_t data_id, uint64_t offset, size_t len,
               struct vv_read **read)
{
    uint8_t key[17] = {'E'};
    vv_store_be64(key + 1, data_id);
    vv_store_be64(key + 9, offset / VV_EXTENT_BYTES);
    TRY(fake_miss(op, (struct vv_bytes){key, sizeof(key)}));
    if (!*read)
        *read = vv_zalloc(sizeof(**read));
    uint8_t *bytes = *read ? vv_realloc((*read)->bytes, (*read)->len + len) : NULL;
    if (!bytes)
        return -ENOMEM;
    (*read)->bytes = bytes;
    const struct fake_data *data = fake_data_find(op->volume, data_id);
    assert(!data || !data->is_dropped);
    uint8_t *out = bytes + (*read)->len;
    memset(out, 0, len);
    for (size_t i = 0; data && i < data->page_count; i++) {
        uint64_t start = data->pages[i]->index * FAKE_PAGE;
        uint64_t from = start > offset ? start : offset;
        uint64_t to = start + FAKE_PAGE < offset + len ? start + FAKE_PAGE : offset + len;
        if (from < to)
            memcpy(out + (from - offset), data->pages[i]->bytes + (from - start), to - from);
    }
    (*read)->len += len;
    return 0;
}

void vv_read_expect(struct vv_read *read, uint64_t end)
{
    (void)read;
    (void)end;
}

void vv_read_reset(struct vv_read *read)
{
    if (read)
        read->len = 0;
}

void vv_read_free(struct vv_read *read)
{
    if (read)
        vv_free(read->bytes);
    vv_free(read);
}

ssize_t vv_read_finish(struct vv_volume *volume, struct vv_read *read, void *buf)
{
    vv_fiber_yield();
    memcpy(buf, read->bytes, read->len);
    return (ssize_t)read->len;
}

/* In two pieces, so that who takes one for all is found out. */
ssize_t vv_read_finish_view(struct vv_volume *volume, struct vv_read *read, void *buf,
                            struct vv_view *out_view)
{
    ssize_t len = vv_read_finish(volume, read, buf);
    size_t half = (size_t)len / 2;
    *out_view = (struct vv_view){.count = 0};
    if (half > 0)
        out_view->pieces[out_view->count++] = (struct iovec){buf, half};
    if ((size_t)len > half)
        out_view->pieces[out_view->count++] = (struct iovec){(uint8_t *)buf + half, (size_t)len - half};
    return len;
}

void vv_view_done(struct vv_view *view)
{
    view->count = 0;
}

/* Called where a seek would suspend; NULL = nothing happens meanwhile. */
static void (*fake_on_seek)(void);

int vv_volume_seek(struct vv_volume *volume, uint64_t data_id, uint64_t offset, uint64_t end,
                   bool is_hole, uint64_t *out_offset)
{
    if (fake_on_seek)
        fake_on_seek();
    const struct fake_data *data = fake_data_find(volume, data_id);
    while (offset < end) {
        bool is_data = data && fake_page_find(data, offset / FAKE_PAGE);
        if (is_data != is_hole)
            break;
        offset = (offset / FAKE_PAGE + 1) * FAKE_PAGE;
    }
    *out_offset = offset < end ? offset : end;
    return 0;
}

/* ---- scans ---- */

int vv_volume_scan(struct vv_volume *volume, struct vv_bytes lower, struct vv_bytes upper,
                   struct vv_lsm_iter **out_iter)
{
    struct vv_lsm_iter *iter = vv_zalloc(sizeof(*iter));
    if (!iter)
        return -ENOMEM;
    iter->volume = volume;
    memcpy(iter->at, lower.ptr, lower.len);
    iter->at_len = lower.len;
    memcpy(iter->upper_bytes, upper.ptr, upper.len);
    iter->upper = (struct vv_bytes){iter->upper_bytes, upper.len};
    *out_iter = iter;
    return 0;
}

int vv_lsm_iter_next(struct vv_lsm_iter *iter, struct vv_bytes *out_key, struct vv_bytes *out_value)
{
    if (fake_random(iter->volume, 1000) < iter->volume->miss_permille)
        vv_fiber_yield();
    size_t at = fake_lower_bound(iter->volume, (struct vv_bytes){iter->at, iter->at_len});
    if (at == iter->volume->record_count ||
        fake_compare(iter->upper, &iter->volume->records[at]) <= 0)
        return 0;
    const struct fake_record *record = &iter->volume->records[at];
    memcpy(iter->at, record->key, record->key_len);
    iter->at[record->key_len] = 0;
    iter->at_len = record->key_len + 1;
    free(iter->value);
    iter->value = fake_dup((struct vv_bytes){record->value, record->value_len});
    *out_key = (struct vv_bytes){iter->at, record->key_len};
    *out_value = (struct vv_bytes){iter->value, record->value_len};
    return 1;
}

void vv_lsm_iter_close(struct vv_lsm_iter *iter)
{
    if (iter)
        free(iter->value);
    vv_free(iter);
}

/* ---- the rest ---- */

int vv_volume_sync(struct vv_volume *volume, uint64_t inode)
{
    volume->syncs++;
    return 0;
}

void vv_volume_shut_down(struct vv_volume *volume)
{
    volume->is_shut_down = true;
}

void vv_volume_stats(const struct vv_volume *volume, struct vv_volume_stats *out_stats)
{
    *out_stats = (struct vv_volume_stats){.store_free = volume->store_free,
                                          .store_total = volume->store_free};
}

int vv_volume_refresh_space(struct vv_volume *volume)
{
    volume->refreshes++;
    return -EIO;
}

const uint8_t *vv_volume_id(const struct vv_volume *volume)
{
    static const uint8_t id[16] = {7};
    (void)volume;
    return id;
}

static struct vv_volume *fake_volume_new(uint64_t seed)
{
    struct vv_volume *volume = calloc(1, sizeof(*volume));
    volume->next_inode = VV_ROOT_INODE + 1;
    volume->next_data_id = 1;
    volume->random = seed;
    volume->store_free = UINT64_MAX;
    return volume;
}

static void fake_volume_free(struct vv_volume *volume)
{
    while (volume->record_count > 0) {
        const struct fake_record *record = &volume->records[volume->record_count - 1];
        fake_delete(volume, (struct vv_bytes){record->key, record->key_len});
    }
    for (size_t i = 0; i < volume->data_count; i++) {
        fake_clear(&volume->data[i], 0, UINT64_MAX);
        free(volume->data[i].pages);
    }
    free(volume->records);
    free(volume->data);
    free(volume);
}

/* Everything in one number, to see whether something changed. */
static inline uint64_t fake_digest(const struct vv_volume *volume)
{
    uint64_t digest = 1;
    for (size_t i = 0; i < volume->record_count; i++) {
        const struct fake_record *record = &volume->records[i];
        for (size_t j = 0; j < record->key_len; j++)
            digest = digest * 0x100000001b3ull + record->key[j] + 1;
        for (size_t j = 0; j < record->value_len; j++)
            digest = digest * 0x100000001b3ull + record->value[j] + 1;
    }
    for (size_t i = 0; i < volume->data_count; i++) {
        const struct fake_data *data = &volume->data[i];
        digest = digest * 31 + data->is_dropped;
        for (size_t p = 0; p < data->page_count; p++) {
            for (size_t j = 0; j < FAKE_PAGE; j++)
                digest = digest * 0x100000001b3ull + data->pages[p]->bytes[j] + 1;
        }
    }
    return digest;
}

#endif
