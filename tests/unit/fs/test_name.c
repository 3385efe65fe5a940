/* Lookup and making names: results, and which error comes first. */
#include "rig.h"

static uint64_t top;
static char long_name[VV_NAME_MAX + 2];

static void test_lookup(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "dir", 0755);
    uint64_t file = (uint64_t)make_node(ROOT, dir, "file", S_IFREG | 0644);
    tap_is_int(look(ROOT, dir, "file"), (int64_t)file, "a name");
    tap_is_int(look(ROOT, dir, "."), (int64_t)dir, ".");
    tap_is_int(look(ROOT, dir, ".."), (int64_t)top, "..");
    tap_is_int(look(ROOT, ROOT_DIR, ".."), (int64_t)ROOT_DIR, ".. of the root");
    tap_is_int(look(ROOT, dir, "no"), -ENOENT, "no such name");
    tap_is_int(look(ROOT, dir, ""), -ENOENT, "no name at all");
    tap_is_int(look(ROOT, file, "x"), -ENOTDIR, "in a file");
    tap_is_int(look(ROOT, file, "."), -ENOTDIR, ". of a file");
    tap_is_int(look(ROOT, 4711, "x"), -ESTALE, "in nothing");
    tap_is_int(look(ROOT, dir, "a/b"), -EINVAL, "a slash");
    tap_is_int(look(ROOT, dir, long_name), -ENAMETOOLONG, "a name too long");
    tap_is_int(look(ROOT, file, long_name), -ENOTDIR, "... in a file");
    set_mode(ROOT, dir, 0644);
    tap_is_int(look(BOB, dir, "file"), -EACCES, "a directory that may not be searched");
    tap_is_int(look(BOB, dir, "no"), -EACCES, "... says nothing about names");
    tap_is_int(look(BOB, dir, long_name), -EACCES, "... of any length");
    tap_is_int(look(KERNEL, dir, "file"), (int64_t)file, "... except when checked");
    tap_is_int(look(KERNEL, dir, ".."), (int64_t)top, "... and ..");
    tap_is_int(look(KERNEL, dir, "no"), -ENOENT, "checked: no such name");
    tap_is_int(look(KERNEL, dir, long_name), -ENAMETOOLONG, "checked: a name too long");
    tap_is_int(look(KERNEL, file, "x"), -ENOENT, "checked: none in a file");
    tap_is_int(look(KERNEL, 4711, "x"), -ENOENT, "checked: none in nothing");
    tap_is_int(look(KERNEL, 4711, "."), -ESTALE, "checked: . of nothing");
    set_mode(ROOT, dir, 0755);
    long_name[VV_NAME_MAX] = 0;
    tap_ok(make_node(ROOT, dir, long_name, S_IFREG | 0644) > 0, "the longest name");
    tap_ok(look(ROOT, dir, long_name) > 0, "is found");
    long_name[VV_NAME_MAX] = 'x';
    tap_ok(make_node(ROOT, dir, "\xff\x01 \n", S_IFREG | 0644) > 0, "any bytes");
    tap_ok(look(ROOT, dir, "\xff\x01 \n") > 0, "are a name");
}

static void test_types(void)
{
    const struct {
        const struct vv_fs_call *call;
        uint32_t mode;
        int err;
        const char *what;
    } rows[] = {
        {ALICE, S_IFREG | 06755, 0, "a file"},
        {ALICE, S_IFIFO | 0644, 0, "a FIFO"},
        {ALICE, S_IFSOCK | 0644, 0, "a socket"},
        {ALICE, S_IFBLK | 0644, -EPERM, "a device, not uid 0"},
        {ROOT, S_IFBLK | 0644, 0, "a block device"},
        {ROOT, S_IFCHR | 0644, 0, "a character device"},
        {KERNEL, S_IFCHR | 0644, -EPERM, "a device, even if checked"},
        {ROOT, S_IFDIR | 0755, -EPERM, "a directory"},
        {ROOT, S_IFLNK | 0777, -EINVAL, "a symlink"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t made = make_node(rows[i].call, top, "node", rows[i].mode);
        tap_is_int(made < 0 ? made : 0, rows[i].err, "mknod: %s", rows[i].what);
        if (made < 0)
            continue;
        struct vv_attr attr = attr_of((uint64_t)made);
        tap_is_int(attr.mode, rows[i].mode, "... has that mode");
        if (S_ISBLK(attr.mode))
            tap_ok(attr.rdev_major == 7 && attr.rdev_minor == 9, "... and that number");
        unlink_name(ROOT, top, "node");
    }
    int64_t made = make_node(ROOT, top, "plain", 0644);
    tap_is_int(attr_of((uint64_t)made).mode, S_IFREG | 0644, "mknod without a type");
    struct vv_attr attr = attr_of((uint64_t)made);
    tap_ok(attr.nlink == 1 && attr.size == 0 && attr.blocks == 0 && attr.generation == 1 &&
               attr.atime.tv_sec == attr.btime.tv_sec && attr.mtime.tv_nsec == attr.ctime.tv_nsec,
           "a new file's attributes");
    made = make_dir(ROOT, top, "plaindir", 07777);
    attr = attr_of((uint64_t)made);
    tap_ok(attr.mode == (S_IFDIR | 01777) && attr.nlink == 2, "a new directory's");
}

static void test_errors(void)
{
    uint64_t closed = (uint64_t)make_dir(ROOT, top, "closed", 0755);
    uint64_t hidden = (uint64_t)make_dir(ROOT, top, "hidden", 0644);
    uint64_t file = (uint64_t)make_node(ROOT, closed, "there", S_IFREG | 0644);
    const struct {
        uint64_t parent;
        const char *name;
        int err;
        const char *what;
    } rows[] = {
        {file, "x", -ENOTDIR, "in a file"},
        {4711, "x", -ESTALE, "in nothing"},
        {hidden, long_name, -EACCES, "no search before a name too long"},
        {closed, long_name, -ENAMETOOLONG, "a name too long before no write"},
        {closed, "there", -EEXIST, "what is there before no write"},
        {closed, "new", -EACCES, "no write"},
        {top, "a/b", -EINVAL, "a slash"},
        {top, ".", -EEXIST, "."},
        {top, "..", -EEXIST, ".."},
        {top, "", -ENOENT, "no name"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tap_is_int(make_dir(BOB, rows[i].parent, rows[i].name, 0755), rows[i].err, "mkdir: %s",
                   rows[i].what);
        tap_is_int(make_node(BOB, rows[i].parent, rows[i].name, S_IFIFO | 0644), rows[i].err,
                   "mknod: %s", rows[i].what);
        tap_is_int(make_link(BOB, rows[i].parent, rows[i].name, "x"), rows[i].err, "symlink: %s",
                   rows[i].what);
    }
    set_flags(ROOT, closed, FS_IMMUTABLE_FL);
    tap_is_int(make_dir(ROOT, closed, "new", 0755), -EPERM, "in an immutable directory");
    set_flags(ROOT, closed, FS_APPEND_FL);
    tap_ok(make_dir(ROOT, closed, "new", 0755) > 0, "in an append-only one");
    set_flags(ROOT, closed, 0);
}

static void test_groups(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "sgid", 0777);
    set_owner(ROOT, dir, 0, 3000);
    set_mode(ROOT, dir, 02777);
    int64_t made = make_node(ALICE, dir, "file", S_IFREG | 02755);
    struct vv_attr attr = attr_of((uint64_t)made);
    tap_is_int(attr.gid, 3000, "the group of a setgid directory");
    tap_is_int(attr.mode & 07777, 0755, "but not its power, for who is no member");
    made = make_node(ALICE, dir, "noexec", S_IFREG | 02744);
    tap_is_int(attr_of((uint64_t)made).mode & 07777, 02744, "setgid without execution stays");
    set_owner(ROOT, dir, UINT32_MAX, 2001);
    set_mode(ROOT, dir, 02777);
    made = make_node(ALICE, dir, "member", S_IFREG | 02755);
    tap_is_int(attr_of((uint64_t)made).mode & 07777, 02755, "for a member it does");
    made = make_dir(ALICE, dir, "sub", 0755);
    attr = attr_of((uint64_t)made);
    tap_ok(attr.gid == 2001 && (attr.mode & 07777) == 02755, "directories inherit both");
    made = make_dir(ALICE, top, "own", 0755);
    attr = attr_of((uint64_t)made);
    tap_ok(attr.gid == 1000 && (attr.mode & 07777) == 0755, "elsewhere the caller's group counts");
}

static void test_parent(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "times", 0755);
    struct vv_attr before = attr_of(dir);
    vv_rt_sleep_ns(1000000);
    uint64_t sub = (uint64_t)make_dir(ROOT, dir, "sub", 0755);
    struct vv_attr after = attr_of(dir);
    tap_ok(after.mtime.tv_nsec != before.mtime.tv_nsec &&
               after.ctime.tv_nsec == after.mtime.tv_nsec &&
               after.atime.tv_nsec == before.atime.tv_nsec,
           "mkdir changes mtime and ctime of the parent");
    tap_ok(after.nlink == before.nlink + 1 && after.change > before.change, "and its links");
    tap_is_int((int64_t)after.size, 1, "its size counts entries");
    set_flags(ROOT, dir, FS_NODUMP_FL | FS_DIRSYNC_FL);
    unsigned syncs = volume->syncs;
    uint64_t file = (uint64_t)make_node(ROOT, dir, "file", S_IFREG | 0644);
    tap_is_int(volume->syncs, syncs + 1, "dirsync syncs");
    tap_is_int(attr_of(file).flags, FS_NODUMP_FL, "flags are inherited");
    tap_is_int(attr_of((uint64_t)make_dir(ROOT, dir, "d", 0755)).flags,
               FS_NODUMP_FL | FS_DIRSYNC_FL, "... by directories, dirsync too");
    tap_is_int((int64_t)attr_of(sub).flags, 0, "not later");
}

static void test_rounds(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "rounds", 0777);
    volume->miss_permille = 1000;
    volume->rounds_max = 0;
    tap_ok(make_node(ALICE, dir, "a", S_IFREG | 0644) > 0, "mknod, cold");
    tap_is_int(volume->rounds_max, 2, "needs one fetch");
    volume->rounds_max = 0;
    uint64_t file = (uint64_t)look(ALICE, dir, "a");
    tap_is_int(volume->rounds_max, 3, "lookup needs two");
    write_at(file, "x", 1, 100000);
    volume->rounds_max = 0;
    tap_is_int(look(ALICE, dir, "a"), (int64_t)file, "lookup of a file with data");
    tap_ok(volume->rounds_max <= 4, "needs %u rounds", volume->rounds_max);
    volume->rounds_max = 0;
    tap_is_int(hard_link(ALICE, file, dir, "b"), 0, "link");
    tap_ok(volume->rounds_max <= 3, "needs %u rounds", volume->rounds_max);
    volume->rounds_max = 0;
    tap_is_int(unlink_name(ALICE, dir, "b"), 0, "unlink");
    tap_ok(volume->rounds_max <= 3, "needs %u rounds", volume->rounds_max);
    volume->miss_permille = 300;
}

/* What NFS asks for: attributes with the creation, and exclusive creation that can be repeated. */
static void test_create_set(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "set", 0777);
    struct vv_attr set = {.uid = 1000, .gid = 2000, .size = 5, .atime = {7, 8}, .mtime = {9, 10}};
    struct vv_create create = {.mode = S_IFREG | 0640, .set = &set};
    struct vv_attr attr = {0};
    create.set_mask = VV_SET_UID | VV_SET_GID | VV_SET_SIZE | VV_SET_ATIME | VV_SET_MTIME;
    tap_is_int(vv_fs_mknod(fs, BOB, dir, "file", 4, &create, &attr), -EPERM, "not for another");
    tap_is_int(look(ROOT, dir, "file"), -ENOENT, "and nothing is made");
    tap_is_int(vv_fs_mknod(fs, ALICE, dir, "file", 4, &create, &attr), 0, "a file with attributes");
    tap_ok(attr.uid == 1000 && attr.gid == 2000 && attr.size == 5 && attr.atime.tv_nsec == 8 &&
               attr.mtime.tv_sec == 9 && attr.mode == (S_IFREG | 0640),
           "has them");
    set.gid = 3000;
    tap_is_int(vv_fs_mknod(fs, ALICE, dir, "other", 5, &create, &attr), -EPERM, "a foreign group");
    tap_is_int(vv_fs_mknod(fs, ROOT, dir, "other", 5, &create, &attr), 0, "but for uid 0");
    set.size = VV_FILE_BYTES_MAX + 1;
    tap_is_int(vv_fs_mknod(fs, ROOT, dir, "large", 5, &create, &attr), -EFBIG, "too large");
}

static void test_exclusive(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "exclusive", 0777);
    struct vv_create create = {.mode = S_IFREG, .verifier = 0x1122334455667788};
    struct vv_attr made = {0};
    struct vv_attr attr = {0};
    tap_is_int(vv_fs_mknod(fs, ALICE, dir, "file", 4, &create, &made), 0, "made exclusively");
    tap_is_int((int64_t)made.rdev_major, 0, "the verifier is no device number");
    tap_is_int(vv_fs_mknod(fs, ALICE, dir, "file", 4, &create, &attr), 0, "the same call again");
    tap_is_int((int64_t)attr.inode, (int64_t)made.inode, "finds the file");
    create.verifier++;
    tap_is_int(vv_fs_mknod(fs, ALICE, dir, "file", 4, &create, &attr), -EEXIST, "another call");
    tap_is_int(make_node(ALICE, dir, "file", S_IFREG), -EEXIST, "and one without a verifier");
    create.verifier--;
    tap_is_int(set_mode(ALICE, made.inode, 0600), 0, "setting attributes");
    tap_is_int(vv_fs_mknod(fs, ALICE, dir, "file", 4, &create, &attr), -EEXIST, "ends it");
}

static void test_nearest(void)
{
    uint64_t a = (uint64_t)make_dir(ROOT, top, "near", 0755);
    uint64_t b = (uint64_t)make_dir(ROOT, a, "b", 0755);
    uint64_t file = (uint64_t)make_node(ROOT, b, "file", S_IFREG);
    const uint64_t roots[] = {a, b};
    struct vv_attr attr;
    size_t index = 9;
    volume->miss_permille = 1000;
    volume->rounds_max = 0;
    tap_is_int(vv_fs_nearest(fs, file, roots, 1, &index), 0, "below");
    tap_is_int((int64_t)index, 0, "the only root");
    tap_is_int(vv_fs_nearest(fs, file, roots, 2, &index), 0, "below two");
    tap_is_int((int64_t)index, 1, "the nearest");
    tap_is_int(vv_fs_nearest(fs, a, roots, 2, &index), 0, "a root itself");
    tap_is_int((int64_t)index, 0, "is its own");
    tap_is_int(vv_fs_nearest(fs, top, roots, 2, &index), -ENOENT, "above both");
    tap_is_int(vv_fs_nearest(fs, 4711, roots, 2, &index), -ESTALE, "no inode");
    tap_ok(volume->rounds_max <= 2, "%u rounds at most", volume->rounds_max);
    volume->miss_permille = 0;
    tap_is_int(vv_fs_link(fs, ROOT, file, a, "second", 6, &attr), 0, "a second link");
    tap_is_int(vv_fs_unlink(fs, ROOT, b, "file", 4), 0, "and the first one gone");
    tap_is_int(vv_fs_nearest(fs, file, roots, 2, &index), 0, "is below");
    tap_is_int((int64_t)index, 0, "where the second one is");
}

static void test_all(void)
{
    memset(long_name, 'x', VV_NAME_MAX + 1);
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "top", 0777);
    set_mode(ROOT, top, 0777);
    test_lookup();
    test_types();
    test_errors();
    test_groups();
    test_create_set();
    test_exclusive();
    test_nearest();
    test_parent();
    test_rounds();
}

int main(void)
{
    return rig_main(test_all);
}
