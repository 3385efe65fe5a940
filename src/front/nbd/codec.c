#include "front/nbd/codec.h"

#include <string.h>

#include "base/text.h"

#define MAGIC_HELLO 0x4e42444d41474943ull  /* "NBDMAGIC" */
#define MAGIC_OPTION 0x49484156454f5054ull /* "IHAVEOPT" */
#define MAGIC_OPTION_REPLY 0x0003e889045565a9ull
#define MAGIC_REQUEST 0x25609513u
#define MAGIC_SIMPLE_REPLY 0x67446698u
#define MAGIC_CHUNK 0x668e33efu

/* ---- negotiation ---- */

void vv_nbd_encode_hello(struct vv_writer *writer, uint16_t flags)
{
    vv_writer_be64(writer, MAGIC_HELLO);
    vv_writer_be64(writer, MAGIC_OPTION);
    vv_writer_be16(writer, flags);
}

int vv_nbd_decode_hello(const uint8_t bytes[VV_NBD_HELLO_BYTES], uint16_t *out_flags)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, VV_NBD_HELLO_BYTES);
    if (vv_cursor_be64(&cursor) != MAGIC_HELLO || vv_cursor_be64(&cursor) != MAGIC_OPTION)
        return -VV_ERR_FORMAT;
    *out_flags = vv_cursor_be16(&cursor);
    return 0;
}

int vv_nbd_decode_option_head(const uint8_t bytes[VV_NBD_OPTION_HEAD_BYTES],
                              struct vv_nbd_option_head *out_head)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, VV_NBD_OPTION_HEAD_BYTES);
    if (vv_cursor_be64(&cursor) != MAGIC_OPTION)
        return -VV_ERR_FORMAT;
    out_head->option = vv_cursor_be32(&cursor);
    out_head->len = vv_cursor_be32(&cursor);
    return 0;
}

/* A length and that many bytes. */
static struct vv_bytes take_string(struct vv_cursor *cursor)
{
    uint32_t len = vv_cursor_be32(cursor);
    if (len > VV_NBD_STRING_MAX) {
        cursor->is_bad = true;
        return (struct vv_bytes){NULL, 0};
    }
    return vv_cursor_bytes(cursor, len);
}

static void take_infos(struct vv_cursor *cursor, struct vv_nbd_option_data *data)
{
    uint16_t count = vv_cursor_be16(cursor);
    for (uint16_t i = 0; i < count && !cursor->is_bad; i++) {
        uint16_t type = vv_cursor_be16(cursor);
        if (type < 32 && !cursor->is_bad)
            data->infos |= 1u << type;
    }
}

static void take_queries(struct vv_cursor *cursor, struct vv_nbd_option_data *data)
{
    data->query_count = vv_cursor_be32(cursor);
    data->queries = (struct vv_bytes){cursor->ptr, cursor->len};
    for (uint32_t i = 0; i < data->query_count && !cursor->is_bad; i++)
        take_string(cursor);
}

int vv_nbd_decode_option(uint32_t option, const void *bytes, size_t len,
                         struct vv_nbd_option_data *out_data)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, len);
    struct vv_nbd_option_data data = {.name = {NULL, 0}};
    switch (option) {
    case VV_NBD_OPT_EXPORT_NAME:
        if (len > VV_NBD_STRING_MAX)
            return -VV_ERR_FORMAT;
        data.name = vv_cursor_bytes(&cursor, len);
        break;
    case VV_NBD_OPT_INFO:
    case VV_NBD_OPT_GO:
        data.name = take_string(&cursor);
        take_infos(&cursor, &data);
        break;
    case VV_NBD_OPT_LIST_META_CONTEXT:
    case VV_NBD_OPT_SET_META_CONTEXT:
        data.name = take_string(&cursor);
        take_queries(&cursor, &data);
        break;
    case VV_NBD_OPT_ABORT:
    case VV_NBD_OPT_LIST:
    case VV_NBD_OPT_STARTTLS:
    case VV_NBD_OPT_STRUCTURED_REPLY:
        break;
    default:
        data.queries = vv_cursor_bytes(&cursor, len);
        break;
    }
    TRY(vv_cursor_end(&cursor));
    *out_data = data;
    return 0;
}

bool vv_nbd_next_query(struct vv_nbd_option_data *data, struct vv_bytes *out_query)
{
    if (data->query_count == 0)
        return false;
    struct vv_cursor cursor = vv_cursor_of(data->queries.ptr, data->queries.len);
    *out_query = take_string(&cursor);
    data->query_count--;
    data->queries = (struct vv_bytes){cursor.ptr, cursor.len};
    return !cursor.is_bad;
}

static void put_string(struct vv_writer *writer, struct vv_bytes text)
{
    vv_writer_be32(writer, (uint32_t)text.len);
    vv_writer_bytes(writer, text.ptr, text.len);
}

static void put_infos(struct vv_writer *writer, uint32_t infos)
{
    vv_writer_be16(writer, (uint16_t)__builtin_popcount(infos));
    for (uint16_t type = 0; type < 32; type++) {
        if (infos & 1u << type)
            vv_writer_be16(writer, type);
    }
}

static size_t option_len(uint32_t option, const struct vv_nbd_option_data *data)
{
    switch (option) {
    case VV_NBD_OPT_EXPORT_NAME:
        return data->name.len;
    case VV_NBD_OPT_INFO:
    case VV_NBD_OPT_GO:
        return 4 + data->name.len + 2 + 2 * (size_t)__builtin_popcount(data->infos);
    case VV_NBD_OPT_LIST_META_CONTEXT:
    case VV_NBD_OPT_SET_META_CONTEXT:
        return 4 + data->name.len + 4 + data->queries.len;
    case VV_NBD_OPT_ABORT:
    case VV_NBD_OPT_LIST:
    case VV_NBD_OPT_STARTTLS:
    case VV_NBD_OPT_STRUCTURED_REPLY:
        return 0;
    default:
        return data->queries.len;
    }
}

void vv_nbd_encode_option(struct vv_writer *writer, uint32_t option,
                          const struct vv_nbd_option_data *data)
{
    size_t len = option_len(option, data);
    vv_writer_be64(writer, MAGIC_OPTION);
    vv_writer_be32(writer, option);
    vv_writer_be32(writer, (uint32_t)len);
    switch (option) {
    case VV_NBD_OPT_EXPORT_NAME:
        vv_writer_bytes(writer, data->name.ptr, data->name.len);
        break;
    case VV_NBD_OPT_INFO:
    case VV_NBD_OPT_GO:
        put_string(writer, data->name);
        put_infos(writer, data->infos);
        break;
    case VV_NBD_OPT_LIST_META_CONTEXT:
    case VV_NBD_OPT_SET_META_CONTEXT:
        put_string(writer, data->name);
        vv_writer_be32(writer, data->query_count);
        vv_writer_bytes(writer, data->queries.ptr, data->queries.len);
        break;
    default:
        vv_writer_bytes(writer, data->queries.ptr, len);
        break;
    }
}

void vv_nbd_encode_option_reply(struct vv_writer *writer, uint32_t option, uint32_t type,
                                uint32_t len)
{
    vv_writer_be64(writer, MAGIC_OPTION_REPLY);
    vv_writer_be32(writer, option);
    vv_writer_be32(writer, type);
    vv_writer_be32(writer, len);
}

void vv_nbd_encode_rep_server(struct vv_writer *writer, uint32_t option, struct vv_bytes name)
{
    vv_nbd_encode_option_reply(writer, option, VV_NBD_REP_SERVER, 4 + (uint32_t)name.len);
    put_string(writer, name);
}

void vv_nbd_encode_rep_error(struct vv_writer *writer, uint32_t option, uint32_t type,
                             const char *text)
{
    vv_nbd_encode_option_reply(writer, option, type, (uint32_t)strlen(text));
    vv_writer_bytes(writer, text, strlen(text));
}

void vv_nbd_encode_rep_context(struct vv_writer *writer, uint32_t option, uint32_t id,
                               const char *name)
{
    vv_nbd_encode_option_reply(writer, option, VV_NBD_REP_META_CONTEXT,
                               4 + (uint32_t)strlen(name));
    vv_writer_be32(writer, id);
    vv_writer_bytes(writer, name, strlen(name));
}

void vv_nbd_encode_info_export(struct vv_writer *writer, uint32_t option, uint64_t size,
                               uint16_t flags)
{
    vv_nbd_encode_option_reply(writer, option, VV_NBD_REP_INFO, 12);
    vv_writer_be16(writer, VV_NBD_INFO_EXPORT);
    vv_writer_be64(writer, size);
    vv_writer_be16(writer, flags);
}

void vv_nbd_encode_info_name(struct vv_writer *writer, uint32_t option, struct vv_bytes name)
{
    vv_nbd_encode_option_reply(writer, option, VV_NBD_REP_INFO, 2 + (uint32_t)name.len);
    vv_writer_be16(writer, VV_NBD_INFO_NAME);
    vv_writer_bytes(writer, name.ptr, name.len);
}

void vv_nbd_encode_info_block_size(struct vv_writer *writer, uint32_t option, uint32_t minimum,
                                   uint32_t preferred, uint32_t maximum)
{
    vv_nbd_encode_option_reply(writer, option, VV_NBD_REP_INFO, 14);
    vv_writer_be16(writer, VV_NBD_INFO_BLOCK_SIZE);
    vv_writer_be32(writer, minimum);
    vv_writer_be32(writer, preferred);
    vv_writer_be32(writer, maximum);
}

void vv_nbd_encode_export_name_reply(struct vv_writer *writer, uint64_t size, uint16_t flags,
                                     bool has_zeroes)
{
    vv_writer_be64(writer, size);
    vv_writer_be16(writer, flags);
    if (has_zeroes)
        vv_writer_space(writer, VV_NBD_EXPORT_NAME_ZEROES);
}

int vv_nbd_decode_option_reply(const uint8_t bytes[VV_NBD_OPTION_REPLY_HEAD_BYTES],
                               struct vv_nbd_option_reply *out_reply)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, VV_NBD_OPTION_REPLY_HEAD_BYTES);
    if (vv_cursor_be64(&cursor) != MAGIC_OPTION_REPLY)
        return -VV_ERR_FORMAT;
    out_reply->option = vv_cursor_be32(&cursor);
    out_reply->type = vv_cursor_be32(&cursor);
    out_reply->len = vv_cursor_be32(&cursor);
    return 0;
}

/* ---- transmission ---- */

bool vv_nbd_is_request(const uint8_t bytes[VV_NBD_MAGIC_BYTES])
{
    struct vv_cursor cursor = vv_cursor_of(bytes, VV_NBD_MAGIC_BYTES);
    return vv_cursor_be32(&cursor) == MAGIC_REQUEST;
}

int vv_nbd_decode_request(const uint8_t bytes[VV_NBD_REQUEST_BYTES],
                          struct vv_nbd_request *out_request)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, VV_NBD_REQUEST_BYTES);
    if (vv_cursor_be32(&cursor) != MAGIC_REQUEST)
        return -VV_ERR_FORMAT;
    out_request->flags = vv_cursor_be16(&cursor);
    out_request->command = vv_cursor_be16(&cursor);
    out_request->cookie = vv_cursor_be64(&cursor);
    out_request->offset = vv_cursor_be64(&cursor);
    out_request->len = vv_cursor_be32(&cursor);
    return 0;
}

void vv_nbd_encode_request(struct vv_writer *writer, const struct vv_nbd_request *request)
{
    vv_writer_be32(writer, MAGIC_REQUEST);
    vv_writer_be16(writer, request->flags);
    vv_writer_be16(writer, request->command);
    vv_writer_be64(writer, request->cookie);
    vv_writer_be64(writer, request->offset);
    vv_writer_be32(writer, request->len);
}

char *vv_nbd_request_to_text(const struct vv_nbd_request *request, char *out, size_t size)
{
    static const char *const names[] = {"READ", "WRITE", "DISC",         "FLUSH",
                                        "TRIM", "CACHE", "WRITE_ZEROES", "BLOCK_STATUS"};
    bool is_known = request->command < sizeof(names) / sizeof(names[0]);
    vv_format(out, size, "%s (%u) %u@%llu cookie %llx flags %x",
              is_known ? names[request->command] : "command", request->command, request->len,
              (unsigned long long)request->offset, (unsigned long long)request->cookie,
              request->flags);
    return out;
}

void vv_nbd_encode_simple_reply(struct vv_writer *writer, uint64_t cookie, uint32_t error)
{
    vv_writer_be32(writer, MAGIC_SIMPLE_REPLY);
    vv_writer_be32(writer, error);
    vv_writer_be64(writer, cookie);
}

void vv_nbd_encode_chunk(struct vv_writer *writer, uint64_t cookie, uint16_t flags, uint16_t type,
                         uint32_t len)
{
    vv_writer_be32(writer, MAGIC_CHUNK);
    vv_writer_be16(writer, flags);
    vv_writer_be16(writer, type);
    vv_writer_be64(writer, cookie);
    vv_writer_be32(writer, len);
}

void vv_nbd_encode_offset_data(struct vv_writer *writer, uint64_t cookie, uint16_t flags,
                               uint64_t offset, uint32_t len)
{
    vv_nbd_encode_chunk(writer, cookie, flags, VV_NBD_CHUNK_OFFSET_DATA, 8 + len);
    vv_writer_be64(writer, offset);
}

void vv_nbd_encode_offset_hole(struct vv_writer *writer, uint64_t cookie, uint16_t flags,
                               uint64_t offset, uint32_t len)
{
    vv_nbd_encode_chunk(writer, cookie, flags, VV_NBD_CHUNK_OFFSET_HOLE, 12);
    vv_writer_be64(writer, offset);
    vv_writer_be32(writer, len);
}

void vv_nbd_encode_error(struct vv_writer *writer, uint64_t cookie, uint32_t error,
                         const char *text)
{
    size_t len = strnlen(text, VV_NBD_STRING_MAX);
    vv_nbd_encode_chunk(writer, cookie, VV_NBD_CHUNK_DONE, VV_NBD_CHUNK_ERROR, 6 + (uint32_t)len);
    vv_writer_be32(writer, error);
    vv_writer_be16(writer, (uint16_t)len);
    vv_writer_bytes(writer, text, len);
}

int64_t vv_nbd_reply_len(const void *bytes, size_t len, uint32_t read_len)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, len);
    uint32_t magic = vv_cursor_be32(&cursor);
    if (cursor.is_bad)
        return 0;
    if (magic == MAGIC_SIMPLE_REPLY) {
        uint32_t error = vv_cursor_be32(&cursor);
        if (cursor.is_bad)
            return 0;
        return VV_NBD_SIMPLE_REPLY_BYTES + (int64_t)(error == 0 ? read_len : 0);
    }
    if (magic != MAGIC_CHUNK)
        return -VV_ERR_FORMAT;
    vv_cursor_skip(&cursor, 12);
    uint32_t payload_len = vv_cursor_be32(&cursor);
    return cursor.is_bad ? 0 : VV_NBD_CHUNK_HEAD_BYTES + (int64_t)payload_len;
}

static void take_payload(struct vv_cursor *cursor, struct vv_nbd_reply *reply)
{
    switch (reply->type) {
    case VV_NBD_CHUNK_NONE:
        break;
    case VV_NBD_CHUNK_OFFSET_DATA:
        reply->offset = vv_cursor_be64(cursor);
        reply->data = vv_cursor_bytes(cursor, cursor->len);
        break;
    case VV_NBD_CHUNK_OFFSET_HOLE:
        reply->offset = vv_cursor_be64(cursor);
        reply->hole_len = vv_cursor_be32(cursor);
        break;
    case VV_NBD_CHUNK_BLOCK_STATUS:
        reply->context_id = vv_cursor_be32(cursor);
        cursor->is_bad |= cursor->len == 0 || cursor->len % 8 != 0;
        reply->data = vv_cursor_bytes(cursor, cursor->len);
        break;
    case VV_NBD_CHUNK_ERROR:
        reply->error = vv_cursor_be32(cursor);
        reply->data = vv_cursor_bytes(cursor, vv_cursor_be16(cursor));
        break;
    default:
        reply->data = vv_cursor_bytes(cursor, cursor->len);
        break;
    }
}

int vv_nbd_decode_reply(const void *bytes, size_t len, struct vv_nbd_reply *out_reply)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, len);
    struct vv_nbd_reply reply = {.is_chunk = false};
    uint32_t magic = vv_cursor_be32(&cursor);
    if (magic == MAGIC_SIMPLE_REPLY) {
        reply.error = vv_cursor_be32(&cursor);
        reply.cookie = vv_cursor_be64(&cursor);
        reply.data = vv_cursor_bytes(&cursor, cursor.len);
    } else if (magic == MAGIC_CHUNK) {
        reply.is_chunk = true;
        reply.flags = vv_cursor_be16(&cursor);
        reply.type = vv_cursor_be16(&cursor);
        reply.cookie = vv_cursor_be64(&cursor);
        if (vv_cursor_be32(&cursor) != cursor.len)
            return -VV_ERR_FORMAT;
        take_payload(&cursor, &reply);
    } else {
        return -VV_ERR_FORMAT;
    }
    TRY(vv_cursor_end(&cursor));
    *out_reply = reply;
    return 0;
}
