#include "log/log.h"

#include "rig.h"

static int decode_of(const struct vv_batch_header *header, struct vv_batch_header *out_header)
{
    struct vv_writer writer = vv_writer_new();
    vv_batch_header_encode(&writer, header);
    vv_writer_bytes(&writer, "rest", 4);
    struct vv_cursor cursor = vv_cursor_of(writer.ptr, writer.len);
    int err = vv_batch_header_decode(&cursor, out_header);
    if (!err && cursor.len != 4)
        err = -EDOM;
    vv_writer_done(&writer);
    return err;
}

int main(void)
{
    rig_main();
    struct vv_batch_header header = {.first_commit = 1ull << 40,
                                     .count = 3,
                                     .previous_attempt_id = {1, 2, 3},
                                     .counters = {5, UINT64_MAX}};
    struct vv_batch_header back = {0};
    tap_is_int(decode_of(&header, &back), 0, "decodes, and leaves the rest");
    tap_ok(memcmp(&back, &header, sizeof(back)) == 0, "to the same");
    header.count = 0;
    tap_is_int(decode_of(&header, &back), -VV_ERR_FORMAT, "no commit");
    header.count = UINT64_MAX;
    tap_is_int(decode_of(&header, &back), -VV_ERR_FORMAT, "numbers that overflow");
    tap_is_int((int64_t)back.count, 3, "and nothing has changed");
    uint8_t bytes[64];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    header.count = 3;
    vv_batch_header_encode(&writer, &header);
    bool is_refused = true;
    for (size_t len = 0; len < writer.len; len++) {
        struct vv_cursor cursor = vv_cursor_of(bytes, len);
        is_refused &= vv_batch_header_decode(&cursor, &back) == -VV_ERR_FORMAT;
    }
    tap_ok(is_refused, "any shortening is refused");
    return tap_done();
}
