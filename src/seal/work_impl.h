/* Compression: contexts and scratch memory for lz4 and zstd, a fixed number for the whole process.
 *
 * A work is taken for one frame and given back; it carries nothing from one frame to the next that
 * could be seen in a result: the same bytes always compress to the same bytes.
 *
 * Any thread; never suspends. When every work is in use by another thread, waits for one. */
#ifndef VV_SEAL_WORK_IMPL_H
#define VV_SEAL_WORK_IMPL_H

#include <stddef.h>
#include <stdint.h>

#include "seal/seal.h"

struct vv_work;

struct vv_work_method {
    enum vv_compression compression;
    int level; /* of zstd */
};

/* Never NULL. */
struct vv_work *vv_work_take(void);
void vv_work_give(struct vv_work *work);
/* For CLEANUP. */
void vv_work_give_ptr(struct vv_work **work);

/* Memory for `len` bytes until the work is given back; NULL when there is none. Once per taking. */
uint8_t *vv_work_scratch(struct vv_work *work, size_t len);

/* Compress `plain`. *out_packed lies in the work's memory, valid until it is given back or used again,
 * or in out[plain.len]; it is shorter than plain, or {NULL, 0} when that cannot be reached. -ENOMEM. */
MUST_CHECK int vv_work_compress(struct vv_work *work, const struct vv_work_method *method,
                                struct vv_bytes plain, void *out, struct vv_bytes *out_packed);
/* Decompress into out[plain_len], exactly. -VV_ERR_FORMAT, -ENOMEM. */
MUST_CHECK int vv_work_decompress(struct vv_work *work, enum vv_compression compression,
                                  struct vv_bytes packed, void *out, size_t plain_len);

#endif
