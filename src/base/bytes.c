#include "base/bytes.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"

#define VARINT_LEN_MAX 10
#define WRITER_CAPACITY_MIN 64

#define likely(cond) __builtin_expect(!!(cond), 1)

/* Single integers. memcpy is how C spells an unaligned access; it compiles to one instruction. */

#define DEFINE_LOAD(name, type, to_host)                                                           \
    static inline type name(const void *bytes)                                                     \
    {                                                                                              \
        type value;                                                                                \
        memcpy(&value, bytes, sizeof(value));                                                      \
        return to_host(value);                                                                     \
    }
#define DEFINE_STORE(name, type, to_disk)                                                          \
    static inline void name(void *bytes, type value)                                               \
    {                                                                                              \
        value = to_disk(value);                                                                    \
        memcpy(bytes, &value, sizeof(value));                                                      \
    }

DEFINE_LOAD(load_le16, uint16_t, le16toh)
DEFINE_LOAD(load_le32, uint32_t, le32toh)
DEFINE_LOAD(load_le64, uint64_t, le64toh)
DEFINE_LOAD(load_be16, uint16_t, be16toh)
DEFINE_LOAD(load_be32, uint32_t, be32toh)
DEFINE_LOAD(load_be64, uint64_t, be64toh)
DEFINE_STORE(store_le16, uint16_t, htole16)
DEFINE_STORE(store_le32, uint32_t, htole32)
DEFINE_STORE(store_le64, uint64_t, htole64)
DEFINE_STORE(store_be16, uint16_t, htobe16)
DEFINE_STORE(store_be32, uint32_t, htobe32)
DEFINE_STORE(store_be64, uint64_t, htobe64)

uint32_t vv_load_u32(const void *bytes)
{
    return load_le32(bytes);
}

uint64_t vv_load_u64(const void *bytes)
{
    return load_le64(bytes);
}

uint64_t vv_load_be64(const void *bytes)
{
    return load_be64(bytes);
}

void vv_store_u32(void *bytes, uint32_t value)
{
    store_le32(bytes, value);
}

void vv_store_u64(void *bytes, uint64_t value)
{
    store_le64(bytes, value);
}

void vv_store_be64(void *bytes, uint64_t value)
{
    store_be64(bytes, value);
}

size_t vv_varint_len(uint64_t value)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1);
    return (bits + 6) / 7;
}

/* Cursor. A bad cursor has no bytes left, so one comparison guards each read. */

static void spoil(struct vv_cursor *cursor)
{
    cursor->len = 0;
    cursor->is_bad = true;
}

/* The next `len` bytes, which the cursor passes, or NULL. */
static inline const uint8_t *take(struct vv_cursor *cursor, size_t len)
{
    if (likely(len <= cursor->len)) {
        const uint8_t *ptr = cursor->ptr;
        cursor->ptr += len;
        cursor->len -= len;
        return ptr;
    }
    spoil(cursor);
    return NULL;
}

struct vv_cursor vv_cursor_of(const void *bytes, size_t len)
{
    return (struct vv_cursor){.ptr = bytes, .len = len};
}

uint8_t vv_cursor_u8(struct vv_cursor *cursor)
{
    const uint8_t *ptr = take(cursor, 1);
    return ptr ? *ptr : 0;
}

uint16_t vv_cursor_u16(struct vv_cursor *cursor)
{
    const uint8_t *ptr = take(cursor, 2);
    return ptr ? load_le16(ptr) : 0;
}

uint32_t vv_cursor_u32(struct vv_cursor *cursor)
{
    const uint8_t *ptr = take(cursor, 4);
    return ptr ? load_le32(ptr) : 0;
}

uint64_t vv_cursor_u64(struct vv_cursor *cursor)
{
    const uint8_t *ptr = take(cursor, 8);
    return ptr ? load_le64(ptr) : 0;
}

uint16_t vv_cursor_be16(struct vv_cursor *cursor)
{
    const uint8_t *ptr = take(cursor, 2);
    return ptr ? load_be16(ptr) : 0;
}

uint32_t vv_cursor_be32(struct vv_cursor *cursor)
{
    const uint8_t *ptr = take(cursor, 4);
    return ptr ? load_be32(ptr) : 0;
}

uint64_t vv_cursor_be64(struct vv_cursor *cursor)
{
    const uint8_t *ptr = take(cursor, 8);
    return ptr ? load_be64(ptr) : 0;
}

uint64_t vv_cursor_varint(struct vv_cursor *cursor)
{
    const uint8_t *ptr = cursor->ptr;
    if (likely(cursor->len > 0 && *ptr < 0x80)) {
        cursor->ptr++;
        cursor->len--;
        return *ptr;
    }
    size_t len_max = cursor->len < VARINT_LEN_MAX ? cursor->len : VARINT_LEN_MAX;
    uint64_t value = 0;
    size_t i = 0;
    while (i < len_max && ptr[i] >= 0x80) {
        value |= (uint64_t)(ptr[i] & 0x7f) << (7 * i);
        i++;
    }
    /* Cut off or too long; not minimal (a last byte of 0); or the tenth byte exceeds 64 bits. */
    if (i == len_max || ptr[i] == 0 || (i == VARINT_LEN_MAX - 1 && ptr[i] > 1)) {
        spoil(cursor);
        return 0;
    }
    cursor->ptr += i + 1;
    cursor->len -= i + 1;
    return value | (uint64_t)ptr[i] << (7 * i);
}

int64_t vv_cursor_svarint(struct vv_cursor *cursor)
{
    uint64_t value = vv_cursor_varint(cursor);
    return (int64_t)(value >> 1 ^ (0 - (value & 1)));
}

struct vv_bytes vv_cursor_bytes(struct vv_cursor *cursor, size_t len)
{
    if (cursor->is_bad)
        return (struct vv_bytes){NULL, 0};
    const uint8_t *ptr = take(cursor, len);
    return (struct vv_bytes){ptr, ptr ? len : 0};
}

struct vv_bytes vv_cursor_string(struct vv_cursor *cursor, size_t max)
{
    uint64_t len = vv_cursor_varint(cursor);
    if (len > max)
        spoil(cursor);
    return vv_cursor_bytes(cursor, (size_t)len);
}

void vv_cursor_copy(struct vv_cursor *cursor, void *out, size_t len)
{
    const uint8_t *ptr = take(cursor, len);
    if (len == 0)
        return;
    if (ptr)
        memcpy(out, ptr, len);
    else
        memset(out, 0, len);
}

void vv_cursor_skip(struct vv_cursor *cursor, size_t len)
{
    take(cursor, len);
}

int vv_cursor_check(const struct vv_cursor *cursor)
{
    return cursor->is_bad ? -VV_ERR_FORMAT : 0;
}

int vv_cursor_end(const struct vv_cursor *cursor)
{
    return cursor->is_bad || cursor->len > 0 ? -VV_ERR_FORMAT : 0;
}

/* Writer. */

struct vv_writer vv_writer_of(void *bytes, size_t capacity)
{
    return (struct vv_writer){.ptr = bytes, .capacity = capacity};
}

struct vv_writer vv_writer_new(void)
{
    return (struct vv_writer){.is_growing = true};
}

void vv_writer_done(struct vv_writer *writer)
{
    if (writer->is_growing)
        vv_free(writer->ptr);
    writer->ptr = NULL;
    writer->len = 0;
    writer->capacity = 0;
}

/* Make room for `len` more bytes, at least doubling; false leaves the writer bad. */
static __attribute__((noinline)) bool grow(struct vv_writer *writer, size_t len)
{
    size_t need;
    if (!writer->is_growing || __builtin_add_overflow(writer->len, len, &need)) {
        writer->is_bad = true;
        return false;
    }
    size_t capacity;
    if (__builtin_mul_overflow(writer->capacity, 2, &capacity) || capacity < need)
        capacity = need;
    if (capacity < WRITER_CAPACITY_MIN)
        capacity = WRITER_CAPACITY_MIN;
    uint8_t *ptr = vv_realloc(writer->ptr, capacity);
    if (!ptr) {
        writer->is_bad = true;
        return false;
    }
    writer->ptr = ptr;
    writer->capacity = capacity;
    return true;
}

/* Where the next `len` bytes go, which the writer passes, or NULL. */
static inline uint8_t *give(struct vv_writer *writer, size_t len)
{
    if (writer->is_bad)
        return NULL;
    if (!likely(len <= writer->capacity - writer->len) && !grow(writer, len))
        return NULL;
    uint8_t *ptr = writer->ptr + writer->len;
    writer->len += len;
    return ptr;
}

void vv_writer_reserve(struct vv_writer *writer, size_t len)
{
    if (!writer->is_bad && len > writer->capacity - writer->len)
        grow(writer, len);
}

void vv_writer_reset(struct vv_writer *writer)
{
    writer->len = 0;
    writer->is_bad = false;
}

void vv_writer_u8(struct vv_writer *writer, uint8_t value)
{
    uint8_t *ptr = give(writer, 1);
    if (ptr)
        *ptr = value;
}

void vv_writer_u16(struct vv_writer *writer, uint16_t value)
{
    uint8_t *ptr = give(writer, 2);
    if (ptr)
        store_le16(ptr, value);
}

void vv_writer_u32(struct vv_writer *writer, uint32_t value)
{
    uint8_t *ptr = give(writer, 4);
    if (ptr)
        store_le32(ptr, value);
}

void vv_writer_u64(struct vv_writer *writer, uint64_t value)
{
    uint8_t *ptr = give(writer, 8);
    if (ptr)
        store_le64(ptr, value);
}

void vv_writer_be16(struct vv_writer *writer, uint16_t value)
{
    uint8_t *ptr = give(writer, 2);
    if (ptr)
        store_be16(ptr, value);
}

void vv_writer_be32(struct vv_writer *writer, uint32_t value)
{
    uint8_t *ptr = give(writer, 4);
    if (ptr)
        store_be32(ptr, value);
}

void vv_writer_be64(struct vv_writer *writer, uint64_t value)
{
    uint8_t *ptr = give(writer, 8);
    if (ptr)
        store_be64(ptr, value);
}

void vv_writer_varint(struct vv_writer *writer, uint64_t value)
{
    uint8_t *ptr = give(writer, vv_varint_len(value));
    if (!ptr)
        return;
    while (value >= 0x80) {
        *ptr++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *ptr = (uint8_t)value;
}

void vv_writer_svarint(struct vv_writer *writer, int64_t value)
{
    uint64_t sign = value < 0 ? UINT64_MAX : 0;
    vv_writer_varint(writer, (uint64_t)value << 1 ^ sign);
}

void vv_writer_bytes(struct vv_writer *writer, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    uint8_t *ptr = give(writer, len);
    if (ptr)
        memcpy(ptr, bytes, len);
}

void vv_writer_string(struct vv_writer *writer, const void *bytes, size_t len)
{
    vv_writer_varint(writer, len);
    vv_writer_bytes(writer, bytes, len);
}

uint8_t *vv_writer_space(struct vv_writer *writer, size_t len)
{
    /* Even no bytes have a place, so that NULL always means failure. */
    if (!writer->ptr)
        vv_writer_reserve(writer, len > 0 ? len : 1);
    uint8_t *ptr = give(writer, len);
    if (ptr)
        memset(ptr, 0, len);
    return ptr;
}

int vv_writer_check(const struct vv_writer *writer)
{
    if (!writer->is_bad)
        return 0;
    return writer->is_growing ? -ENOMEM : -EOVERFLOW;
}

int vv_bytes_compare(struct vv_bytes a, struct vv_bytes b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len > 0 ? memcmp(a.ptr, b.ptr, len) : 0;
    if (order != 0)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

/* Hex. */

void vv_hex(const void *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *ptr = bytes;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[ptr[i] >> 4];
        out[2 * i + 1] = digits[ptr[i] & 15];
    }
    out[2 * len] = '\0';
}

/* The value of a hex digit, or -1. */
static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

int vv_unhex(const char *text, void *out, size_t len)
{
    /* All is checked first: on failure `out` is as before. */
    for (size_t i = 0; i < len; i++)
        if (hex_value(text[2 * i]) < 0 || hex_value(text[2 * i + 1]) < 0)
            return -EINVAL;
    if (text[2 * len] != '\0')
        return -EINVAL;
    uint8_t *ptr = out;
    for (size_t i = 0; i < len; i++)
        ptr[i] = (uint8_t)(hex_value(text[2 * i]) << 4 | hex_value(text[2 * i + 1]));
    return 0;
}
