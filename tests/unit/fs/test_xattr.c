/* Extended attributes, and ACLs as they are kept and enforced. */
#include <sys/xattr.h>

#include "rig.h"

static uint64_t top;
static uint64_t file; /* alice's */

static int set(const struct vv_fs_call *call, uint64_t inode, const char *name, const char *value,
               int flags)
{
    return vv_fs_setxattr(fs, call, inode, name, value, strlen(value), flags);
}

static ssize_t get(const struct vv_fs_call *call, uint64_t inode, const char *name)
{
    static char buf[VV_XATTR_VALUE_MAX];
    return vv_fs_getxattr(fs, call, inode, name, buf, sizeof(buf));
}

static void test_values(void)
{
    char buf[10];
    tap_is_int(get(ALICE, file, "user.a"), -ENODATA, "none there");
    tap_is_int(set(ALICE, file, "user.a", "value", 0), 0, "set");
    tap_is_int(vv_fs_getxattr(fs, ALICE, file, "user.a", buf, sizeof(buf)), 5, "get");
    tap_is_bytes(buf, "value", 5, "is it");
    tap_is_int(vv_fs_getxattr(fs, ALICE, file, "user.a", NULL, 0), 5, "its length");
    tap_is_int(vv_fs_getxattr(fs, ALICE, file, "user.a", buf, 4), -ERANGE, "too small a buffer");
    tap_is_int(set(ALICE, file, "user.a", "x", XATTR_CREATE), -EEXIST, "create what is there");
    tap_is_int(set(ALICE, file, "user.b", "x", XATTR_REPLACE), -ENODATA, "replace what is not");
    tap_is_int(set(ALICE, file, "user.b", "x", XATTR_CREATE), 0, "create");
    tap_is_int(set(ALICE, file, "user.b", "yy", XATTR_REPLACE), 0, "replace");
    tap_is_int(set(ALICE, file, "user.e", "", 0), 0, "an empty value");
    tap_is_int(get(ALICE, file, "user.e"), 0, "is empty");
    tap_is_int(set(ALICE, file, "user.b", "x", 3), -EINVAL, "both flags");
    tap_is_int(vv_fs_removexattr(fs, ALICE, file, "user.a"), 0, "remove");
    tap_is_int(vv_fs_removexattr(fs, ALICE, file, "user.a"), -ENODATA, "again");
    static char large[VV_XATTR_VALUE_MAX + 1];
    tap_is_int(vv_fs_setxattr(fs, ALICE, file, "user.l", large, VV_XATTR_VALUE_MAX, 0), 0,
               "the largest value");
    tap_is_int(get(ALICE, file, "user.l"), VV_XATTR_VALUE_MAX, "is kept");
    tap_is_int(vv_fs_setxattr(fs, ALICE, file, "user.l", large, sizeof(large), 0), -E2BIG,
               "a larger one is not");
    char list[64];
    tap_is_int(vv_fs_listxattr(fs, BOB, file, NULL, 0), 21, "the list's length");
    tap_is_int(vv_fs_listxattr(fs, BOB, file, list, sizeof(list)), 21, "the list");
    tap_is_bytes(list, "user.b\0user.e\0user.l\0", 21, "names, ended by NUL");
    tap_is_int(vv_fs_listxattr(fs, BOB, file, list, 20), -ERANGE, "too small a buffer");
    tap_is_int(fsck(), 0, "counts agree");
}

static void test_names(void)
{
    char name[VV_XATTR_NAME_MAX + 2];
    const struct {
        const char *name;
        int err;
    } rows[] = {{"user.", -EINVAL},
                {"user", -EOPNOTSUPP},
                {"other.x", -EOPNOTSUPP},
                {"system.other", -EOPNOTSUPP},
                {"", -ERANGE},
                {name, -ERANGE}};
    memset(name, 'x', sizeof(name));
    memcpy(name, "user.", 5);
    name[VV_XATTR_NAME_MAX + 1] = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tap_is_int(set(ROOT, file, rows[i].name, "x", 0), rows[i].err, "set '%.10s'", rows[i].name);
        tap_is_int(get(ROOT, file, rows[i].name), rows[i].err, "get '%.10s'", rows[i].name);
    }
    name[VV_XATTR_NAME_MAX] = 0;
    tap_is_int(set(ROOT, file, name, "x", 0), 0, "the longest name");
    tap_is_int(get(ROOT, file, name), 1, "is found");
    int count = 0;
    int err = 0;
    for (; err == 0 && count < 1000; count++) {
        name[VV_XATTR_NAME_MAX - 1] = (char)('a' + count % 26);
        name[VV_XATTR_NAME_MAX - 2] = (char)('a' + count / 26);
        err = set(ROOT, file, name, "x", XATTR_CREATE);
    }
    tap_is_int(err, -ENOSPC, "more names than a list can hold, after %d", count);
    static char list[VV_XATTR_LIST_MAX];
    tap_ok(vv_fs_listxattr(fs, ROOT, file, list, sizeof(list)) > VV_XATTR_LIST_MAX - 300,
           "the list is full");
}

static void test_permissions(void)
{
    uint64_t dir = (uint64_t)make_dir(ALICE, top, "dir", 0755);
    uint64_t sticky = (uint64_t)make_dir(ALICE, top, "sticky", 01777);
    uint64_t link = (uint64_t)make_link(ALICE, top, "link", "x");
    uint64_t plain = (uint64_t)make_node(ALICE, top, "plain", S_IFREG | 0600);
    set(ROOT, plain, "user.a", "x", 0);
    set(ROOT, plain, "trusted.t", "x", 0);
    set(ROOT, plain, "security.s", "x", 0);
    const struct {
        const struct vv_fs_call *call;
        uint64_t inode;
        const char *name;
        int set_err, get_err;
        const char *what;
    } rows[] = {
        {ALICE, plain, "user.a", 0, 1, "the owner"},
        {BOB, plain, "user.a", -EACCES, -EACCES, "another"},
        {KERNEL, plain, "user.a", 0, 1, "who was checked"},
        {ALICE, plain, "trusted.t", -EPERM, -ENODATA, "trusted, not uid 0"},
        {ROOT, plain, "trusted.t", 0, 1, "trusted, uid 0"},
        {ALICE, plain, "security.s", -EPERM, 1, "security, not uid 0"},
        {ROOT, plain, "security.s", 0, 1, "security, uid 0"},
        {ALICE, link, "user.a", -EPERM, -ENODATA, "user, of a symlink"},
        {ROOT, link, "trusted.t", 0, 1, "trusted, of a symlink"},
        {BOB, sticky, "user.a", -EPERM, -ENODATA, "a sticky directory of another"},
        {ALICE, sticky, "user.a", 0, 1, "one's own"},
        {BOB, dir, "user.a", -EACCES, -ENODATA, "a directory without write permission"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tap_is_int(set(rows[i].call, rows[i].inode, rows[i].name, "x", 0), rows[i].set_err,
                   "set: %s", rows[i].what);
        tap_is_int(get(rows[i].call, rows[i].inode, rows[i].name), rows[i].get_err, "get: %s",
                   rows[i].what);
    }
    tap_is_int(vv_fs_listxattr(fs, ALICE, plain, NULL, 0), 18, "trusted names are not listed");
    tap_is_int(vv_fs_listxattr(fs, ROOT, plain, NULL, 0), 28, "but to uid 0");
    set_flags(ROOT, plain, FS_IMMUTABLE_FL);
    tap_is_int(set(ROOT, plain, "user.a", "x", 0), -EPERM, "immutable");
    set_flags(ROOT, plain, 0);
    tap_is_int(get(ROOT, 4711, "user.a"), -ESTALE, "nothing");
}

/* ---- ACLs ---- */

struct row {
    unsigned tag, perm;
    uint32_t id;
};
enum { U = 1, UN = 2, G = 4, GN = 8, M = 16, O = 32 };

static int set_acl_with(const struct vv_fs_call *call, uint64_t inode, const char *name,
                        const struct row *rows, size_t count, int flags)
{
    uint8_t bytes[256];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    vv_writer_u32(&writer, 2);
    for (size_t i = 0; i < count; i++) {
        vv_writer_u16(&writer, (uint16_t)rows[i].tag);
        vv_writer_u16(&writer, (uint16_t)rows[i].perm);
        vv_writer_u32(&writer, rows[i].id);
    }
    return vv_fs_setxattr(fs, call, inode, name, bytes, writer.len, flags);
}

static int set_acl(const struct vv_fs_call *call, uint64_t inode, const char *name,
                   const struct row *rows, size_t count)
{
    return set_acl_with(call, inode, name, rows, count, 0);
}

static uint32_t mode_of(uint64_t inode)
{
    return attr_of(inode).mode & 07777;
}

static const struct row bob_reads[] = {{U, 6, 0}, {UN, 4, 1001}, {G, 6, 0}, {M, 4, 0}, {O, 0, 0}};
static const struct row minimal[] = {{U, 7, 0}, {G, 5, 0}, {O, 1, 0}};

static void test_access_acl(void)
{
    uint64_t inode = (uint64_t)make_node(ALICE, top, "acl", S_IFREG | 0600);
    tap_is_int(set_acl(BOB, inode, VV_ACL_ACCESS_NAME, bob_reads, 5), -EPERM, "not the owner");
    tap_is_int(vv_fs_access(fs, BOB, inode, R_OK), -EACCES, "no access");
    tap_is_int(set_acl(ALICE, inode, VV_ACL_ACCESS_NAME, bob_reads, 5), 0, "an ACL");
    tap_is_int(vv_fs_access(fs, BOB, inode, R_OK), 0, "gives access");
    tap_is_int(vv_fs_access(fs, BOB, inode, W_OK), -EACCES, "and no more");
    tap_is_int(mode_of(inode), 0640, "the mode shows owner, mask, others");
    tap_is_int(get(BOB, inode, VV_ACL_ACCESS_NAME), 44, "it can be read");
    struct vv_handle *handle = open_of(BOB, inode, O_RDONLY);
    tap_ok(handle, "opening works");
    vv_fs_release(handle);
    tap_is_int(set_mode(ALICE, inode, 0600), 0, "chmod takes the mask away");
    tap_is_int(vv_fs_access(fs, BOB, inode, R_OK), -EACCES, "and so the access");
    tap_is_int(set_mode(ALICE, inode, 0670), 0, "and gives it back");
    tap_is_int(vv_fs_access(fs, BOB, inode, R_OK), 0, "with what the entry says");
    tap_is_int(vv_fs_access(fs, BOB, inode, W_OK), -EACCES, "not more");
    tap_is_int(set_acl(ALICE, inode, VV_ACL_ACCESS_NAME, minimal, 3), 0, "a minimal ACL");
    tap_is_int(get(ALICE, inode, VV_ACL_ACCESS_NAME), -ENODATA, "is only a mode");
    tap_is_int(mode_of(inode), 0751, "this one");
    tap_is_int(set_acl(ALICE, inode, VV_ACL_ACCESS_NAME, bob_reads, 5), 0, "an ACL");
    tap_is_int(vv_fs_removexattr(fs, ALICE, inode, VV_ACL_ACCESS_NAME), 0, "is removed");
    tap_is_int(vv_fs_removexattr(fs, ALICE, inode, VV_ACL_ACCESS_NAME), 0, "even twice");
    tap_is_int(vv_fs_access(fs, BOB, inode, R_OK), -EACCES, "no access");
    tap_is_int(set_acl(ALICE, inode, VV_ACL_ACCESS_NAME, bob_reads, 4), -EINVAL, "a bad one");
    tap_is_int(set_acl(ALICE, inode, VV_ACL_DEFAULT_NAME, minimal, 3), -EACCES,
               "a default one of a file");
    uint64_t link = (uint64_t)look(ROOT, top, "link");
    tap_is_int(set_acl(ALICE, link, VV_ACL_ACCESS_NAME, minimal, 3), -EOPNOTSUPP, "of a symlink");
    set_owner(ROOT, inode, UINT32_MAX, 3000);
    set_mode(ROOT, inode, 02755);
    set_acl(ALICE, inode, VV_ACL_ACCESS_NAME, minimal, 3);
    tap_is_int(mode_of(inode), 0751, "setgid goes for who is no member");
    struct vv_fs_call checked = *ALICE;
    checked.cred.is_checked = true;
    set_mode(ROOT, inode, 02755);
    set_acl(&checked, inode, VV_ACL_ACCESS_NAME, minimal, 3);
    tap_is_int(mode_of(inode), 02751, "not when the door has checked");
    set_acl_with(&checked, inode, VV_ACL_ACCESS_NAME, minimal, 3, VV_XATTR_KILL_SGID);
    tap_is_int(mode_of(inode), 0751, "unless it says so");
    /* With an ACL, and nothing else to find it by, it goes at once. */
    set_acl(ALICE, inode, VV_ACL_ACCESS_NAME, bob_reads, 5);
    unlink_name(ALICE, top, "acl");
    tap_ok(!has_record(inode) && !is_orphan(inode), "unlink deletes the ACL too");
    tap_is_int(fsck(), 0, "records agree");
}

static void test_directory_acl(void)
{
    static const struct row bob_enters[] = {
        {U, 7, 0}, {UN, 7, 1001}, {G, 0, 0}, {M, 7, 0}, {O, 0, 0}};
    uint64_t dir = (uint64_t)make_dir(ALICE, top, "acldir", 0700);
    tap_is_int(make_node(BOB, dir, "x", S_IFREG | 0644), -EACCES, "a closed directory");
    set_acl(ALICE, dir, VV_ACL_ACCESS_NAME, bob_enters, 5);
    volume->miss_permille = 1000;
    volume->rounds_max = 0;
    tap_ok(make_node(BOB, dir, "x", S_IFREG | 0644) > 0, "is open by its ACL");
    tap_ok(look(BOB, dir, "x") > 0, "for searching");
    tap_is_int(rename_name(BOB, dir, "x", dir, "y", 0), 0, "renaming");
    tap_is_int(unlink_name(BOB, dir, "y"), 0, "and unlinking");
    tap_ok(volume->rounds_max <= 3, "in %u rounds", volume->rounds_max);
    volume->miss_permille = 300;
}

static void test_default_acl(void)
{
    uint64_t dir = (uint64_t)make_dir(ALICE, top, "defaults", 0755);
    tap_is_int(set_acl(ALICE, dir, VV_ACL_DEFAULT_NAME, bob_reads, 5), 0, "a default ACL");
    tap_is_int(mode_of(dir), 0755, "changes no mode");
    struct vv_attr attr;
    struct vv_create create = {.mode = S_IFREG | 0666, .umask = 077};
    int err = vv_fs_mknod(fs, ALICE, dir, "f", 1, &create, &attr);
    tap_is_int(err, 0, "a file");
    tap_is_int(attr.mode & 07777, 0640, "does not mind the umask");
    tap_is_int(get(ALICE, attr.inode, VV_ACL_ACCESS_NAME), 44, "and has an ACL");
    tap_is_int(vv_fs_access(fs, BOB, attr.inode, R_OK), 0, "that is in force");
    tap_is_int(get(ALICE, attr.inode, VV_ACL_DEFAULT_NAME), -ENODATA, "but no default one");
    create.mode = S_IFREG | 0600;
    err = vv_fs_mknod(fs, ALICE, dir, "g", 1, &create, &attr);
    tap_is_int(err < 0 ? err : vv_fs_access(fs, BOB, attr.inode, R_OK), -EACCES,
               "the mode asked for is minded");
    create.mode = 0777;
    err = vv_fs_mkdir(fs, ALICE, dir, "d", 1, &create, &attr);
    tap_is_int(err, 0, "a directory");
    tap_is_int(get(ALICE, attr.inode, VV_ACL_DEFAULT_NAME), 44, "inherits it as its own");
    tap_is_int(get(ALICE, attr.inode, VV_ACL_ACCESS_NAME), 44, "and as its access ACL");
    tap_is_int(set_acl(ALICE, attr.inode, VV_ACL_DEFAULT_NAME, minimal, 3), 0, "a minimal one");
    tap_is_int(get(ALICE, attr.inode, VV_ACL_DEFAULT_NAME), 28, "is kept");
    uint64_t sub = attr.inode;
    create = (struct vv_create){.mode = S_IFREG | 0666, .umask = 077};
    err = vv_fs_mknod(fs, ROOT, sub, "f", 1, &create, &attr);
    tap_ok(err == 0 && (attr.mode & 07777) == 0640, "and gives a mode");
    tap_is_int(get(ALICE, attr.inode, VV_ACL_ACCESS_NAME), -ENODATA, "without an ACL");
    uint64_t link = (uint64_t)make_link(ALICE, dir, "l", "x");
    tap_is_int(mode_of(link), 0777, "symlinks inherit nothing");
    tap_is_int(vv_fs_setxattr(fs, ALICE, dir, VV_ACL_DEFAULT_NAME, NULL, 0, 0), 0,
               "an empty value removes it");
    tap_is_int(get(ALICE, dir, VV_ACL_DEFAULT_NAME), -ENODATA, "it is gone");
    tap_is_int(fsck(), 0, "records agree");
}

static void test_all(void)
{
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "top", 0777);
    file = (uint64_t)make_node(ALICE, top, "file", S_IFREG | 0644);
    test_values();
    test_names();
    test_permissions();
    test_access_acl();
    test_directory_acl();
    test_default_acl();
}

int main(void)
{
    return rig_main(test_all);
}
