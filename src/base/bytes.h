/* Cursors and writers: the only way bytes from outside are decoded, and bytes for outside encoded.
 *
 * Both are sticky: after the first overflow every further call is harmless, reads give 0, and
 * the final check tells. Fixed-width integers are little-endian unless the name says be.
 * Varints are LEB128, at most 10 bytes, and must be minimal. No allocation but in a growing writer.
 * Plain values: any thread that owns the struct. Never suspends. */
#ifndef VV_BASE_BYTES_H
#define VV_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vv_bytes {
    const uint8_t *ptr;
    size_t len;
};

struct vv_cursor {
    const uint8_t *ptr;
    size_t len;  /* bytes left */
    bool is_bad; /* something did not fit or was not canonical */
};

struct vv_cursor vv_cursor_of(const void *bytes, size_t len);
uint8_t vv_cursor_u8(struct vv_cursor *cursor);
uint16_t vv_cursor_u16(struct vv_cursor *cursor);
uint32_t vv_cursor_u32(struct vv_cursor *cursor);
uint64_t vv_cursor_u64(struct vv_cursor *cursor);
uint16_t vv_cursor_be16(struct vv_cursor *cursor);
uint32_t vv_cursor_be32(struct vv_cursor *cursor);
uint64_t vv_cursor_be64(struct vv_cursor *cursor);
uint64_t vv_cursor_varint(struct vv_cursor *cursor);
/* Zig-zag coded signed varint. */
int64_t vv_cursor_svarint(struct vv_cursor *cursor);
/* The next `len` bytes, borrowed from the cursor's memory; {NULL, 0} when they are not there. */
struct vv_bytes vv_cursor_bytes(struct vv_cursor *cursor, size_t len);
/* A varint length and that many bytes, at most `max`. */
struct vv_bytes vv_cursor_string(struct vv_cursor *cursor, size_t max);
void vv_cursor_copy(struct vv_cursor *cursor, void *out, size_t len);
void vv_cursor_skip(struct vv_cursor *cursor, size_t len);
/* 0, or -VV_ERR_FORMAT when the cursor is bad. */
MUST_CHECK int vv_cursor_check(const struct vv_cursor *cursor);
/* 0, or -VV_ERR_FORMAT when the cursor is bad or bytes are left over. */
MUST_CHECK int vv_cursor_end(const struct vv_cursor *cursor);

struct vv_writer {
    uint8_t *ptr;
    size_t len; /* bytes written */
    size_t capacity;
    bool is_growing; /* owns ptr and may reallocate it */
    bool is_bad;     /* did not fit, or no memory */
};

/* A writer over the caller's buffer. */
struct vv_writer vv_writer_of(void *bytes, size_t capacity);
/* A writer that allocates; vv_writer_done frees (safe on both kinds, and twice). */
struct vv_writer vv_writer_new(void);
void vv_writer_done(struct vv_writer *writer);
/* Make room for `len` more bytes in one go. */
void vv_writer_reserve(struct vv_writer *writer, size_t len);
/* Forget the content, keep the memory. */
void vv_writer_reset(struct vv_writer *writer);
void vv_writer_u8(struct vv_writer *writer, uint8_t value);
void vv_writer_u16(struct vv_writer *writer, uint16_t value);
void vv_writer_u32(struct vv_writer *writer, uint32_t value);
void vv_writer_u64(struct vv_writer *writer, uint64_t value);
void vv_writer_be16(struct vv_writer *writer, uint16_t value);
void vv_writer_be32(struct vv_writer *writer, uint32_t value);
void vv_writer_be64(struct vv_writer *writer, uint64_t value);
void vv_writer_varint(struct vv_writer *writer, uint64_t value);
void vv_writer_svarint(struct vv_writer *writer, int64_t value);
void vv_writer_bytes(struct vv_writer *writer, const void *bytes, size_t len);
void vv_writer_string(struct vv_writer *writer, const void *bytes, size_t len);
/* `len` zero bytes; returns where they begin, or NULL. Valid until the next call. */
uint8_t *vv_writer_space(struct vv_writer *writer, size_t len);
/* 0, or -ENOMEM (growing) or -EOVERFLOW (fixed) when the writer is bad. */
MUST_CHECK int vv_writer_check(const struct vv_writer *writer);

/* Single integers at unaligned addresses. */
uint32_t vv_load_u32(const void *bytes);
uint64_t vv_load_u64(const void *bytes);
uint64_t vv_load_be64(const void *bytes);
void vv_store_u32(void *bytes, uint32_t value);
void vv_store_u64(void *bytes, uint64_t value);
void vv_store_be64(void *bytes, uint64_t value);
/* Bytes that vv_writer_varint needs for value (1 to 10). */
size_t vv_varint_len(uint64_t value);
/* memcmp order, shorter first on a common prefix: <0, 0, >0. */
int vv_bytes_compare(struct vv_bytes a, struct vv_bytes b);
/* Lower-case hex of `len` bytes into out[2*len+1]. */
void vv_hex(const void *bytes, size_t len, char *out);
/* The reverse; -EINVAL unless text is exactly 2*len hex digits. */
MUST_CHECK int vv_unhex(const char *text, void *out, size_t len);

#endif
