/* Bytes in memory: buffers that are shared by reference, and the payloads of writes. Nothing here suspends. */
#include "volume/payload_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define LAYER_UNIT 4096u /* layers grow: their memory has whole ones of these */

struct vv_buf *vv_buf_new(uint32_t capacity, struct vv_budget *budget)
{
    uint8_t *data = vv_alloc(capacity);
    struct vv_buf *buf = data != NULL ? vv_buf_of(data, capacity, budget) : NULL;
    if (buf == NULL)
        vv_free(data);
    return buf;
}

static void charge(struct vv_buf *buf, struct vv_budget *budget)
{
    buf->budget = budget;
    buf->charge = buf->capacity;
    if (budget != NULL)
        vv_budget_charge(budget, buf->charge);
}

static void discharge(struct vv_buf *buf)
{
    if (buf->budget != NULL)
        vv_budget_release(buf->budget, buf->charge);
    buf->budget = NULL;
}

struct vv_buf *vv_buf_of(uint8_t *data, uint32_t capacity, struct vv_budget *budget)
{
    struct vv_buf *buf = vv_zalloc(sizeof *buf);
    if (buf == NULL)
        return NULL;
    buf->data = data;
    buf->refs = 1;
    buf->capacity = capacity;
    charge(buf, budget);
    return buf;
}

void vv_buf_ref(struct vv_buf *buf)
{
    assert(buf->refs > 0);
    buf->refs++;
}

void vv_buf_unref(struct vv_buf *buf)
{
    if (buf == NULL || --buf->refs > 0)
        return;
    discharge(buf);
    vv_free(buf->data);
    vv_free(buf);
}

uint8_t *vv_buf_strip(struct vv_buf *buf, uint32_t len)
{
    uint8_t *data = buf->data;
    assert(buf->refs == 1 && len > 0 && len <= buf->capacity);
    buf->data = NULL;
    uint8_t *shorter = buf->capacity - len >= LAYER_UNIT ? vv_realloc(data, len) : NULL;
    return shorter != NULL ? shorter : data;
}

/* ---- payloads ---- */

uint32_t vv_layer_capacity(uint32_t from, uint32_t to)
{
    uint32_t capacity = (to - from + LAYER_UNIT - 1) / LAYER_UNIT * LAYER_UNIT;
    return capacity < VV_EXTENT_BYTES - from ? capacity : VV_EXTENT_BYTES - from;
}

/* Where piece i begins; of the one behind the last, no less than the payload's length. */
static size_t piece_at(const struct vv_payload *payload, unsigned i)
{
    return i == 0 ? 0 : payload->first + (size_t)(i - 1) * VV_EXTENT_BYTES;
}

static unsigned piece_of(const struct vv_payload *payload, size_t at)
{
    return at < payload->first ? 0 : 1 + (unsigned)((at - payload->first) / VV_EXTENT_BYTES);
}

static size_t piece_len(const struct vv_payload *payload, unsigned i)
{
    size_t end = piece_at(payload, i + 1);
    return (end < payload->len ? end : payload->len) - piece_at(payload, i);
}

struct vv_payload *vv_payload_plan(uint64_t offset, size_t len)
{
    assert(len > 0 && len <= VV_PAYLOAD_BYTES_MAX);
    size_t first = VV_EXTENT_BYTES - offset % VV_EXTENT_BYTES;
    size_t count = len <= first ? 1 : 1 + (len - first + VV_EXTENT_BYTES - 1) / VV_EXTENT_BYTES;
    struct vv_payload *payload = vv_zalloc(sizeof *payload + count * sizeof payload->bufs[0]);
    if (payload == NULL)
        return NULL;
    payload->len = len;
    payload->size = len;
    payload->first = first;
    payload->count = (unsigned)count;
    return payload;
}

int vv_payload_fill(struct vv_payload *payload, struct vv_buf *(*whole)(void *arg), void *arg)
{
    payload->len = payload->size;
    for (unsigned i = 0; i < payload->count; i++) {
        if (payload->bufs[i] != NULL)
            continue;
        uint32_t from = i == 0 ? VV_EXTENT_BYTES - (uint32_t)payload->first : 0;
        uint32_t capacity = vv_layer_capacity(from, from + (uint32_t)piece_len(payload, i));
        bool is_whole = capacity == VV_EXTENT_BYTES && whole != NULL;
        payload->bufs[i] = is_whole ? whole(arg) : vv_buf_new(capacity, NULL);
        if (payload->bufs[i] == NULL)
            return -ENOMEM;
    }
    return 0;
}

void vv_payload_free(struct vv_payload *payload)
{
    for (unsigned i = 0; payload != NULL && i < payload->count; i++)
        vv_buf_unref(payload->bufs[i]);
    vv_free(payload);
}

void vv_payload_free_ptr(struct vv_payload **payload)
{
    vv_payload_free(*payload);
}

size_t vv_payload_len(const struct vv_payload *payload)
{
    return payload->len;
}

void vv_payload_cut(struct vv_payload *payload, size_t len)
{
    assert(len > 0 && len <= payload->size);
    payload->len = len;
}

unsigned vv_payload_count(const struct vv_payload *payload)
{
    return payload->count;
}

struct iovec vv_payload_piece(const struct vv_payload *payload, unsigned i)
{
    assert(payload->bufs[i] != NULL);
    return (struct iovec){payload->bufs[i]->data, piece_len(payload, i)};
}

void vv_payload_copy(const struct vv_payload *payload, size_t at, void *out, size_t len)
{
    uint8_t *to = out;
    assert(len <= payload->len && at <= payload->len - len);
    while (len > 0) {
        unsigned i = piece_of(payload, at);
        size_t skip = at - piece_at(payload, i);
        size_t part = piece_len(payload, i) - skip;
        if (part > len)
            part = len;
        memcpy(to, payload->bufs[i]->data + skip, part);
        to += part;
        at += part;
        len -= part;
    }
}

struct vv_buf *vv_payload_take(struct vv_payload *payload, size_t at, uint32_t from, uint32_t to,
                               struct vv_budget *budget)
{
    unsigned i = piece_of(payload, at);
    struct vv_buf *buf = payload->bufs[i];
    if (piece_at(payload, i) != at || piece_len(payload, i) != to - from || buf->refs != 1 ||
        buf->capacity != vv_layer_capacity(from, to))
        return NULL;
    if (buf->budget == NULL)
        charge(buf, budget);
    vv_buf_ref(buf);
    return buf;
}

void vv_payload_settle(struct vv_payload *payload)
{
    for (unsigned i = 0; i < payload->count; i++) {
        struct vv_buf *buf = payload->bufs[i];
        if (buf == NULL)
            continue;
        if (buf->refs == 1) {
            discharge(buf);
            continue;
        }
        vv_buf_unref(buf);
        payload->bufs[i] = NULL;
    }
}
