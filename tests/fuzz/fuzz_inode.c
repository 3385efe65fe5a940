/* The records of fs. The first byte chooses: an inode record, an entry, an entry by cookie, a reply. What
 * is accepted must encode to the same bytes, and its parts must bear splitting anywhere. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "fs/fs_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_parts(const struct vv_inode *inode, uint64_t offset)
{
    struct vv_parts parts;
    uint8_t buf[VV_PARTS_BUF_BYTES];
    assert(vv_parts_decode(inode->parts, &parts) == 0);
    struct vv_bytes encoded = vv_parts_encode(&parts, buf);
    assert(vv_bytes_compare(encoded, inode->parts) == 0);
    if (parts.count == 0)
        return;
    offset %= VV_FILE_BYTES_MAX;
    struct vv_piece piece = vv_parts_at(&parts, offset, 1000);
    assert(piece.len > 0 && piece.start + piece.len <= VV_DATA_BYTES_MAX);
    size_t at = vv_parts_split(&parts, offset);
    assert(at <= parts.count && parts.count <= VV_PARTS_MAX + 1);
    vv_parts_join(&parts);
    assert(parts.count > 0);
}

static void try_inode(struct vv_bytes record)
{
    struct vv_inode inode;
    uint8_t again[VV_INODE_RECORD_MAX];
    if (vv_inode_decode(record, 5, &inode) < 0)
        return;
    size_t len = vv_inode_encode(&inode, again);
    /* What is not used for the type is not kept. */
    assert(len == record.len && memcmp(again, record.ptr, len) == 0);
    try_parts(&inode, inode.size ^ inode.change);
}

static void try_entry(struct vv_bytes record)
{
    struct vv_entry entry;
    uint8_t again[VV_ENTRY_BYTES];
    if (vv_entry_decode(record, &entry) < 0)
        return;
    size_t len = vv_entry_encode(&entry, again);
    assert(len == record.len && memcmp(again, record.ptr, len) == 0);
}

static void try_cookie(struct vv_bytes record)
{
    struct vv_entry entry;
    struct vv_bytes name;
    uint8_t again[VV_COOKIE_RECORD_MAX];
    if (vv_cookie_decode(record, &entry, &name) < 0)
        return;
    size_t len = vv_cookie_encode(&entry, (const char *)name.ptr, name.len, again);
    assert(len == record.len && memcmp(again, record.ptr, len) == 0);
}

static void try_reply(struct vv_bytes record)
{
    struct vv_reply_record reply;
    uint8_t again[VV_REPLY_RECORD_BYTES];
    uint64_t slot;
    if (record.len < 3 || vv_reply_slot((struct vv_bytes){record.ptr, 3}, &slot) < 0 ||
        vv_reply_decode((struct vv_bytes){record.ptr + 3, record.len - 3}, slot, &reply) < 0)
        return;
    vv_reply_encode(&reply, again);
    assert(record.len == 3 + sizeof(again) && memcmp(again, record.ptr + 3, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct vv_bytes record = {data + 1, size - 1};
    switch (data[0] % 4) {
    case 0:
        try_inode(record);
        break;
    case 1:
        try_entry(record);
        break;
    case 2:
        try_cookie(record);
        break;
    default:
        try_reply(record);
        break;
    }
    return 0;
}
