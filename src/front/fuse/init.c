/* INIT: what the kernel and this server agree on; and the table of operations. */
#include "front/fuse/fuse_impl.h"

#include <string.h>

#include "base/log.h"

#define MINOR_MIN 31u /* Linux 5.4: older kernels lack what the replies here rely on */
#define BACKGROUND_MAX                                                                             \
    64 /* readahead and asynchronous direct requests that the kernel sends at once */
#define CONGESTION 48
/* Linux 6.16 to 6.18 at least: entries belong to epochs, but for those that the kernel makes when it opens a handle, which
 * it therefore holds for stale whenever it is asked. */
#define MINOR_EPOCHS 44u

/* Why these, where it is not their name that says it:
 * EXPLICIT_INVAL_DATA (not AUTO_INVAL_DATA, which drops a file's pages after each own write): other
 * doors' changes are invalidated one by one. DONT_MASK: a default ACL replaces the umask.
 * POSIX_ACL: the kernel enforces and caches ACLs. HANDLE_KILLPRIV_V2: requests say whether set-id
 * bits are to go, so the kernel needn't ask for security.capability before each write. ALLOW_IDMAP
 * needs default_permissions, which the mount always has. NO_EXPORT: overlayfs opens the handle of the lower file of each that
 * it copied up, when the kernel has forgotten it, and what it gets is stale at the next look. It does without if it must. */
static uint64_t wanted_flags(const struct vv_fuse_options *options, uint32_t minor)
{
    uint64_t flags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT |
                     FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_HAS_IOCTL_DIR | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
                     FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL | FUSE_MAX_PAGES |
                     FUSE_EXPLICIT_INVAL_DATA | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT |
                     FUSE_INIT_EXT;
    flags |= VV_FUSE_CREATE_SUPP_GROUP | VV_FUSE_DIRECT_IO_ALLOW_MMAP | VV_FUSE_ALLOW_IDMAP;
    if (minor >= MINOR_EPOCHS && !options->is_opening_handles)
        flags |= VV_FUSE_NO_EXPORT;
    if (!options->is_kernel_locking)
        flags |= FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
    if (!options->is_no_cache)
        flags |= FUSE_CACHE_SYMLINKS;
    if (options->is_writeback)
        flags |= FUSE_WRITEBACK_CACHE;
    return flags;
}

int vv_fuse_init(struct vv_fuse_request *request)
{
    struct fuse_init_in in = {0};
    struct vv_cursor *body = &request->message.body;
    size_t len = body->len < sizeof(in) ? body->len : sizeof(in);
    if (!vv_fuse_take(request, &in, len) || in.major != FUSE_KERNEL_VERSION ||
        in.minor < MINOR_MIN) {
        vv_error("fuse", "the kernel speaks version %u.%u, needed is %u.%u", in.major, in.minor,
                 FUSE_KERNEL_VERSION, MINOR_MIN);
        return -EPROTO;
    }
    uint64_t offered = in.flags;
    if (in.flags & FUSE_INIT_EXT)
        offered |= (uint64_t)in.flags2 << 32;
    uint64_t flags = wanted_flags(&request->fuse->options, in.minor) & offered;
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = in.minor < VV_FUSE_MINOR ? in.minor : VV_FUSE_MINOR,
        .max_readahead = in.max_readahead,
        .flags = (uint32_t)flags,
        .flags2 = (uint32_t)(flags >> 32),
        .max_background = BACKGROUND_MAX,
        .congestion_threshold = CONGESTION,
        .max_write = VV_FUSE_IO_BYTES_MAX,
        .time_gran = 1,
        .max_pages = VV_FUSE_IO_BYTES_MAX / 4096,
    };
    vv_debug("fuse", "version %u.%u, flags %llx of %llx", in.major, in.minor,
             (unsigned long long)flags, (unsigned long long)offered);
    request->fuse->flags = flags;
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

/* Sent when a block-device mount ends, which waits for the answer. */
static int destroy(struct vv_fuse_request *request)
{
    int err = vv_fs_sync(request->fuse->fs, 0);
    if (err < 0)
        vv_warn("fuse", "unmounting: %s; not everything is durable", vv_err_text(err));
    return vv_fuse_reply_ok(request);
}

static const struct vv_fuse_op ops[] = {
    [FUSE_LOOKUP] = {vv_fuse_lookup, false},
    [FUSE_FORGET] = {vv_fuse_forget, false},
    [FUSE_GETATTR] = {vv_fuse_getattr, false},
    [FUSE_SETATTR] = {vv_fuse_setattr, true},
    [FUSE_READLINK] = {vv_fuse_readlink, false},
    [FUSE_SYMLINK] = {vv_fuse_symlink, true},
    [FUSE_MKNOD] = {vv_fuse_mknod, true},
    [FUSE_MKDIR] = {vv_fuse_mkdir, true},
    [FUSE_UNLINK] = {vv_fuse_unlink, true},
    [FUSE_RMDIR] = {vv_fuse_rmdir, true},
    [FUSE_RENAME] = {vv_fuse_rename, true},
    [FUSE_LINK] = {vv_fuse_link, true},
    [FUSE_OPEN] = {vv_fuse_open, false},
    [FUSE_READ] = {vv_fuse_read, false},
    [FUSE_WRITE] = {vv_fuse_write, true},
    [FUSE_STATFS] = {vv_fuse_statfs, false},
    [FUSE_RELEASE] = {vv_fuse_release, false},
    [FUSE_FSYNC] = {vv_fuse_fsync, false},
    [FUSE_SETXATTR] = {vv_fuse_setxattr, true},
    [FUSE_GETXATTR] = {vv_fuse_getxattr, false},
    [FUSE_LISTXATTR] = {vv_fuse_listxattr, false},
    [FUSE_REMOVEXATTR] = {vv_fuse_removexattr, true},
    [FUSE_FLUSH] = {vv_fuse_flush, false},
    [FUSE_INIT] = {vv_fuse_init, false},
    [FUSE_OPENDIR] = {vv_fuse_opendir, false},
    [FUSE_READDIR] = {vv_fuse_readdir, false},
    [FUSE_RELEASEDIR] = {vv_fuse_releasedir, false},
    [FUSE_FSYNCDIR] = {vv_fuse_fsync, false},
    [FUSE_GETLK] = {vv_fuse_getlk, false},
    [FUSE_SETLK] = {vv_fuse_setlk, false},
    [FUSE_SETLKW] = {vv_fuse_setlkw, false},
    [FUSE_ACCESS] = {vv_fuse_access, false},
    [FUSE_CREATE] = {vv_fuse_create, true},
    [FUSE_INTERRUPT] = {vv_fuse_interrupt, false},
    [FUSE_DESTROY] = {destroy, false},
    [FUSE_IOCTL] = {vv_fuse_ioctl, false},
    [FUSE_BATCH_FORGET] = {vv_fuse_batch_forget, false},
    [FUSE_FALLOCATE] = {vv_fuse_fallocate, true},
    [FUSE_READDIRPLUS] = {vv_fuse_readdir, false},
    [FUSE_RENAME2] = {vv_fuse_rename2, true},
    [FUSE_LSEEK] = {vv_fuse_lseek, false},
    [FUSE_COPY_FILE_RANGE] = {vv_fuse_copy_file_range, true},
    [FUSE_SYNCFS] = {vv_fuse_syncfs, false},
    [FUSE_TMPFILE] = {vv_fuse_tmpfile, true},
    [VV_FUSE_STATX] = {vv_fuse_statx, false},
    [VV_FUSE_COPY_FILE_RANGE_64] = {vv_fuse_copy_file_range, true},
};

const struct vv_fuse_op *vv_fuse_op_of(uint32_t opcode)
{
    const size_t count = sizeof(ops) / sizeof(ops[0]);
    return opcode < count && ops[opcode].serve ? &ops[opcode] : NULL;
}
