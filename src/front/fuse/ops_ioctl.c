/* FS_IOC_*: what lsattr, chattr and xfs_io ask. nodeid is the inode.
 *
 * The kernel forwards ioctls with sizes that it has checked against the command, whatever the caller's word size:
 * FS_IOC_GETFLAGS is "long" by name and 32 bits by use. */
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "front/fuse/fuse_impl.h"

#define IOC_FSXATTR_BYTES sizeof(struct fsxattr)

/* xfs's, which others have taken over: no header but xfsprogs' names it (xfs_fs.h, XFS_IOC_GOINGDOWN). It is said to be read,
 * but its argument goes to the kernel. */
#define IOC_SHUTDOWN _IOR('X', 125, uint32_t)
enum going_down {
    GOING_DOWN_SYNCED,    /* after all that programs have written is durable */
    GOING_DOWN_COMMITTED, /* after all that has come here is */
    GOING_DOWN_AT_ONCE
};

static uint64_t node_of(const struct vv_fuse_request *request)
{
    return request->message.header.nodeid;
}

/* The kernel keeps the attributes, and with them the ctime, that it had before an ioctl. */
static void drop_kernel_attrs(struct vv_fuse_request *request)
{
    struct vv_fuse *fuse = request->fuse;
    vv_fuse_notify_inode(&fuse->notifier, node_of(request), 0, 0, 0);
    uint64_t deadline_ns = vv_rt_now_ns() + VV_FUSE_INVALIDATE_MAX_S * VV_NS_PER_S;
    if (vv_fuse_notifier_wait(&fuse->notifier, deadline_ns) < 0)
        fuse->stats.invalidations_late++;
}

static int reply_ioctl(struct vv_fuse_request *request, const void *bytes, size_t len)
{
    struct fuse_ioctl_out out = {.result = 0};
    struct iovec iov[3] = {{0}, {&out, sizeof(out)}, {(void *)bytes, len}};
    vv_fuse_reply_iov(request->fuse, request->message.header.unique, 0, iov, 3);
    return 0;
}

static int ioctl_get_flags(struct vv_fuse_request *request, const struct fuse_ioctl_in *in)
{
    struct vv_attr attr;
    TRY(vv_fs_getattr(request->fuse->fs, node_of(request), &attr));
    uint64_t flags = attr.flags;
    size_t len = in->out_size < sizeof(flags) ? in->out_size : sizeof(flags);
    return reply_ioctl(request, &flags, len);
}

static int ioctl_set_flags(struct vv_fuse_request *request)
{
    uint32_t flags;
    if (!vv_fuse_take(request, &flags, sizeof(flags)))
        return -EINVAL;
    TRY(vv_fs_set_flags(request->fuse->fs, &request->call, node_of(request), flags));
    drop_kernel_attrs(request);
    return reply_ioctl(request, NULL, 0);
}

static int ioctl_get_xattr(struct vv_fuse_request *request, const struct fuse_ioctl_in *in)
{
    struct vv_attr attr;
    if (in->out_size < IOC_FSXATTR_BYTES)
        return -EINVAL;
    TRY(vv_fs_getattr(request->fuse->fs, node_of(request), &attr));
    struct fsxattr out = {.fsx_xflags = vv_fuse_xflags_of(attr.flags)};
    return reply_ioctl(request, &out, sizeof(out));
}

static int ioctl_set_xattr(struct vv_fuse_request *request)
{
    struct fsxattr in;
    struct vv_attr attr;
    uint32_t flags;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    if (in.fsx_extsize || in.fsx_projid || in.fsx_cowextsize)
        return -EOPNOTSUPP;
    TRY(vv_fuse_flags_of(in.fsx_xflags, &flags));
    TRY(vv_fs_getattr(request->fuse->fs, node_of(request), &attr));
    flags |= attr.flags & FS_DIRSYNC_FL; /* has no twin there */
    TRY(vv_fs_set_flags(request->fuse->fs, &request->call, node_of(request), flags));
    drop_kernel_attrs(request);
    return reply_ioctl(request, NULL, 0);
}

static int ioctl_get_label(struct vv_fuse_request *request, const struct fuse_ioctl_in *in)
{
    char label[FSLABEL_MAX];
    _Static_assert(FSLABEL_MAX == VV_LABEL_MAX + 1, "they are the same");
    if (in->out_size < FSLABEL_MAX)
        return -EINVAL;
    TRY(vv_fs_label(vv_fs_volume(request->fuse->fs), label));
    return reply_ioctl(request, label, FSLABEL_MAX);
}

static int ioctl_set_label(struct vv_fuse_request *request)
{
    char label[FSLABEL_MAX];
    if (!vv_fuse_device_is_admin((pid_t)request->message.header.pid))
        return -EPERM;
    if (!vv_fuse_take(request, label, sizeof(label)) || !memchr(label, 0, sizeof(label)))
        return -EINVAL;
    TRY(vv_fs_set_label(vv_fs_volume(request->fuse->fs), label));
    return reply_ioctl(request, NULL, 0);
}

struct shutdown_wish {
    pid_t pid;
    uint64_t address;
    uint32_t how;
    int err;
};

/* On a worker: the argument may lie in a page of a file of this mount, which this server is asked for then. */
static void read_wish(void *arg)
{
    struct shutdown_wish *wish = arg;
    wish->err = -EPERM;
    if (vv_fuse_device_is_admin(wish->pid))
        wish->err = vv_fuse_device_peek(wish->pid, wish->address, &wish->how, sizeof(wish->how));
}

/* End the volume here as a crash would (vv_volume_shut_down), for tests of what survives one. The kernel checks nothing: who
 * asks must have CAP_SYS_ADMIN in this process's user namespace. It does not pass the argument on either, so it is
 * read where the caller has it. */
static int ioctl_shut_down(struct vv_fuse_request *request, const struct fuse_ioctl_in *in)
{
    struct vv_fs *fs = request->fuse->fs;
    struct shutdown_wish wish = {.pid = (pid_t)request->message.header.pid, .address = in->arg};
    vv_rt_offload(read_wish, &wish);
    TRY(wish.err);
    uint32_t how = wish.how;
    if (how > GOING_DOWN_AT_ONCE)
        return -EINVAL;
    if (how == GOING_DOWN_SYNCED)
        vv_fuse_write_back(request->fuse);
    int err = how == GOING_DOWN_AT_ONCE ? 0 : vv_fs_sync(fs, 0);
    if (how == GOING_DOWN_SYNCED)
        TRY(err);
    vv_warn("fuse", "process %d shuts the volume down%s: everything fails from now on, until it is served again", (int)wish.pid,
            how == GOING_DOWN_AT_ONCE ? " without a sync" : "");
    vv_fs_shut_down(fs);
    return reply_ioctl(request, NULL, 0);
}

/* IOCTL: ioctl_in, in_size bytes. ioctl_out, up to out_size bytes. */
int vv_fuse_ioctl(struct vv_fuse_request *request)
{
    struct fuse_ioctl_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    bool is_setting =
        in.cmd == FS_IOC_SETFLAGS || in.cmd == FS_IOC32_SETFLAGS ||
        in.cmd == FS_IOC_FSSETXATTR || in.cmd == FS_IOC_SETFSLABEL;
    if (is_setting && request->fuse->options.is_read_only)
        return -EROFS;
    switch (in.cmd) {
    case FS_IOC_GETFLAGS:
    case FS_IOC32_GETFLAGS:
        return ioctl_get_flags(request, &in);
    case FS_IOC_SETFLAGS:
    case FS_IOC32_SETFLAGS:
        return ioctl_set_flags(request);
    case FS_IOC_FSGETXATTR:
        return ioctl_get_xattr(request, &in);
    case FS_IOC_FSSETXATTR:
        return ioctl_set_xattr(request);
    case FS_IOC_GETFSLABEL:
        return ioctl_get_label(request, &in);
    case FS_IOC_SETFSLABEL:
        return ioctl_set_label(request);
    case IOC_SHUTDOWN:
        return ioctl_shut_down(request, &in);
    default:
        return -ENOTTY;
    }
}
