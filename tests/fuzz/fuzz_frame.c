/* Frames. The first byte chooses the cipher (bits 0-1) and what the rest is (bits 2-3): a sealed
 * frame; a text to be sealed and opened again; or a compression byte, 4 bytes of plain length and a
 * text that is sealed as if it were the compressed one, so that the decompressors see it. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "seal/sealer_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_MAX (128u << 10)
#define AAD_LEN 25

static const struct vv_origin origin = {5000, 3};

struct object {
    struct vv_keyring *ring;
    struct vv_sealer *writer;
    struct vv_sealer *reader;
};

/* One for each cipher, made once: deriving keys takes far longer than a frame. Sealing leaves no
 * trace in a sealer, so an input does the same each time. */
static const struct object *object_of(enum vv_cipher cipher)
{
    static const uint8_t volume_id[16];
    static struct object objects[VV_CIPHER_XCHACHA20_POLY1305 + 1];
    struct vv_seal_settings settings = {cipher, VV_COMPRESSION_NONE, 0};
    struct object *object = &objects[cipher];
    struct vv_object_header header;
    if (!object->reader &&
        (vv_keyring_new(volume_id, &object->ring) < 0 ||
         vv_sealer_new(object->ring, VV_KIND_DATA, "x", 0, &settings, &header, &object->writer) <
             0 ||
         vv_sealer_open(object->ring, &header, "x", &object->reader) < 0))
        abort();
    return object;
}

/* Open into memory of exactly the length that the frame claims. */
static ssize_t open_frame(const struct object *object, const uint8_t *frame, size_t len,
                          uint8_t **out_plain)
{
    ssize_t plain_len = vv_frame_plain_len(frame, len);
    if (plain_len < 0 || (size_t)plain_len > 16 * TEXT_MAX)
        return plain_len < 0 ? plain_len : -VV_ERR_LIMIT;
    uint8_t *plain = malloc((size_t)plain_len + (plain_len == 0));
    if (!plain)
        abort();
    ssize_t got = vv_frame_open(object->reader, 7, &origin, frame, len, plain, (size_t)plain_len);
    assert(got < 0 || got == plain_len);
    *out_plain = plain;
    return got;
}

static void round_trip(const struct object *object, const uint8_t *text, size_t len)
{
    size_t capacity = vv_frame_bound(len);
    uint8_t *frame = malloc(capacity);
    if (!frame)
        abort();
    for (int i = VV_COMPRESSION_NONE; i <= VV_COMPRESSION_ZSTD; i++) {
        uint8_t *plain = NULL;
        ssize_t frame_len = vv_frame_seal_as(object->writer, (enum vv_compression)i, 7, &origin,
                                             text, len, frame, capacity);
        assert(frame_len > 0);
        ssize_t plain_len = open_frame(object, frame, (size_t)frame_len, &plain);
        assert(plain_len == (ssize_t)len);
        assert(memcmp(plain, text, len) == 0);
        free(plain);
    }
    free(frame);
}

static void open_forged(const struct object *object, const uint8_t *header, const uint8_t *text,
                        size_t len)
{
    size_t frame_len = vv_frame_bound(len);
    uint8_t *frame = malloc(frame_len);
    uint8_t *plain = NULL;
    uint8_t aad[AAD_LEN];
    if (!frame)
        abort();
    memcpy(frame, header, VV_FRAME_HEADER_LEN);
    memcpy(aad, header, VV_FRAME_HEADER_LEN);
    vv_store_u32(aad + 5, 7);
    vv_store_u64(aad + 9, origin.data_id);
    vv_store_u64(aad + 17, origin.extent);
    struct vv_message message = {7, {aad, sizeof(aad)}, {text, len}};
    int err = vv_aead_seal(object->writer->cipher, &object->writer->key, &message,
                           frame + VV_FRAME_HEADER_LEN, frame + frame_len - VV_FRAME_TAG_LEN);
    assert(err == 0);
    ssize_t got = open_frame(object, frame, frame_len, &plain);
    assert(got >= 0 || got == -VV_ERR_FORMAT || got == -VV_ERR_LIMIT);
    free(plain);
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > TEXT_MAX || (data[0] & 3) > VV_CIPHER_XCHACHA20_POLY1305)
        return 0;
    const struct object *object = object_of((enum vv_cipher)(data[0] & 3));
    uint8_t *plain = NULL;
    int what = data[0] >> 2 & 3;
    if (what == 0 && open_frame(object, data + 1, size - 1, &plain) >= 0)
        assert(object->reader->cipher == VV_CIPHER_NONE);
    if (what == 1)
        round_trip(object, data + 1, size - 1);
    if (what == 2 && size >= 1 + VV_FRAME_HEADER_LEN)
        open_forged(object, data + 1, data + 1 + VV_FRAME_HEADER_LEN,
                    size - 1 - VV_FRAME_HEADER_LEN);
    free(plain);
    return 0;
}
