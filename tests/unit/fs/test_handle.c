#include "rig.h"

static uint64_t top;

static int try_open(const struct vv_fs_call *call, uint64_t inode, int flags)
{
    struct vv_handle *handle = NULL;
    int err = vv_fs_open_file(fs, call, inode, flags, &handle);
    vv_fs_release(handle);
    return err;
}

static void test_open(void)
{
    uint64_t file = (uint64_t)make_node(ALICE, top, "file", S_IFREG | 0640);
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "dir", 0755);
    uint64_t link = (uint64_t)make_link(ROOT, top, "link", "file");
    uint64_t fifo = (uint64_t)make_node(ROOT, top, "fifo", S_IFIFO | 0666);
    const struct {
        const struct vv_fs_call *call;
        uint64_t inode;
        int flags;
        int err;
        const char *what;
    } rows[] = {
        {ALICE, file, O_RDWR, 0, "the owner"},
        {BOB, file, O_RDONLY, -EACCES, "another"},
        {KERNEL, file, O_RDWR, 0, "who was checked"},
        {ALICE, dir, O_RDONLY, 0, "a directory"},
        {ALICE, dir, O_RDONLY | O_DIRECTORY, 0, "... as one"},
        {ROOT, dir, O_RDWR, -EISDIR, "... for writing"},
        {ROOT, dir, O_RDONLY | O_TRUNC, -EISDIR, "... truncated"},
        {ALICE, dir, O_WRONLY, -EISDIR, "... for writing, without permission"},
        {ROOT, file, O_RDONLY | O_DIRECTORY, -ENOTDIR, "a file as a directory"},
        {ROOT, link, O_RDONLY, -ELOOP, "a symlink"},
        {ROOT, link, O_PATH, 0, "... its path"},
        {ROOT, link, O_RDONLY | O_DIRECTORY, -ENOTDIR, "... as a directory"},
        {BOB, fifo, O_RDWR, 0, "a FIFO"},
        {BOB, file, O_PATH, 0, "a path without permission"},
        {BOB, fifo, O_RDONLY | O_NOATIME, -EPERM, "noatime, not the owner"},
        {ALICE, file, O_RDONLY | O_NOATIME, 0, "noatime, the owner"},
        {ROOT, 999, O_RDONLY, -ESTALE, "nothing"},
        {ROOT, file, O_ACCMODE, -EINVAL, "no access mode"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        tap_is_int(try_open(rows[i].call, rows[i].inode, rows[i].flags), rows[i].err, "%s",
                   rows[i].what);
    write_at(file, "data", 4, 0);
    set_mode(ROOT, file, 06755);
    tap_is_int(try_open(ALICE, file, O_RDONLY | O_TRUNC), 0, "truncated");
    tap_is_int((int64_t)attr_of(file).size, 0, "is empty");
    tap_is_int(attr_of(file).mode & 07777, 0755, "without setuid");
    set_mode(ROOT, file, 0444);
    tap_is_int(try_open(ALICE, file, O_RDONLY | O_TRUNC), -EACCES, "truncated, not writable");
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(try_open(ROOT, file, O_RDWR), -EPERM, "immutable");
    tap_is_int(try_open(KERNEL, file, O_RDWR), -EPERM, "... for whom the kernel checked, too");
    set_flags(ROOT, file, 0);
    tap_is_int((int64_t)fs->opens.count, 0, "nothing is open");
}

static int create(const struct vv_fs_call *call, const char *name, uint32_t mode, int flags,
                  struct vv_handle **out_handle)
{
    struct vv_attr attr;
    struct vv_create made = {.mode = mode, .umask = 022};
    struct vv_handle *handle = NULL;
    int err = vv_fs_create(fs, call, top, name, strlen(name), &made, flags, &attr, &handle);
    if (out_handle)
        *out_handle = handle;
    else
        vv_fs_release(handle);
    return err;
}

static void test_create(void)
{
    struct vv_handle *handle;
    tap_is_int(create(ALICE, "new", 0, O_RDWR | O_CREAT, &handle), 0, "a file of mode 0");
    tap_is_int(vv_fs_write(fs, ALICE, vv_handle_inode(handle), handle, "x", 1, 0, 0), 1,
               "... can be written by who made it");
    tap_is_int(vv_handle_flags(handle) & O_ACCMODE, O_RDWR, "the flags are kept");
    vv_fs_release(handle);
    tap_is_int(create(ALICE, "new", 0644, O_RDWR | O_CREAT, NULL), -EACCES, "... not again");
    tap_is_int(create(ALICE, "new", 0644, O_CREAT | O_EXCL, NULL), -EEXIST, "... exclusively");
    tap_is_int(create(ROOT, "new", 0644, O_RDWR | O_CREAT | O_TRUNC, NULL), 0, "... truncated");
    tap_is_int((int64_t)attr_of((uint64_t)look(ROOT, top, "new")).size, 0, "... it is empty");
    tap_is_int(create(ALICE, "masked", 0666, O_RDONLY | O_CREAT, NULL), 0, "another");
    tap_is_int(attr_of((uint64_t)look(ROOT, top, "masked")).mode & 07777, 0644, "has the umask");
    tap_is_int(create(ROOT, "dir", 0644, O_RDONLY | O_CREAT, NULL), -EISDIR, "a directory");
    tap_is_int(create(ROOT, "link", 0644, O_RDONLY | O_CREAT, NULL), -ELOOP, "a symlink");
    tap_is_int(create(ROOT, "link", 0644, O_CREAT | O_EXCL, NULL), -EEXIST, "... exclusively");
    tap_is_int(create(ROOT, ".", 0644, O_CREAT, NULL), -EISDIR, ".");
    set_mode(ROOT, top, 0755);
    tap_is_int(create(BOB, "no", 0644, O_CREAT, NULL), -EACCES, "in a closed directory");
    tap_is_int(create(BOB, "masked", 0644, O_CREAT, NULL), 0, "... what is there");
    set_mode(ROOT, top, 0777);
    tap_is_int((int64_t)fs->opens.count, 0, "nothing is open");
}

static void test_unlinked(void)
{
    struct vv_handle *handle;
    struct vv_attr attr;
    char got[5];
    static char data[10000];
    tap_is_int(create(ROOT, "gone", 0644, O_RDWR | O_CREAT, &handle), 0, "a file");
    uint64_t file = vv_handle_inode(handle);
    vv_fs_write(fs, ROOT, file, handle, data, sizeof(data), 0, 0) < 0 ? exit(1) : (void)0;
    int err = vv_fs_setxattr(fs, ROOT, file, "user.a", "b", 1, 0);
    tap_is_int(err, 0, "with an attribute");
    tap_is_int(unlink_name(ROOT, top, "gone"), 0, "is unlinked while it is open");
    tap_ok(is_orphan(file), "and becomes an orphan");
    tap_is_int(vv_fs_getattr(fs, file, &attr), 0, "that can be looked at");
    tap_is_int(attr.nlink, 0, "without links");
    tap_is_int(vv_fs_write(fs, ROOT, file, handle, "more", 4, 0, 0), 4, "written");
    tap_is_int(vv_fs_read(fs, ROOT, file, handle, got, 5, 0), 5, "and read");
    tap_is_int(set_mode(ROOT, file, 0600), 0, "and changed");
    struct vv_handle *second = open_of(ROOT, file, O_RDONLY);
    tap_ok(second, "and opened again");
    tap_is_int(hard_link(ROOT, file, top, "back"), -ENOENT, "but not linked");
    vv_fs_release(handle);
    settle();
    tap_ok(is_orphan(file), "the second handle keeps it");
    vv_fs_release(second);
    settle();
    tap_ok(!is_orphan(file) && !has_record(file), "then it goes, and its attributes");
    tap_is_int(vv_fs_getattr(fs, file, &attr), -ESTALE, "nobody finds it");
    tap_is_int(try_open(ROOT, file, O_RDONLY), -ESTALE, "nor opens it");
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "removed", 0755);
    handle = open_of(ROOT, dir, O_RDONLY);
    tap_is_int(remove_dir(ROOT, top, "removed"), 0, "an open directory is removed");
    tap_is_int(make_node(ROOT, dir, "x", S_IFREG | 0644), -ENOENT, "nothing is made in it");
    tap_is_int(look(ROOT, dir, "x"), -ENOENT, "nor found");
    tap_is_int(look(ROOT, dir, ".."), (int64_t)top, "but .. is there");
    tap_is_int(attr_of(dir).mode, S_IFDIR | 0755, "and its attributes");
    vv_fs_release(handle);
    settle();
    tap_ok(!has_record(dir), "until it is closed");
    tap_is_int((int64_t)fs->opens.count, 0, "nothing is open");
}

static int tmpfile_of(int flags, struct vv_handle **out_handle)
{
    struct vv_attr attr;
    struct vv_create made = {.mode = 0666, .umask = 027};
    return vv_fs_tmpfile(fs, ALICE, top, &made, flags, &attr, out_handle);
}

static void test_tmpfile(void)
{
    struct vv_handle *handle;
    tap_is_int(tmpfile_of(O_RDONLY, &handle), -EINVAL, "a temporary file only for reading");
    tap_is_int(tmpfile_of(O_RDWR, &handle), 0, "a temporary file");
    uint64_t file = vv_handle_inode(handle);
    tap_is_int(attr_of(file).mode, S_IFREG | 0640, "with the umask");
    tap_is_int(vv_fs_write(fs, ALICE, file, handle, "x", 1, 0, 0), 1, "can be written");
    tap_is_int(fsck(), 0, "it is an orphan");
    tap_is_int(hard_link(ALICE, file, top, "named"), 0, "and can be linked");
    tap_ok(!is_orphan(file), "then it is none");
    vv_fs_release(handle);
    settle();
    tap_is_int(look(ALICE, top, "named"), (int64_t)file, "and stays");
    tap_is_int(tmpfile_of(O_RDWR | O_EXCL, &handle), 0, "an exclusive one");
    file = vv_handle_inode(handle);
    tap_is_int(hard_link(ALICE, file, top, "no"), -ENOENT, "cannot");
    vv_fs_release(handle);
    settle();
    tap_ok(!has_record(file), "and goes when closed");
}

/* An operation that fails at the last moment leaves nothing open. */
static void test_failures(void)
{
    struct vv_handle *handle = NULL;
    volume->apply_error = -EIO;
    tap_is_int(create(ROOT, "failed", 0644, O_RDWR | O_CREAT, &handle), -EIO, "create fails");
    tap_is_int((int64_t)fs->opens.count, 0, "nothing is open");
    tap_is_int(look(ROOT, top, "failed"), -ENOENT, "nor there");
    volume->apply_error = -EIO;
    tap_is_int(tmpfile_of(O_RDWR, &handle), -EIO, "a temporary file fails");
    settle();
    tap_is_int((int64_t)fs->opens.count, 0, "nothing is open");
    tap_is_int(create(ROOT, "kept", 0644, O_RDWR | O_CREAT, &handle), 0, "a file");
    volume->apply_error = -EIO;
    tap_is_int(unlink_name(ROOT, top, "kept"), -EIO, "unlink fails");
    uint64_t file = vv_handle_inode(handle);
    vv_fs_release(handle);
    settle();
    tap_is_int(look(ROOT, top, "kept"), (int64_t)file, "and it stays when closed");
}

static uint64_t removed;
static int seen;

static void look_at_removed(void)
{
    struct vv_attr attr;
    seen = vv_fs_getattr(fs, removed, &attr);
    if (seen == 0)
        seen = attr.nlink == 0 ? 1 : -EBADMSG;
}

/* A directory that loses its name, handed out open. */
static void test_removed_dir(void)
{
    struct vv_handle *handle = NULL;
    struct vv_fs_call call = {.door = 1, .removed_dir = &handle};
    struct vv_attr attr;
    settle();
    removed = (uint64_t)make_dir(ROOT, top, "removed", 0755);
    uint64_t inner = (uint64_t)make_dir(ROOT, removed, "inner", 0755);
    tap_is_int(remove_dir(&call, top, "removed"), -ENOTEMPTY, "one that is not empty");
    tap_is_int(remove_dir(&call, top, "none"), -ENOENT, "one that is not there");
    volume->apply_error = -EIO;
    tap_is_int(remove_dir(&call, removed, "inner"), -EIO, "one that cannot be removed");
    tap_ok(handle == NULL && fs->opens.count == 0, "nothing is handed out, nothing is open");
    tap_is_int(look(ROOT, removed, "inner"), (int64_t)inner, "and it is there");
    tap_is_int(remove_dir(ROOT, removed, "inner"), 0, "one that nobody wants");
    tap_is_int(vv_fs_getattr(fs, inner, &attr), -ESTALE, "is gone");
    volume->meanwhile = look_at_removed;
    tap_is_int(remove_dir(&call, top, "removed"), 0, "one that is wanted");
    tap_is_int(seen, 1, "is there from the moment on that it has lost its name");
    tap_ok(handle && vv_handle_inode(handle) == removed, "and handed out");
    tap_is_int(vv_fs_getattr(fs, removed, &attr), 0, "as long as it is open");
    vv_fs_release(handle);
    settle();
    tap_is_int(vv_fs_getattr(fs, removed, &attr), -ESTALE, "and no longer");
    tap_is_int((int64_t)fs->opens.count, 0, "nothing is open");

    handle = NULL;
    removed = (uint64_t)make_dir(ROOT, top, "to", 0755);
    tap_ok(make_dir(ROOT, top, "from", 0755) > 0, "a directory to be renamed to another's name");
    volume->apply_error = -EIO;
    tap_is_int(rename_name(&call, top, "from", top, "to", 0), -EIO, "which fails");
    tap_ok(handle == NULL && fs->opens.count == 0, "nothing is handed out, nothing is open");
    tap_is_int(rename_name(&call, top, "from", top, "to", RENAME_EXCHANGE), 0, "exchanged");
    tap_ok(handle == NULL && fs->opens.count == 0, "both have names");
    removed = (uint64_t)look(ROOT, top, "to");
    seen = 0;
    volume->meanwhile = look_at_removed;
    tap_is_int(rename_name(&call, top, "from", top, "to", 0), 0, "renamed");
    tap_is_int(seen, 1, "the one it replaces is there");
    tap_ok(handle && vv_handle_inode(handle) == removed, "and handed out");
    vv_fs_release(handle);
    settle();
    tap_is_int(vv_fs_getattr(fs, removed, &attr), -ESTALE, "until it is closed");
    handle = NULL;
    tap_ok(make_node(ROOT, top, "a", S_IFREG | 0644) > 0 && make_node(ROOT, top, "b", S_IFREG | 0644) > 0, "two files");
    tap_is_int(rename_name(&call, top, "a", top, "b", 0), 0, "one in place of the other");
    tap_ok(handle == NULL && fs->opens.count == 0, "a file is not kept");
}

static void test_all(void)
{
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "top", 0777);
    test_open();
    test_create();
    test_unlinked();
    test_tmpfile();
    test_failures();
    test_removed_dir();
}

int main(void)
{
    return rig_main(test_all);
}
