/* Requests of the kernel taken apart, and the structs that replies are made of. */
#include "front/fuse/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "tap.h"

static void put_header(struct vv_writer *writer, uint32_t len, uint16_t extension_len)
{
    struct fuse_in_header header = {.len = len,
                                    .opcode = FUSE_CREATE,
                                    .unique = 7,
                                    .nodeid = 1,
                                    .uid = 1000,
                                    .total_extlen = extension_len / 8};
    vv_writer_bytes(writer, &header, sizeof(header));
}

static void test_message(void)
{
    uint8_t bytes[256];
    struct vv_fuse_message message;
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    put_header(&writer, sizeof(struct fuse_in_header) + 9, 0);
    vv_writer_bytes(&writer, "name\0next", 9);
    tap_is_int(vv_fuse_decode(bytes, writer.len, &message), 0, "a request");
    tap_ok(message.header.unique == 7 && message.header.uid == 1000, "its header");
    tap_is_int(message.group_count, 0, "without groups");
    struct vv_bytes name = vv_fuse_take_name(&message.body);
    tap_ok(name.len == 4 && memcmp(name.ptr, "name", 5) == 0, "a name");
    name = vv_fuse_take_name(&message.body);
    tap_ok(message.body.is_bad && name.ptr == NULL, "a name without an end");
    int bad_count = 0;
    for (size_t len = 0; len < writer.len; len++)
        bad_count += vv_fuse_decode(bytes, len, &message) == -VV_ERR_FORMAT;
    tap_is_int(bad_count, (int64_t)writer.len, "cut off anywhere");
}

static void test_write(void)
{
    struct fuse_in_header header = {.opcode = FUSE_WRITE, .unique = 9};
    struct fuse_write_in in = {.fh = 3, .offset = 4096, .size = 5000}, got;
    const size_t len = VV_FUSE_WRITE_HEAD_BYTES + in.size;
    uint8_t bytes[VV_FUSE_WRITE_HEAD_BYTES];
    struct vv_fuse_message message;
    header.len = (uint32_t)len;
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &in, sizeof(in));
    tap_is_int(vv_fuse_decode_write(bytes, len, &message), 0, "a WRITE whose data is elsewhere");
    vv_cursor_copy(&message.body, &got, sizeof(got));
    tap_ok(message.header.unique == 9 && memcmp(&got, &in, sizeof(in)) == 0, "its head");
    tap_is_int((int64_t)message.body.len, 0, "and no more");
    tap_is_int(vv_fuse_decode_write(bytes, len - 1, &message), -VV_ERR_FORMAT, "less has come");
    tap_is_int(vv_fuse_decode_write(bytes, sizeof(bytes), &message), -VV_ERR_FORMAT, "or no data");
    vv_store_u32(bytes + sizeof(header) + offsetof(struct fuse_write_in, size), 4999);
    tap_is_int(vv_fuse_decode_write(bytes, len, &message), -VV_ERR_FORMAT, "less than has come");
    memcpy(bytes + sizeof(header), &in, sizeof(in));
    header.total_extlen = 1;
    memcpy(bytes, &header, sizeof(header));
    tap_is_int(vv_fuse_decode_write(bytes, len, &message), -VV_ERR_FORMAT, "with extensions");
    header.total_extlen = 0;
    header.opcode = FUSE_SETXATTR;
    memcpy(bytes, &header, sizeof(header));
    tap_is_int(vv_fuse_decode_write(bytes, len, &message), -VV_ERR_FORMAT, "no WRITE");
}

static void test_groups(void)
{
    uint8_t bytes[256];
    struct vv_fuse_message message;
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    const uint32_t unknown[4] = {16, 31, 1, 2};
    const uint32_t groups[4] = {16, VV_FUSE_EXT_GROUPS, 1, 4242};
    put_header(&writer, sizeof(struct fuse_in_header) + 8 + 32, 32);
    vv_writer_bytes(&writer, "name\0\0\0", 8);
    vv_writer_bytes(&writer, unknown, sizeof(unknown));
    vv_writer_bytes(&writer, groups, sizeof(groups));
    tap_is_int(vv_fuse_decode(bytes, writer.len, &message), 0, "a request with extensions");
    tap_ok(message.group_count == 1 && message.groups[0] == 4242, "its group");
    tap_is_int((int64_t)message.body.len, 8, "is not part of its body");
    /* Counts and sizes that are lies. */
    vv_store_u32(bytes + writer.len - 8, 1000);
    tap_is_int(vv_fuse_decode(bytes, writer.len, &message), 0, "more groups than there are");
    tap_is_int(message.group_count, 0, "are none");
    vv_store_u32(bytes + writer.len - 16, 0xffffffff);
    tap_is_int(vv_fuse_decode(bytes, writer.len, &message), 0, "an extension too long");
    vv_store_u32(bytes + writer.len - 32, 0);
    tap_is_int(vv_fuse_decode(bytes, writer.len, &message), 0, "or without a length");
    tap_is_int(message.group_count, 0, "is passed over");
    writer = vv_writer_of(bytes, sizeof(bytes));
    put_header(&writer, sizeof(struct fuse_in_header) + 8, 16);
    vv_writer_bytes(&writer, "name\0\0\0", 8);
    tap_is_int(vv_fuse_decode(bytes, writer.len, &message), -VV_ERR_FORMAT,
               "extensions longer than the body");
}

static void test_attrs(void)
{
    struct vv_attr attr = {.inode = 5,
                           .mode = S_IFCHR | 0640,
                           .nlink = 2,
                           .uid = 3,
                           .gid = 4,
                           .rdev_major = 259,
                           .rdev_minor = 0x12345,
                           .size = 6,
                           .blocks = 7,
                           .atime = {-1, 8},
                           .mtime = {9, 10},
                           .ctime = {11, 12},
                           .btime = {13, 14},
                           .flags = FS_IMMUTABLE_FL};
    struct fuse_attr out;
    vv_fuse_encode_attr(&attr, &out);
    tap_ok(out.ino == 5 && out.mode == attr.mode && out.nlink == 2 && out.size == 6, "attributes");
    tap_ok((int64_t)out.atime == -1 && out.atimensec == 8 && out.ctimensec == 12, "their times");
    uint32_t major, minor;
    vv_fuse_decode_rdev(out.rdev, &major, &minor);
    tap_ok(major == 259 && minor == 0x12345, "a device there and back");
    tap_is_int(out.rdev, (int64_t)(uint32_t)makedev(259, 0x12345), "is packed as the kernel does");
    struct vv_fuse_statx_out statx;
    vv_fuse_encode_statx(&attr, &statx);
    tap_ok(statx.btime.sec == 13 && statx.btime.nsec == 14, "the birth time");
    tap_ok(statx.attributes == STATX_ATTR_IMMUTABLE, "flags");
}

static void test_setattr(void)
{
    struct vv_attr set;
    struct fuse_setattr_in in = {.valid = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE,
                                 .mode = S_IFREG | 04755,
                                 .uid = 1,
                                 .gid = 2,
                                 .size = 3};
    tap_is_int(vv_fuse_decode_setattr(&in, &set),
               VV_SET_MODE | VV_SET_UID | VV_SET_GID | VV_SET_SIZE, "values");
    tap_ok(set.mode == 04755 && set.uid == 1 && set.gid == 2 && set.size == 3, "are taken over");
    in.valid = FATTR_ATIME | FATTR_ATIME_NOW | FATTR_MTIME | FATTR_FH | FATTR_LOCKOWNER;
    in.mtime = (uint64_t)-7;
    in.mtimensec = 8;
    tap_is_int(vv_fuse_decode_setattr(&in, &set), VV_SET_ATIME_NOW | VV_SET_MTIME, "times");
    tap_ok(set.mtime.tv_sec == -7 && set.mtime.tv_nsec == 8, "before 1970");
    in.valid = FATTR_SIZE | FATTR_KILL_SUIDGID | FATTR_CTIME | FATTR_MTIME_NOW;
    tap_is_int(vv_fuse_decode_setattr(&in, &set),
               VV_SET_SIZE | VV_SET_KILL_PRIV | VV_SET_CTIME | VV_SET_MTIME_NOW, "and the rest");
}

static void test_locks(void)
{
    struct fuse_file_lock in = {.start = 5, .end = INT64_MAX, .type = F_WRLCK, .pid = 9};
    struct fuse_file_lock out;
    struct vv_lock lock;
    vv_fuse_decode_lock(&in, &lock);
    tap_ok(lock.start == 5 && lock.end == UINT64_MAX && lock.type == F_WRLCK, "to the end");
    vv_fuse_encode_lock(&lock, &out);
    tap_ok(memcmp(&in, &out, sizeof(in)) == 0, "and back");
    in.end = 10;
    vv_fuse_decode_lock(&in, &lock);
    vv_fuse_encode_lock(&lock, &out);
    tap_ok(lock.end == 10 && out.end == 10, "to a byte");
}

static void test_dirents(void)
{
    uint8_t bytes[512];
    struct vv_dirent entry = {.inode = 5, .cookie = 6, .type = S_IFDIR, .name_len = 3};
    memcpy(entry.name, "abc", 4);
    struct vv_writer writer = vv_writer_of(bytes, 64);
    size_t at;
    tap_ok(vv_fuse_encode_dirent(&writer, &entry, false, &at), "an entry");
    tap_is_int((int64_t)writer.len, 32, "is padded");
    struct fuse_dirent dirent;
    memcpy(&dirent, bytes, sizeof(dirent));
    tap_ok(dirent.ino == 5 && dirent.off == 6 && dirent.namelen == 3 && dirent.type == 4,
           "its fields");
    tap_is_bytes(bytes + FUSE_NAME_OFFSET, "abc\0\0\0\0\0", 8, "its name");
    tap_ok(vv_fuse_encode_dirent(&writer, &entry, false, &at) && at == 32, "another");
    tap_ok(!vv_fuse_encode_dirent(&writer, &entry, false, &at), "a third has no room");
    tap_is_int((int64_t)writer.len, 64, "and leaves nothing");
    writer = vv_writer_of(bytes, sizeof(bytes));
    tap_ok(vv_fuse_encode_dirent(&writer, &entry, true, &at) && at == 0, "with attributes");
    tap_is_int((int64_t)writer.len, (int64_t)sizeof(struct fuse_entry_out) + 32, "is longer");
    memcpy(&dirent, bytes + sizeof(struct fuse_entry_out), sizeof(dirent));
    tap_is_int((int64_t)dirent.ino, 5, "behind its attributes");
}

static void test_flags(void)
{
    uint32_t flags;
    tap_is_int(vv_fuse_xflags_of(FS_IMMUTABLE_FL | FS_NODUMP_FL | FS_DIRSYNC_FL),
               FS_XFLAG_IMMUTABLE | FS_XFLAG_NODUMP, "flags have two spellings");
    tap_is_int(vv_fuse_flags_of(FS_XFLAG_APPEND | FS_XFLAG_NOATIME, &flags), 0, "and back");
    tap_is_int(flags, FS_APPEND_FL | FS_NOATIME_FL, "the same");
    tap_is_int(vv_fuse_flags_of(FS_XFLAG_DAX, &flags), -EOPNOTSUPP, "others are not supported");
    tap_is_str(vv_fuse_opcode_name(FUSE_LOOKUP), "LOOKUP", "an opcode's name");
    tap_is_str(vv_fuse_opcode_name(7), "UNKNOWN", "one in a gap");
    tap_is_str(vv_fuse_opcode_name(0xffffffff), "UNKNOWN", "one far outside");
}

int main(void)
{
    test_message();
    test_write();
    test_groups();
    test_attrs();
    test_setattr();
    test_locks();
    test_dirents();
    test_flags();
    return tap_done();
}
