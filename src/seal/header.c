#include "seal/seal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/hash.h"

static const uint8_t header_magic[8] = {'v', 'a', 'r', 'v', 'e', '\0', '\r', '\n'};

static const char *const cipher_names[] = {
    [VV_CIPHER_NONE] = "none",
    [VV_CIPHER_AES_256_GCM] = "aes-256-gcm",
    [VV_CIPHER_XCHACHA20_POLY1305] = "xchacha20-poly1305",
};
#define CIPHER_COUNT (sizeof(cipher_names) / sizeof(cipher_names[0]))

static const char *const compression_names[] = {
    [VV_COMPRESSION_NONE] = "none",
    [VV_COMPRESSION_LZ4] = "lz4",
    [VV_COMPRESSION_ZSTD] = "zstd",
};
#define COMPRESSION_COUNT (sizeof(compression_names) / sizeof(compression_names[0]))

static int find_name(const char *const *names, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], text) == 0)
            return (int)i;
    }
    return -EINVAL;
}

int vv_cipher_parse(const char *text, enum vv_cipher *out_cipher)
{
    int found = find_name(cipher_names, CIPHER_COUNT, text);
    TRY(found);
    *out_cipher = (enum vv_cipher)found;
    return 0;
}

const char *vv_cipher_name(enum vv_cipher cipher)
{
    return (size_t)cipher < CIPHER_COUNT ? cipher_names[cipher] : "unknown";
}

int vv_compression_parse(const char *text, enum vv_compression *out_compression)
{
    int found = find_name(compression_names, COMPRESSION_COUNT, text);
    TRY(found);
    *out_compression = (enum vv_compression)found;
    return 0;
}

const char *vv_compression_name(enum vv_compression compression)
{
    return (size_t)compression < COMPRESSION_COUNT ? compression_names[compression] : "unknown";
}

void vv_object_header_encode(const struct vv_object_header *header,
                             uint8_t out[VV_OBJECT_HEADER_LEN])
{
    struct vv_writer writer = vv_writer_of(out, VV_OBJECT_HEADER_LEN);
    vv_writer_bytes(&writer, header_magic, sizeof(header_magic));
    vv_writer_u16(&writer, header->version);
    vv_writer_u8(&writer, header->kind);
    vv_writer_u8(&writer, header->cipher);
    vv_writer_u32(&writer, header->key_generation);
    vv_writer_bytes(&writer, header->volume_id, sizeof(header->volume_id));
    vv_writer_bytes(&writer, header->attempt_id, sizeof(header->attempt_id));
    vv_writer_bytes(&writer, header->salt, sizeof(header->salt));
    vv_writer_u64(&writer, header->number);
    vv_writer_u32(&writer, 0);
    vv_writer_u32(&writer, vv_crc32c(0, out, writer.len));
    assert(writer.len == VV_OBJECT_HEADER_LEN && !writer.is_bad);
}

/* The fields between magic and checksum. */
static int decode_fields(struct vv_cursor *cursor, struct vv_object_header *header)
{
    header->version = vv_cursor_u16(cursor);
    if (header->version > VV_FORMAT_VERSION)
        return -VV_ERR_NEWER;
    header->kind = vv_cursor_u8(cursor);
    header->cipher = vv_cursor_u8(cursor);
    header->key_generation = vv_cursor_u32(cursor);
    vv_cursor_copy(cursor, header->volume_id, sizeof(header->volume_id));
    vv_cursor_copy(cursor, header->attempt_id, sizeof(header->attempt_id));
    vv_cursor_copy(cursor, header->salt, sizeof(header->salt));
    header->number = vv_cursor_u64(cursor);
    uint32_t reserved = vv_cursor_u32(cursor);
    if (header->version == 0 || header->kind < VV_KIND_VOLUME || header->kind > VV_KIND_JOURNAL)
        return -VV_ERR_FORMAT;
    if (header->cipher >= CIPHER_COUNT || reserved != 0)
        return -VV_ERR_FORMAT;
    return vv_cursor_check(cursor);
}

int vv_object_header_decode(const void *bytes, size_t len, struct vv_object_header *out_header)
{
    if (len < VV_OBJECT_HEADER_LEN || memcmp(bytes, header_magic, sizeof(header_magic)) != 0)
        return -VV_ERR_FORMAT;
    size_t checked_len = VV_OBJECT_HEADER_LEN - sizeof(uint32_t);
    if (vv_load_u32((const uint8_t *)bytes + checked_len) != vv_crc32c(0, bytes, checked_len))
        return -VV_ERR_CHECKSUM;
    struct vv_cursor cursor = vv_cursor_of(bytes, checked_len);
    vv_cursor_skip(&cursor, sizeof(header_magic));
    struct vv_object_header header;
    TRY(decode_fields(&cursor, &header));
    *out_header = header;
    return 0;
}
