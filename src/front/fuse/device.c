#include "front/fuse/device.h"

#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"
#include "front/fuse/loop.h"

#define DEAD_MOUNTS_MAX 16 /* over one another */
#define OPTIONS_LEN_MAX 512
#define CAPABILITY_ADMIN 21    /* CAP_SYS_ADMIN of linux/capability.h, in /proc/PID/status */
#define STATUS_LEN_MAX 65536 /* of /proc/PID/status: enough for thousands of groups */

extern char **environ;

/* ---- mounting ---- */

/* Run fusermount3, which may do for its user what only root may. 0, -EBUSY when it refuses. */
static int run_fusermount(const char *mountpoint, bool is_lazy)
{
    char *const argv[] = {
        (char *)"fusermount3", (char *)"-u",       (char *)(is_lazy ? "-qz" : "-q"),
        (char *)"--",          (char *)mountpoint, NULL};
    pid_t pid;
    int err = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (err != 0)
        return -err;
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return status == 0 ? 0 : -EBUSY;
}

static int unmount_path(const char *mountpoint, int flags)
{
    if (umount2(mountpoint, flags | UMOUNT_NOFOLLOW) == 0)
        return 0;
    if (errno != EPERM)
        return -errno;
    return run_fusermount(mountpoint, (flags & MNT_DETACH) != 0);
}

/* A mount whose server has died answers ENOTCONN: it is of no use to anybody. The kernel may still
 * know its root's attributes, so it is made to ask. */
static int remove_dead_mounts(const char *mountpoint)
{
    for (int i = 0; i < DEAD_MOUNTS_MAX; i++) {
        struct statx now;
        if (statx(AT_FDCWD, mountpoint, AT_STATX_FORCE_SYNC, STATX_TYPE, &now) == 0)
            return S_ISDIR(now.stx_mode) ? 0 : -ENOTDIR;
        if (errno != ENOTCONN)
            return -errno;
        vv_warn("fuse", "%s: taking a dead mount away", mountpoint);
        TRY(unmount_path(mountpoint, MNT_DETACH));
    }
    return -EBUSY;
}

static int find_mountpoint(const char *path, char **out_path)
{
    /* A dead mount can't be resolved: it is taken away under the name given first. */
    TRY(remove_dead_mounts(path));
    char resolved[PATH_MAX];
    if (!realpath(path, resolved))
        return -errno;
    char *copy = vv_strdup(resolved);
    if (!copy)
        return -ENOMEM;
    *out_path = copy;
    return 0;
}

/* The device number of what is mounted there, without asking whoever serves it; 0 when it can't be told. A file system
 * that is detached keeps its number while it is used, so that none that comes later can have it. */
static uint64_t device_at(const char *path)
{
    struct statx now;
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;
    if (statx(AT_FDCWD, path, flags, 0, &now) != 0)
        return 0;
    return (uint64_t)now.stx_dev_major << 32 | now.stx_dev_minor;
}

/* Somebody may have detached it and mounted something else there, which is not ours to take away. */
static bool is_ours(const struct vv_fuse_device *device)
{
    return device->number != 0 && device_at(device->mountpoint) == device->number;
}

/* libfuse takes away whatever is mounted in its place, unless the descriptor shows that the connection is gone. A pipe
 * that nobody reads shows the same, and with it in its place the connection ends. */
static int cut(const struct vv_fuse_device *device)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -errno;
    close(ends[0]);
    int err = dup3(ends[1], device->fd, O_CLOEXEC) < 0 ? -errno : 0;
    close(ends[1]);
    return err;
}

/* A comma would begin another mount option. */
static void copy_source(char *out, size_t size, const char *source)
{
    vv_format(out, size, "%s", source ? source : "varve");
    for (char *at = out; *at; at++)
        if (*at == ',' || *at == '\\')
            *at = '_';
}

/* `loop`: the block device that it is to seem to lie on; NULL. */
static struct fuse_session *new_session(const struct vv_fuse_options *options, const char *loop)
{
    char source[OPTIONS_LEN_MAX / 2];
    copy_source(source, sizeof(source), loop ? loop : options->source);
    char text[OPTIONS_LEN_MAX];
    vv_format(text, sizeof(text), "%sfsname=%s,subtype=varve,default_permissions,max_read=%u%s%s%s%s",
              loop ? "blkdev," : "", source, VV_FUSE_IO_BYTES_MAX, options->allow_other ? ",allow_other" : "",
              options->allow_suid ? ",suid" : "", options->allow_dev ? ",dev" : "",
              options->is_read_only ? ",ro" : "");
    char *argv[] = {(char *)"varve", (char *)"-o", text};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    /* libfuse never sees a request, so it needs no callbacks. */
    static const struct fuse_lowlevel_ops no_ops;
    struct fuse_session *session = fuse_session_new(&args, &no_ops, sizeof(no_ops), NULL);
    fuse_opt_free_args(&args);
    return session;
}

int vv_fuse_device_open(struct vv_fuse_device *device, const struct vv_fuse_options *options)
{
    *device = (struct vv_fuse_device){.fd = -1};
    TRY(find_mountpoint(options->mountpoint, &device->mountpoint));
    char loop[VV_FUSE_LOOP_PATH_MAX];
    int loop_fd = options->is_hearing_syncs ? vv_fuse_loop_open(loop) : -1;
    if (options->is_hearing_syncs && loop_fd < 0) {
        vv_error("fuse", "a loop device: %s", vv_err_text(loop_fd));
        vv_fuse_device_close(device);
        return loop_fd;
    }
    device->session = new_session(options, loop_fd >= 0 ? loop : NULL);
    bool is_mounted = device->session && fuse_session_mount(device->session, device->mountpoint) == 0;
    if (loop_fd >= 0)
        close(loop_fd);
    if (!is_mounted) {
        vv_fuse_device_close(device);
        return -EIO;
    }
    device->fd = fuse_session_fd(device->session);
    device->number = device_at(device->mountpoint);
    int flags = fcntl(device->fd, F_GETFL);
    if (flags < 0 || fcntl(device->fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        int err = -errno;
        vv_fuse_device_close(device);
        return err;
    }
    return 0;
}

void vv_fuse_device_close(struct vv_fuse_device *device)
{
    /* Closes the descriptor, and detaches the mount if the kernel has not let it go yet. */
    if (device->fd >= 0 && (is_ours(device) || cut(device) == 0))
        fuse_session_unmount(device->session);
    if (device->session)
        fuse_session_destroy(device->session);
    vv_free(device->mountpoint);
    *device = (struct vv_fuse_device){.fd = -1};
}

int vv_fuse_device_unmount(struct vv_fuse_device *device, enum vv_fuse_unmount how)
{
    /* Somebody has detached it already. Who still uses it, perhaps in a mount namespace of its own, goes on to do so. */
    if (!is_ours(device))
        return 0;
    int err = unmount_path(device->mountpoint,
                           how == VV_FUSE_UNMOUNT_CUT ? MNT_FORCE | MNT_DETACH : 0);
    return err == -EINVAL ? 0 : err; /* in this very moment */
}

void vv_fuse_device_sync(struct vv_fuse_device *device)
{
    int fd = open(device->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    syncfs(fd);
    close(fd);
}

/* ---- messages ----
 * By system call: the C library's functions of these names are cancellation points, which costs two atomic
 * operations around each in a process with several threads. Nobody cancels threads here. */

ssize_t vv_fuse_device_read(struct vv_fuse_device *device, const struct iovec *iov, int count)
{
    ssize_t len = count == 1 ? syscall(SYS_read, device->fd, iov->iov_base, iov->iov_len)
                             : syscall(SYS_readv, device->fd, iov, count);
    return len < 0 ? -errno : len;
}

int vv_fuse_device_write(struct vv_fuse_device *device, struct iovec *iov, int count)
{
    ssize_t len = count == 1 ? syscall(SYS_write, device->fd, iov->iov_base, iov->iov_len)
                             : syscall(SYS_writev, device->fd, iov, count);
    return len < 0 ? -errno : 0;
}

/* ---- the caller ---- */

/* The numbers of a line of /proc/PID/status, as "\nGroups:\t4 24 27 \n". */
static size_t parse_ids(const char *status, const char *line, uint32_t *out_ids, size_t count)
{
    const char *at = strstr(status, line);
    size_t found = 0;
    if (!at)
        return 0;
    at += strlen(line);
    while (found < count) {
        while (*at == ' ' || *at == '\t')
            at++;
        if (*at < '0' || *at > '9')
            break;
        uint64_t id = 0;
        while (*at >= '0' && *at <= '9' && id <= UINT32_MAX)
            id = id * 10 + (uint64_t)(*at++ - '0');
        out_ids[found++] = (uint32_t)id;
    }
    return found;
}

/* NULL when there is nothing to be read. */
static char *read_status(pid_t pid)
{
    char path[64];
    vv_format(path, sizeof(path), "/proc/%d/status", (int)pid);
    int fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return NULL;
    char *status = vv_alloc(STATUS_LEN_MAX);
    ssize_t len = status ? read(fd, status, STATUS_LEN_MAX - 1) : -1;
    close(fd);
    if (len <= 0) {
        vv_free(status);
        return NULL;
    }
    status[len] = '\0';
    return status;
}

size_t vv_fuse_device_groups(pid_t pid, uint32_t *out_groups, size_t count)
{
    char *status CLEANUP(vv_free_ptr) = read_status(pid);
    return status ? parse_ids(status, "\nGroups:", out_groups, count) : 0;
}

void vv_fuse_device_ids(pid_t pid, uint32_t *io_uid, uint32_t *io_gid)
{
    uint32_t uids[4], gids[4]; /* real, effective, saved, for files */
    char *status CLEANUP(vv_free_ptr) = read_status(pid);
    if (!status || parse_ids(status, "\nUid:", uids, 4) != 4 ||
        parse_ids(status, "\nGid:", gids, 4) != 4)
        return;
    *io_uid = uids[3];
    *io_gid = gids[3];
}

static bool is_in_our_user_namespace(pid_t pid)
{
    char path[64];
    struct statx theirs, ours;
    vv_format(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
    return statx(AT_FDCWD, path, 0, STATX_INO, &theirs) == 0 &&
           statx(AT_FDCWD, "/proc/self/ns/user", 0, STATX_INO, &ours) == 0 &&
           theirs.stx_ino == ours.stx_ino && theirs.stx_dev_minor == ours.stx_dev_minor;
}

/* The set in a line of /proc/PID/status, as "\nCapEff:\t000001ffffffffff\n". */
static uint64_t parse_set(const char *status, const char *line)
{
    const char *at = strstr(status, line);
    uint64_t set = 0;
    for (at = at ? at + strlen(line) : ""; *at && strchr("\t0123456789abcdef", *at); at++)
        set = *at == '\t' ? 0 : set << 4 | (uint64_t)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
    return set;
}

bool vv_fuse_device_is_admin(pid_t pid)
{
    char *status CLEANUP(vv_free_ptr) = read_status(pid);
    return status && is_in_our_user_namespace(pid) &&
           (parse_set(status, "\nCapEff:") >> CAPABILITY_ADMIN & 1);
}

int vv_fuse_device_peek(pid_t pid, uint64_t address, void *out, size_t len)
{
    struct iovec local = {out, len};
    struct iovec remote = {(void *)(uintptr_t)address, len};
    ssize_t got = pid > 0 ? process_vm_readv(pid, &local, 1, &remote, 1, 0) : -1;
    if (pid <= 0 || got < 0)
        return pid > 0 ? -errno : -EPERM;
    return (size_t)got == len ? 0 : -EFAULT;
}
