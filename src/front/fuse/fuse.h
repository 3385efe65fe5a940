/* The FUSE door: a kernel mount of the volume, served by the reactor that called vv_fuse_mount.
 *
 * libfuse mounts and unmounts (as root with mount(2), otherwise through fusermount3). The messages
 * are spoken here (codec.h): libfuse 3.14 cannot negotiate HANDLE_KILLPRIV_V2, without which each
 * write costs a getxattr, nor hand on what comes with it (kill flags, O_TMPFILE, groups of the
 * creator, birth times).
 *
 * A pool of fibers takes turns: one waits for the next request, the others serve theirs. The kernel
 * checks permissions and ACLs (default_permissions), and caches names, attributes, symlinks,
 * directories and data for VV_FUSE_TIMEOUT_S (VV_FUSE_SETTLING_S, see vv_attr). That is safe since every change that comes through
 * another door is invalidated in the kernel, from a thread of its own, before the other door
 * answers; a reply that was on its way to the kernel meanwhile carries no timeout.
 *
 * Limits: VV_FUSE_FIBERS_MAX requests at once, then no more are read; VV_FUSE_LOCK_WAITERS_MAX
 * waiting locks, then ENOLCK. All calls: from a fiber, on one reactor. */
#ifndef VV_FRONT_FUSE_FUSE_H
#define VV_FRONT_FUSE_FUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/fs.h"

#define VV_FUSE_TIMEOUT_S 3600            /* how long the kernel may keep names and attributes */
#define VV_FUSE_SETTLING_S 1              /* ... attributes whose count of blocks will change by itself */
#define VV_FUSE_IO_BYTES_MAX (1u << 20)   /* of one read or write request */
#define VV_FUSE_FIBERS_MAX 512            /* requests being served at once */
#define VV_FUSE_LOCK_WAITERS_MAX 4096     /* besides those */
#define VV_FUSE_INVALIDATE_MAX_S 5        /* how long another door waits for this kernel */
#define VV_FUSE_INVALIDATE_MOUNT_MAX_MS 2 /* how long another mount of the process does */
#define VV_FUSE_UNMOUNT_MAX_S 10          /* how long an orderly unmount may take */

struct vv_fuse_options {
    const char *mountpoint; /* a directory; a dead FUSE mount there is taken away first */
    const char *source;     /* what `mount` shows as the device; NULL = "varve" */
    unsigned door;          /* see vv_fs_watch */
    uint64_t memory_bytes;  /* large requests under way take a sixteenth of it, 4 to 64 MiB; 0 = 64 */
    bool is_no_cache;       /* the kernel asks for names and attributes each time */
    bool is_writeback; /* the kernel gathers writes, owns size and mtime: only for the only door */
    bool is_read_only;
    bool is_seeing_opens;   /* opening a file drops its pages, so that the read that follows is seen
                             * here (strict access times) */
    bool is_kernel_locking; /* the kernel keeps the locks and lists them in /proc/locks, and sends nothing
                             * when a file is closed: right if no other door has locks; they outlive the
                             * server */
    bool is_hearing_syncs;  /* root only: sync(2), syncfs(2) and umount wait until all is durable (loop.h) */
    bool is_opening_handles; /* open_by_handle_at and the kernel's NFS server work where they and overlayfs do not both (init.c) */
    bool allow_other; /* users other than the mounting one; for others than root this needs
                       * user_allow_other in /etc/fuse.conf */
    bool allow_suid;  /* root only: honour set-id bits and device nodes */
    bool allow_dev;
    /* Called on the reactor, outside fibers or in one, when the kernel has let the mount go
     * (umount, abort): must not suspend. vv_fuse_unmount is still to be called. May be NULL. */
    void (*on_gone)(void *arg);
    void *arg;
};

struct vv_fuse;

/* Mount and begin to serve. Strings are copied. Suspends. -ENOENT, -ENOTDIR (mount point), -EPERM,
 * -EIO (libfuse could not mount and said why on standard error), -ENOMEM, -errno. */
MUST_CHECK int vv_fuse_mount(struct vv_fs *fs, const struct vv_fuse_options *options,
                             struct vv_fuse **out_fuse);
/* Unmount: politely first, so that the kernel writes back what it holds; when it is busy, the kernel
 * is made to write back, and then the connection is cut. Who may not do that detaches the mount and
 * serves it until its users are gone or VV_FUSE_UNMOUNT_MAX_S is over; so is one that somebody else
 * has detached. Returns when no fiber of it runs any more. Suspends. NULL is fine. */
void vv_fuse_unmount(struct vv_fuse *fuse);
/* The kernel has let the mount go. */
bool vv_fuse_is_gone(const struct vv_fuse *fuse);

struct vv_fuse_stats {
    uint64_t requests, errors;       /* answered; of those, with an error other than ENOENT */
    uint64_t lookups, reads, writes; /* requests of these kinds */
    uint64_t read_bytes, write_bytes;
    uint64_t invalidations;         /* sent to the kernel */
    uint64_t invalidations_skipped; /* for what the kernel does not know */
    uint64_t invalidations_late;    /* another door or mount gave up waiting */
    uint64_t uncached_replies;      /* carried no timeout since another door changed something */
    unsigned fibers, lock_waiters;
};
void vv_fuse_stats(const struct vv_fuse *fuse, struct vv_fuse_stats *out_stats);

#endif
