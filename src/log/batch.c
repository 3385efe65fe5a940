#include <errno.h>

#include "log/log.h"

void vv_batch_header_encode(struct vv_writer *writer, const struct vv_batch_header *header)
{
    vv_writer_varint(writer, header->first_commit);
    vv_writer_varint(writer, header->count);
    vv_writer_bytes(writer, header->previous_attempt_id, sizeof(header->previous_attempt_id));
    vv_writer_varint(writer, header->counters.next_inode);
    vv_writer_varint(writer, header->counters.next_data_id);
}

int vv_batch_header_decode(struct vv_cursor *cursor, struct vv_batch_header *out_header)
{
    struct vv_batch_header header = {0};
    header.first_commit = vv_cursor_varint(cursor);
    header.count = vv_cursor_varint(cursor);
    vv_cursor_copy(cursor, header.previous_attempt_id, sizeof(header.previous_attempt_id));
    header.counters.next_inode = vv_cursor_varint(cursor);
    header.counters.next_data_id = vv_cursor_varint(cursor);
    TRY(vv_cursor_check(cursor));
    uint64_t end;
    if (header.count == 0 || __builtin_add_overflow(header.first_commit, header.count, &end))
        return -VV_ERR_FORMAT;
    *out_header = header;
    return 0;
}
