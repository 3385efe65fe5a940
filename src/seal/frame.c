#include "seal/seal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "seal/aead_impl.h"
#include "seal/sealer_impl.h"
#include "seal/work_impl.h"

/* Associated data: frame header, index, origin. */
#define AAD_LEN (VV_FRAME_HEADER_LEN + 4 + 8 + 8)

struct frame_header {
    enum vv_compression compression;
    uint32_t plain_len;
};

static void make_aad(const struct frame_header *header, uint32_t index,
                     const struct vv_origin *origin, uint8_t out[AAD_LEN])
{
    out[0] = (uint8_t)header->compression;
    vv_store_u32(out + 1, header->plain_len);
    vv_store_u32(out + VV_FRAME_HEADER_LEN, index);
    vv_store_u64(out + VV_FRAME_HEADER_LEN + 4, origin->data_id);
    vv_store_u64(out + VV_FRAME_HEADER_LEN + 12, origin->extent);
}

size_t vv_frame_bound(size_t plain_len)
{
    return plain_len + VV_FRAME_OVERHEAD;
}

/* The text of a frame is the compressed bytes, or the plain ones where those are not longer. */
static ssize_t seal_text(const struct vv_sealer *sealer, const struct frame_header *header,
                         uint32_t index, const struct vv_origin *origin, struct vv_bytes text,
                         uint8_t *out)
{
    uint8_t aad[AAD_LEN];
    make_aad(header, index, origin, aad);
    memcpy(out, aad, VV_FRAME_HEADER_LEN);
    struct vv_message message = {.index = index, .aad = {aad, sizeof(aad)}, .text = text};
    uint8_t *sealed = out + VV_FRAME_HEADER_LEN;
    TRY(vv_aead_seal(sealer->cipher, &sealer->key, &message, sealed, sealed + text.len));
    return (ssize_t)vv_frame_bound(text.len);
}

ssize_t vv_frame_seal_as(const struct vv_sealer *sealer, enum vv_compression compression,
                         uint32_t index, const struct vv_origin *origin, const void *plain,
                         size_t plain_len, void *out, size_t capacity)
{
    assert(sealer->is_writing);
    assert(plain_len <= VV_FRAME_PLAIN_MAX);
    assert(capacity >= vv_frame_bound(plain_len));
    struct frame_header header = {VV_COMPRESSION_NONE, (uint32_t)plain_len};
    struct vv_bytes text = {plain, plain_len};
    if (compression == VV_COMPRESSION_NONE)
        return seal_text(sealer, &header, index, origin, text, out);
    CLEANUP(vv_work_give_ptr) struct vv_work *work = vv_work_take();
    struct vv_work_method method = {compression, sealer->level};
    struct vv_bytes packed;
    TRY(vv_work_compress(work, &method, text, (uint8_t *)out + VV_FRAME_HEADER_LEN, &packed));
    if (packed.len > 0) {
        header.compression = compression;
        text = packed;
    }
    return seal_text(sealer, &header, index, origin, text, out);
}

ssize_t vv_frame_seal(const struct vv_sealer *sealer, uint32_t index,
                      const struct vv_origin *origin, const void *plain, size_t plain_len,
                      void *out, size_t capacity)
{
    return vv_frame_seal_as(sealer, sealer->compression, index, origin, plain, plain_len, out,
                            capacity);
}

/* A compressed text is never empty and always shorter than the plain one. */
static int decode_header(const uint8_t *frame, size_t frame_len, struct frame_header *out_header)
{
    if (frame_len < VV_FRAME_OVERHEAD || frame[0] > VV_COMPRESSION_ZSTD)
        return -VV_ERR_FORMAT;
    size_t text_len = frame_len - VV_FRAME_OVERHEAD;
    uint32_t plain_len = vv_load_u32(frame + 1);
    enum vv_compression compression = (enum vv_compression)frame[0];
    if (plain_len > VV_FRAME_PLAIN_MAX)
        return -VV_ERR_FORMAT;
    if (compression == VV_COMPRESSION_NONE && text_len != plain_len)
        return -VV_ERR_FORMAT;
    if (compression != VV_COMPRESSION_NONE && (text_len == 0 || text_len >= plain_len))
        return -VV_ERR_FORMAT;
    out_header->compression = compression;
    out_header->plain_len = plain_len;
    return 0;
}

ssize_t vv_frame_plain_len(const void *frame, size_t frame_len)
{
    struct frame_header header;
    TRY(decode_header(frame, frame_len, &header));
    return header.plain_len;
}

/* Through scratch memory, because decompression cannot work in place. */
static int open_compressed(const struct vv_sealer *sealer, const struct frame_header *header,
                           const struct vv_message *message, const uint8_t *tag, void *out)
{
    CLEANUP(vv_work_give_ptr) struct vv_work *work = vv_work_take();
    uint8_t *packed = vv_work_scratch(work, message->text.len);
    if (!packed)
        return -ENOMEM;
    TRY(vv_aead_open(sealer->cipher, &sealer->key, message, tag, packed));
    return vv_work_decompress(work, header->compression,
                              (struct vv_bytes){packed, message->text.len}, out, header->plain_len);
}

ssize_t vv_frame_open(const struct vv_sealer *sealer, uint32_t index,
                      const struct vv_origin *origin, const void *frame, size_t frame_len,
                      void *out, size_t capacity)
{
    struct frame_header header;
    TRY(decode_header(frame, frame_len, &header));
    if (capacity < header.plain_len)
        return -VV_ERR_FORMAT;
    uint8_t aad[AAD_LEN];
    make_aad(&header, index, origin, aad);
    const uint8_t *text = (const uint8_t *)frame + VV_FRAME_HEADER_LEN;
    struct vv_message message = {
        .index = index,
        .aad = {aad, sizeof(aad)},
        .text = {text, frame_len - VV_FRAME_OVERHEAD},
    };
    const uint8_t *tag = text + message.text.len;
    if (header.compression == VV_COMPRESSION_NONE)
        TRY(vv_aead_open(sealer->cipher, &sealer->key, &message, tag, out));
    else
        TRY(open_compressed(sealer, &header, &message, tag, out));
    return header.plain_len;
}

ssize_t vv_frame_reseal(const struct vv_sealed_frame *from, const struct vv_origin *origin,
                        const struct vv_sealer *to, uint32_t index, void *out, size_t capacity)
{
    struct frame_header header;
    assert(to->is_writing);
    TRY(decode_header(from->bytes, from->len, &header));
    assert(capacity >= from->len);
    uint8_t aad[AAD_LEN];
    make_aad(&header, from->index, origin, aad);
    const uint8_t *sealed = (const uint8_t *)from->bytes + VV_FRAME_HEADER_LEN;
    struct vv_message message = {
        .index = from->index,
        .aad = {aad, sizeof(aad)},
        .text = {sealed, from->len - VV_FRAME_OVERHEAD},
    };
    CLEANUP(vv_work_give_ptr) struct vv_work *work = vv_work_take();
    uint8_t *text = vv_work_scratch(work, message.text.len);
    if (!text)
        return -ENOMEM;
    TRY(vv_aead_open(from->sealer->cipher, &from->sealer->key, &message, sealed + message.text.len,
                     text));
    return seal_text(to, &header, index, origin, (struct vv_bytes){text, message.text.len}, out);
}
