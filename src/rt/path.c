/* Paths of the real runtime: each call is one trip to a worker. */
#include "rt/real_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"

#define DIRECTORY_MODE 0700

struct path_call {
    const char *path;
    const char *to;
    int err;
    struct vv_path_stat stat;
    uint64_t free_bytes;
    uint64_t total_bytes;
    struct vv_writer names; /* for each entry: 1 byte, is it a directory; the name; a NUL */
};

static int run(struct path_call *call, void (*fn)(void *))
{
    vv_real_offload_blocking(fn, call);
    return call->err;
}

static int result_of(int returned)
{
    return returned != 0 ? -errno : 0;
}

static void run_mkdir(void *arg)
{
    struct path_call *call = arg;
    call->err = result_of(mkdir(call->path, DIRECTORY_MODE));
}

static int real_mkdir(const char *path)
{
    struct path_call call = {.path = path};
    return run(&call, run_mkdir);
}

static void run_unlink(void *arg)
{
    struct path_call *call = arg;
    call->err = result_of(unlink(call->path));
}

static int real_unlink(const char *path)
{
    struct path_call call = {.path = path};
    return run(&call, run_unlink);
}

static void run_rmdir(void *arg)
{
    struct path_call *call = arg;
    call->err = result_of(rmdir(call->path));
}

static int real_rmdir(const char *path)
{
    struct path_call call = {.path = path};
    return run(&call, run_rmdir);
}

static void run_rename(void *arg)
{
    struct path_call *call = arg;
    call->err = result_of(rename(call->path, call->to));
}

static int real_rename(const char *from, const char *to)
{
    struct path_call call = {.path = from, .to = to};
    return run(&call, run_rename);
}

static void run_link(void *arg)
{
    struct path_call *call = arg;
    call->err = result_of(link(call->path, call->to));
}

static int real_link(const char *from, const char *to)
{
    struct path_call call = {.path = from, .to = to};
    return run(&call, run_link);
}

static void run_sync_dir(void *arg)
{
    struct path_call *call = arg;
    int fd = open(call->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    call->err = fd < 0 ? -errno : result_of(fsync(fd));
    if (fd >= 0)
        close(fd);
}

static int real_sync_dir(const char *path)
{
    struct path_call call = {.path = path};
    return run(&call, run_sync_dir);
}

static void run_stat(void *arg)
{
    struct path_call *call = arg;
    struct stat stat_now;
    call->err = result_of(stat(call->path, &stat_now));
    if (call->err == 0) {
        call->stat.is_dir = S_ISDIR(stat_now.st_mode);
        call->stat.size = call->stat.is_dir ? 0 : (uint64_t)stat_now.st_size;
    }
}

static int real_stat(const char *path, struct vv_path_stat *out_stat)
{
    struct path_call call = {.path = path};
    TRY(run(&call, run_stat));
    *out_stat = call.stat;
    return 0;
}

static void run_space(void *arg)
{
    struct path_call *call = arg;
    struct statvfs space;
    call->err = result_of(statvfs(call->path, &space));
    if (call->err == 0) {
        call->free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
        call->total_bytes = (uint64_t)space.f_blocks * space.f_frsize;
    }
}

static int real_space(const char *path, uint64_t *out_free, uint64_t *out_total)
{
    struct path_call call = {.path = path};
    TRY(run(&call, run_space));
    *out_free = call.free_bytes;
    *out_total = call.total_bytes;
    return 0;
}

/* ---- listing ---- */

static bool is_directory(DIR *dir, const struct dirent *entry)
{
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    struct stat found;
    if (fstatat(dirfd(dir), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    return S_ISDIR(found.st_mode);
}

static int collect(DIR *dir, struct vv_writer *names)
{
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            vv_writer_u8(names, is_directory(dir, entry));
            vv_writer_bytes(names, entry->d_name, strlen(entry->d_name) + 1);
        }
        errno = 0;
    }
    return errno != 0 ? -errno : vv_writer_check(names);
}

static void run_list(void *arg)
{
    struct path_call *call = arg;
    DIR *dir = opendir(call->path);
    call->err = dir ? collect(dir, &call->names) : -errno;
    if (dir)
        closedir(dir);
}

static int real_list(const char *path, int (*visit)(void *arg, const char *name, bool is_dir),
                     void *arg)
{
    struct path_call call = {.path = path, .names = vv_writer_new()};
    int err = run(&call, run_list);
    size_t at = 0;
    while (err >= 0 && at < call.names.len) {
        bool is_dir = call.names.ptr[at];
        const char *name = (const char *)call.names.ptr + at + 1;
        at += 1 + strlen(name) + 1;
        err = visit(arg, name, is_dir);
    }
    vv_writer_done(&call.names);
    return err < 0 ? err : 0;
}

const struct vv_path_ops vv_real_path_ops = {
    .open = vv_real_file_open,
    .mkdir = real_mkdir,
    .unlink = real_unlink,
    .rmdir = real_rmdir,
    .rename = real_rename,
    .link = real_link,
    .sync_dir = real_sync_dir,
    .stat = real_stat,
    .space = real_space,
    .list = real_list,
};
