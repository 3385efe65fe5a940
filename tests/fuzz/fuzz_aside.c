/* What is set aside of a file: first two u16 blocks, then the record. What is accepted must encode to the same bytes, and
 * changing it must make sound records. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "fs/aside.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How many blocks; checks that the record is sound unless it is too long. */
static uint64_t blocks_of(struct vv_aside_made *made)
{
    uint64_t blocks = 0;
    assert(vv_writer_check(&made->writer) == 0);
    struct vv_bytes record = {made->writer.ptr, made->writer.len};
    int err = vv_aside_check(record, &blocks);
    assert(made->writer.len > VV_ASIDE_RECORD_MAX || err == (made->blocks > 0 ? 0 : -VV_ERR_FORMAT));
    assert(err < 0 || blocks == made->blocks);
    blocks = made->blocks;
    vv_aside_done(made);
    return blocks;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vv_cursor cursor = vv_cursor_of(data, size);
    uint64_t from = vv_cursor_u16(&cursor);
    uint64_t to = from + vv_cursor_u16(&cursor);
    struct vv_bytes record = vv_cursor_bytes(&cursor, cursor.len);
    struct vv_aside_made made;
    uint64_t blocks, end;
    if (vv_cursor_check(&cursor) < 0 || vv_aside_check(record, &blocks) < 0)
        return 0;
    vv_aside_join(record, (struct vv_bytes){NULL, 0}, &made);
    assert(made.blocks == blocks && made.writer.len == record.len &&
           memcmp(made.writer.ptr, record.ptr, record.len) == 0);
    vv_aside_done(&made);
    vv_aside_remove(record, from, to, &made);
    uint64_t left = blocks_of(&made);
    assert(left <= blocks && left + (to - from) >= blocks);
    vv_aside_collapse(record, from, to, &made);
    assert(made.writer.len <= record.len && blocks_of(&made) == left);
    vv_aside_remove(record, from, UINT64_MAX, &made);
    assert(made.writer.len <= record.len);
    (void)blocks_of(&made);
    vv_aside_insert(record, from, to - from, &made);
    assert(blocks_of(&made) <= blocks);
    bool is_in = vv_aside_has(record, from, &end);
    assert(end > from && (end == UINT64_MAX || vv_aside_has(record, end, &end) != is_in));
    return 0;
}
