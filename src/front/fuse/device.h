/* The mount and the descriptor that its messages go through: what the FUSE door asks of the
 * operating system.
 *
 * The only file of the door that makes system calls. Functions marked "blocks" run on a worker:
 * mounting may start fusermount3, and unmounting waits for requests that the reactor answers. */
#ifndef VV_FRONT_FUSE_DEVICE_H
#define VV_FRONT_FUSE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "front/fuse/fuse.h"

struct fuse_session;

struct vv_fuse_device {
    struct fuse_session *session; /* libfuse's, for mounting only */
    char *mountpoint;             /* absolute, without symlinks */
    uint64_t number;              /* of the mounted file system, as statx has it */
    int fd;                       /* non-blocking, close-on-exec; -1 = closed */
};

/* Take away a dead mount at the mount point, then mount. Blocks. -errno, -EIO. */
MUST_CHECK int vv_fuse_device_open(struct vv_fuse_device *device,
                                   const struct vv_fuse_options *options);
/* Closes the descriptor, which cuts a connection that is still there. Safe on a zeroed device. */
void vv_fuse_device_close(struct vv_fuse_device *device);

/* One request, piece by piece. Its bytes; -EAGAIN, -ENODEV (the kernel has let go), -EINTR, -ENOENT (the request
 * was taken back: go on). */
MUST_CHECK ssize_t vv_fuse_device_read(struct vv_fuse_device *device, const struct iovec *iov,
                                       int count);
/* One reply or notification, whole or not at all. -ENOENT: nobody waits for it any more, or
 * (notification) the kernel does not know what it is about. -ENODEV. Any thread. */
MUST_CHECK int vv_fuse_device_write(struct vv_fuse_device *device, struct iovec *iov, int count);

enum vv_fuse_unmount { VV_FUSE_UNMOUNT_POLITE, VV_FUSE_UNMOUNT_CUT };
/* POLITE fails with -EBUSY while the mount is used. CUT ends the connection where that is
 * permitted, and detaches the mount. Blocks. */
MUST_CHECK int vv_fuse_device_unmount(struct vv_fuse_device *device, enum vv_fuse_unmount how);
/* Let the kernel begin to write back what it holds. Blocks. */
void vv_fuse_device_sync(struct vv_fuse_device *device);
/* The groups of a process, from /proc. Their number, at most `count`; 0 when it can't be told.
 * Blocks shortly (no disk is involved): may be called on the reactor. */
size_t vv_fuse_device_groups(pid_t pid, uint32_t *out_groups, size_t count);
/* The user and group with which a process uses files; left as they are when it can't be told.
 * Blocks as above. */
void vv_fuse_device_ids(pid_t pid, uint32_t *io_uid, uint32_t *io_gid);
/* Has the process CAP_SYS_ADMIN (in its effective set), in the user namespace of this one? False when it can't be told.
 * Blocks as above. */
bool vv_fuse_device_is_admin(pid_t pid);
/* Read a process's memory. -EPERM (only root may: the system's Yama may forbid even that), -EFAULT, -ESRCH. Blocks for
 * long: the page may have to be read, from this very mount perhaps, so never on the reactor. */
MUST_CHECK int vv_fuse_device_peek(pid_t pid, uint64_t address, void *out, size_t len);

#endif
