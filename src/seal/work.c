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
#define SCRATCH_PLAIN_MAX (64u << 10)
/* What does not compress grows by less than this. */
#define SCRATCH_LEN (SCRATCH_PLAIN_MAX + 512)
/* Shorter texts do not shrink. */
#define COMPRESS_MIN 24
/* lz4's table is cleared after this many bytes, well before lz4 would do so by itself. */
#define LZ4_BYTES_MAX (256u << 20)
/* Samples of texts from this length on: so many bytes in every so many. */
#define SAMPLED_MIN (16u << 10)
#define SAMPLE_STEP 4096
#define LZ4_SAMPLE_LEN 512
#define EVEN_SAMPLE_LEN 128 /* behind lz4's */
#define EVEN_CHI_SQUARED_MAX (255 + 5 * 23)

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

static_assert(LZ4_COMPRESSBOUND(SCRATCH_PLAIN_MAX) <= SCRATCH_LEN, "lz4's worst case");

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

/* Ready to compress an independent block of `len` bytes, but without clearing 16 KiB of table each
 * time, which costs as much as a tenth of a small frame: what earlier blocks left in the table lies
 * before the current position, where lz4 does not look. That holds from the second block on; the
 * first is compressed here and thrown away, so that a fresh table and a used one give the same
 * result. */
static void lz4_begin(struct vv_work *work, size_t len)
{
    if (work->lz4_bytes == 0 || work->lz4_bytes > LZ4_BYTES_MAX) {
        char first[] = "varve varve varve varve varve";
        char packed[LZ4_COMPRESSBOUND(sizeof(first))];
        LZ4_initStream(&work->lz4, sizeof(work->lz4));
        LZ4_compress_fast_continue(&work->lz4, first, packed, sizeof(first), sizeof(packed), 1);
        work->lz4_bytes = sizeof(first);
    }
    /* lz4 leaves 64 KiB between two blocks. */
    work->lz4_bytes += len + (64u << 10);
    LZ4_resetStream_fast(&work->lz4);
}

/* Returns the packed length, or 0 when it does not fit into out[room]. */
static size_t lz4_compress(struct vv_work *work, struct vv_bytes plain, void *out, size_t room)
{
    lz4_begin(work, plain.len);
    int len = LZ4_compress_fast_continue(&work->lz4, (const char *)plain.ptr, out, (int)plain.len,
                                         (int)room, 1);
    /* After a failure a stream can only be set up anew. */
    if (len <= 0)
        work->lz4_bytes = 0;
    return len > 0 ? (size_t)len : 0;
}

/* Are the bytes of the samples as evenly spread as random ones? By the chi-squared statistic of 255 degrees of
 * freedom: five standard deviations above its mean, which random bytes exceed once in many thousand texts.
 * What repeats itself within a sample is not evenly spread. */
static bool is_even(struct vv_bytes plain)
{
    uint32_t counts[4][256] = {0}; /* four: adding to one count again and again would wait for the one before */
    uint64_t squares = 0;
    uint64_t bytes = 0;
    for (size_t at = 0; at + SAMPLE_STEP <= plain.len; at += SAMPLE_STEP) {
        const uint8_t *sample = plain.ptr + at + SAMPLE_STEP / 2;
        for (size_t i = 0; i < EVEN_SAMPLE_LEN; i += 4) {
            counts[0][sample[i]]++;
            counts[1][sample[i + 1]]++;
            counts[2][sample[i + 2]]++;
            counts[3][sample[i + 3]]++;
        }
        bytes += EVEN_SAMPLE_LEN;
    }
    for (unsigned i = 0; i < 256; i++) {
        uint64_t count = (uint64_t)counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i];
        squares += count * count;
    }
    return squares * 256 <= bytes * (bytes + EVEN_CHI_SQUARED_MAX);
}

/* Whether samples of a large text give hope. Compressed and encrypted data costs lz4 half as much
 * as it costs AES; asking first costs a third of that, and next to nothing when the answer is yes.
 * Where the first sample gives none, a look at how the bytes of all are spread spares asking for the others
 * when they look random. Of 8,000 files of a Debian /usr, one in 40 of the 32 KiB extents that would have
 * shrunk is stored plain because of both, a thousandth of the bytes stored: they would hardly have. */
static bool lz4_has_hope(struct vv_work *work, struct vv_bytes plain)
{
    if (plain.len < SAMPLED_MIN)
        return true;
    for (size_t at = 0; at + SAMPLE_STEP <= plain.len; at += SAMPLE_STEP) {
        struct vv_bytes sample = {plain.ptr + at, LZ4_SAMPLE_LEN};
        if (lz4_compress(work, sample, work->scratch, sizeof(work->scratch)) < sample.len)
            return true;
        if (at == 0 && is_even(plain))
            return false;
    }
    return false;
}

/* As lz4_compress; 0 also when there is no memory, *out_err then telling. */
static size_t zstd_compress(struct vv_work *work, int level, struct vv_bytes plain, void *out,
                            size_t room, int *out_err)
{
    if (!work->zstd)
        work->zstd = ZSTD_createCCtx();
    if (!work->zstd) {
        *out_err = -ENOMEM;
        return 0;
    }
    size_t len = ZSTD_compressCCtx(work->zstd, out, room, plain.ptr, plain.len, level);
    if (!ZSTD_isError(len))
        return len;
    if (ZSTD_getErrorCode(len) == ZSTD_error_memory_allocation)
        *out_err = -ENOMEM;
    return 0;
}

/* lz4 is faster when it need not watch its room, and a failure would cost setting it up anew: so,
 * where the worst case fits, it packs into scratch memory, from which the frame is then encrypted.
 */
int vv_work_compress(struct vv_work *work, const struct vv_work_method *method,
                     struct vv_bytes plain, void *out, struct vv_bytes *out_packed)
{
    assert(plain.len <= VV_FRAME_PLAIN_MAX);
    size_t len = 0;
    int err = 0;
    uint8_t *to = out;
    if (plain.len >= COMPRESS_MIN && method->compression == VV_COMPRESSION_ZSTD)
        len = zstd_compress(work, method->level, plain, to, plain.len - 1, &err);
    if (plain.len >= COMPRESS_MIN && method->compression == VV_COMPRESSION_LZ4) {
        bool is_small = plain.len <= SCRATCH_PLAIN_MAX;
        to = is_small ? work->scratch : to;
        if (lz4_has_hope(work, plain))
            len = lz4_compress(work, plain, to, is_small ? SCRATCH_LEN : plain.len - 1);
    }
    TRY(err);
    bool is_shorter = len > 0 && len < plain.len;
    *out_packed = is_shorter ? (struct vv_bytes){to, len} : (struct vv_bytes){NULL, 0};
    return 0;
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
