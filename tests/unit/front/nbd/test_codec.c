/* Each message of NBD there and back, cut off at every byte, and against bytes written by hand from
 * the protocol's text. */
#include "front/nbd/codec.h"

#include <string.h>

#include "tap.h"

#define TEXT(text) ((struct vv_bytes){(const uint8_t *)(text), sizeof(text) - 1})

static bool is_equal(struct vv_bytes a, struct vv_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static void test_hello(void)
{
    uint8_t bytes[64];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    uint16_t flags = 0;
    vv_nbd_encode_hello(&writer, VV_NBD_FIXED_NEWSTYLE | VV_NBD_NO_ZEROES);
    tap_is_int((int64_t)writer.len, VV_NBD_HELLO_BYTES, "the greeting's length");
    tap_ok(memcmp(bytes, "NBDMAGICIHAVEOPT\0\3", VV_NBD_HELLO_BYTES) == 0, "the greeting");
    tap_is_int(vv_nbd_decode_hello(bytes, &flags), 0, "is understood");
    tap_is_int(flags, 3, "with its flags");
    for (size_t i = 0; i < 16; i++) {
        bytes[i] ^= 1;
        if (vv_nbd_decode_hello(bytes, &flags) != -VV_ERR_FORMAT)
            tap_ok(false, "byte %zu of the greeting does not matter", i);
        bytes[i] ^= 1;
    }
}

/* ---- options ---- */

static const struct {
    uint32_t option;
    struct vv_nbd_option_data data;
} options[] = {
    {VV_NBD_OPT_EXPORT_NAME, {.name = TEXT("disk")}},
    {VV_NBD_OPT_EXPORT_NAME, {.name = TEXT("")}},
    {VV_NBD_OPT_ABORT, {.infos = 0}},
    {VV_NBD_OPT_LIST, {.infos = 0}},
    {VV_NBD_OPT_STARTTLS, {.infos = 0}},
    {VV_NBD_OPT_STRUCTURED_REPLY, {.infos = 0}},
    {VV_NBD_OPT_INFO, {.name = TEXT("disk"), .infos = 1u << VV_NBD_INFO_NAME}},
    {VV_NBD_OPT_GO, {.name = TEXT(""), .infos = 0x8000000fu}},
    {VV_NBD_OPT_LIST_META_CONTEXT, {.name = TEXT("disk")}},
    {VV_NBD_OPT_SET_META_CONTEXT,
     {.name = TEXT("disk"), .query_count = 2, .queries = TEXT("\0\0\0\5base:\0\0\0\0")}},
    {12345, {.queries = TEXT("anything")}},
};

static void test_option(size_t i)
{
    uint8_t bytes[256];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    struct vv_nbd_option_head head;
    struct vv_nbd_option_data data;
    uint32_t option = options[i].option;
    vv_nbd_encode_option(&writer, option, &options[i].data);
    tap_is_int(vv_nbd_decode_option_head(bytes, &head), 0, "option %u: its head", option);
    tap_ok(head.option == option && head.len + VV_NBD_OPTION_HEAD_BYTES == writer.len,
           "option %u: number and length", option);
    const uint8_t *body = bytes + VV_NBD_OPTION_HEAD_BYTES;
    tap_is_int(vv_nbd_decode_option(option, body, head.len, &data), 0, "option %u: decoded", option);
    const struct vv_nbd_option_data *want = &options[i].data;
    tap_ok(is_equal(data.name, want->name) && is_equal(data.queries, want->queries) &&
               data.infos == want->infos && data.query_count == want->query_count,
           "option %u: as it was", option);
    bool is_free = option == VV_NBD_OPT_EXPORT_NAME || option == 12345;
    size_t wrong = 0;
    for (size_t len = 0; len < head.len && !is_free; len++)
        wrong += vv_nbd_decode_option(option, body, len, &data) != -VV_ERR_FORMAT;
    if (!is_free)
        wrong += vv_nbd_decode_option(option, body, head.len + 1, &data) != -VV_ERR_FORMAT;
    tap_is_int((int64_t)wrong, 0, "option %u: nothing shorter or longer", option);
    bytes[3] ^= 1;
    tap_is_int(vv_nbd_decode_option_head(bytes, &head), -VV_ERR_FORMAT, "a wrong magic number");
}

static void test_queries(void)
{
    struct vv_nbd_option_data data = options[9].data;
    struct vv_bytes query;
    tap_ok(vv_nbd_next_query(&data, &query) && is_equal(query, TEXT("base:")), "the first query");
    tap_ok(vv_nbd_next_query(&data, &query) && query.len == 0, "the second");
    tap_ok(!vv_nbd_next_query(&data, &query), "no third");
    static const uint8_t many[] = "\0\0\0\1x\xff\xff\xff\xff";
    tap_is_int(vv_nbd_decode_option(VV_NBD_OPT_LIST_META_CONTEXT, many, sizeof(many) - 1, &data),
               -VV_ERR_FORMAT, "more queries than bytes");
    static uint8_t name[4 + VV_NBD_STRING_MAX + 1 + 2] = {0, 0, 0x10, 1};
    tap_is_int(vv_nbd_decode_option(VV_NBD_OPT_GO, name, sizeof(name), &data), -VV_ERR_FORMAT,
               "a name longer than names can be");
    name[3] = 0;
    tap_is_int(vv_nbd_decode_option(VV_NBD_OPT_GO, name, sizeof(name) - 1, &data), 0,
               "the longest name");
    tap_is_int(vv_nbd_decode_option(VV_NBD_OPT_EXPORT_NAME, name, VV_NBD_STRING_MAX + 1, &data),
               -VV_ERR_FORMAT, "the same in EXPORT_NAME");
}

static void check_option_reply(struct vv_writer *writer, uint32_t type, struct vv_bytes want)
{
    struct vv_nbd_option_reply reply;
    tap_is_int(vv_nbd_decode_option_reply(writer->ptr, &reply), 0, "reply %x", type);
    tap_ok(reply.option == VV_NBD_OPT_GO && reply.type == type && reply.len == want.len,
           "reply %x: its head", type);
    struct vv_bytes got = {writer->ptr + VV_NBD_OPTION_REPLY_HEAD_BYTES,
                           writer->len - VV_NBD_OPTION_REPLY_HEAD_BYTES};
    tap_ok(is_equal(got, want), "reply %x: its data", type);
    writer->ptr[7] ^= 1;
    tap_is_int(vv_nbd_decode_option_reply(writer->ptr, &reply), -VV_ERR_FORMAT,
               "reply %x: a wrong magic number", type);
    vv_writer_reset(writer);
}

static void test_option_replies(void)
{
    uint8_t bytes[256];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    const uint32_t go = VV_NBD_OPT_GO;
    vv_nbd_encode_option_reply(&writer, go, VV_NBD_REP_ACK, 0);
    check_option_reply(&writer, VV_NBD_REP_ACK, TEXT(""));
    vv_nbd_encode_rep_server(&writer, go, TEXT("disk"));
    check_option_reply(&writer, VV_NBD_REP_SERVER, TEXT("\0\0\0\4disk"));
    vv_nbd_encode_rep_error(&writer, go, VV_NBD_REP_ERR_UNKNOWN, "no");
    check_option_reply(&writer, VV_NBD_REP_ERR_UNKNOWN, TEXT("no"));
    vv_nbd_encode_rep_context(&writer, go, 7, VV_NBD_CONTEXT_ALLOCATION);
    check_option_reply(&writer, VV_NBD_REP_META_CONTEXT, TEXT("\0\0\0\7base:allocation"));
    vv_nbd_encode_info_export(&writer, go, 0x0102030405060708, 0x90a);
    check_option_reply(&writer, VV_NBD_REP_INFO, TEXT("\0\0\1\2\3\4\5\6\7\10\11\12"));
    vv_nbd_encode_info_name(&writer, go, TEXT("disk"));
    check_option_reply(&writer, VV_NBD_REP_INFO, TEXT("\0\1disk"));
    vv_nbd_encode_info_block_size(&writer, go, 1, 4096, 32u << 20);
    check_option_reply(&writer, VV_NBD_REP_INFO, TEXT("\0\3\0\0\0\1\0\0\20\0\2\0\0\0"));
    vv_nbd_encode_export_name_reply(&writer, 1, 2, false);
    tap_is_int((int64_t)writer.len, 10, "EXPORT_NAME's reply");
    vv_writer_reset(&writer);
    vv_nbd_encode_export_name_reply(&writer, 1, 2, true);
    tap_is_int((int64_t)writer.len, 10 + VV_NBD_EXPORT_NAME_ZEROES, "with its zeros");
}

/* ---- transmission ---- */

static void test_requests(void)
{
    static const uint8_t wire[] = "\x25\x60\x95\x13\0\x11\0\6\1\2\3\4\5\6\7\10"
                                  "\x7f\xff\xff\xff\xff\xff\xf0\0\xff\xff\xff\xfe";
    struct vv_nbd_request request;
    uint8_t bytes[VV_NBD_REQUEST_BYTES];
    char text[128];
    tap_is_int(vv_nbd_decode_request(wire, &request), 0, "a request");
    tap_ok(request.flags == (VV_NBD_CMD_FLAG_FUA | VV_NBD_CMD_FLAG_FAST_ZERO) &&
               request.command == VV_NBD_CMD_WRITE_ZEROES &&
               request.cookie == 0x0102030405060708 && request.offset == 0x7ffffffffffff000 &&
               request.len == 0xfffffffe,
           "has its values");
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    vv_nbd_encode_request(&writer, &request);
    tap_ok(vv_writer_check(&writer) == 0 && memcmp(bytes, wire, sizeof(bytes)) == 0,
           "and encodes to the same bytes");
    tap_ok(strstr(vv_nbd_request_to_text(&request, text, sizeof(text)), "WRITE_ZEROES") != NULL,
           "a text names the command");
    request.command = 99;
    tap_ok(strstr(vv_nbd_request_to_text(&request, text, sizeof(text)), "99") != NULL,
           "also one that is unknown");
    tap_ok(vv_nbd_is_request(bytes), "its beginning says that it is a request");
    bytes[0] ^= 1;
    tap_ok(!vv_nbd_is_request(bytes), "or not");
    tap_is_int(vv_nbd_decode_request(bytes, &request), -VV_ERR_FORMAT, "a wrong magic number");
}

/* `read_len` as of the request. Cut off, the length is not known or differs. */
static void check_reply(struct vv_writer *writer, const struct vv_nbd_reply *want,
                        uint32_t read_len)
{
    struct vv_nbd_reply reply;
    size_t wrong = 0;
    tap_is_int(vv_nbd_reply_len(writer->ptr, writer->len, read_len), (int64_t)writer->len,
               "reply of type %u: its length", want->type);
    tap_is_int(vv_nbd_decode_reply(writer->ptr, writer->len, &reply), 0, "decoded");
    tap_ok(reply.is_chunk == want->is_chunk && reply.cookie == want->cookie &&
               reply.error == want->error && reply.flags == want->flags &&
               reply.type == want->type && reply.offset == want->offset &&
               reply.hole_len == want->hole_len && reply.context_id == want->context_id &&
               is_equal(reply.data, want->data),
           "as it was");
    for (size_t len = 0; len < writer->len; len++) {
        int64_t told = vv_nbd_reply_len(writer->ptr, len, read_len);
        wrong += told != 0 && told != (int64_t)writer->len;
        wrong += want->is_chunk && vv_nbd_decode_reply(writer->ptr, len, &reply) == 0;
    }
    tap_is_int((int64_t)wrong, 0, "nothing shorter");
    writer->ptr[1] ^= 1;
    tap_is_int(vv_nbd_decode_reply(writer->ptr, writer->len, &reply), -VV_ERR_FORMAT,
               "a wrong magic number");
    tap_is_int(vv_nbd_reply_len(writer->ptr, writer->len, read_len), -VV_ERR_FORMAT,
               "has no length either");
    vv_writer_reset(writer);
}

static void test_replies(void)
{
    uint8_t bytes[256];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    const uint64_t cookie = 0xfedcba9876543210;
    vv_nbd_encode_simple_reply(&writer, cookie, 0);
    vv_writer_bytes(&writer, "data", 4);
    check_reply(&writer, &(struct vv_nbd_reply){.cookie = cookie, .data = TEXT("data")}, 4);
    vv_nbd_encode_simple_reply(&writer, cookie, VV_NBD_EIO);
    check_reply(&writer, &(struct vv_nbd_reply){.cookie = cookie, .error = VV_NBD_EIO}, 4);
    vv_nbd_encode_chunk(&writer, cookie, VV_NBD_CHUNK_DONE, VV_NBD_CHUNK_NONE, 0);
    check_reply(&writer, &(struct vv_nbd_reply){true, cookie, .flags = 1}, 4);
    vv_nbd_encode_offset_data(&writer, cookie, 0, 1ull << 40, 4);
    vv_writer_bytes(&writer, "data", 4);
    check_reply(&writer,
                &(struct vv_nbd_reply){true, cookie, .type = VV_NBD_CHUNK_OFFSET_DATA,
                                       .offset = 1ull << 40, .data = TEXT("data")},
                4);
    vv_nbd_encode_offset_hole(&writer, cookie, VV_NBD_CHUNK_DONE, 512, 65536);
    check_reply(&writer,
                &(struct vv_nbd_reply){true, cookie, .flags = 1, .type = VV_NBD_CHUNK_OFFSET_HOLE,
                                       .offset = 512, .hole_len = 65536},
                4);
    vv_nbd_encode_chunk(&writer, cookie, VV_NBD_CHUNK_DONE, VV_NBD_CHUNK_BLOCK_STATUS, 12);
    vv_writer_bytes(&writer, "\0\0\0\1\0\0\20\0\0\0\0\3", 12);
    check_reply(&writer,
                &(struct vv_nbd_reply){true, cookie, .flags = 1, .type = VV_NBD_CHUNK_BLOCK_STATUS,
                                       .context_id = 1, .data = TEXT("\0\0\20\0\0\0\0\3")},
                4);
    vv_nbd_encode_error(&writer, cookie, VV_NBD_EOVERFLOW, "too long");
    check_reply(&writer,
                &(struct vv_nbd_reply){true, cookie, .error = VV_NBD_EOVERFLOW, .flags = 1,
                                       .type = VV_NBD_CHUNK_ERROR, .data = TEXT("too long")},
                4);
}

int main(void)
{
    test_hello();
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        test_option(i);
    test_queries();
    test_option_replies();
    test_requests();
    test_replies();
    return tap_done();
}
