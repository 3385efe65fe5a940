#include "rig.h"

static uint64_t top;
static uint64_t file; /* alice's */

static int set(const struct vv_fs_call *call, const struct vv_attr *values, uint32_t mask)
{
    struct vv_attr attr;
    return vv_fs_setattr(fs, call, file, NULL, values, mask, &attr);
}

static void reset(uint32_t mode)
{
    set_owner(ROOT, file, 1000, 1000);
    set_mode(ROOT, file, mode);
}

static uint32_t mode_now(void)
{
    return attr_of(file).mode & 07777;
}

static void test_chmod(void)
{
    reset(0644);
    tap_is_int(set_mode(BOB, file, 0777), -EPERM, "chmod, not the owner");
    tap_is_int(set_mode(ALICE, file, 0751), 0, "chmod, the owner");
    tap_is_int(mode_now(), 0751, "sets the mode");
    tap_is_int(set_mode(ALICE, file, 06755), 0, "setuid and setgid");
    tap_is_int(mode_now(), 06755, "are set");
    set_owner(ROOT, file, UINT32_MAX, 3000);
    set_mode(ALICE, file, 06755);
    tap_is_int(mode_now(), 04755, "setgid only by members of the group");
    set_mode(ROOT, file, 06755);
    tap_is_int(mode_now(), 06755, "or uid 0");
    set_owner(ROOT, file, UINT32_MAX, 2000);
    set_mode(ALICE, file, 02755);
    tap_is_int(mode_now(), 02755, "a supplementary group will do");
    uint64_t link = (uint64_t)make_link(ROOT, top, "link", "x");
    tap_is_int(set_mode(ROOT, link, 0644), -EOPNOTSUPP, "a symlink has no mode to set");
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(set_mode(ROOT, file, 0), -EPERM, "nor has an immutable file");
    set_flags(ROOT, file, 0);
    tap_is_int(set_mode(ROOT, 4711, 0), -ESTALE, "nor nothing");
}

static void test_guard(void)
{
    reset(0400);
    struct vv_attr before = {0};
    struct vv_attr attr = {0};
    struct vv_attr now = attr_of(file);
    struct vv_attr set = {.size = 3, .mode = 0444};
    struct timespec other = now.ctime;
    other.tv_nsec ^= 1;
    tap_is_int(vv_fs_setattr_guarded(fs, ALICE, file, &set, VV_SET_SIZE, &other, &before, &attr),
               -ECANCELED, "another ctime");
    tap_is_int((int64_t)attr_of(file).change, (int64_t)now.change, "changes nothing");
    tap_is_int(vv_fs_setattr(fs, ALICE, file, NULL, &set, VV_SET_SIZE, &attr), -EACCES,
               "its size is not to be set by path");
    tap_is_int(vv_fs_setattr_guarded(fs, BOB, file, &set, VV_SET_SIZE, &now.ctime, &before, &attr),
               -EACCES, "nor by others");
    tap_is_int(vv_fs_setattr_guarded(fs, ALICE, file, &set, VV_SET_SIZE, &now.ctime, &before, &attr),
               0, "but by its owner, who may have it open");
    tap_is_int((int64_t)before.change, (int64_t)now.change, "as it was");
    tap_is_int((int64_t)attr.size, 3, "and is");
    set.size = 0;
    tap_is_int(vv_fs_setattr_guarded(fs, ALICE, file, &set, VV_SET_SIZE | VV_SET_MODE, NULL, &before,
                                     &attr),
               0, "without a guard");
    tap_is_int((int64_t)before.size, 3, "as it was then");
}

static void test_chown(void)
{
    reset(0644);
    const struct {
        const struct vv_fs_call *call;
        uint32_t uid, gid;
        int err;
        const char *what;
    } rows[] = {
        {ALICE, 1001, UINT32_MAX, -EPERM, "the owner may not give it away"},
        {ALICE, 1000, UINT32_MAX, 0, "but keep it"},
        {ALICE, UINT32_MAX, 2001, 0, "and give it to a group of his"},
        {ALICE, UINT32_MAX, 3000, -EPERM, "not to another"},
        {ALICE, UINT32_MAX, 2001, 0, "but keep that"},
        {BOB, UINT32_MAX, 1001, -EPERM, "another may do nothing"},
        {BOB, 1001, UINT32_MAX, -EPERM, "nothing at all"},
        {BOB, 1000, UINT32_MAX, -EPERM, "not even what changes nothing"},
        {ROOT, 1001, 3000, 0, "uid 0 may"},
        {KERNEL, 1000, 1000, 0, "as may who was checked"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        tap_is_int(set_owner(rows[i].call, file, rows[i].uid, rows[i].gid), rows[i].err,
                   "chown: %s", rows[i].what);
    static const struct {
        uint32_t mode, want;
        const char *what;
    } modes[] = {
        {06777, 0777, "both bits go"},
        {06767, 02767, "setgid without execution stays"},
        {01777, 01777, "the sticky bit stays"},
    };
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        reset(modes[i].mode);
        set_owner(ALICE, file, UINT32_MAX, 2000);
        tap_is_int(mode_now(), modes[i].want, "chown: %s", modes[i].what);
        reset(modes[i].mode);
        set_owner(ROOT, file, 5, 5);
        tap_is_int(mode_now(), modes[i].want, "chown: %s, by uid 0 too", modes[i].what);
    }
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "dir", 0755);
    set_mode(ROOT, dir, 06755);
    set_owner(ROOT, dir, 5, 5);
    tap_is_int(attr_of(dir).mode & 07777, 06755, "chown: a directory keeps them");
    reset(0644);
    struct vv_attr values = {.uid = 5, .mode = 04755};
    tap_is_int(set(ROOT, &values, VV_SET_UID | VV_SET_MODE), 0, "chown and chmod in one");
    tap_is_int(mode_now(), 0755, "give no setuid");
    reset(04755);
    tap_is_int(set(ROOT, &values, VV_SET_KILL_PRIV), 0, "killpriv");
    tap_is_int(mode_now(), 0755, "takes it");
}

static void test_utimes(void)
{
    struct vv_attr past = {.atime = {-1, 5}, .mtime = {-99999999999ll, 999999999}};
    struct vv_attr bad = {.atime = {1, 1000000000}, .mtime = {1, -1}};
    const uint32_t both_now = VV_SET_ATIME_NOW | VV_SET_MTIME_NOW;
    const struct {
        const struct vv_fs_call *call;
        uint32_t mode, mask;
        int err;
        const char *what;
    } rows[] = {
        {ALICE, 0, both_now, 0, "now, by the owner"},
        {BOB, 0646, both_now, 0, "now, by who may write"},
        {BOB, 0644, both_now, -EACCES, "now, by who may not"},
        {BOB, 0666, VV_SET_ATIME | VV_SET_MTIME, -EPERM, "a time, by who may write"},
        {BOB, 0666, VV_SET_ATIME_NOW, -EPERM, "half now, by who may write"},
        {BOB, 0666, VV_SET_ATIME_NOW | VV_SET_MTIME, -EPERM, "mixed, by who may write"},
        {ALICE, 0, VV_SET_ATIME | VV_SET_MTIME, 0, "a time, by the owner"},
        {BOB, 0666, VV_SET_CTIME, -EPERM, "ctime, by another"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        reset(rows[i].mode);
        tap_is_int(set(rows[i].call, &past, rows[i].mask), rows[i].err, "utimes: %s", rows[i].what);
    }
    tap_is_int(set(ALICE, &bad, VV_SET_ATIME), -EINVAL, "nanoseconds out of range");
    tap_is_int(set(ALICE, &bad, VV_SET_MTIME), -EINVAL, "or negative");
    vv_rt_sleep_ns(1000);
    struct vv_attr before = attr_of(file);
    vv_rt_sleep_ns(1000);
    set(ALICE, &past, VV_SET_ATIME | VV_SET_MTIME);
    struct vv_attr after = attr_of(file);
    tap_ok(after.atime.tv_sec == -1 && after.atime.tv_nsec == 5, "atime before 1970");
    tap_ok(after.mtime.tv_sec == -99999999999ll && after.mtime.tv_nsec == 999999999,
           "mtime long before");
    tap_ok(after.ctime.tv_nsec != before.ctime.tv_nsec, "ctime is now");
    set(ALICE, &past, VV_SET_MTIME_NOW);
    tap_ok(attr_of(file).atime.tv_sec == -1 && attr_of(file).mtime.tv_sec >= 0,
           "what is not named stays");
    set_flags(ROOT, file, FS_APPEND_FL);
    tap_is_int(set(ALICE, &past, both_now), 0, "append-only: now");
    tap_is_int(set(ALICE, &past, VV_SET_MTIME), -EPERM, "append-only: a time");
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(set(ROOT, &past, both_now), -EPERM, "immutable: now");
    set_flags(ROOT, file, 0);
}

static void test_truncate(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, top, "sizedir", 0777);
    uint64_t fifo = (uint64_t)make_node(ROOT, top, "sizefifo", S_IFIFO | 0666);
    reset(0644);
    tap_is_int(set_size(ROOT, dir, 0), -EISDIR, "truncate a directory");
    tap_is_int(set_size(BOB, fifo, 0), -EINVAL, "a FIFO");
    tap_is_int(set_size(BOB, file, 0), -EACCES, "without permission");
    tap_is_int(set_size(BOB, file, UINT64_MAX), -EACCES, "... before too large");
    tap_is_int(set_size(ALICE, file, UINT64_MAX), -EFBIG, "too large");
    reset(0444);
    tap_is_int(set_size(ALICE, file, 0), -EACCES, "the owner without permission");
    struct vv_attr values = {.size = 3};
    reset(0646);
    tap_is_int(set(BOB, &values, VV_SET_SIZE | VV_SET_MTIME_NOW), 0,
               "a size and the time that goes with it");
    tap_is_int((int64_t)attr_of(file).size, 3, "are set");
    tap_is_int(set(BOB, &values, VV_SET_SIZE | VV_SET_MODE), -EPERM, "all or nothing");
}

static void test_access(void)
{
    reset(0750);
    set_owner(ROOT, file, 1000, 2000);
    const struct {
        const struct vv_fs_call *call;
        int mask, err;
    } rows[] = {
        {ALICE, R_OK | W_OK | X_OK, 0}, {BOB, R_OK, -EACCES},   {BOB, F_OK, 0},
        {KERNEL, R_OK, -EACCES},        {ROOT, W_OK | X_OK, 0}, {ROOT, 8, -EINVAL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        tap_is_int(vv_fs_access(fs, rows[i].call, file, rows[i].mask), rows[i].err, "access %zu",
                   i);
    reset(0644);
    tap_is_int(vv_fs_access(fs, ROOT, file, X_OK), -EACCES,
               "uid 0 executes nothing that nobody may");
    tap_is_int(vv_fs_access(fs, ROOT, file, R_OK | W_OK), 0, "but reads and writes all");
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(vv_fs_access(fs, ROOT, file, W_OK), -EPERM, "but the immutable");
    set_flags(ROOT, file, 0);
}

static void test_flags(void)
{
    reset(0644);
    tap_is_int(set_flags(BOB, file, FS_NODUMP_FL), -EPERM, "flags, not the owner");
    tap_is_int(set_flags(ALICE, file, FS_NODUMP_FL), 0, "flags, the owner");
    tap_is_int(attr_of(file).flags, FS_NODUMP_FL, "are set");
    tap_is_int(set_flags(ALICE, file, FS_APPEND_FL), -EPERM, "append-only is for uid 0");
    tap_is_int(set_flags(ROOT, file, FS_COMPR_FL), -EOPNOTSUPP, "others are not kept");
    tap_is_int(set_flags(ROOT, file, FS_DIRSYNC_FL), -EOPNOTSUPP, "dirsync is for directories");
    set_flags(ROOT, file, 0);
}

static void test_getattrs(void)
{
    static uint64_t inodes[3000];
    static struct vv_attr attrs[3000];
    static int errors[3000];
    for (size_t i = 0; i < 3000; i++)
        inodes[i] = i % 3 == 0 ? file : i % 3 == 1 ? top : 100000 + i;
    volume->miss_permille = 1000;
    volume->rounds_max = 0;
    int err = vv_fs_getattrs(fs, inodes, 3000, attrs, errors);
    volume->miss_permille = 300;
    bool is_right = err == 0;
    for (size_t i = 0; i < 3000; i++)
        is_right &=
            i % 3 == 2 ? errors[i] == -ESTALE : errors[i] == 0 && attrs[i].inode == inodes[i];
    tap_ok(is_right, "many at once");
    tap_ok(volume->rounds_max <= 3, "in %u rounds", volume->rounds_max);
}

static void test_path(void)
{
    char path[64];
    uint64_t a = (uint64_t)make_dir(ROOT, top, "a", 0755);
    uint64_t b = (uint64_t)make_node(ROOT, a, "b", S_IFREG | 0644);
    tap_ok(vv_fs_path(fs, ROOT_DIR, path, 64) == 0 && strcmp(path, "/") == 0, "the root");
    tap_ok(vv_fs_path(fs, b, path, 64) == 0 && strcmp(path, "/top/a/b") == 0, "a file: %s", path);
    tap_is_int(vv_fs_path(fs, b, path, 8), -ENAMETOOLONG, "too long");
    tap_ok(vv_fs_path(fs, b, path, 9) == 0, "just fits");
    tap_ok(vv_fs_path(fs, 4711, path, 64) == 0 && strcmp(path, "/?") == 0, "nothing: %s", path);
}

static void test_all(void)
{
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "top", 0777);
    file = (uint64_t)make_node(ALICE, top, "file", S_IFREG | 0644);
    test_chmod();
    test_guard();
    test_chown();
    test_utimes();
    test_truncate();
    test_access();
    test_flags();
    test_getattrs();
    test_path();
    struct vv_attr values = {0};
    unsigned writes = volume->writes;
    tap_is_int(set(BOB, &values, 0), 0, "setting nothing");
    tap_is_int(volume->writes, writes, "changes nothing");
}

int main(void)
{
    return rig_main(test_all);
}
