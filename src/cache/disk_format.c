#include <string.h>

#include "base/hash.h"
#include "cache/disk.h"

static const uint8_t entry_magic[4] = "vvce";
static const uint8_t tail_magic[4] = "vvci";

size_t vv_disk_entry_encode(const struct vv_disk_entry *entry, uint8_t *out)
{
    memset(out, 0, VV_DISK_HEADER_LEN);
    memcpy(out, entry_magic, sizeof entry_magic);
    memcpy(out + 8, entry->volume_id, 16);
    vv_store_u64(out + 24, entry->offset);
    vv_store_u32(out + 32, entry->len);
    vv_store_u32(out + 36, entry->crc);
    out[40] = (uint8_t)entry->name_len;
    out[41] = (uint8_t)(entry->name_len >> 8);
    out[42] = entry->is_end;
    memcpy(out + VV_DISK_HEADER_LEN, entry->name, entry->name_len);
    size_t len = VV_DISK_HEADER_LEN + entry->name_len;
    vv_store_u32(out + 4, vv_crc32c(0, out + 8, len - 8));
    return len;
}

ssize_t vv_disk_entry_decode(const void *bytes, size_t len, struct vv_disk_entry *out_entry)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, len);
    struct vv_disk_entry entry = {0};
    struct vv_bytes magic = vv_cursor_bytes(&cursor, 4);
    uint32_t crc = vv_cursor_u32(&cursor);
    vv_cursor_copy(&cursor, entry.volume_id, 16);
    entry.offset = vv_cursor_u64(&cursor);
    entry.len = vv_cursor_u32(&cursor);
    entry.crc = vv_cursor_u32(&cursor);
    entry.name_len = vv_cursor_u16(&cursor);
    uint8_t flags = vv_cursor_u8(&cursor);
    struct vv_bytes reserved = vv_cursor_bytes(&cursor, 21);
    static const uint8_t zero[21];
    if (cursor.is_bad || memcmp(magic.ptr, entry_magic, 4) != 0)
        return -VV_ERR_FORMAT;
    if (entry.name_len == 0 || entry.name_len > VV_STORE_NAME_MAX ||
        entry.name_len > cursor.len)
        return -VV_ERR_FORMAT;
    size_t total = VV_DISK_HEADER_LEN + entry.name_len;
    if (vv_crc32c(0, (const uint8_t *)bytes + 8, total - 8) != crc)
        return -VV_ERR_CHECKSUM;
    if (flags > 1 || memcmp(reserved.ptr, zero, sizeof zero) != 0 || entry.len == 0 ||
        entry.len > VV_DISK_ENTRY_MAX || entry.offset > VV_STORE_OBJECT_MAX)
        return -VV_ERR_FORMAT;
    entry.is_end = flags & 1;
    vv_cursor_copy(&cursor, entry.name, entry.name_len);
    *out_entry = entry;
    return (ssize_t)total;
}

void vv_disk_tail_encode(const struct vv_disk_tail *tail, uint8_t out[VV_DISK_TAIL_LEN])
{
    vv_store_u64(out, tail->index_at);
    vv_store_u32(out + 8, tail->count);
    vv_store_u32(out + 12, tail->index_crc);
    vv_store_u32(out + 16, vv_crc32c(0, out, 16));
    memcpy(out + 20, tail_magic, sizeof tail_magic);
}

int vv_disk_tail_decode(const uint8_t bytes[VV_DISK_TAIL_LEN], uint64_t file_bytes,
                        struct vv_disk_tail *out_tail)
{
    if (memcmp(bytes + 20, tail_magic, sizeof tail_magic) != 0)
        return -VV_ERR_FORMAT;
    if (vv_load_u32(bytes + 16) != vv_crc32c(0, bytes, 16))
        return -VV_ERR_CHECKSUM;
    struct vv_disk_tail tail = {vv_load_u64(bytes), vv_load_u32(bytes + 8),
                                vv_load_u32(bytes + 12)};
    if (file_bytes < VV_DISK_TAIL_LEN || tail.index_at > file_bytes - VV_DISK_TAIL_LEN ||
        tail.count > VV_DISK_FILE_ENTRIES_MAX)
        return -VV_ERR_FORMAT;
    *out_tail = tail;
    return 0;
}

int vv_disk_index_next(struct vv_cursor *cursor, uint64_t index_at, uint64_t *out_at,
                       struct vv_disk_entry *out_entry)
{
    struct vv_disk_entry entry;
    if (cursor->len == 0)
        return 0;
    uint64_t at = vv_cursor_u64(cursor);
    TRY(vv_cursor_check(cursor));
    ssize_t len = vv_disk_entry_decode(cursor->ptr, cursor->len, &entry);
    TRY((int)len);
    if (at > index_at || index_at - at < (uint64_t)len + entry.len)
        return -VV_ERR_FORMAT;
    vv_cursor_skip(cursor, (size_t)len);
    *out_at = at;
    *out_entry = entry;
    return 1;
}
