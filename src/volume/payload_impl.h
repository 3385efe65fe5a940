/* Private to volume: bytes in memory that are shared by reference, and the payloads of writes (volume.h), which are made of
 * them. Whoever has the only reference may change the bytes. Nothing here suspends. */
#ifndef VV_VOLUME_PAYLOAD_IMPL_H
#define VV_VOLUME_PAYLOAD_IMPL_H

#include "base/alloc.h"
#include "base/err.h"
#include "cache/cache.h"
#include "volume/volume.h"

/* Shared bytes. data is vv_alloc'ed; charge is what the dirty budget holds for it. */
struct vv_buf {
    uint32_t refs;
    uint32_t capacity;
    uint8_t *data;
    struct vv_budget *budget;
    uint32_t charge;
};

struct vv_buf *vv_buf_new(uint32_t capacity, struct vv_budget *budget);
/* Takes `data` over, unless it returns NULL: there is no memory. */
struct vv_buf *vv_buf_of(uint8_t *data, uint32_t capacity, struct vv_budget *budget);
void vv_buf_ref(struct vv_buf *buf);
void vv_buf_unref(struct vv_buf *buf);
/* Takes the bytes away from the only reference, which is left to be dropped: `len` of them are of use, and room for many more
 * is given back. */
uint8_t *vv_buf_strip(struct vv_buf *buf, uint32_t len);

/* A payload's pieces; NULL: handed over. Piece 0 has `first` bytes if there are more, the others an extent each. */
struct vv_payload {
    struct vv_volume *volume;
    size_t len;  /* of the bytes in it */
    size_t size; /* that it was made for */
    size_t first;
    unsigned count;
    struct vv_buf *bufs[];
};
/* Without pieces; NULL: no memory. vv_payload_fill makes those that are missing, `whole` those of an extent (NULL: as the others): -ENOMEM. */
struct vv_payload *vv_payload_plan(uint64_t offset, size_t len);
MUST_CHECK int vv_payload_fill(struct vv_payload *payload, struct vv_buf *(*whole)(void *arg),
                               void *arg);
/* The piece that begins at `at`, if it can become the layer [from, to): a reference, charged to `budget`. Else NULL. */
struct vv_buf *vv_payload_take(struct vv_payload *payload, size_t at, uint32_t from, uint32_t to,
                               struct vv_budget *budget);
/* Memory of a new layer of these bytes of an extent. */
uint32_t vv_layer_capacity(uint32_t from, uint32_t to);

#endif
