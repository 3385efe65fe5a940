#include "seal/work_impl.h"

#include <assert.h>
#include <errno.h>
#include <lz4.h>
#include <sched.h>
#include <stdatomic.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/alloc.h"

/* More than threads that seal at once; one more waits. */
#define WORKS_MAX 64
/* Frames up to this length need no allocation when opened. */
#define SCRATCH_LEN (64u << 10)
/* Shorter texts do not shrink. */
#define COMPRESS_MIN 24
/* lz4's table is cleared after this many bytes, well before lz4 would do so by itself. */
#define LZ4_BYTES_MAX (256u << 20)

struct vv_work {
    atomic_bool is_busy;
    size_t lz4_bytes; /* compressed since the table was cleared; 0 = not set up */
    ZSTD_CCtx *zstd;  /* made when first needed, like the next */
    ZSTD_DCtx *unzstd;
    uint8_t *large_scratch; /* in place of scratch; freed when given back */
    LZ4_stream_t lz4;
    uint8_t scratch[SCRATCH_LEN];
} __attribute__((aligned(64)));

/* Mutable globals for the reasons given in aead.c. Static, so that pages are only used for as many
 * works as threads were ever busy at once: the first free one is taken. */
static struct vv_work works[WORKS_MAX];

struct vv_work *vv_work_take(void)
{
    for (;;) {
        for (size_t i = 0; i < WORKS_MAX; i++) {
            atomic_bool *is_busy = &works[i].is_busy;
            if (!atomic_load_explicit(is_busy, memory_order_relaxed) &&
                !atomic_exchange_explicit(is_busy, true, memory_order_acquire))
                return &works[i];
        }
        /* Works are held for one computation, never across a suspension: this ends soon. */
        sched_yield();
    }
}

void vv_work_give(struct vv_work *work)
{
    vv_free(work->large_scratch);
    work->large_scratch = NULL;
    atomic_store_explicit(&work->is_busy, false, memory_order_release);
}

void vv_work_give_ptr(struct vv_work **work)
{
    vv_work_give(*work);
}

uint8_t *vv_work_scratch(struct vv_work *work, size_t len)
{
    assert(!work->large_scratch);
    if (len <= SCRATCH_LEN)
        return work->scratch;
    work->large_scratch = vv_alloc(len);
    return work->large_scratch;
}

/* As an independent block, but without clearing 16 KiB of table each time, which costs as much as a
 * tenth of a small frame: what earlier frames left in the table lies before the current position,
 * where lz4 does not look. That holds from the second block on; the first is compressed here and
 * thrown away, so that a fresh table and a used one give the same result. */
static ssize_t lz4_compress(struct vv_work *work, struct vv_bytes plain, void *out)
{
    if (work->lz4_bytes == 0 || work->lz4_bytes > LZ4_BYTES_MAX) {
        char first[] = "varve varve varve varve varve";
        char packed[LZ4_COMPRESSBOUND(sizeof(first))];
        LZ4_initStream(&work->lz4, sizeof(work->lz4));
        LZ4_compress_fast_continue(&work->lz4, first, packed, sizeof(first), sizeof(packed), 1);
        work->lz4_bytes = sizeof(first);
    }
    /* A position advances by 64 KiB with each block. */
    work->lz4_bytes += plain.len + (64u << 10);
    LZ4_resetStream_fast(&work->lz4);
    return LZ4_compress_fast_continue(&work->lz4, (const char *)plain.ptr, out, (int)plain.len,
                                      (int)plain.len - 1, 1);
}

static ssize_t zstd_compress(struct vv_work *work, int level, struct vv_bytes plain, void *out)
{
    if (!work->zstd)
        work->zstd = ZSTD_createCCtx();
    if (!work->zstd)
        return -ENOMEM;
    size_t len = ZSTD_compressCCtx(work->zstd, out, plain.len - 1, plain.ptr, plain.len, level);
    if (!ZSTD_isError(len))
        return (ssize_t)len;
    return ZSTD_getErrorCode(len) == ZSTD_error_memory_allocation ? -ENOMEM : 0;
}

ssize_t vv_work_compress(struct vv_work *work, enum vv_compression compression, int level,
                         struct vv_bytes plain, void *out)
{
    assert(plain.len <= VV_FRAME_PLAIN_MAX);
    if (plain.len < COMPRESS_MIN || compression == VV_COMPRESSION_NONE)
        return 0;
    if (compression == VV_COMPRESSION_LZ4)
        return lz4_compress(work, plain, out);
    return zstd_compress(work, level, plain, out);
}

int vv_work_decompress(struct vv_work *work, enum vv_compression compression,
                       struct vv_bytes packed, void *out, size_t plain_len)
{
    if (compression == VV_COMPRESSION_LZ4) {
        int len =
            LZ4_decompress_safe((const char *)packed.ptr, out, (int)packed.len, (int)plain_len);
        return len >= 0 && (size_t)len == plain_len ? 0 : -VV_ERR_FORMAT;
    }
    assert(compression == VV_COMPRESSION_ZSTD);
    if (!work->unzstd)
        work->unzstd = ZSTD_createDCtx();
    if (!work->unzstd)
        return -ENOMEM;
    size_t len = ZSTD_decompressDCtx(work->unzstd, out, plain_len, packed.ptr, packed.len);
    if (ZSTD_isError(len) && ZSTD_getErrorCode(len) == ZSTD_error_memory_allocation)
        return -ENOMEM;
    return !ZSTD_isError(len) && len == plain_len ? 0 : -VV_ERR_FORMAT;
}
