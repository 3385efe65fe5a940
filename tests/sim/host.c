#include "host.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PATH_BYTES 65536
#define PATH_USABLE 4000 /* paths that the kernel takes */

/* Two paths of an operation. */
struct paths {
    char a[PATH_BYTES];
    char b[PATH_BYTES];
};

static int from_errno(int result)
{
    return result < 0 ? -errno : 0;
}

/* ---- paths ---- */

static bool path_of(const struct host *host, const struct model *model, uint32_t dir,
                    const char *name, char *buf)
{
    size_t base = strlen(host->base);
    memcpy(buf, host->base, base);
    model_path(model, dir, name, buf + base, PATH_BYTES - base);
    return strlen(buf) < PATH_USABLE;
}

/* Any path of an inode; false when it has none. */
static bool path_of_inode(const struct host *host, const struct model *model, uint32_t number,
                          char *buf)
{
    const struct model_inode *inode = model_inode(model, number);
    if (inode->is_root || S_ISDIR(inode->mode))
        return path_of(host, model, number, NULL, buf);
    for (uint32_t i = 1; i < model->inode_count; i++) {
        const struct model_inode *dir = model->inodes[i];
        for (uint32_t j = 0; dir && j < dir->child_count; j++) {
            if (dir->children[j].inode == number)
                return path_of(host, model, i, dir->children[j].name, buf);
        }
    }
    return false;
}

/* A descriptor for the operation's file: the handle's or a fresh one. -ENOSYS without a path. */
static int file_fd(const struct host *host, const struct model *model, uint32_t inode, int handle,
                   int flags)
{
    char path[PATH_BYTES];
    if (handle >= 0)
        return host->fds[handle];
    if (!path_of_inode(host, model, inode, path))
        return -ENOSYS;
    int fd = open(path, flags | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

static void file_done(const struct op *op, int fd)
{
    if (op->handle < 0 && fd >= 0)
        close(fd);
}

/* ---- changing ---- */

/* Creating sets the owner and the mode afterwards, for there is an umask. */
static int own_new(const char *path, const struct op *op)
{
    if (lchown(path, op->uid, op->gid) < 0)
        return -errno;
    return S_ISLNK(op->mode) ? 0 : from_errno(chmod(path, op->mode & 07777));
}

static int host_create(struct host *host, const struct op *op, const char *path)
{
    bool is_new = access(path, F_OK) < 0;
    int flags = op->handle < 0 ? O_EXCL | O_RDWR : (int)op->flags;
    int fd = open(path, flags | O_CREAT | O_NOFOLLOW, op->mode & 07777);
    if (fd < 0)
        return -errno;
    if (op->handle >= 0)
        host->fds[op->handle] = fd;
    else
        close(fd);
    return is_new ? own_new(path, op) : 0;
}

static int host_new(struct host *host, const struct model *model, const struct op *op)
{
    char path[PATH_BYTES];
    char target[OP_TARGET_MAX + 1];
    if (!path_of(host, model, op->dir, op->name.text, path))
        return -ENOSYS;
    int err;
    switch (op->kind) {
    case OP_CREATE:
        return host_create(host, op, path);
    case OP_MKNOD:
        err = from_errno(mknod(path, op->mode, makedev((op->rdev >> 8) & 0xff, op->rdev & 0xff)));
        break;
    case OP_MKDIR:
        err = from_errno(mkdir(path, op->mode & 07777));
        break;
    default:
        op_target(op->seed, target, op->len);
        target[op->len] = 0;
        err = from_errno(symlink(target, path));
        break;
    }
    return err < 0 ? err : own_new(path, op);
}

static int host_tmpfile(struct host *host, const struct model *model, const struct op *op)
{
    char path[PATH_BYTES];
    if (!path_of(host, model, op->dir, NULL, path))
        return -ENOSYS;
    int fd = open(path, O_TMPFILE | (int)op->flags, op->mode & 07777);
    if (fd < 0)
        return -errno;
    host->fds[op->handle] = fd;
    return 0;
}

static int host_rename(struct host *host, const struct model *model, const struct op *op)
{
    struct paths *paths = malloc(sizeof(*paths));
    if (!paths)
        abort();
    int err = -ENOSYS;
    if (path_of(host, model, op->dir, op->name.text, paths->a) &&
        path_of(host, model, op->dir2, op->name2.text, paths->b))
        err = from_errno(renameat2(AT_FDCWD, paths->a, AT_FDCWD, paths->b, op->flags));
    free(paths);
    return err;
}

static int host_link(struct host *host, const struct model *model, const struct op *op)
{
    struct paths *paths = malloc(sizeof(*paths));
    if (!paths)
        abort();
    int err = -ENOSYS;
    if (path_of_inode(host, model, op->inode, paths->a) &&
        path_of(host, model, op->dir, op->name.text, paths->b))
        err = from_errno(link(paths->a, paths->b));
    free(paths);
    return err;
}

static int host_write(struct host *host, const struct model *model, const struct op *op,
                      uint64_t *out_value)
{
    int fd = file_fd(host, model, op->inode, op->handle, O_WRONLY);
    if (fd < 0)
        return fd;
    uint64_t offset =
        op->kind == OP_APPEND ? model_inode(model, op->inode)->content.size : op->offset;
    uint8_t *bytes = malloc(op->len + 1);
    if (!bytes)
        abort();
    op_fill(op->seed, bytes, op->len);
    ssize_t done = pwrite(fd, bytes, op->len, (off_t)offset);
    int err = from_errno((int)done);
    free(bytes);
    *out_value = done > 0 ? (uint64_t)done : 0;
    file_done(op, fd);
    return err;
}

static int host_fallocate(struct host *host, const struct model *model, const struct op *op)
{
    int fd = file_fd(host, model, op->inode, op->handle, O_WRONLY);
    if (fd < 0)
        return fd;
    struct stat stat;
    int err = from_errno(fstat(fd, &stat));
    if (err == 0)
        err = from_errno(fallocate(fd, (int)op->flags, (off_t)op->offset, (off_t)op->len));
    /* ext4 sets mtime before it finds out that a range cannot be collapsed or inserted. */
    if (err < 0)
        (void)futimens(fd, (struct timespec[]){{0, UTIME_OMIT}, stat.st_mtim});
    file_done(op, fd);
    return err;
}

static int host_setattr(struct host *host, const struct model *model, const struct op *op)
{
    char path[PATH_BYTES];
    int err = 0;
    if (!path_of_inode(host, model, op->inode, path))
        return -ENOSYS;
    if (op->mask & OP_SET_SIZE)
        err = from_errno(truncate(path, (off_t)op->len));
    if (err == 0 && (op->mask & OP_SET_OWNER))
        err = from_errno(lchown(path, op->uid, op->gid));
    if (err == 0 && (op->mask & OP_SET_MODE))
        err = from_errno(chmod(path, op->mode));
    if (err == 0 && (op->mask & OP_SET_MTIME)) {
        struct timespec times[2] = {{0, UTIME_OMIT}, {op->mtime, 0}};
        err = from_errno(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
    }
    return err;
}

static int host_xattr(struct host *host, const struct model *model, const struct op *op)
{
    char path[PATH_BYTES];
    uint8_t value[1024];
    if (!path_of_inode(host, model, op->inode, path))
        return -ENOSYS;
    if (op->kind == OP_REMOVEXATTR)
        return from_errno(lremovexattr(path, op->name.text));
    assert(op->len <= sizeof(value));
    op_fill(op->seed, value, op->len);
    return from_errno(lsetxattr(path, op->name.text, value, op->len, (int)op->flags));
}

static int host_remove(struct host *host, const struct model *model, const struct op *op)
{
    char path[PATH_BYTES];
    if (!path_of(host, model, op->dir, op->name.text, path))
        return -ENOSYS;
    return from_errno(op->kind == OP_RMDIR ? rmdir(path) : unlink(path));
}

int host_apply(struct host *host, const struct model *model, const struct op *op,
               uint64_t *out_value)
{
    *out_value = 0;
    switch (op->kind) {
    case OP_CREATE:
    case OP_MKNOD:
    case OP_MKDIR:
    case OP_SYMLINK:
        return host_new(host, model, op);
    case OP_TMPFILE:
        return host_tmpfile(host, model, op);
    case OP_LINK:
        return host_link(host, model, op);
    case OP_UNLINK:
    case OP_RMDIR:
        return host_remove(host, model, op);
    case OP_RENAME:
        return host_rename(host, model, op);
    case OP_OPEN:
        host->fds[op->handle] = file_fd(host, model, op->inode, -1, (int)op->flags);
        return host->fds[op->handle] < 0 ? host->fds[op->handle] : 0;
    case OP_RELEASE:
        close(host->fds[op->handle]);
        return 0;
    case OP_WRITE:
    case OP_APPEND:
        return host_write(host, model, op, out_value);
    case OP_FALLOCATE:
        return host_fallocate(host, model, op);
    case OP_SETATTR:
        return host_setattr(host, model, op);
    case OP_SETXATTR:
    case OP_REMOVEXATTR:
        return host_xattr(host, model, op);
    default:
        return -ENOSYS;
    }
}

/* ---- looking ---- */

static void entry_of(const struct stat *stat, struct model_entry *entry)
{
    entry->key = stat->st_ino;
    entry->mode = stat->st_mode;
    entry->uid = stat->st_uid;
    entry->gid = stat->st_gid;
    entry->nlink = (uint32_t)stat->st_nlink;
    entry->rdev = (major(stat->st_rdev) << 8) | minor(stat->st_rdev);
    entry->size = S_ISREG(stat->st_mode) || S_ISLNK(stat->st_mode) ? (uint64_t)stat->st_size : 0;
    entry->mtime = stat->st_mtim.tv_sec;
}

static void look_file(struct host *host, const struct model *model, const struct op *op,
                      struct sight *sight)
{
    int fd = file_fd(host, model, op->inode, op->handle, O_RDONLY);
    if (fd < 0) {
        sight->err = fd;
        return;
    }
    if (op->kind == OP_READ) {
        ssize_t got = pread(fd, sight->bytes, op->len, (off_t)op->offset);
        sight->err = from_errno((int)got);
        sight->value = got > 0 ? (uint64_t)got : 0;
    } else {
        off_t found = lseek(fd, (off_t)op->offset, (int)op->flags);
        sight->err = found < 0 ? -errno : 0;
        sight->value = (uint64_t)found;
    }
    file_done(op, fd);
}

static void look_dir(const char *path, struct sight *sight)
{
    DIR *dir = opendir(path);
    if (!dir) {
        sight->err = -errno;
        return;
    }
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            sight_name(sight, entry->d_name, strlen(entry->d_name), entry->d_ino);
    }
    closedir(dir);
}

static void look_xattrs(const char *path, struct sight *sight)
{
    char list[8192];
    ssize_t len = llistxattr(path, list, sizeof(list));
    sight->err = from_errno((int)len);
    for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1)
        sight_name(sight, list + at, strlen(list + at), 0);
}

static void look_path(const struct op *op, const char *path, struct sight *sight)
{
    struct stat stat;
    ssize_t got = 0;
    switch (op->kind) {
    case OP_LOOKUP:
    case OP_GETATTR:
        got = lstat(path, &stat);
        if (got == 0)
            entry_of(&stat, &sight->entry);
        break;
    case OP_READDIR:
        look_dir(path, sight);
        return;
    case OP_READLINK:
        got = readlink(path, (char *)sight->bytes, SIGHT_BYTES_MAX);
        break;
    case OP_GETXATTR:
        got = lgetxattr(path, op->name.text, sight->bytes, SIGHT_BYTES_MAX);
        break;
    default:
        look_xattrs(path, sight);
        return;
    }
    sight->err = got < 0 ? -errno : 0;
    sight->value = got > 0 ? (uint64_t)got : 0;
}

bool host_look(struct host *host, const struct model *model, const struct op *op,
               struct sight *sight)
{
    char path[PATH_BYTES];
    bool is_there;
    sight_reset(sight);
    switch (op->kind) {
    case OP_READ:
    case OP_SEEK:
        look_file(host, model, op, sight);
        return sight->err != -ENOSYS;
    case OP_FSYNC:
    case OP_SYNC:
        return true;
    case OP_LOOKUP:
        is_there = path_of(host, model, op->dir, op->name.text, path);
        break;
    case OP_READDIR:
        is_there = path_of(host, model, op->dir, NULL, path);
        break;
    default:
        is_there = path_of_inode(host, model, op->inode, path);
        break;
    }
    if (is_there)
        look_path(op, path, sight);
    return is_there;
}

/* ---- the whole tree ---- */

static struct hash file_hash(const char *path, const char *full)
{
    struct content content = {0};
    uint8_t *bytes = malloc(1 << 20);
    int fd = open(full, O_RDONLY | O_NOFOLLOW);
    uint64_t at = 0;
    assert(bytes && fd >= 0);
    for (;;) {
        ssize_t got = pread(fd, bytes, 1 << 20, (off_t)at);
        if (got <= 0)
            break;
        content_write(&content, at, bytes, (size_t)got);
        at += (uint64_t)got;
    }
    close(fd);
    free(bytes);
    struct hash hash = content_hash(&content);
    content_done(&content);
    return hash;
}

static void dump_one(const struct host *host, const char *path, struct model_dump *dump)
{
    static struct sight sight;
    char full[PATH_BYTES];
    char link[OP_TARGET_MAX];
    struct stat stat;
    snprintf(full, sizeof(full), "%s%s", host->base, path);
    struct model_entry *entry = model_dump_add(dump, path);
    if (lstat(full, &stat) < 0)
        return;
    entry_of(&stat, entry);
    if (entry->mtime >= OP_MTIME_MAX)
        entry->mtime = -1;
    if (S_ISREG(stat.st_mode))
        entry->content = file_hash(path, full);
    if (S_ISLNK(stat.st_mode)) {
        ssize_t len = readlink(full, link, sizeof(link));
        entry->content = model_target_hash(link, len > 0 ? (size_t)len : 0);
    }
    sight_reset(&sight);
    look_xattrs(full, &sight);
    for (size_t i = 0; i < sight.name_count; i++) {
        ssize_t len = lgetxattr(full, sight.names[i], sight.bytes, SIGHT_BYTES_MAX);
        hash_add(&entry->xattrs,
                 model_xattr_hash(sight.names[i], sight.bytes, len > 0 ? (size_t)len : 0));
    }
}

static void dump_children(const struct host *host, const char *path, struct model_dump *dump)
{
    struct sight *sight = malloc(sizeof(*sight));
    char *buf = malloc(PATH_BYTES);
    assert(sight && buf);
    sight_reset(sight);
    snprintf(buf, PATH_BYTES, "%s%s", host->base, path);
    look_dir(buf, sight);
    for (size_t i = 0; i < sight->name_count; i++) {
        snprintf(buf, PATH_BYTES, "%s/%s", path, sight->names[i]);
        dump_one(host, buf, dump);
    }
    free(buf);
    free(sight);
}

void host_dump(const struct host *host, const struct model *model, struct model_dump *out_dump)
{
    memset(out_dump, 0, sizeof(*out_dump));
    for (unsigned i = 0; i < model->root_count; i++) {
        if (model->roots[i].is_hidden)
            dump_children(host, model->roots[i].path, out_dump);
        else
            dump_one(host, model->roots[i].path, out_dump);
    }
    for (size_t i = 0; i < out_dump->count; i++) {
        char *path = strdup(out_dump->entries[i].path);
        if (S_ISDIR(out_dump->entries[i].mode))
            dump_children(host, path, out_dump);
        free(path);
    }
    model_dump_finish(out_dump);
}

void host_close(struct host *host)
{
    for (int i = 0; i < OP_HANDLES_MAX; i++) {
        if (host->fds[i] > 0)
            close(host->fds[i]);
        host->fds[i] = 0;
    }
}
