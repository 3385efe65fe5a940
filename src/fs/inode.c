#include "fs/inode.h"

#include <assert.h>
#include <string.h>
#include <sys/stat.h>

#define NS_PER_S 1000000000u
static_assert(VV_PARTS_BUF_BYTES <= VV_SYMLINK_MAX, "VV_INODE_RECORD_MAX holds parts too");

static bool is_known_type(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
        return (mode & ~(uint32_t)(S_IFMT | 07777)) == 0;
    default:
        return false;
    }
}

static bool is_time_good(const struct timespec *time)
{
    return time->tv_nsec >= 0 && time->tv_nsec < (long)NS_PER_S;
}

/* What the rest of fs relies on. */
static bool is_sound(const struct vv_inode *inode)
{
    size_t inline_max = S_ISREG(inode->mode) ? VV_INLINE_MAX : 0;
    if (S_ISLNK(inode->mode))
        inline_max = VV_SYMLINK_MAX;
    if (inode->in_line.len > inline_max || (inode->in_line.len > 0 && inode->parts.len > 0))
        return false;
    if (inode->parts.len > 0 && !S_ISREG(inode->mode))
        return false;
    if (inode->aside_blocks > VV_FILE_BYTES_MAX / VV_BLOCK_BYTES ||
        (inode->aside_blocks > 0 && (!S_ISREG(inode->mode) || inode->in_line.len > 0)))
        return false;
    if (S_ISLNK(inode->mode) ? inode->size != inode->in_line.len : inode->in_line.len > inode->size)
        return false;
    if (S_ISDIR(inode->mode) && (inode->next_cookie < VV_FIRST_COOKIE || inode->parent == 0))
        return false;
    return inode->size <= VV_FILE_BYTES_MAX && (inode->bits & ~VV_INODE_BITS_ALL) == 0 &&
           is_time_good(&inode->atime) && is_time_good(&inode->mtime) &&
           is_time_good(&inode->ctime) && is_time_good(&inode->btime);
}

static void decode_times(struct vv_cursor *cursor, struct vv_inode *out)
{
    out->atime.tv_sec = (int64_t)vv_cursor_u64(cursor);
    out->mtime.tv_sec = (int64_t)vv_cursor_u64(cursor);
    out->ctime.tv_sec = (int64_t)vv_cursor_u64(cursor);
    out->btime.tv_sec = (int64_t)vv_cursor_u64(cursor);
    out->atime.tv_nsec = vv_cursor_u32(cursor);
    out->mtime.tv_nsec = vv_cursor_u32(cursor);
    out->ctime.tv_nsec = vv_cursor_u32(cursor);
    out->btime.tv_nsec = vv_cursor_u32(cursor);
}

int vv_inode_decode(struct vv_bytes record, uint64_t inode, struct vv_inode *out_inode)
{
    struct vv_cursor cursor = vv_cursor_of(record.ptr, record.len);
    struct vv_inode out = {.inode = inode};
    uint8_t version = vv_cursor_u8(&cursor);
    if (!cursor.is_bad && version > VV_INODE_VERSION)
        return -VV_ERR_NEWER;
    uint8_t bits = vv_cursor_u8(&cursor);
    bool has_aside = bits & VV_INODE_HAS_ASIDE;
    out.bits = bits & (uint8_t)~VV_INODE_HAS_ASIDE;
    size_t part_count = vv_cursor_u16(&cursor);
    out.mode = vv_cursor_u32(&cursor);
    out.nlink = vv_cursor_u32(&cursor);
    out.uid = vv_cursor_u32(&cursor);
    out.gid = vv_cursor_u32(&cursor);
    out.flags = vv_cursor_u32(&cursor);
    out.size = vv_cursor_u64(&cursor);
    out.change = vv_cursor_u64(&cursor);
    decode_times(&cursor, &out);
    out.parent = vv_cursor_u64(&cursor);
    out.cookie = vv_cursor_u64(&cursor);
    uint64_t special = vv_cursor_u64(&cursor);
    out.next_cookie = S_ISDIR(out.mode) ? special : 0;
    out.rdev = S_ISDIR(out.mode) || S_ISREG(out.mode) ? 0 : special;
    out.verifier = S_ISREG(out.mode) ? special : 0;
    out.xattr_count = vv_cursor_u32(&cursor);
    out.xattr_name_bytes = vv_cursor_u32(&cursor);
    size_t inline_len = vv_cursor_u16(&cursor);
    uint16_t zero = vv_cursor_u16(&cursor);
    out.parts = vv_cursor_bytes(&cursor, part_count * VV_PART_BYTES);
    out.in_line = vv_cursor_bytes(&cursor, inline_len);
    out.aside_blocks = has_aside ? vv_cursor_u64(&cursor) : 0;
    TRY(vv_cursor_end(&cursor));
    if (version != (has_aside ? VV_INODE_VERSION : VV_INODE_VERSION_PLAIN) ||
        has_aside != (out.aside_blocks > 0))
        return -VV_ERR_FORMAT;
    if (zero != 0 || !is_known_type(out.mode) || !is_sound(&out))
        return -VV_ERR_FORMAT;
    if (part_count > 0) {
        struct vv_parts parts;
        TRY(vv_parts_decode(out.parts, &parts));
    }
    *out_inode = out;
    return 0;
}

/* What offset 104 holds for its type. */
static uint64_t special_of(const struct vv_inode *inode)
{
    if (S_ISDIR(inode->mode))
        return inode->next_cookie;
    return S_ISREG(inode->mode) ? inode->verifier : inode->rdev;
}

size_t vv_inode_encode(const struct vv_inode *inode, uint8_t *buf)
{
    assert(is_known_type(inode->mode) && is_sound(inode));
    struct vv_writer writer = vv_writer_of(buf, VV_INODE_RECORD_MAX);
    bool has_aside = inode->aside_blocks > 0;
    vv_writer_u8(&writer, has_aside ? VV_INODE_VERSION : VV_INODE_VERSION_PLAIN);
    vv_writer_u8(&writer, (uint8_t)(inode->bits | (has_aside ? VV_INODE_HAS_ASIDE : 0)));
    vv_writer_u16(&writer, (uint16_t)(inode->parts.len / VV_PART_BYTES));
    vv_writer_u32(&writer, inode->mode);
    vv_writer_u32(&writer, inode->nlink);
    vv_writer_u32(&writer, inode->uid);
    vv_writer_u32(&writer, inode->gid);
    vv_writer_u32(&writer, inode->flags);
    vv_writer_u64(&writer, inode->size);
    vv_writer_u64(&writer, inode->change);
    vv_writer_u64(&writer, (uint64_t)inode->atime.tv_sec);
    vv_writer_u64(&writer, (uint64_t)inode->mtime.tv_sec);
    vv_writer_u64(&writer, (uint64_t)inode->ctime.tv_sec);
    vv_writer_u64(&writer, (uint64_t)inode->btime.tv_sec);
    vv_writer_u32(&writer, (uint32_t)inode->atime.tv_nsec);
    vv_writer_u32(&writer, (uint32_t)inode->mtime.tv_nsec);
    vv_writer_u32(&writer, (uint32_t)inode->ctime.tv_nsec);
    vv_writer_u32(&writer, (uint32_t)inode->btime.tv_nsec);
    vv_writer_u64(&writer, inode->parent);
    vv_writer_u64(&writer, inode->cookie);
    vv_writer_u64(&writer, special_of(inode));
    vv_writer_u32(&writer, inode->xattr_count);
    vv_writer_u32(&writer, inode->xattr_name_bytes);
    vv_writer_u16(&writer, (uint16_t)inode->in_line.len);
    vv_writer_u16(&writer, 0);
    vv_writer_bytes(&writer, inode->parts.ptr, inode->parts.len);
    vv_writer_bytes(&writer, inode->in_line.ptr, inode->in_line.len);
    if (has_aside)
        vv_writer_u64(&writer, inode->aside_blocks);
    assert(!writer.is_bad);
    return writer.len;
}

int vv_parts_decode(struct vv_bytes encoded, struct vv_parts *out_parts)
{
    size_t count = encoded.len / VV_PART_BYTES;
    if (encoded.len % VV_PART_BYTES != 0 || count > VV_PARTS_MAX)
        return -VV_ERR_FORMAT;
    struct vv_cursor cursor = vv_cursor_of(encoded.ptr, encoded.len);
    uint64_t total = 0;
    out_parts->count = count;
    for (size_t i = 0; i < count; i++) {
        struct vv_part *part = &out_parts->at[i];
        part->data_id = vv_cursor_u64(&cursor);
        part->start = vv_cursor_u64(&cursor);
        part->length = vv_cursor_u64(&cursor);
        bool is_last = i + 1 == count;
        if (part->data_id == 0 || part->start > VV_PART_START_MAX ||
            (part->length == VV_PART_NO_END) != is_last)
            return -VV_ERR_FORMAT;
        if (is_last)
            break;
        if (part->length == 0 || part->length > VV_FILE_BYTES_MAX ||
            total > VV_FILE_BYTES_MAX - part->length)
            return -VV_ERR_FORMAT;
        total += part->length;
    }
    return 0;
}

struct vv_bytes vv_parts_encode(const struct vv_parts *parts, uint8_t *buf)
{
    assert(parts->count <= VV_PARTS_MAX);
    struct vv_writer writer = vv_writer_of(buf, VV_PARTS_BUF_BYTES);
    for (size_t i = 0; i < parts->count; i++) {
        vv_writer_u64(&writer, parts->at[i].data_id);
        vv_writer_u64(&writer, parts->at[i].start);
        vv_writer_u64(&writer, parts->at[i].length);
    }
    return (struct vv_bytes){buf, writer.len};
}

int vv_entry_decode(struct vv_bytes record, struct vv_entry *out_entry)
{
    struct vv_cursor cursor = vv_cursor_of(record.ptr, record.len);
    struct vv_entry entry;
    entry.inode = vv_cursor_u64(&cursor);
    entry.cookie = vv_cursor_u64(&cursor);
    entry.type = (uint32_t)vv_cursor_u8(&cursor) << 12;
    TRY(vv_cursor_end(&cursor));
    if (entry.inode == 0 || entry.cookie < VV_FIRST_COOKIE || !is_known_type(entry.type))
        return -VV_ERR_FORMAT;
    *out_entry = entry;
    return 0;
}

size_t vv_entry_encode(const struct vv_entry *entry, uint8_t *buf)
{
    struct vv_writer writer = vv_writer_of(buf, VV_ENTRY_BYTES);
    vv_writer_u64(&writer, entry->inode);
    vv_writer_u64(&writer, entry->cookie);
    vv_writer_u8(&writer, (uint8_t)((entry->type & S_IFMT) >> 12));
    assert(!writer.is_bad);
    return writer.len;
}

int vv_cookie_decode(struct vv_bytes record, struct vv_entry *out_entry, struct vv_bytes *out_name)
{
    struct vv_cursor cursor = vv_cursor_of(record.ptr, record.len);
    struct vv_entry entry = {.inode = vv_cursor_u64(&cursor)};
    entry.type = (uint32_t)vv_cursor_u8(&cursor) << 12;
    struct vv_bytes name = vv_cursor_bytes(&cursor, cursor.len);
    TRY(vv_cursor_end(&cursor));
    if (entry.inode == 0 || !is_known_type(entry.type) || name.len == 0 || name.len > VV_NAME_MAX)
        return -VV_ERR_FORMAT;
    *out_entry = entry;
    *out_name = name;
    return 0;
}

size_t vv_cookie_encode(const struct vv_entry *entry, const char *name, size_t name_len,
                        uint8_t *buf)
{
    struct vv_writer writer = vv_writer_of(buf, VV_COOKIE_RECORD_MAX);
    vv_writer_u64(&writer, entry->inode);
    vv_writer_u8(&writer, (uint8_t)((entry->type & S_IFMT) >> 12));
    vv_writer_bytes(&writer, name, name_len);
    assert(!writer.is_bad);
    return writer.len;
}

/* ---- replies ---- */

int vv_reply_decode(struct vv_bytes record, uint64_t slot, struct vv_reply_record *out_record)
{
    struct vv_cursor cursor = vv_cursor_of(record.ptr, record.len);
    struct vv_reply_record decoded = {0};
    uint8_t version = vv_cursor_u8(&cursor);
    if (!cursor.is_bad && version > VV_REPLY_VERSION)
        return -VV_ERR_NEWER;
    decoded.reply.door = vv_cursor_u8(&cursor);
    decoded.reply.kind = vv_cursor_u8(&cursor);
    uint8_t unused = vv_cursor_u8(&cursor);
    struct vv_bytes id = vv_cursor_bytes(&cursor, VV_REPLY_ID_BYTES);
    decoded.sequence = vv_cursor_u64(&cursor);
    decoded.reply.inode = vv_cursor_u64(&cursor);
    TRY(vv_cursor_end(&cursor));
    if (version != VV_REPLY_VERSION || unused != 0 || decoded.sequence % VV_REPLIES_MAX != slot)
        return -VV_ERR_FORMAT;
    memcpy(decoded.reply.id, id.ptr, VV_REPLY_ID_BYTES);
    *out_record = decoded;
    return 0;
}

void vv_reply_encode(const struct vv_reply_record *record, uint8_t buf[VV_REPLY_RECORD_BYTES])
{
    struct vv_writer writer = vv_writer_of(buf, VV_REPLY_RECORD_BYTES);
    vv_writer_u8(&writer, VV_REPLY_VERSION);
    vv_writer_u8(&writer, record->reply.door);
    vv_writer_u8(&writer, record->reply.kind);
    vv_writer_u8(&writer, 0);
    vv_writer_bytes(&writer, record->reply.id, VV_REPLY_ID_BYTES);
    vv_writer_u64(&writer, record->sequence);
    vv_writer_u64(&writer, record->reply.inode);
    assert(!writer.is_bad && writer.len == VV_REPLY_RECORD_BYTES);
}

/* ---- keys ---- */

/* A key of a prefix, an inode number and up to a name's length of bytes. */
static void key_of(struct vv_fs_key *key, enum vv_table table, uint64_t inode, const void *tail,
                   size_t tail_len)
{
    assert(tail_len <= VV_NAME_MAX);
    key->bytes[0] = (uint8_t)table;
    vv_store_be64(key->bytes + 1, inode);
    if (tail_len > 0)
        memcpy(key->bytes + 9, tail, tail_len);
    key->len = 9 + tail_len;
}

void vv_key_inode(struct vv_fs_key *key, uint64_t inode)
{
    key_of(key, VV_TABLE_INODE, inode, NULL, 0);
}

void vv_key_entry(struct vv_fs_key *key, uint64_t directory, const char *name, size_t name_len)
{
    key_of(key, VV_TABLE_ENTRY, directory, name, name_len);
}

void vv_key_cookie(struct vv_fs_key *key, uint64_t directory, uint64_t cookie)
{
    uint8_t tail[8];
    vv_store_be64(tail, cookie);
    key_of(key, VV_TABLE_COOKIE, directory, tail, sizeof(tail));
}

void vv_key_link(struct vv_fs_key *key, uint64_t inode, uint64_t parent, uint64_t cookie)
{
    uint8_t tail[16];
    vv_store_be64(tail, parent);
    vv_store_be64(tail + 8, cookie);
    key_of(key, VV_TABLE_LINK, inode, tail, sizeof(tail));
}

void vv_key_xattr(struct vv_fs_key *key, uint64_t inode, const char *name, size_t name_len)
{
    key_of(key, VV_TABLE_XATTR, inode, name, name_len);
}

void vv_key_orphan(struct vv_fs_key *key, uint64_t inode)
{
    key->bytes[0] = (uint8_t)VV_TABLE_ORPHAN;
    key->bytes[1] = 'i';
    vv_store_be64(key->bytes + 2, inode);
    key->len = 10;
}

void vv_key_aside(struct vv_fs_key *key, uint64_t inode)
{
    key_of(key, VV_TABLE_ASIDE, inode, NULL, 0);
}

void vv_key_reply(struct vv_fs_key *key, uint64_t slot)
{
    assert(slot < VV_REPLIES_MAX);
    key->bytes[0] = (uint8_t)VV_TABLE_REPLY;
    key->bytes[1] = (uint8_t)(slot >> 8);
    key->bytes[2] = (uint8_t)slot;
    key->len = 3;
}

int vv_reply_slot(struct vv_bytes key, uint64_t *out_slot)
{
    if (key.len != 3 || key.ptr[0] != VV_TABLE_REPLY)
        return -VV_ERR_FORMAT;
    *out_slot = (uint64_t)key.ptr[1] << 8 | key.ptr[2];
    return *out_slot < VV_REPLIES_MAX ? 0 : -VV_ERR_FORMAT;
}
