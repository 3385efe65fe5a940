#include "front/nfs/xdr.h"

#include <string.h>

static const uint8_t zeros[4];

struct vv_xdr vv_xdr_decoder(const void *bytes, size_t len)
{
    return (struct vv_xdr){.cursor = vv_cursor_of(bytes, len)};
}

struct vv_xdr vv_xdr_encoder(struct vv_writer *writer)
{
    return (struct vv_xdr){.writer = writer};
}

int vv_xdr_end(const struct vv_xdr *xdr)
{
    return xdr->writer ? vv_writer_check(xdr->writer) : vv_cursor_end(&xdr->cursor);
}

void vv_xdr_fail(struct vv_xdr *xdr)
{
    if (xdr->writer)
        xdr->writer->is_bad = true;
    else
        xdr->cursor.is_bad = true;
}

void vv_xdr_u32(struct vv_xdr *xdr, uint32_t *value)
{
    if (xdr->writer)
        vv_writer_be32(xdr->writer, *value);
    else
        *value = vv_cursor_be32(&xdr->cursor);
}

void vv_xdr_u64(struct vv_xdr *xdr, uint64_t *value)
{
    if (xdr->writer)
        vv_writer_be64(xdr->writer, *value);
    else
        *value = vv_cursor_be64(&xdr->cursor);
}

void vv_xdr_bool(struct vv_xdr *xdr, bool *value)
{
    uint32_t number = *value;
    vv_xdr_u32(xdr, &number);
    if (number > 1)
        vv_xdr_fail(xdr);
    *value = number == 1;
}

void vv_xdr_fixed(struct vv_xdr *xdr, void *bytes, size_t len)
{
    if (xdr->writer)
        vv_writer_bytes(xdr->writer, bytes, len);
    else
        vv_cursor_copy(&xdr->cursor, bytes, len);
}

void vv_xdr_bytes(struct vv_xdr *xdr, struct vv_bytes *bytes, size_t max)
{
    uint32_t len = (uint32_t)bytes->len;
    if (xdr->writer && bytes->len > max)
        vv_xdr_fail(xdr);
    vv_xdr_u32(xdr, &len);
    if (xdr->writer) {
        if (!bytes->ptr)
            return;
        vv_writer_bytes(xdr->writer, bytes->ptr, bytes->len);
        vv_writer_bytes(xdr->writer, zeros, vv_xdr_padding(bytes->len));
        return;
    }
    if (len > max)
        vv_xdr_fail(xdr);
    *bytes = vv_cursor_bytes(&xdr->cursor, len <= max ? len : 0);
    vv_cursor_skip(&xdr->cursor, vv_xdr_padding(bytes->len));
}
