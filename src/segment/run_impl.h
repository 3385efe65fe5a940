/* A run: sealed frames with successive indexes, back to back in chunks of memory, and their
 * directory entries, already encoded. The builder has one, and so has each part.
 *
 * Memory: chunks start small and double, so a segment of one frame costs one small chunk and a
 * large one no reallocation. A frame never spans chunks; a chunk's end may stay unused. One thread
 * at a time per run. Never suspends. */
#ifndef VV_SEGMENT_RUN_IMPL_H
#define VV_SEGMENT_RUN_IMPL_H

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "segment/segment.h"

#define VV_CHUNK_BYTES_MAX (1u << 20) /* of a usual chunk; one for a larger frame is larger */
/* Varints of data id, extent, frame length, plain length. */
#define VV_DIRECTORY_ENTRY_MAX (10 + 10 + 5 + 5)
#define VV_DIRECTORY_ENTRY_MIN 4
/* Room for the varint of the frame count before the entries. */
#define VV_DIRECTORY_COUNT_MAX 5

struct vv_chunk {
    struct vv_list link;
    size_t len; /* bytes used */
    size_t capacity;
    uint8_t *bytes; /* behind this struct, or lent to the builder */
};

struct vv_run {
    struct vv_list chunks;
    size_t chunk_count;
    size_t next_chunk_len; /* bytes of the next chunk, its head included */
    size_t bytes;          /* of all frames */
    uint32_t first_index;
    uint32_t count;
    uint32_t stubborn_count; /* long frames at the end that did not become shorter, in a row */
    uint8_t *directory; /* entries begin at VV_DIRECTORY_COUNT_MAX */
    size_t directory_len;
    size_t directory_capacity;
};

/* No allocation. The first chunk has at least `chunk_len` bytes, its head included. */
void vv_run_init(struct vv_run *run, uint32_t first_index, size_t chunk_len);
void vv_run_done(struct vv_run *run);
/* The chunk at the end, with room for `len` more bytes; made if necessary, `min_len` long at least.
 * NULL when there is no memory. */
struct vv_chunk *vv_run_reserve(struct vv_run *run, size_t len, size_t min_len);
/* Seal a frame at the run's end; compressed if the sealer says so, unless many long ones before it did not become
 * shorter and it is not its turn to be tried. -ENOMEM, -VV_ERR_LIMIT; the run then holds what it held. */
MUST_CHECK int vv_run_add(struct vv_run *run, const struct vv_sealer *sealer,
                          const struct vv_origin *origin, const void *plain, size_t plain_len,
                          struct vv_frame_loc *out_loc);
/* As vv_run_add, of a frame that is sealed in another object. Also errors of vv_frame_reseal. */
MUST_CHECK int vv_run_add_sealed(struct vv_run *run, const struct vv_sealer *sealer,
                                 const struct vv_origin *origin,
                                 const struct vv_sealed_frame *frame, struct vv_frame_loc *out_loc);
/* Move the frames of `from` to the end of `run`; from is empty afterwards and continues behind
 * them. -ENOMEM, -VV_ERR_LIMIT, then nothing has changed. */
MUST_CHECK int vv_run_append(struct vv_run *run, struct vv_run *from);

#endif
