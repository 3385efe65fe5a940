#include "fs/inode.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tap.h"

static struct vv_inode sample(uint32_t mode)
{
    struct vv_inode inode = {.inode = 77,
                             .bits = VV_INODE_HAS_ACCESS_ACL,
                             .mode = mode,
                             .nlink = 3,
                             .uid = 1,
                             .gid = UINT32_MAX,
                             .flags = 0x10,
                             .size = 12345,
                             .change = 99,
                             .parent = 5,
                             .cookie = 6,
                             .xattr_count = 2,
                             .xattr_name_bytes = 30};
    inode.atime = (struct timespec){-5000000000ll, 999999999};
    inode.mtime = (struct timespec){9000000000ll, 1};
    inode.ctime = (struct timespec){INT64_MIN, 0};
    inode.btime = (struct timespec){INT64_MAX, 2};
    return inode;
}

static bool is_same(const struct vv_inode *a, const struct vv_inode *b)
{
    uint8_t x[VV_INODE_RECORD_MAX];
    uint8_t y[VV_INODE_RECORD_MAX];
    size_t len = vv_inode_encode(a, x);
    return len == vv_inode_encode(b, y) && memcmp(x, y, len) == 0;
}

static int trip(const struct vv_inode *in, struct vv_inode *out)
{
    static uint8_t record[VV_INODE_RECORD_MAX];
    size_t len = vv_inode_encode(in, record);
    return vv_inode_decode((struct vv_bytes){record, len}, in->inode, out);
}

static void test_round_trip(void)
{
    static const uint8_t target[VV_SYMLINK_MAX] = {1, 2, 3};
    uint8_t buf[VV_PARTS_BUF_BYTES];
    struct vv_parts parts = {.count = VV_PARTS_MAX};
    struct vv_inode in = sample(S_IFREG | 0640);
    struct vv_inode out;
    for (size_t i = 0; i < VV_PARTS_MAX; i++)
        parts.at[i] = (struct vv_part){i + 1, i * 7, 4096 * (i + 1)};
    parts.at[VV_PARTS_MAX - 1].length = VV_PART_NO_END;
    in.parts = vv_parts_encode(&parts, buf);
    tap_ok(trip(&in, &out) == 0 && is_same(&in, &out), "a file with many parts");
    tap_ok(out.atime.tv_sec == -5000000000ll && out.ctime.tv_sec == INT64_MIN &&
               out.btime.tv_sec == INT64_MAX,
           "far times");
    in = sample(S_IFREG | 07777);
    in.in_line = (struct vv_bytes){target, VV_INLINE_MAX};
    tap_ok(trip(&in, &out) == 0 && is_same(&in, &out) && out.in_line.len == VV_INLINE_MAX,
           "a file with inline bytes");
    in = sample(S_IFLNK | 0777);
    in.in_line = (struct vv_bytes){target, VV_SYMLINK_MAX};
    in.size = VV_SYMLINK_MAX;
    tap_ok(trip(&in, &out) == 0 && is_same(&in, &out), "the longest symlink");
    in = sample(S_IFDIR | 01777);
    in.next_cookie = 1ull << 63;
    tap_ok(trip(&in, &out) == 0 && out.next_cookie == 1ull << 63, "a directory");
    in = sample(S_IFBLK | 0600);
    in.rdev = 0xffffffff00000001ull;
    tap_ok(trip(&in, &out) == 0 && out.rdev == 0xffffffff00000001ull, "a device");
    in = sample(S_IFREG | 0600);
    in.aside_blocks = VV_FILE_BYTES_MAX / VV_BLOCK_BYTES;
    tap_ok(trip(&in, &out) == 0 && is_same(&in, &out) && out.aside_blocks == in.aside_blocks,
           "a file with space set aside");
}

/* Space that is set aside: version 2, a bit, and the number behind the rest. */
static void test_aside(void)
{
    uint8_t record[VV_INODE_RECORD_MAX];
    struct vv_inode out;
    struct vv_inode in = sample(S_IFREG | 0644);
    size_t plain = vv_inode_encode(&in, record);
    tap_is_int(record[0], 1, "version 1 when nothing is set aside");
    in.aside_blocks = 300;
    size_t len = vv_inode_encode(&in, record);
    tap_ok(record[0] == 2 && (record[1] & VV_INODE_HAS_ASIDE) && len == plain + 8, "else 2");
    struct vv_bytes bytes = {record, len};
    record[0] = 1;
    tap_is_int(vv_inode_decode(bytes, 77, &out), -VV_ERR_FORMAT, "but not in version 1");
    record[0] = 2;
    record[1] = 0;
    tap_is_int(vv_inode_decode(bytes, 77, &out), -VV_ERR_FORMAT, "nor without its bit");
    record[1] = VV_INODE_HAS_ASIDE;
    vv_store_u64(record + len - 8, 0);
    tap_is_int(vv_inode_decode(bytes, 77, &out), -VV_ERR_FORMAT, "nor none at all");
    vv_store_u64(record + len - 8, VV_FILE_BYTES_MAX / VV_BLOCK_BYTES + 1);
    tap_is_int(vv_inode_decode(bytes, 77, &out), -VV_ERR_FORMAT, "nor too many");
    tap_is_int(vv_inode_decode((struct vv_bytes){record, len - 1}, 77, &out), -VV_ERR_FORMAT,
               "nor cut");
}

static void test_hostile(void)
{
    uint8_t record[VV_INODE_RECORD_MAX + 1];
    uint8_t changed[VV_INODE_RECORD_MAX + 1];
    static const uint8_t bytes[40];
    struct vv_inode in = sample(S_IFREG | 0644);
    struct vv_inode out;
    in.in_line = (struct vv_bytes){bytes, sizeof(bytes)};
    size_t len = vv_inode_encode(&in, record);
    bool is_refused = true;
    for (size_t cut = 0; cut < len; cut++)
        is_refused &= vv_inode_decode((struct vv_bytes){record, cut}, 77, &out) < 0;
    tap_ok(is_refused, "cut anywhere: refused");
    record[len] = 0;
    tap_is_int(vv_inode_decode((struct vv_bytes){record, len + 1}, 77, &out), -VV_ERR_FORMAT,
               "a byte too many");
    static const struct {
        size_t offset;
        uint8_t value;
        int err;
        const char *what;
    } rows[] = {
        {0, 0, -VV_ERR_FORMAT, "version 0"},
        {0, 3, -VV_ERR_NEWER, "a newer version"},
        {0, 2, -VV_ERR_FORMAT, "a version that says that space is set aside"},
        {1, 0x80, -VV_ERR_FORMAT, "an unknown bit"},
        {2, 200, -VV_ERR_FORMAT, "parts that are not there"},
        {5, 0, -VV_ERR_FORMAT, "no type"},
        {7, 1, -VV_ERR_FORMAT, "a mode out of range"},
        {31, 0xff, -VV_ERR_FORMAT, "a size too large"},
        {75, 0xff, -VV_ERR_FORMAT, "nanoseconds too large"},
        {121, 0xff, -VV_ERR_FORMAT, "inline bytes that are not there"},
        {122, 1, -VV_ERR_FORMAT, "a bit that must be zero"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        memcpy(changed, record, len);
        changed[rows[i].offset] = rows[i].value;
        tap_is_int(vv_inode_decode((struct vv_bytes){changed, len}, 77, &out), rows[i].err, "%s",
                   rows[i].what);
    }
}

static void test_parts(void)
{
    static const struct {
        struct vv_part parts[2];
        size_t count;
        const char *what;
    } rows[] = {
        {{{1, 0, 4096}}, 1, "the last part has an end"},
        {{{1, 0, VV_PART_NO_END}, {1, 0, VV_PART_NO_END}}, 2, "the first part has none"},
        {{{1, 0, 0}, {1, 0, VV_PART_NO_END}}, 2, "an empty part"},
        {{{0, 0, VV_PART_NO_END}}, 1, "no data id"},
        {{{1, VV_PART_START_MAX + 1, VV_PART_NO_END}}, 1, "a start too high"},
        {{{1, 0, VV_FILE_BYTES_MAX + 1}, {1, 0, VV_PART_NO_END}}, 2, "a part too long"},
    };
    uint8_t buf[VV_PARTS_BUF_BYTES];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vv_parts parts = {.count = rows[i].count};
        memcpy(parts.at, rows[i].parts, sizeof(rows[i].parts));
        struct vv_bytes encoded = vv_parts_encode(&parts, buf);
        tap_is_int(vv_parts_decode(encoded, &parts), -VV_ERR_FORMAT, "parts: %s", rows[i].what);
    }
    static const uint8_t many[VV_PARTS_BUF_BYTES + VV_PART_BYTES];
    struct vv_parts parts;
    tap_is_int(vv_parts_decode((struct vv_bytes){many, sizeof(many)}, &parts), -VV_ERR_FORMAT,
               "parts: too many");
    tap_is_int(vv_parts_decode((struct vv_bytes){many, 23}, &parts), -VV_ERR_FORMAT,
               "parts: not whole");
}

static void test_entries(void)
{
    struct vv_entry entry = {.inode = 5, .cookie = 9, .type = S_IFLNK};
    struct vv_entry out;
    struct vv_bytes name;
    uint8_t record[VV_COOKIE_RECORD_MAX];
    char long_name[VV_NAME_MAX];
    memset(long_name, 'x', sizeof(long_name));
    size_t len = vv_entry_encode(&entry, record);
    tap_ok(vv_entry_decode((struct vv_bytes){record, len}, &out) == 0 && out.inode == 5 &&
               out.cookie == 9 && out.type == S_IFLNK,
           "an entry");
    tap_is_int(vv_entry_decode((struct vv_bytes){record, len - 1}, &out), -VV_ERR_FORMAT, "cut");
    record[16] = 3;
    tap_is_int(vv_entry_decode((struct vv_bytes){record, len}, &out), -VV_ERR_FORMAT, "of no type");
    len = vv_cookie_encode(&entry, long_name, sizeof(long_name), record);
    tap_ok(vv_cookie_decode((struct vv_bytes){record, len}, &out, &name) == 0 && out.inode == 5 &&
               name.len == 255,
           "an entry by cookie");
    tap_is_int(vv_cookie_decode((struct vv_bytes){record, 9}, &out, &name), -VV_ERR_FORMAT,
               "without a name");
}

static void test_keys(void)
{
    struct vv_fs_key a;
    struct vv_fs_key b;
    vv_key_inode(&a, 0x0102030405060708ull);
    tap_is_bytes(a.bytes, "I\1\2\3\4\5\6\7\10", 9, "integers are big-endian");
    tap_is_int((int64_t)a.len, 9, "of 9 bytes");
    vv_key_cookie(&a, 7, 255);
    vv_key_cookie(&b, 7, 256);
    tap_ok(vv_bytes_compare(vv_fs_key_bytes(&a), vv_fs_key_bytes(&b)) < 0, "cookies ascend");
    vv_key_xattr(&a, 7, "user.x", 6);
    tap_is_bytes(a.bytes, "X\0\0\0\0\0\0\0\7user.x", 15, "attributes");
    vv_key_orphan(&a, 7);
    tap_is_bytes(a.bytes, "Ti\0\0\0\0\0\0\0\7", 10, "orphans");
    vv_key_link(&a, 1, 2, 3);
    tap_is_int((int64_t)a.len, 25, "links");
    vv_key_reply(&a, 259);
    tap_is_bytes(a.bytes, "A\1\3", 3, "replies");
    tap_is_int((int64_t)a.len, 3, "of 3 bytes");
}

static void test_replies(void)
{
    struct vv_reply_record in = {.reply = {.door = 1, .kind = 14, .inode = 77}};
    struct vv_reply_record out;
    struct vv_fs_key key;
    uint8_t bytes[VV_REPLY_RECORD_BYTES];
    uint64_t slot = 0;
    in.sequence = 3 * VV_REPLIES_MAX + 5;
    memset(in.reply.id, 'i', sizeof(in.reply.id));
    vv_reply_encode(&in, bytes);
    struct vv_bytes record = {bytes, sizeof(bytes)};
    tap_ok(vv_reply_decode(record, 5, &out) == 0 && out.sequence == in.sequence &&
               out.reply.inode == 77 && out.reply.kind == 14 && out.reply.door == 1 &&
               memcmp(out.reply.id, in.reply.id, sizeof(in.reply.id)) == 0,
           "a reply");
    tap_is_int(vv_reply_decode(record, 6, &out), -VV_ERR_FORMAT, "in another slot");
    record.len--;
    tap_is_int(vv_reply_decode(record, 5, &out), -VV_ERR_FORMAT, "cut");
    record.len = 0;
    tap_is_int(vv_reply_decode(record, 5, &out), -VV_ERR_FORMAT, "nothing");
    record.len = sizeof(bytes);
    bytes[3] = 1;
    tap_is_int(vv_reply_decode(record, 5, &out), -VV_ERR_FORMAT, "with what is reserved");
    bytes[0] = 2;
    tap_is_int(vv_reply_decode(record, 5, &out), -VV_ERR_NEWER, "of a later version");
    vv_key_reply(&key, VV_REPLIES_MAX - 1);
    tap_ok(vv_reply_slot(vv_fs_key_bytes(&key), &slot) == 0 && slot == VV_REPLIES_MAX - 1,
           "its slot");
    key.bytes[1] = 0xff;
    tap_is_int(vv_reply_slot(vv_fs_key_bytes(&key), &slot), -VV_ERR_FORMAT, "too far");
    key.len = 4;
    tap_is_int(vv_reply_slot(vv_fs_key_bytes(&key), &slot), -VV_ERR_FORMAT, "too long");
}

int main(void)
{
    test_round_trip();
    test_hostile();
    test_aside();
    test_parts();
    test_entries();
    test_keys();
    test_replies();
    return tap_done();
}
