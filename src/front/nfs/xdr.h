/* XDR (RFC 4506): one function a type, which decodes or encodes as its stream does, so that the
 * two directions can't disagree. Sticky: after the first error every further call is harmless and
 * the check at the end tells. Pure: no I/O, no allocation but the writer's, any thread. */
#ifndef VV_FRONT_NFS_XDR_H
#define VV_FRONT_NFS_XDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct vv_xdr {
    struct vv_cursor cursor;  /* decoding */
    struct vv_writer *writer; /* encoding; NULL = decoding */
};

struct vv_xdr vv_xdr_decoder(const void *bytes, size_t len);
struct vv_xdr vv_xdr_encoder(struct vv_writer *writer);
/* Decoding: -VV_ERR_FORMAT when something did not fit or bytes are left over. Encoding: the
 * writer's error. */
MUST_CHECK int vv_xdr_end(const struct vv_xdr *xdr);
/* What was read makes no sense. */
void vv_xdr_fail(struct vv_xdr *xdr);

void vv_xdr_u32(struct vv_xdr *xdr, uint32_t *value);
void vv_xdr_u64(struct vv_xdr *xdr, uint64_t *value);
/* 0 or 1; anything else is an error. */
void vv_xdr_bool(struct vv_xdr *xdr, bool *value);
/* `len` bytes, of any length that is a multiple of 4. */
void vv_xdr_fixed(struct vv_xdr *xdr, void *bytes, size_t len);
/* Variable-length opaque or string of at most `max` bytes: length, bytes, padding. Decoded bytes
 * are borrowed. Encoding with a NULL ptr and a length writes the length only: the caller sends the
 * bytes and the padding behind. */
void vv_xdr_bytes(struct vv_xdr *xdr, struct vv_bytes *bytes, size_t max);
/* Bytes that pad `len` to a multiple of 4. */
static inline size_t vv_xdr_padding(size_t len)
{
    return (4 - (len & 3)) & 3;
}

#endif
