#include "front/fuse/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>

/* Extensions stand at the end of the request, each with its size and type. Those not known are
 * passed over. */
static void decode_extensions(struct vv_cursor extensions, struct vv_fuse_message *message)
{
    while (extensions.len >= sizeof(struct fuse_ext_header)) {
        struct fuse_ext_header header;
        vv_cursor_copy(&extensions, &header, sizeof(header));
        if (header.size < sizeof(header))
            return;
        struct vv_bytes bytes = vv_cursor_bytes(&extensions, header.size - sizeof(header));
        if (header.type != VV_FUSE_EXT_GROUPS || bytes.ptr == NULL)
            continue;
        struct vv_cursor cursor = vv_cursor_of(bytes.ptr, bytes.len);
        uint32_t count = 0;
        vv_cursor_copy(&cursor, &count, sizeof(count));
        if (count > VV_FUSE_GROUPS_MAX || count > cursor.len / sizeof(uint32_t))
            continue;
        vv_cursor_copy(&cursor, message->groups, count * sizeof(uint32_t));
        message->group_count = count;
    }
}

int vv_fuse_decode(const void *bytes, size_t len, struct vv_fuse_message *out_message)
{
    struct vv_cursor cursor = vv_cursor_of(bytes, len);
    struct fuse_in_header header;
    vv_cursor_copy(&cursor, &header, sizeof(header));
    size_t extensions_len = (size_t)header.total_extlen * 8;
    if (cursor.is_bad || header.len != len || extensions_len > cursor.len)
        return -VV_ERR_FORMAT;
    out_message->header = header;
    out_message->group_count = 0;
    out_message->body = vv_cursor_of(cursor.ptr, cursor.len - extensions_len);
    if (extensions_len > 0)
        decode_extensions(vv_cursor_of(cursor.ptr + cursor.len - extensions_len, extensions_len),
                          out_message);
    return 0;
}

int vv_fuse_decode_write(const void *head, size_t len, struct vv_fuse_message *out_message)
{
    struct vv_cursor cursor = vv_cursor_of(head, VV_FUSE_WRITE_HEAD_BYTES);
    struct fuse_in_header header;
    struct fuse_write_in in;
    vv_cursor_copy(&cursor, &header, sizeof(header));
    struct vv_cursor body = cursor;
    vv_cursor_copy(&cursor, &in, sizeof(in));
    if (cursor.is_bad || len <= VV_FUSE_WRITE_HEAD_BYTES || header.opcode != FUSE_WRITE ||
        header.len != len || header.total_extlen != 0 || in.size != len - VV_FUSE_WRITE_HEAD_BYTES)
        return -VV_ERR_FORMAT;
    out_message->header = header;
    out_message->group_count = 0;
    out_message->body = body;
    return 0;
}

struct vv_bytes vv_fuse_take_name(struct vv_cursor *body)
{
    const uint8_t *end = body->len > 0 ? memchr(body->ptr, 0, body->len) : NULL;
    /* Without an end, asking for more than there is makes the cursor bad. */
    size_t len = end ? (size_t)(end - body->ptr) : body->len + 1;
    struct vv_bytes name = vv_cursor_bytes(body, len);
    vv_cursor_skip(body, 1);
    return name;
}

uint32_t vv_fuse_encode_rdev(uint32_t major, uint32_t minor)
{
    return (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12;
}

void vv_fuse_decode_rdev(uint32_t rdev, uint32_t *out_major, uint32_t *out_minor)
{
    *out_major = rdev >> 8 & 0xfff;
    *out_minor = (rdev & 0xff) | (rdev >> 12 & 0xfff00);
}

void vv_fuse_encode_attr(const struct vv_attr *attr, struct fuse_attr *out_attr)
{
    *out_attr = (struct fuse_attr){
        .ino = attr->inode,
        .size = attr->size,
        .blocks = attr->blocks,
        .atime = (uint64_t)attr->atime.tv_sec,
        .mtime = (uint64_t)attr->mtime.tv_sec,
        .ctime = (uint64_t)attr->ctime.tv_sec,
        .atimensec = (uint32_t)attr->atime.tv_nsec,
        .mtimensec = (uint32_t)attr->mtime.tv_nsec,
        .ctimensec = (uint32_t)attr->ctime.tv_nsec,
        .mode = attr->mode,
        .nlink = attr->nlink,
        .uid = attr->uid,
        .gid = attr->gid,
        .rdev = vv_fuse_encode_rdev(attr->rdev_major, attr->rdev_minor),
        .blksize = VV_BLOCK_BYTES,
    };
}

static struct vv_fuse_sx_time sx_time(struct timespec time)
{
    return (struct vv_fuse_sx_time){.sec = time.tv_sec, .nsec = (uint32_t)time.tv_nsec};
}

void vv_fuse_encode_statx(const struct vv_attr *attr, struct vv_fuse_statx_out *out_statx)
{
    *out_statx = (struct vv_fuse_statx_out){
        .mask = STATX_BASIC_STATS | STATX_BTIME,
        .blksize = VV_BLOCK_BYTES,
        .attributes = (attr->flags & FS_IMMUTABLE_FL ? STATX_ATTR_IMMUTABLE : 0) |
                      (attr->flags & FS_APPEND_FL ? STATX_ATTR_APPEND : 0) |
                      (attr->flags & FS_NODUMP_FL ? STATX_ATTR_NODUMP : 0),
        .attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP,
        .nlink = attr->nlink,
        .uid = attr->uid,
        .gid = attr->gid,
        .mode = (uint16_t)attr->mode,
        .ino = attr->inode,
        .size = attr->size,
        .blocks = attr->blocks,
        .atime = sx_time(attr->atime),
        .btime = sx_time(attr->btime),
        .ctime = sx_time(attr->ctime),
        .mtime = sx_time(attr->mtime),
        .rdev_major = attr->rdev_major,
        .rdev_minor = attr->rdev_minor,
    };
}

static struct timespec time_of(uint64_t sec, uint32_t nsec)
{
    return (struct timespec){.tv_sec = (time_t)sec, .tv_nsec = nsec};
}

uint32_t vv_fuse_decode_setattr(const struct fuse_setattr_in *in, struct vv_attr *out_set)
{
    *out_set = (struct vv_attr){
        .mode = in->mode & 07777,
        .uid = in->uid,
        .gid = in->gid,
        .size = in->size,
        .atime = time_of(in->atime, in->atimensec),
        .mtime = time_of(in->mtime, in->mtimensec),
        .ctime = time_of(in->ctime, in->ctimensec),
    };
    uint32_t mask = 0;
    mask |= in->valid & FATTR_MODE ? VV_SET_MODE : 0;
    mask |= in->valid & FATTR_UID ? VV_SET_UID : 0;
    mask |= in->valid & FATTR_GID ? VV_SET_GID : 0;
    mask |= in->valid & FATTR_SIZE ? VV_SET_SIZE : 0;
    if (in->valid & FATTR_ATIME_NOW)
        mask |= VV_SET_ATIME_NOW;
    else if (in->valid & FATTR_ATIME)
        mask |= VV_SET_ATIME;
    if (in->valid & FATTR_MTIME_NOW)
        mask |= VV_SET_MTIME_NOW;
    else if (in->valid & FATTR_MTIME)
        mask |= VV_SET_MTIME;
    mask |= in->valid & FATTR_CTIME ? VV_SET_CTIME : 0;
    mask |= in->valid & FATTR_KILL_SUIDGID ? VV_SET_KILL_PRIV : 0;
    return mask;
}

void vv_fuse_decode_lock(const struct fuse_file_lock *in, struct vv_lock *out_lock)
{
    *out_lock = (struct vv_lock){
        .start = in->start,
        .end = in->end >= INT64_MAX ? UINT64_MAX : in->end,
        .type = in->type,
        .pid = in->pid,
    };
}

void vv_fuse_encode_lock(const struct vv_lock *lock, struct fuse_file_lock *out_lock)
{
    *out_lock = (struct fuse_file_lock){
        .start = lock->start,
        .end = lock->end > INT64_MAX ? INT64_MAX : lock->end,
        .type = lock->type,
        .pid = lock->pid,
    };
}

bool vv_fuse_encode_dirent(struct vv_writer *writer, const struct vv_dirent *entry, bool is_plus,
                           size_t *out_entry_at)
{
    struct fuse_dirent dirent = {
        .ino = entry->inode,
        .off = entry->cookie,
        .namelen = entry->name_len,
        .type = (entry->type & S_IFMT) >> 12,
    };
    size_t plain_len = FUSE_NAME_OFFSET + entry->name_len;
    size_t len = FUSE_DIRENT_ALIGN(plain_len);
    len += is_plus ? sizeof(struct fuse_entry_out) : 0;
    if (len > writer->capacity - writer->len)
        return false;
    *out_entry_at = writer->len;
    if (is_plus)
        vv_writer_space(writer, sizeof(struct fuse_entry_out));
    vv_writer_bytes(writer, &dirent, FUSE_NAME_OFFSET);
    vv_writer_bytes(writer, entry->name, entry->name_len);
    vv_writer_space(writer, FUSE_DIRENT_ALIGN(plain_len) - plain_len);
    return true;
}

static const struct flag_pair {
    uint32_t flag, xflag;
} flag_pairs[] = {
    {FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE}, {FS_APPEND_FL, FS_XFLAG_APPEND},
    {FS_SYNC_FL, FS_XFLAG_SYNC},           {FS_NOATIME_FL, FS_XFLAG_NOATIME},
    {FS_NODUMP_FL, FS_XFLAG_NODUMP},
};
#define FLAG_PAIR_COUNT (sizeof(flag_pairs) / sizeof(flag_pairs[0]))

uint32_t vv_fuse_xflags_of(uint32_t flags)
{
    uint32_t xflags = 0;
    for (size_t i = 0; i < FLAG_PAIR_COUNT; i++)
        xflags |= flags & flag_pairs[i].flag ? flag_pairs[i].xflag : 0;
    return xflags;
}

int vv_fuse_flags_of(uint32_t xflags, uint32_t *out_flags)
{
    uint32_t flags = 0;
    for (size_t i = 0; i < FLAG_PAIR_COUNT; i++) {
        flags |= xflags & flag_pairs[i].xflag ? flag_pairs[i].flag : 0;
        xflags &= ~flag_pairs[i].xflag;
    }
    if (xflags != 0)
        return -EOPNOTSUPP;
    *out_flags = flags;
    return 0;
}

const char *vv_fuse_opcode_name(uint32_t opcode)
{
    static const char *const names[] = {
        [FUSE_LOOKUP] = "LOOKUP",
        [FUSE_FORGET] = "FORGET",
        [FUSE_GETATTR] = "GETATTR",
        [FUSE_SETATTR] = "SETATTR",
        [FUSE_READLINK] = "READLINK",
        [FUSE_SYMLINK] = "SYMLINK",
        [FUSE_MKNOD] = "MKNOD",
        [FUSE_MKDIR] = "MKDIR",
        [FUSE_UNLINK] = "UNLINK",
        [FUSE_RMDIR] = "RMDIR",
        [FUSE_RENAME] = "RENAME",
        [FUSE_LINK] = "LINK",
        [FUSE_OPEN] = "OPEN",
        [FUSE_READ] = "READ",
        [FUSE_WRITE] = "WRITE",
        [FUSE_STATFS] = "STATFS",
        [FUSE_RELEASE] = "RELEASE",
        [FUSE_FSYNC] = "FSYNC",
        [FUSE_SETXATTR] = "SETXATTR",
        [FUSE_GETXATTR] = "GETXATTR",
        [FUSE_LISTXATTR] = "LISTXATTR",
        [FUSE_REMOVEXATTR] = "REMOVEXATTR",
        [FUSE_FLUSH] = "FLUSH",
        [FUSE_INIT] = "INIT",
        [FUSE_OPENDIR] = "OPENDIR",
        [FUSE_READDIR] = "READDIR",
        [FUSE_RELEASEDIR] = "RELEASEDIR",
        [FUSE_FSYNCDIR] = "FSYNCDIR",
        [FUSE_GETLK] = "GETLK",
        [FUSE_SETLK] = "SETLK",
        [FUSE_SETLKW] = "SETLKW",
        [FUSE_ACCESS] = "ACCESS",
        [FUSE_CREATE] = "CREATE",
        [FUSE_INTERRUPT] = "INTERRUPT",
        [FUSE_DESTROY] = "DESTROY",
        [FUSE_IOCTL] = "IOCTL",
        [FUSE_BATCH_FORGET] = "BATCH_FORGET",
        [FUSE_FALLOCATE] = "FALLOCATE",
        [FUSE_READDIRPLUS] = "READDIRPLUS",
        [FUSE_RENAME2] = "RENAME2",
        [FUSE_LSEEK] = "LSEEK",
        [FUSE_COPY_FILE_RANGE] = "COPY_FILE_RANGE",
        [FUSE_SYNCFS] = "SYNCFS",
        [FUSE_TMPFILE] = "TMPFILE",
        [VV_FUSE_STATX] = "STATX",
        [VV_FUSE_COPY_FILE_RANGE_64] = "COPY_FILE_RANGE_64",
    };
    const size_t count = sizeof(names) / sizeof(names[0]);
    return opcode < count && names[opcode] ? names[opcode] : "UNKNOWN";
}
