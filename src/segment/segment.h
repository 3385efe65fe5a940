/* Segments: the immutable containers of sealed frames. A data segment holds frames only; a log
 * object is a segment with a metadata batch.
 *
 *   object header                       96 bytes (seal.h), kind DATA or LOG
 *   frames, index 0..n-1                packed, in index order
 *   batch, index n                      only in log objects, at most VV_BATCH_MAX plain
 *   directory, index n or n+1           a frame; plain content: varint frame count, then for each
 *                                       frame varint data id, varint extent, varint frame length,
 *                                       varint plain length
 *   footer                              40 bytes:
 *      0  4  magic "vvsg"
 *      4  4  frame count n
 *      8  8  batch offset (0 = none)
 *     16  4  batch length
 *     20  8  directory offset
 *     28  4  directory length
 *     32  4  reserved, 0
 *     36  4  CRC32C of bytes 0..35
 *
 * A segment is named by (epoch, counter): "data/<2-hex shard>/<16-hex epoch>-<16-hex counter>", the
 * shard being the low byte of the counter, or "log/<16-hex epoch>/<16-hex seq>" (the counter is the
 * seq).
 *
 * Header, frames, directory and footer take at most VV_SEGMENT_BYTES_MAX; the batch comes on top.
 * Batch and directory have the origins {VV_ORIGIN_BATCH, 0} and {VV_ORIGIN_DIRECTORY, 0}. The
 * header's number is the epoch in log objects and 0 in data segments.
 *
 * Building and decoding are pure computation on any thread, one thread at a time per object. */
#ifndef VV_SEGMENT_SEGMENT_H
#define VV_SEGMENT_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/err.h"
#include "seal/seal.h"

#define VV_SEGMENT_FRAMES_MAX (1u << 20)
#define VV_SEGMENT_BYTES_MAX (256u << 20)
#define VV_SEGMENT_FOOTER_LEN 40
#define VV_BATCH_MAX (48u << 20)

enum vv_segment_kind { VV_SEGMENT_DATA = 0, VV_SEGMENT_LOG = 1 };

/* The name of a segment as a value. Segment references also carry the volume that owns it; 0 = this
 * one. */
struct vv_segment_id {
    uint64_t epoch;
    uint64_t counter;
    uint8_t kind;
    uint32_t volume; /* index into the manifest's list of parent volumes; 0 = own */
};

/* Where a frame lies. */
struct vv_frame_loc {
    struct vv_segment_id segment;
    uint32_t index;
    uint32_t offset; /* bytes, from the start of the object */
    uint32_t len;    /* bytes of the sealed frame */
};

bool vv_segment_id_equal(const struct vv_segment_id *a, const struct vv_segment_id *b);
/* The object's name, into name[VV_STORE_NAME_MAX + 1] (at least 64 bytes). */
void vv_segment_name(const struct vv_segment_id *id, char *name, size_t size);
/* The reverse; -EINVAL for any other name. */
MUST_CHECK int vv_segment_name_parse(const char *name, struct vv_segment_id *out_id);

struct vv_segment_entry {
    struct vv_origin origin;
    uint32_t offset;
    uint32_t len;
    uint32_t plain_len;
};

/* ---- building ---- */

struct vv_segment_builder; /* owns its memory: chunks of frames, no reallocation of large blocks */

/* -ENOMEM. */
MUST_CHECK int vv_segment_builder_new(const struct vv_keyring *ring, const struct vv_segment_id *id,
                                      const struct vv_seal_settings *settings,
                                      struct vv_segment_builder **out_builder);
void vv_segment_builder_free(struct vv_segment_builder *builder);
/* Build the object in buffer[capacity] as far as it has room, so that it comes out in one piece; before
 * the first frame. The buffer is the caller's, and lent until the builder is freed. -ENOMEM. */
MUST_CHECK int vv_segment_builder_lend(struct vv_segment_builder *builder, void *buffer,
                                       size_t capacity);
/* A capacity that is enough for `count` frames of `bytes` plain bytes together, with no batch. */
size_t vv_segment_bound(size_t bytes, size_t count);
/* Seal one frame; *out_loc says where it will lie. -ENOMEM, -VV_ERR_LIMIT (frames or bytes; the
 * builder is unchanged). */
MUST_CHECK int vv_segment_add(struct vv_segment_builder *builder, const struct vv_origin *origin,
                              const void *plain, size_t plain_len, struct vv_frame_loc *out_loc);
/* As vv_segment_add, of a frame that another segment holds, with the same origin: it is opened and sealed again, and
 * stays compressed as it is. Also errors of vv_frame_reseal; the builder is unchanged then. */
MUST_CHECK int vv_segment_add_sealed(struct vv_segment_builder *builder,
                                     const struct vv_origin *origin,
                                     const struct vv_sealed_frame *frame,
                                     struct vv_frame_loc *out_loc);
/* Bytes so far, without directory and footer; and frames so far. */
size_t vv_segment_builder_bytes(const struct vv_segment_builder *builder);
uint32_t vv_segment_builder_count(const struct vv_segment_builder *builder);
const struct vv_object_header *vv_segment_builder_header(const struct vv_segment_builder *builder);
const struct vv_sealer *vv_segment_builder_sealer(const struct vv_segment_builder *builder);
/* Seal the batch (NULL for data segments), directory and footer. Afterwards nothing can be added.
 * *out_iov is the builder's, valid until it is freed. -ENOMEM, after which it may be called again;
 * -VV_ERR_LIMIT when the batch is longer than VV_BATCH_MAX. */
MUST_CHECK int vv_segment_finish(struct vv_segment_builder *builder, const void *batch,
                                 size_t batch_len, const struct iovec **out_iov, int *out_count,
                                 size_t *out_bytes);

/* Parallel building: several workers seal runs of frames of one segment, each into a part of its
 * own with a range of indexes given beforehand; vv_segment_join appends the parts, in index order,
 * and gives their frames' locations. `first_index` of a part = frames of the builder and of the
 * parts before it. Parts seal with the builder's sealer, so they add nothing after it is freed. */
struct vv_segment_part;
MUST_CHECK int vv_segment_part_new(struct vv_segment_builder *builder, uint32_t first_index,
                                   struct vv_segment_part **out_part);
void vv_segment_part_free(struct vv_segment_part *part);
/* On any thread, one at a time per part. The location's offset is relative to the part until
 * joined. */
MUST_CHECK int vv_segment_part_add(struct vv_segment_part *part, const struct vv_origin *origin,
                                   const void *plain, size_t plain_len,
                                   struct vv_frame_loc *out_loc);
/* Moves the part's frames into the builder (the part is empty afterwards); *out_base is to be added
 * to the offsets that vv_segment_part_add gave. -ENOMEM, -VV_ERR_LIMIT, -EINVAL (not the next
 * index). */
MUST_CHECK int vv_segment_join(struct vv_segment_builder *builder, struct vv_segment_part *part,
                               uint32_t *out_base);

/* ---- decoding ---- */

struct vv_segment_footer {
    uint32_t frame_count;
    uint64_t batch_offset;
    uint32_t batch_len;
    uint64_t directory_offset;
    uint32_t directory_len;
};

/* Decode the footer of an object of `object_len` bytes from the object's end, the last `len` bytes
 * of it, at least VV_SEGMENT_FOOTER_LEN. All offsets are checked to lie inside the object and to
 * fit together. -VV_ERR_FORMAT, -VV_ERR_CHECKSUM. */
MUST_CHECK int vv_segment_footer_decode(const void *bytes, size_t len, uint64_t object_len,
                                        struct vv_segment_footer *out_footer);
/* Open and decode a sealed directory. The caller frees *out_entries. Frames lie back to back from
 * VV_OBJECT_HEADER_LEN; entries that do not add up to the directory's (or batch's) offset are
 * -VV_ERR_FORMAT. -VV_ERR_AUTH, -ENOMEM. */
MUST_CHECK int vv_segment_directory_decode(const struct vv_sealer *sealer,
                                           const struct vv_segment_footer *footer,
                                           const void *frame, size_t len,
                                           struct vv_segment_entry **out_entries);
/* The plain batch of a whole log object in memory. The caller frees *out_batch.
 * Errors as above; -VV_ERR_FORMAT when there is no batch. */
MUST_CHECK int vv_segment_batch_open(const struct vv_keyring *ring, const char *name,
                                     const void *object, size_t len, uint8_t **out_batch,
                                     size_t *out_len);

#endif
