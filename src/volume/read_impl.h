/* Private to volume's reading of file data: resolved places, their fetching, and read-ahead.
 *
 * A read is resolved in one step (read.c) into parts, each of which lies in a dirty buffer or in a
 * frame of a segment. Fetching (fetch.c) gives every frame part a block of the cache, or puts the
 * frame's bytes straight into place; frames that lie close together in one segment share a request,
 * and a frame that somebody else is fetching already is waited for. Streams (ahead.c) watch for readers
 * that go forward and fetch ahead of them. */
#ifndef VV_VOLUME_READ_IMPL_H
#define VV_VOLUME_READ_IMPL_H

#include "volume/volume_impl.h"

#define VV_READ_PARTS_MAX 65536
#define VV_READ_PARTS_FEW 2 /* need no memory of their own */
#define VV_READ_SLOW_NS (2 * VV_NS_PER_MS) /* a request that takes longer is worth doing ahead */

/* A stretch of the output that does not come from nowhere (the rest is zeros). */
struct vv_read_part {
    size_t at; /* in the output */
    uint32_t len;
    uint32_t skip; /* bytes of the source before it */
    struct vv_buf *buf;
    struct vv_frame_loc loc; /* when buf is NULL */
    struct vv_origin origin;
    struct vv_block *block;
    bool is_begun;    /* the block is this read's to load */
    bool is_in_place; /* its bytes are in the output: it has no block */
    bool is_at_hand;  /* its block was in the cache when it was resolved: it holds that, and not the segment */
};

struct vv_read {
    struct vv_volume *volume;
    struct vv_read_part *parts; /* `few`, or more */
    size_t count, capacity;
    size_t away_count; /* of parts that are neither dirty nor at hand */
    size_t len;
    uint64_t data_id, from; /* of the first stretch, for the streams */
    uint64_t expected_end;  /* how far its data id may be read on; 0 = not to be read ahead */
    struct vv_read_part few[VV_READ_PARTS_FEW];
};

/* Of one that was made on the stack: lets go of everything. */
void vv_read_done(struct vv_read *read);
/* Give every frame part its block. With `out`, frames that are not in the cache and that the read wants whole
 * are opened into their place there instead, and not cached. Suspends. */
MUST_CHECK int vv_read_fetch(struct vv_read *read, uint8_t *out);

/* ---- ahead.c ---- */

/* A reader that goes forward through a data id. */
struct vv_stream;

/* The read is about to be fetched: find or make its stream, start reading ahead of it. NULL when it has none.
 * The stream is valid until the caller suspends. */
struct vv_stream *vv_stream_begin(const struct vv_read *read);
/* It was fetched, which took that long. */
void vv_stream_end(const struct vv_read *read, uint64_t took_ns);
/* Has it read so much that what it reads would only push other things out of the cache, while the store is
 * quick enough to be read again? NULL is fine. */
bool vv_stream_is_washing(const struct vv_volume *volume, const struct vv_stream *stream);

#endif
