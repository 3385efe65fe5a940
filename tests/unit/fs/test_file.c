#include "rig.h"

static uint64_t top;

static uint64_t new_file(const char *name)
{
    return (uint64_t)make_node(ROOT, top, name, S_IFREG | 0644);
}

static void test_inline(void)
{
    uint64_t file = new_file("inline");
    char got[VV_INLINE_MAX * 2];
    tap_is_int(write_at(file, "hello", 5, 0), 5, "a short write");
    tap_is_int((int64_t)attr_of(file).blocks, 1, "takes one sector");
    tap_is_int(write_at(file, "XY", 2, 8), 2, "and another, past the end");
    tap_is_int(read_at(file, got, sizeof(got), 0), 10, "are read");
    tap_is_bytes(got, "hello\0\0\0XY", 10, "with zeros between");
    tap_is_int((int64_t)volume->data_count, 0, "without a data id");
    tap_is_int(set_size(ROOT, file, 100000), 0, "grow");
    tap_is_int((int64_t)volume->data_count, 0, "still without");
    tap_is_int(read_at(file, got, 5, 99990), 5, "the end is read");
    tap_is_bytes(got, "\0\0\0\0\0", 5, "as zeros");
    tap_is_int(write_at(file, "Z", 1, 5000), 1, "a write further on");
    tap_is_int((int64_t)volume->data_count, 1, "moves all to a data id");
    tap_is_int(read_at(file, got, 10, 0), 10, "what was there");
    tap_is_bytes(got, "hello\0\0\0XY", 10, "... is there");
    tap_is_int((int64_t)attr_of(file).blocks, 16, "in two pages");
    tap_is_int(set_size(ROOT, file, 3), 0, "shrink");
    tap_is_int(set_size(ROOT, file, 9), 0, "and grow");
    tap_is_int(read_at(file, got, 20, 0), 9, "what was cut off");
    tap_is_bytes(got, "hel\0\0\0\0\0\0", 9, "... does not come back");
    tap_is_int(set_size(ROOT, file, 0), 0, "to nothing");
    tap_ok(volume->data[0].is_dropped, "drops the data id");
    tap_is_int((int64_t)attr_of(file).blocks, 0, "and all space");
    static char large[VV_INLINE_MAX];
    memset(large, 'L', sizeof(large));
    tap_is_int(write_at(file, large, sizeof(large), 0), sizeof(large), "as much as fits inline");
    tap_is_int((int64_t)volume->data_count, 1, "fits inline");
    tap_is_int(write_at(file, "!", 1, sizeof(large)), 1, "one byte more");
    tap_is_int((int64_t)volume->data_count, 2, "does not");
    tap_is_int(read_at(file, got, sizeof(got), 0), sizeof(large) + 1, "all is read");
    tap_ok(memcmp(got, large, sizeof(large)) == 0 && got[sizeof(large)] == '!', "as written");
}

static void test_limits(void)
{
    uint64_t file = new_file("limits");
    char got[4] = {0};
    tap_is_int(write_at(file, "x", 1, VV_FILE_BYTES_MAX), -EFBIG, "past the largest size");
    tap_is_int(write_at(file, "abc", 3, VV_FILE_BYTES_MAX - 2), 2, "up to the largest size");
    tap_is_int((int64_t)attr_of(file).size, (int64_t)VV_FILE_BYTES_MAX, "is that size");
    tap_is_int(read_at(file, got, 4, VV_FILE_BYTES_MAX - 2), 2, "and is read");
    tap_is_int(vv_fs_write(fs, ROOT, file, NULL, "x", 1, 0, VV_WRITE_APPEND), -EFBIG, "append");
    tap_is_int(set_size(ROOT, file, VV_FILE_BYTES_MAX + 1), -EFBIG, "too large a size");
    tap_is_int(set_size(ROOT, file, 0), 0, "to nothing");
    tap_is_int(read_at(file, got, 4, UINT64_MAX), 0, "reading far away gives nothing");
    tap_is_int(write_at(file, "x", 0, 5), 0, "writing nothing");
    tap_is_int((int64_t)attr_of(file).size, 0, "changes nothing");
    size_t len = VV_OP_DATA_MAX * 2 + 12345;
    uint8_t *large = malloc(len);
    uint8_t *back = malloc(len);
    for (size_t i = 0; i < len; i++)
        large[i] = (uint8_t)(i * 7 + i / 4096);
    tap_is_int(write_at(file, large, len, 100), (int64_t)len, "a write of several operations");
    tap_is_int(read_at(file, back, len, 100), (int64_t)len, "a read of several");
    tap_ok(memcmp(large, back, len) == 0, "... gives it back");
    free(large);
    free(back);
}

static void test_types(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "dir", 0755);
    uint64_t fifo = (uint64_t)make_node(ROOT, top, "fifo", S_IFIFO | 0644);
    uint64_t link = (uint64_t)make_link(ROOT, top, "link", "the target");
    char got[20];
    tap_is_int(read_at(dir, got, 1, 0), -EISDIR, "reading a directory");
    tap_is_int(write_at(dir, got, 1, 0), -EISDIR, "writing one");
    tap_is_int(read_at(fifo, got, 1, 0), -EINVAL, "reading a FIFO");
    tap_is_int(read_at(12345, got, 1, 0), -ESTALE, "reading nothing");
    tap_is_int(vv_fs_readlink(fs, ROOT, link, got, sizeof(got)), 10, "a symlink");
    tap_is_bytes(got, "the target", 10, "... leads there");
    tap_is_int(vv_fs_readlink(fs, ROOT, link, got, 3), 3, "... cut");
    tap_is_int(vv_fs_readlink(fs, ROOT, dir, got, 3), -EINVAL, "no symlink");
    tap_is_int((int64_t)attr_of(link).size, 10, "its size is the target's length");
    char *target = malloc(VV_SYMLINK_MAX + 2);
    memset(target, 'x', VV_SYMLINK_MAX + 2);
    target[VV_SYMLINK_MAX + 1] = 0;
    tap_is_int(make_link(ROOT, top, "long", target), -ENAMETOOLONG, "a target too long");
    target[VV_SYMLINK_MAX] = 0;
    tap_ok(make_link(ROOT, top, "long", target) > 0, "the longest");
    tap_is_int(make_link(ROOT, top, "none", ""), -ENOENT, "an empty one");
    free(target);
}

static void test_handles(void)
{
    uint64_t file = new_file("handles");
    char got[4];
    struct vv_handle *reading = open_of(ROOT, file, O_RDONLY);
    struct vv_handle *writing = open_of(ROOT, file, O_WRONLY);
    struct vv_handle *path = open_of(BOB, file, O_PATH);
    tap_is_int(vv_fs_write(fs, ROOT, file, reading, "x", 1, 0, 0), -EBADF, "write, for reading");
    tap_is_int(vv_fs_read(fs, ROOT, file, writing, got, 1, 0), -EBADF, "read, for writing");
    tap_is_int(vv_fs_read(fs, ROOT, file, path, got, 1, 0), -EBADF, "read, a path");
    tap_is_int(vv_fs_write(fs, BOB, file, writing, "x", 1, 0, 0), 1,
               "a handle needs no permission any more");
    tap_is_int(vv_fs_write(fs, BOB, file, NULL, "x", 1, 0, 0), -EACCES, "without one it does");
    struct vv_attr set = {.size = 7};
    tap_is_int(vv_fs_setattr(fs, BOB, file, writing, &set, VV_SET_SIZE, &set), 0, "ftruncate");
    tap_is_int(vv_fs_setattr(fs, BOB, file, reading, &set, VV_SET_SIZE, &set), -EINVAL,
               "ftruncate, for reading");
    vv_fs_release(reading);
    vv_fs_release(writing);
    vv_fs_release(path);
    set_owner(ROOT, file, 1000, 1000);
    set_mode(ROOT, file, 0);
    tap_is_int(vv_fs_read(fs, ALICE, file, NULL, got, 1, 0), 1, "without a handle, the owner may");
    set_mode(ROOT, file, 0001);
    tap_is_int(vv_fs_read(fs, BOB, file, NULL, got, 1, 0), 1, "... who may execute may read");
    tap_is_int(vv_fs_write(fs, BOB, file, NULL, got, 1, 0, 0), -EACCES, "... but not write");
}

static void test_appending(void)
{
    uint64_t file = new_file("append");
    char got[10];
    vv_fs_set_flags(fs, ROOT, file, FS_APPEND_FL) < 0 ? exit(1) : (void)0;
    tap_is_int(vv_fs_write(fs, ROOT, file, NULL, "ab", 2, 0, 0), 2, "append-only: at the end");
    tap_is_int(vv_fs_write(fs, ROOT, file, NULL, "cd", 2, 1, 0), -EPERM, "not elsewhere");
    tap_is_int(vv_fs_write(fs, ROOT, file, NULL, "ef", 2, 0, VV_WRITE_APPEND), 2, "append");
    tap_is_int(read_at(file, got, 10, 0), 4, "all is there");
    tap_is_bytes(got, "abef", 4, "in order");
    tap_is_int(set_size(ROOT, file, 0), -EPERM, "no truncating");
    tap_ok(!open_of(ROOT, file, O_WRONLY), "no opening for writing anywhere");
    struct vv_handle *handle = open_of(ROOT, file, O_WRONLY | O_APPEND);
    tap_ok(handle, "only for appending");
    vv_fs_release(handle);
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(vv_fs_write(fs, ROOT, file, NULL, "x", 1, 0, VV_WRITE_APPEND), -EPERM, "immutable");
    set_flags(ROOT, file, 0);
}

static void test_privileges(void)
{
    uint64_t file = new_file("suid");
    set_owner(ROOT, file, 1000, 1000);
    static const struct {
        uint32_t mode;
        const struct vv_fs_call *call;
        unsigned flags;
        uint32_t want;
        const char *what;
    } rows[] = {
        {06777, &alice_call, 0, 0777, "a user's write clears setuid and setgid"},
        {06767, &alice_call, 0, 02767, "... setgid only with group execution"},
        {06777, &root_call, 0, 06777, "uid 0's does not"},
        {06777, &root_call, VV_WRITE_KILL_PRIV, 0777, "... unless told to"},
        {06777, &kernel_call, 0, 06777, "nor one that the kernel has checked"},
        {06777, &kernel_call, VV_WRITE_KILL_PRIV, 0777, "... unless told to"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        set_mode(ROOT, file, rows[i].mode);
        tap_is_int(vv_fs_write(fs, rows[i].call, file, NULL, "x", 1, 0, rows[i].flags), 1, "write");
        tap_is_int(attr_of(file).mode & 07777, rows[i].want, "%s", rows[i].what);
    }
    set_mode(ROOT, file, 06777);
    int err = vv_fs_setxattr(fs, ROOT, file, "security.capability", "cap", 3, 0);
    tap_is_int(err, 0, "a capability");
    tap_is_int(set_size(ROOT, file, 100), 0, "truncation by uid 0");
    tap_is_int(attr_of(file).mode & 07777, 06777, "keeps the mode");
    char got[4];
    tap_is_int(vv_fs_getxattr(fs, ROOT, file, "security.capability", got, 4), -ENODATA,
               "but not the capability");
    tap_is_int(set_size(ALICE, file, 99), 0, "truncation by a user");
    tap_is_int(attr_of(file).mode & 07777, 0777, "clears it");
}

static bool is_later(struct timespec a, struct timespec b)
{
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static void test_times(void)
{
    uint64_t file = new_file("times");
    char got[4];
    write_at(file, "data", 4, 0);
    struct vv_attr before = attr_of(file);
    vv_rt_sleep_ns(1000000);
    read_at(file, got, 4, 0);
    struct vv_attr after = attr_of(file);
    tap_ok(is_later(after.atime, before.atime), "the first read after a write sets atime");
    tap_ok(after.change == before.change && !is_later(after.ctime, before.ctime), "... only");
    unsigned writes = volume->writes;
    vv_rt_sleep_ns(1000000);
    read_at(file, got, 4, 0);
    tap_is_int(volume->writes, writes, "the next one nothing");
    struct vv_attr set = {.atime = {before.atime.tv_sec - 100000, 0},
                          .mtime = {before.atime.tv_sec - 200000, 0},
                          .ctime = {before.atime.tv_sec - 200000, 0}};
    int err =
        vv_fs_setattr(fs, ROOT, file, NULL, &set, VV_SET_ATIME | VV_SET_MTIME | VV_SET_CTIME, &set);
    tap_is_int(err, 0, "set back two days");
    read_at(file, got, 4, 0);
    tap_ok(attr_of(file).atime.tv_sec > before.atime.tv_sec - 90000, "a day later, one sets it");
    set_flags(ROOT, file, FS_NOATIME_FL);
    writes = volume->writes;
    read_at(file, got, 4, 0);
    tap_is_int(volume->writes, writes, "noatime: none");
    before = attr_of(file);
    vv_rt_sleep_ns(1000000);
    write_at(file, "x", 1, 0);
    after = attr_of(file);
    tap_ok(is_later(after.mtime, before.mtime) && is_later(after.ctime, before.ctime) &&
               !is_later(after.atime, before.atime) && after.change > before.change,
           "a write sets mtime and ctime");
    set_flags(ROOT, file, 0);
    vv_fs_set_atime(fs, VV_ATIME_NEVER);
    writes = volume->writes;
    read_at(file, got, 4, 0);
    tap_is_int(volume->writes, writes, "never: none, although it is due");
    vv_fs_set_atime(fs, VV_ATIME_STRICT);
    for (int i = 0; i < 2; i++) {
        before = attr_of(file);
        vv_rt_sleep_ns(1000000);
        read_at(file, got, 4, 0);
        tap_ok(is_later(attr_of(file).atime, before.atime), "strictly: each read sets it");
    }
    set_flags(ROOT, file, FS_NOATIME_FL);
    writes = volume->writes;
    read_at(file, got, 4, 0);
    tap_is_int(volume->writes, writes, "... but not of a file that says noatime");
    vv_fs_set_atime(fs, VV_ATIME_RELATIVE);
    set_flags(ROOT, file, 0);
    volume->is_read_only = true;
    tap_is_int(read_at(file, got, 4, 0), 4, "reading works where nothing can be written");
    volume->is_read_only = false;
}

static void test_copy(void)
{
    uint64_t a = new_file("copy-a");
    uint64_t b = new_file("copy-b");
    static char data[100000];
    static char got[100000];
    memset(data, 'c', sizeof(data));
    write_at(a, data, sizeof(data), 0);
    tap_is_int(vv_fs_copy_range(fs, ROOT, a, 10, b, 20, sizeof(data)), sizeof(data) - 10, "copy");
    tap_is_int(read_at(b, got, sizeof(got), 20), sizeof(data) - 10, "is there");
    tap_ok(memcmp(got, data, sizeof(data) - 10) == 0, "... the same bytes");
    tap_is_int(vv_fs_copy_range(fs, ROOT, a, 0, a, 10, 100), -EINVAL, "onto itself");
    tap_is_int(vv_fs_copy_range(fs, ROOT, a, 0, a, 200000, 100), 100, "... further on");
    tap_is_int(vv_fs_copy_range(fs, ROOT, a, 1 << 20, b, 0, 100), 0, "from past the end");
    tap_is_int(vv_fs_copy_range(fs, BOB, a, 0, b, 0, 100), -EACCES, "without permission");
    /* Kernels check who may copy, but don't say whether set-id bits are to go. */
    struct vv_fs_call checked = *BOB;
    checked.cred.is_checked = true;
    set_mode(ROOT, b, 06777);
    tap_is_int(vv_fs_copy_range(fs, ROOT, a, 0, b, 0, 100), 100, "uid 0 copies");
    tap_is_int(attr_of(b).mode & 07777, 06777, "... and set-id bits stay");
    tap_is_int(vv_fs_copy_range(fs, &checked, a, 0, b, 0, 100), 100, "a user copies");
    tap_is_int(attr_of(b).mode & 07777, 0777, "... and they go");
}

static void test_seek(void)
{
    uint64_t file = new_file("seek");
    uint64_t at = 0;
    write_at(file, "x", 1, 100000);
    set_size(ROOT, file, 300000);
    tap_is_int(vv_fs_seek(fs, file, 0, SEEK_DATA, &at), 0, "data");
    tap_is_int((int64_t)at, 100000 / 4096 * 4096, "is there");
    tap_is_int(vv_fs_seek(fs, file, 100000, SEEK_HOLE, &at), 0, "a hole");
    tap_is_int((int64_t)at, (100000 / 4096 + 1) * 4096, "is behind it");
    tap_is_int(vv_fs_seek(fs, file, 200000, SEEK_DATA, &at), -ENXIO, "no more data");
    tap_is_int(vv_fs_seek(fs, file, 300000, SEEK_HOLE, &at), -ENXIO, "past the end");
    tap_is_int(vv_fs_seek(fs, file, 0, SEEK_SET, &at), -EINVAL, "another whence");
    uint64_t small = new_file("small");
    write_at(small, "abc", 3, 0);
    set_size(ROOT, small, 1000);
    tap_is_int(vv_fs_seek(fs, small, 1, SEEK_DATA, &at), 0, "inline data");
    tap_is_int((int64_t)at, 1, "is here");
    tap_is_int(vv_fs_seek(fs, small, 1, SEEK_HOLE, &at), 0, "the hole");
    tap_is_int((int64_t)at, 3, "is behind it");
    tap_is_int(vv_fs_seek(fs, small, 3, SEEK_DATA, &at), -ENXIO, "no more data");
}

static void test_sync(void)
{
    uint64_t file = new_file("sync");
    unsigned syncs = volume->syncs;
    write_at(file, "x", 1, 0);
    tap_is_int(volume->syncs, syncs, "a write does not sync");
    tap_is_int(vv_fs_write(fs, ROOT, file, NULL, "x", 1, 0, VV_WRITE_SYNC), 1, "unless asked to");
    tap_is_int(volume->syncs, syncs + 1, "... then it does");
    struct vv_handle *handle = open_of(ROOT, file, O_RDWR | O_DSYNC);
    tap_is_int(vv_fs_write(fs, ROOT, file, handle, "x", 1, 0, 0), 1, "by its handle");
    tap_is_int(volume->syncs, syncs + 2, "... then it does");
    vv_fs_release(handle);
    set_flags(ROOT, file, FS_SYNC_FL);
    write_at(file, "x", 1, 0);
    tap_is_int(volume->syncs, syncs + 3, "or by its flag");
    tap_is_int(vv_fs_sync(fs, file), 0, "fsync");
    tap_is_int(volume->syncs, syncs + 4, "... syncs");
}

/* A payload made for one place, filled with `fill` and i, written at another. */
static ssize_t write_payload(uint64_t file, size_t len, uint64_t offset, unsigned flags, char fill)
{
    struct vv_payload *payload;
    int err = vv_fs_payload_new(fs, 4096, len, &payload);
    if (err < 0)
        return err;
    for (unsigned i = 0; i < vv_payload_count(payload); i++) {
        struct iovec piece = vv_payload_piece(payload, i);
        memset(piece.iov_base, fill + (int)i, piece.iov_len);
    }
    ssize_t got = vv_fs_write_payload(fs, ROOT, file, NULL, payload, offset, flags);
    vv_payload_free(payload);
    return got;
}

static void test_payload(void)
{
    static char bytes[70000], want[70000];
    uint64_t file = new_file("payload");
    size_t data_count = volume->data_count;
    tap_is_int(write_payload(file, 100, 5, 0, 'a'), 100, "a payload that fits inline");
    tap_is_int((int64_t)(volume->data_count - data_count), 0, "needs no data id");
    memset(want, 0, sizeof(want));
    memset(want + 5, 'a', 100);
    tap_is_int(read_at(file, bytes, sizeof(bytes), 0), 105, "all is read");
    tap_is_bytes(bytes, want, 105, "as written");
    tap_is_int(write_payload(file, 60000, 50, VV_WRITE_APPEND, 'A'), 60000, "an append of more");
    memset(want + 105, 'A', VV_EXTENT_BYTES - 4096);
    memset(want + 105 + VV_EXTENT_BYTES - 4096, 'B', 60000 - (VV_EXTENT_BYTES - 4096));
    tap_is_int(read_at(file, bytes, sizeof(bytes), 0), 60105, "is behind it");
    tap_ok(memcmp(bytes, want, 60105) == 0, "as written");
    tap_is_int(write_payload(file, 8, VV_FILE_BYTES_MAX - 3, 0, 'x'), 3, "up to the largest size");
    tap_is_int(write_payload(file, 8, VV_FILE_BYTES_MAX, 0, 'x'), -EFBIG, "not past it");
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(write_payload(file, 8, 0, 0, 'x'), -EPERM, "not into an immutable file");
}

static void test_all(void)
{
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "files", 0777);
    test_inline();
    test_limits();
    test_types();
    test_handles();
    test_appending();
    test_privileges();
    test_times();
    test_copy();
    test_seek();
    test_sync();
    test_payload();
}

int main(void)
{
    return rig_main(test_all);
}
