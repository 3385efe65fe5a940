/* NBD messages: whatever decodes must encode to something that decodes to the same. The first byte
 * says what the others are: an option's data, a request, or a reply. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "front/nbd/codec.h"

static void try_option(const uint8_t *data, size_t size)
{
    static uint8_t first[1 << 18], second[1 << 18];
    struct vv_nbd_option_head head;
    struct vv_nbd_option_data option, again, walk;
    struct vv_bytes query;
    if (size < VV_NBD_OPTION_HEAD_BYTES || size > sizeof(first) / 4 ||
        vv_nbd_decode_option_head(data, &head) < 0)
        return;
    const uint8_t *body = data + VV_NBD_OPTION_HEAD_BYTES;
    if (vv_nbd_decode_option(head.option, body, size - VV_NBD_OPTION_HEAD_BYTES, &option) < 0)
        return;
    walk = option;
    while (walk.query_count > 0) {
        if (!vv_nbd_next_query(&walk, &query) || query.len > VV_NBD_STRING_MAX)
            abort();
    }
    struct vv_writer writer = vv_writer_of(first, sizeof(first));
    vv_nbd_encode_option(&writer, head.option, &option);
    if (vv_writer_check(&writer) < 0 || vv_nbd_decode_option_head(first, &head) < 0 ||
        head.len != writer.len - VV_NBD_OPTION_HEAD_BYTES ||
        vv_nbd_decode_option(head.option, first + VV_NBD_OPTION_HEAD_BYTES, head.len, &again) < 0)
        abort();
    struct vv_writer writer_again = vv_writer_of(second, sizeof(second));
    vv_nbd_encode_option(&writer_again, head.option, &again);
    if (writer_again.len != writer.len || memcmp(first, second, writer.len) != 0)
        abort();
}

static void try_request(const uint8_t *data, size_t size)
{
    uint8_t bytes[VV_NBD_REQUEST_BYTES];
    struct vv_nbd_request request;
    char text[64];
    if (size < sizeof(bytes) || vv_nbd_decode_request(data, &request) < 0)
        return;
    vv_nbd_request_to_text(&request, text, sizeof(text));
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    vv_nbd_encode_request(&writer, &request);
    if (vv_writer_check(&writer) < 0 || memcmp(bytes, data, sizeof(bytes)) != 0)
        abort();
}

static void try_reply(const uint8_t *data, size_t size)
{
    uint16_t flags;
    struct vv_nbd_option_reply option_reply;
    struct vv_nbd_reply reply;
    if (size >= VV_NBD_HELLO_BYTES && vv_nbd_decode_hello(data, &flags) == 0)
        return;
    if (size >= VV_NBD_OPTION_REPLY_HEAD_BYTES &&
        vv_nbd_decode_option_reply(data, &option_reply) == 0)
        return;
    int64_t len = vv_nbd_reply_len(data, size, 16);
    if (len <= 0 || (uint64_t)len > size)
        return;
    if (vv_nbd_decode_reply(data, (size_t)len, &reply) == 0 && reply.data.len > size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 3) {
    case 0: try_option(data + 1, size - 1); break;
    case 1: try_request(data + 1, size - 1); break;
    default: try_reply(data + 1, size - 1); break;
    }
    return 0;
}
