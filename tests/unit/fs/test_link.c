#include "rig.h"

static uint64_t top;
static char long_name[VV_NAME_MAX + 2];

static void test_links(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "dir", 0755);
    uint64_t file = (uint64_t)make_node(ROOT, top, "file", S_IFREG | 0644);
    struct vv_attr before = attr_of(file);
    vv_rt_sleep_ns(1000000);
    tap_is_int(hard_link(ROOT, file, dir, "second"), 0, "a second link");
    tap_is_int(attr_of(file).nlink, 2, "is counted");
    tap_ok(attr_of(file).ctime.tv_nsec != before.ctime.tv_nsec &&
               attr_of(file).mtime.tv_nsec == before.mtime.tv_nsec,
           "and changes ctime only");
    tap_is_int(hard_link(ROOT, file, top, "third"), 0, "a third");
    tap_is_int(unlink_name(ROOT, top, "file"), 0, "the first goes");
    tap_is_int(fsck(), 0, "records agree");
    char path[100];
    tap_is_int(vv_fs_path(fs, file, path, sizeof(path)), 0, "its path");
    tap_ok(strcmp(path, "/top/third") == 0 || strcmp(path, "/top/dir/second") == 0,
           "is by one of the others: %s", path);
    tap_is_int(hard_link(ROOT, file, top, "fourth"), 0, "a fourth");
    tap_is_int(fsck(), 0, "records agree");
    tap_is_int(unlink_name(ROOT, top, "third"), 0, "the third goes");
    tap_is_int(unlink_name(ROOT, top, "fourth"), 0, "and the fourth");
    tap_is_int(attr_of(file).nlink, 1, "one is left");
    tap_is_int(unlink_name(ROOT, dir, "second"), 0, "the last");
    tap_ok(!has_record(file), "and the file is gone");
    uint64_t link = (uint64_t)make_link(ROOT, top, "symlink", "x");
    tap_is_int(hard_link(ROOT, link, top, "symlink2"), 0, "a link to a symlink");
    /* The most links that there may be. */
    file = (uint64_t)make_node(ROOT, top, "many", S_IFREG | 0644);
    struct vv_fs_key key;
    struct vv_inode inode;
    uint8_t record[VV_INODE_RECORD_MAX];
    vv_key_inode(&key, file);
    fsck_inode(file, &inode);
    inode.nlink = VV_LINKS_MAX;
    fake_put(volume, vv_fs_key_bytes(&key),
             (struct vv_bytes){record, vv_inode_encode(&inode, record)});
    tap_is_int(hard_link(ROOT, file, top, "onemore"), -EMLINK, "one link too many");
    inode.nlink = 1;
    fake_put(volume, vv_fs_key_bytes(&key),
             (struct vv_bytes){record, vv_inode_encode(&inode, record)});
}

static void test_link_errors(void)
{
    uint64_t closed = (uint64_t)make_dir(ROOT, top, "closed", 0755);
    uint64_t file = (uint64_t)make_node(BOB, top, "bobs", S_IFREG | 0644);
    uint64_t dir = (uint64_t)make_dir(BOB, top, "bobsdir", 0755);
    make_node(ROOT, closed, "there", S_IFREG | 0644);
    tap_is_int(hard_link(BOB, file, closed, "there"), -EEXIST, "what is there before no write");
    tap_is_int(hard_link(BOB, file, closed, "new"), -EACCES, "no write");
    tap_is_int(hard_link(BOB, file, closed, long_name), -ENAMETOOLONG, "a name too long");
    tap_is_int(hard_link(BOB, file, file, "new"), -ENOTDIR, "in a file");
    tap_is_int(hard_link(BOB, dir, top, "new"), -EPERM, "to a directory");
    tap_is_int(hard_link(ROOT, dir, top, "new"), -EPERM, "... even for uid 0");
    tap_is_int(hard_link(BOB, dir, closed, "new"), -EACCES, "... after no write");
    tap_is_int(hard_link(BOB, file, top, "."), -EEXIST, ".");
    tap_is_int(hard_link(BOB, 4711, top, "new"), -ESTALE, "to nothing");
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(hard_link(BOB, file, top, "new"), -EPERM, "to an immutable file");
    set_flags(ROOT, file, 0);
}

static void test_remove_errors(void)
{
    uint64_t closed = (uint64_t)make_dir(ROOT, top, "closed2", 0755);
    uint64_t hidden = (uint64_t)make_dir(ROOT, top, "hidden2", 0644);
    uint64_t sticky = (uint64_t)make_dir(ALICE, top, "sticky", 01777);
    uint64_t full = (uint64_t)make_dir(BOB, top, "full", 0755);
    uint64_t file = (uint64_t)make_node(ROOT, closed, "f", S_IFREG | 0644);
    make_dir(ROOT, closed, "d", 0755);
    make_node(ROOT, hidden, "f", S_IFREG | 0644);
    make_node(ROOT, sticky, "roots", S_IFREG | 0644);
    make_node(BOB, sticky, "bobs", S_IFREG | 0644);
    make_dir(ROOT, sticky, "d", 0755);
    make_node(BOB, full, "f", S_IFREG | 0644);
    const struct {
        const struct vv_fs_call *call;
        uint64_t parent;
        const char *name;
        int unlink_err, rmdir_err;
        const char *what;
    } rows[] = {
        {BOB, top, "no", -ENOENT, -ENOENT, "nothing"},
        {BOB, top, ".", -EISDIR, -EINVAL, "."},
        {BOB, top, "..", -EISDIR, -ENOTEMPTY, ".."},
        {BOB, top, long_name, -ENAMETOOLONG, -ENAMETOOLONG, "a name too long"},
        {BOB, file, "x", -ENOTDIR, -ENOTDIR, "in a file"},
        {BOB, hidden, "f", -EACCES, -EACCES, "in a hidden directory"},
        {BOB, closed, "no", -ENOENT, -ENOENT, "nothing, in a closed one"},
        {BOB, closed, "f", -EACCES, -EACCES, "a file in a closed one"},
        {BOB, closed, "d", -EACCES, -EACCES, "a directory in a closed one"},
        {ROOT, closed, "f", 1, -ENOTDIR, "a file"},
        {ROOT, closed, "d", -EISDIR, 1, "a directory"},
        {BOB, sticky, "roots", -EPERM, -EPERM, "another's in a sticky one"},
        {BOB, sticky, "d", -EPERM, -EPERM, "... a directory"},
        {BOB, top, "full", -EISDIR, -ENOTEMPTY, "a full directory"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].unlink_err <= 0)
            tap_is_int(unlink_name(rows[i].call, rows[i].parent, rows[i].name), rows[i].unlink_err,
                       "unlink: %s", rows[i].what);
        if (rows[i].rmdir_err <= 0)
            tap_is_int(remove_dir(rows[i].call, rows[i].parent, rows[i].name), rows[i].rmdir_err,
                       "rmdir: %s", rows[i].what);
    }
    tap_is_int(unlink_name(BOB, sticky, "bobs"), 0, "one's own in a sticky one");
    tap_is_int(unlink_name(ALICE, sticky, "roots"), 0, "another's, for the directory's owner");
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(unlink_name(ROOT, closed, "f"), -EPERM, "an immutable file");
    set_flags(ROOT, file, FS_APPEND_FL);
    tap_is_int(unlink_name(ROOT, closed, "f"), -EPERM, "an append-only file");
    set_flags(ROOT, file, 0);
    set_flags(ROOT, closed, FS_APPEND_FL);
    tap_is_int(unlink_name(ROOT, closed, "f"), -EPERM, "in an append-only directory");
    set_flags(ROOT, closed, 0);
    struct vv_attr before = attr_of(closed);
    tap_is_int(remove_dir(ROOT, closed, "d"), 0, "rmdir");
    tap_is_int(attr_of(closed).nlink, before.nlink - 1, "takes a link from the parent");
    tap_is_int(unlink_name(ROOT, closed, "f"), 0, "unlink");
    tap_is_int((int64_t)attr_of(closed).size, 0, "the directory is empty");
}

static void test_all(void)
{
    memset(long_name, 'x', VV_NAME_MAX + 1);
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "top", 0777);
    test_links();
    test_link_errors();
    test_remove_errors();
}

int main(void)
{
    return rig_main(test_all);
}
