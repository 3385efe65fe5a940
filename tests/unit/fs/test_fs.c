/* Opening, statfs, and every call when memory fails at the n-th allocation. */
#include "rig.h"

static uint64_t top;
static uint64_t file;
static uint64_t big;
static struct vv_handle *handle;
static struct vv_attr attr;
static char buf[70000];
static struct vv_handle *made;

static int visit_any(void *arg, const struct vv_dirent *entry)
{
    return 1;
}

static int do_lookup(void)
{
    return vv_fs_lookup(fs, ALICE, top, "file", 4, &attr);
}
static int do_getattr(void)
{
    return vv_fs_getattr(fs, big, &attr);
}
static int do_setattr(void)
{
    struct vv_attr set = {.mode = 0640, .size = 50000};
    return vv_fs_setattr(fs, ROOT, big, NULL, &set, VV_SET_MODE | VV_SET_SIZE, &attr);
}
static int do_mknod(void)
{
    struct vv_create create = {.mode = S_IFREG | 0644};
    return vv_fs_mknod(fs, ALICE, top, "new", 3, &create, &attr);
}
static int do_mkdir(void)
{
    struct vv_create create = {.mode = 0755};
    return vv_fs_mkdir(fs, ALICE, top, "newdir", 6, &create, &attr);
}
static int do_symlink(void)
{
    return vv_fs_symlink(fs, ALICE, top, "newlink", 7, "target", 6, &attr);
}
static int do_link(void)
{
    return vv_fs_link(fs, ALICE, file, top, "hard", 4, &attr);
}
static int do_create(void)
{
    struct vv_create create = {.mode = 0644};
    return vv_fs_create(fs, ALICE, top, "created", 7, &create, O_RDWR, &attr, &made);
}
static int do_tmpfile(void)
{
    struct vv_create create = {.mode = 0644};
    return vv_fs_tmpfile(fs, ALICE, top, &create, O_RDWR, &attr, &made);
}
static int do_open(void)
{
    return vv_fs_open_file(fs, ROOT, file, O_RDWR, &made);
}
static int do_open_truncate(void)
{
    return vv_fs_open_file(fs, ROOT, big, O_RDWR | O_TRUNC, &made);
}
static int do_read(void)
{
    ssize_t got = vv_fs_read(fs, ROOT, big, handle, buf, sizeof(buf), 0);
    return got < 0 ? (int)got : 0;
}
static int do_write(void)
{
    ssize_t got = vv_fs_write(fs, ROOT, file, NULL, buf, sizeof(buf), 100, 0);
    return got < 0 ? (int)got : 0;
}
static int do_punch(void)
{
    return vv_fs_fallocate(fs, ROOT, big, NULL, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000,
                           9000);
}
static int do_collapse(void)
{
    return vv_fs_fallocate(fs, ROOT, big, NULL, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096);
}
static int do_insert(void)
{
    return vv_fs_fallocate(fs, ROOT, big, NULL, FALLOC_FL_INSERT_RANGE, 4096, 4096);
}
static int do_join(void)
{
    return vv_file_join_parts(fs, big);
}
static int do_copy(void)
{
    ssize_t got = vv_fs_copy_range(fs, ROOT, big, 0, file, 0, 10000);
    return got < 0 ? (int)got : 0;
}
static int do_rename(void)
{
    return rename_name(ALICE, top, "file", top, "renamed", RENAME_NOREPLACE);
}
static int do_readdir(void)
{
    return vv_fs_readdir(fs, top, 0, visit_any, NULL);
}
static int do_setxattr(void)
{
    return vv_fs_setxattr(fs, ROOT, file, "user.x", "y", 1, 0);
}
static int do_listxattr(void)
{
    ssize_t got = vv_fs_listxattr(fs, ROOT, file, buf, sizeof(buf));
    return got < 0 ? (int)got : 0;
}
static int do_removexattr(void)
{
    return vv_fs_removexattr(fs, ROOT, file, "user.x");
}
static int do_setlk(void)
{
    struct vv_lock lock = {.type = F_WRLCK, .start = 1, .end = 5};
    return vv_fs_setlk(fs, ROOT, file, &lock, false, NULL);
}
static int do_path(void)
{
    return vv_fs_path(fs, file, buf, sizeof(buf));
}
static int do_unlink(void)
{
    return unlink_name(ALICE, top, "renamed");
}
static int do_rmdir(void)
{
    return remove_dir(ALICE, top, "newdir");
}

/* Each in turn, on what those before have left. */
static const struct {
    const char *what;
    int (*call)(void);
} calls[] = {
    {"lookup", do_lookup},       {"getattr", do_getattr},
    {"setattr", do_setattr},     {"mknod", do_mknod},
    {"mkdir", do_mkdir},         {"symlink", do_symlink},
    {"link", do_link},           {"create", do_create},
    {"tmpfile", do_tmpfile},     {"open", do_open},
    {"read", do_read},           {"write", do_write},
    {"punch hole", do_punch},    {"insert range", do_insert},
    {"join parts", do_join},     {"collapse range", do_collapse},
    {"copy range", do_copy},     {"open truncated", do_open_truncate},
    {"readdir", do_readdir},     {"setxattr", do_setxattr},
    {"listxattr", do_listxattr}, {"removexattr", do_removexattr},
    {"setlk", do_setlk},         {"path", do_path},
    {"rename", do_rename},       {"unlink", do_unlink},
    {"rmdir", do_rmdir},
};

static void test_call(size_t i)
{
    int n = 0;
    for (; n < 2000; n++) {
        settle();
        uint64_t before = fake_digest(volume);
        size_t opens = fs->opens.count;
        size_t allocations = vv_alloc_domain_count(vv_alloc_domain());
        made = NULL;
        vv_alloc_fail_at(n, false);
        int err = calls[i].call();
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        if (err == 0)
            break;
        size_t left = vv_alloc_domain_count(vv_alloc_domain());
        if (err != -ENOMEM || !has_failed || fake_digest(volume) != before ||
            fs->opens.count != opens || left != allocations) {
            tap_ok(false,
                   "%s, allocation %d: error %d, changed %d, opens %zu, allocations %zu of %zu",
                   calls[i].what, n, err, fake_digest(volume) != before, fs->opens.count, left,
                   allocations);
            return;
        }
    }
    vv_fs_release(made);
    made = NULL;
    settle();
    tap_ok(n < 2000, "%s fails cleanly without memory, %d ways", calls[i].what, n);
}

static void test_memory(void)
{
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "top", 0777);
    set_owner(ROOT, top, 1000, 1000);
    file = (uint64_t)make_node(ALICE, top, "file", S_IFREG | 0644);
    big = (uint64_t)make_node(ALICE, top, "big", S_IFREG | 0644);
    set_flags(ROOT, big, FS_NOATIME_FL);
    set_flags(ROOT, file, FS_NOATIME_FL);
    memset(buf, 'b', sizeof(buf));
    write_at(big, buf, sizeof(buf), 0);
    write_at(file, "inline", 6, 0);
    uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7,  0, 0, 0, 0, 0, 2, 0, 7,  0, 1, 0, 0, 0, 4, 0,
                     5, 0, 0, 0, 0, 0, 16, 0, 7, 0, 0, 0, 0, 0, 32, 0, 5, 0, 0, 0, 0, 0};
    int err = vv_fs_setxattr(fs, ROOT, top, VV_ACL_DEFAULT_NAME, acl, sizeof(acl), 0);
    tap_is_int(err, 0, "a default ACL");
    err = vv_fs_setxattr(fs, ROOT, big, VV_ACL_ACCESS_NAME, acl, sizeof(acl), 0);
    tap_is_int(err, 0, "an ACL");
    handle = open_of(ROOT, big, O_RDWR);
    volume->miss_permille = 0;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        test_call(i);
    volume->miss_permille = 300;
    vv_fs_release(handle);
    vv_fs_unlock_client(fs, ROOT, 0);
    tap_is_int(fsck(), 0, "records agree");
}

static void test_opening(void)
{
    struct vv_attr root = attr_of(ROOT_DIR);
    tap_ok(root.mode == (S_IFDIR | 0755) && root.uid == 0 && root.nlink == 3, "the root");
    tap_is_int(remove_dir(ROOT, ROOT_DIR, ".."), -ENOTEMPTY, "is there to stay");
    rig_reopen();
    tap_ok(look(ROOT, ROOT_DIR, "top") > 0, "opened again, all is there");
    volume->is_read_only = true;
    rig_reopen();
    tap_ok(look(ROOT, ROOT_DIR, "top") > 0, "read-only, too");
    tap_is_int(make_dir(ROOT, ROOT_DIR, "no", 0755), -EROFS, "but nothing is made");
    settle();
    volume->is_read_only = false;
    rig_reopen();
    for (int n = 0; n < 100; n++) {
        struct vv_fs *second = NULL;
        vv_alloc_fail_at(n, false);
        int err = vv_fs_open(volume, &second);
        vv_alloc_fail_at(-1, false);
        if (err == 0) {
            vv_fs_close(second);
            tap_ok(n > 0, "opening fails cleanly, %d ways", n);
            break;
        }
    }
    vv_fs_close(NULL);
    tap_ok(vv_fs_volume(fs) == volume, "the volume");
    struct vv_volume *rest = volume;
    struct vv_fs *open = fs;
    volume = fake_volume_new(2);
    volume->is_read_only = true;
    tap_is_int(vv_fs_open(volume, &fs), -EROFS, "an empty volume that cannot be written");
    volume->is_read_only = false;
    tap_is_int(vv_fs_open_as(volume, 1000, 1001, &fs), 0, "one made by a user");
    struct vv_attr top_dir = attr_of(ROOT_DIR);
    tap_ok(top_dir.uid == 1000 && top_dir.gid == 1001, "has a root directory that is the user's");
    vv_fs_close(fs);
    tap_is_int(vv_fs_open_as(volume, 0, 0, &fs), 0, "and keeps it");
    tap_is_int(attr_of(ROOT_DIR).uid, 1000, "whoever opens it next");
    vv_fs_close(fs);
    fake_volume_free(volume);
    volume = rest;
    fs = open;
}

static void test_statfs(void)
{
    struct vv_statfs stat;
    tap_is_int(vv_fs_statfs(fs, &stat), 0, "statfs");
    tap_ok(stat.blocks_free == stat.blocks && stat.blocks > 1 << 20 && stat.name_max == 255 &&
               stat.fsid != 0,
           "of an unbounded store");
    volume->store_free = 40960;
    tap_is_int(vv_fs_statfs(fs, &stat), 0, "statfs");
    tap_is_int((int64_t)stat.blocks_free, 10, "of a bounded one");
    volume->store_free = UINT64_MAX;
}

/* Damage is an error, never a crash. */
static void test_damage(void)
{
    struct vv_fs_key key;
    uint64_t dir = (uint64_t)make_dir(ROOT, ROOT_DIR, "damage", 0755);
    uint64_t node = (uint64_t)make_node(ROOT, dir, "x", S_IFREG | 0644);
    struct vv_inode inode;
    uint8_t record[VV_INODE_RECORD_MAX];
    fsck_inode(node, &inode);
    size_t len = vv_inode_encode(&inode, record);
    vv_key_inode(&key, node);
    fake_put(volume, vv_fs_key_bytes(&key), (struct vv_bytes){record, len - 1});
    tap_is_int(look(ROOT, dir, "x"), -VV_ERR_FORMAT, "a damaged inode");
    fake_put(volume, vv_fs_key_bytes(&key), (struct vv_bytes){(const uint8_t *)"\3", 1});
    tap_is_int(look(ROOT, dir, "x"), -VV_ERR_NEWER, "one of another version");
    fake_delete(volume, vv_fs_key_bytes(&key));
    tap_is_int(look(ROOT, dir, "x"), -VV_ERR_CORRUPT, "one that is not there");
    tap_is_int(unlink_name(ROOT, dir, "x"), -VV_ERR_CORRUPT, "cannot be unlinked");
    fake_put(volume, vv_fs_key_bytes(&key), (struct vv_bytes){record, len});
    struct vv_fs_key dir_key;
    struct vv_inode wrong;
    uint8_t wrong_record[VV_INODE_RECORD_MAX];
    uint8_t right_record[VV_INODE_RECORD_MAX];
    fsck_inode(dir, &wrong);
    size_t right_len = vv_inode_encode(&wrong, right_record);
    vv_key_inode(&dir_key, dir);
    wrong.size = 0;
    fake_put(volume, vv_fs_key_bytes(&dir_key),
             (struct vv_bytes){wrong_record, vv_inode_encode(&wrong, wrong_record)});
    tap_is_int(unlink_name(ROOT, dir, "x"), -VV_ERR_CORRUPT, "a directory with a wrong count");
    wrong.size = VV_FILE_BYTES_MAX;
    wrong.next_cookie = UINT64_MAX;
    fake_put(volume, vv_fs_key_bytes(&dir_key),
             (struct vv_bytes){wrong_record, vv_inode_encode(&wrong, wrong_record)});
    tap_is_int(make_node(ROOT, dir, "y", S_IFREG | 0644), -VV_ERR_CORRUPT, "... or cookie");
    fake_put(volume, vv_fs_key_bytes(&dir_key), (struct vv_bytes){right_record, right_len});
    vv_key_entry(&key, dir, "x", 1);
    fake_put(volume, vv_fs_key_bytes(&key), (struct vv_bytes){(const uint8_t *)"short", 5});
    tap_is_int(look(ROOT, dir, "x"), -VV_ERR_FORMAT, "a damaged entry");
    fake_delete(volume, vv_fs_key_bytes(&key));
    struct vv_entry entry = {.inode = node, .cookie = inode.cookie, .type = S_IFREG};
    fake_put(volume, vv_fs_key_bytes(&key),
             (struct vv_bytes){record, vv_entry_encode(&entry, record)});
    tap_is_int(unlink_name(ROOT, dir, "x"), 0, "all is well again");
}

static void test_all(void)
{
    test_memory();
    test_opening();
    test_statfs();
    test_damage();
}

int main(void)
{
    return rig_main(test_all);
}
