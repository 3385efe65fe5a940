/* Requests of the kernel's FUSE protocol: nothing that is taken out of one lies outside it, and what has a
 * way back comes back. */
#include <stdlib.h>
#include <string.h>

#include "front/fuse/codec.h"

static void try_names(struct vv_cursor body, const uint8_t *data, size_t size)
{
    while (!body.is_bad && body.len > 0) {
        struct vv_bytes name = vv_fuse_take_name(&body);
        if (body.is_bad)
            break;
        if (name.ptr < data || name.ptr + name.len >= data + size || name.ptr[name.len] != 0)
            abort();
    }
}

static void try_structs(struct vv_cursor body)
{
    struct fuse_setattr_in setattr;
    struct fuse_file_lock lock, again;
    struct vv_attr attr;
    struct vv_lock decoded;
    struct vv_cursor start = body;
    vv_cursor_copy(&body, &setattr, sizeof(setattr));
    if (!body.is_bad && vv_fuse_decode_setattr(&setattr, &attr) & VV_SET_MODE && attr.mode > 07777)
        abort();
    body = start;
    vv_cursor_copy(&body, &lock, sizeof(lock));
    if (body.is_bad)
        return;
    vv_fuse_decode_lock(&lock, &decoded);
    vv_fuse_encode_lock(&decoded, &again);
    if (lock.start <= INT64_MAX && lock.end <= INT64_MAX &&
        (lock.start != again.start || lock.end != again.end))
        abort();
    uint32_t major, minor, flags;
    vv_fuse_decode_rdev(lock.type, &major, &minor);
    if (vv_fuse_encode_rdev(major, minor) != lock.type)
        abort();
    if (vv_fuse_flags_of(lock.type, &flags) == 0 && vv_fuse_xflags_of(flags) != lock.type)
        abort();
}

static void try_dirent(const uint8_t *data, size_t size)
{
    uint8_t bytes[600];
    struct vv_dirent entry = {.inode = size, .cookie = 3, .type = size > 0 ? data[0] * 256u : 0};
    entry.name_len = (uint16_t)(size < VV_NAME_MAX ? size : VV_NAME_MAX);
    memcpy(entry.name, data, entry.name_len);
    for (int is_plus = 0; is_plus < 2; is_plus++) {
        struct vv_writer writer = vv_writer_of(bytes, size % sizeof(bytes));
        size_t at;
        while (vv_fuse_encode_dirent(&writer, &entry, is_plus, &at))
            if (writer.is_bad || writer.len % 8 != 0 || writer.len > writer.capacity)
                abort();
    }
}

/* What is a WRITE in two pieces is one in one piece, with the same head and as much data. */
static void try_write(const uint8_t *data, size_t size)
{
    struct vv_fuse_message message, whole;
    struct fuse_write_in in;
    if (size < VV_FUSE_WRITE_HEAD_BYTES || vv_fuse_decode_write(data, size, &message) < 0)
        return;
    vv_cursor_copy(&message.body, &in, sizeof(in));
    if (message.body.is_bad || message.body.len != 0 || vv_fuse_decode(data, size, &whole) < 0 ||
        whole.body.len != sizeof(in) + in.size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vv_fuse_message message;
    try_dirent(data, size);
    try_write(data, size);
    if (vv_fuse_decode(data, size, &message) < 0)
        return 0;
    if (message.group_count > VV_FUSE_GROUPS_MAX ||
        message.body.len > size - sizeof(message.header) || !vv_fuse_opcode_name(message.header.opcode))
        abort();
    try_names(message.body, data, size);
    try_structs(message.body);
    return 0;
}
