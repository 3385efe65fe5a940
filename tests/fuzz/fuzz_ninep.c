/* 9P messages: whatever decodes must encode to something that decodes to the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "front/ninep/codec.h"

static void try_request(const uint8_t *data, size_t size)
{
    static uint8_t first[1 << 17], second[1 << 17];
    struct vv_ninep_request request, again;
    char text[128];
    int write_err = size < VV_NINEP_WRITE_HEAD_BYTES ? -VV_ERR_FORMAT
                                                     : vv_ninep_decode_write(data, size, &again);
    if (vv_ninep_decode_request(data, size, &request) < 0)
        return;
    /* A Twrite has the same head when its data is elsewhere. */
    if ((write_err == 0) != (request.type == VV_NINEP_TWRITE) ||
        (write_err == 0 && (again.fid != request.fid || again.offset != request.offset ||
                            again.data.len != request.data.len)))
        abort();
    vv_ninep_request_to_text(&request, text, sizeof(text));
    struct vv_writer writer = vv_writer_of(first, sizeof(first));
    if (vv_ninep_encode_request(&writer, &request) < 0) {
        if (size < sizeof(first) / 2)
            abort();
        return;
    }
    if (vv_ninep_decode_request(first, writer.len, &again) < 0)
        abort();
    struct vv_writer writer_again = vv_writer_of(second, sizeof(second));
    if (vv_ninep_encode_request(&writer_again, &again) < 0 || writer_again.len != writer.len ||
        memcmp(first, second, writer.len) != 0)
        abort();
}

static void try_reply(const uint8_t *data, size_t size)
{
    static uint8_t first[1 << 17];
    struct vv_ninep_reply reply, again;
    if (vv_ninep_decode_reply(data, size, &reply) < 0)
        return;
    struct vv_writer writer = vv_writer_of(first, sizeof(first));
    if (vv_ninep_encode_reply(&writer, &reply) < 0) {
        if (size < sizeof(first) / 2)
            abort();
        return;
    }
    if (vv_ninep_decode_reply(first, writer.len, &again) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_request(data, size);
    try_reply(data, size);
    return 0;
}
