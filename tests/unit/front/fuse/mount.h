/* A FUSE mount on a volume of its own in a simulated world, whose kernel is kernel.h; and requests in short forms. */
#ifndef UNIT_FRONT_FUSE_MOUNT_H
#define UNIT_FRONT_FUSE_MOUNT_H

#include <fcntl.h>
#include <sys/stat.h>

#include "base/log.h"
#include "front/fuse/fuse_impl.h"
#include "unit/front/fuse/kernel.h"
#include "unit/volume/rig.h"

#define MOUNT_ROOT FUSE_ROOT_ID
/* What Linux 6.1 offers, of what the door knows. */
#define MOUNT_OFFERED                                                                              \
    (FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT |              \
     FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_FLOCK_LOCKS | FUSE_HAS_IOCTL_DIR |                    \
     FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_WRITEBACK_CACHE |         \
     FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |                \
     FUSE_EXPLICIT_INVAL_DATA | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT)

struct mount {
    struct rig rig;
    struct vv_fs *fs;
    struct vv_fuse *fuse;
    unsigned gone_count; /* calls of on_gone */
};

static void mount_gone(void *arg)
{
    ((struct mount *)arg)->gone_count++;
}

/* Mount, without an INIT yet. */
static UNUSED int mount_door(struct mount *mount, struct vv_fuse_options options)
{
    options.mountpoint = "/mnt";
    options.door = 1;
    options.memory_bytes = 16 << 20;
    options.on_gone = mount_gone;
    options.arg = mount;
    mount->gone_count = 0;
    kernel_start();
    return vv_fuse_mount(mount->fs, &options, &mount->fuse);
}

/* INIT as a kernel of `minor` sends it, `len` bytes of it. Bytes of the reply or an error. */
static UNUSED ssize_t mount_init(uint32_t minor, uint64_t flags, size_t len)
{
    struct fuse_init_in in = {.major = FUSE_KERNEL_VERSION,
                              .minor = minor,
                              .max_readahead = 131072,
                              .flags = (uint32_t)flags,
                              .flags2 = (uint32_t)(flags >> 32)};
    struct kernel_ask ask = {.opcode = FUSE_INIT, .fixed = {(const uint8_t *)&in, len}};
    return kernel_call(ask);
}

static UNUSED void mount_close_door(struct mount *mount)
{
    vv_fuse_unmount(mount->fuse);
    mount->fuse = NULL;
    kernel_drop_all();
}

/* A new volume, its file system, and a mount with everything agreed on. */
static UNUSED void mount_open(struct mount *mount)
{
    rig_make(&mount->rig);
    tap_is_int(vv_fs_open(mount->rig.volume, &mount->fs), 0, "a file system");
    tap_is_int(mount_door(mount, (struct vv_fuse_options){0}), 0, "is mounted");
    tap_is_int(mount_init(38, MOUNT_OFFERED, sizeof(struct fuse_init_in)), sizeof(struct fuse_init_out),
               "INIT is answered");
}

static UNUSED void mount_close(struct mount *mount)
{
    if (mount->fuse)
        mount_close_door(mount);
    tap_is_int(kernel.wrong_count, 0, "the kernel took every reply");
    vv_fs_close(mount->fs);
    rig_close(&mount->rig);
}

static void mount_drop_line(void *arg, enum vv_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

/* Run fn in a world; what main returns. What the door says of malformed requests is not shown. */
static UNUSED int mount_main(void (*fn)(void *arg))
{
    vv_log_set_sink(mount_drop_line, NULL);
    return rig_main(fn, NULL);
}

/* ---- another door's caches, which take their time ---- */

static struct vv_waitq slow;
static bool is_slow;

static UNUSED void slow_inode(void *arg, uint64_t number, uint64_t offset, uint64_t len)
{
    (void)arg;
    (void)number;
    (void)offset;
    (void)len;
}

static UNUSED void slow_entry(void *arg, uint64_t parent, const char *name, size_t name_len)
{
    (void)arg;
    (void)parent;
    (void)name;
    (void)name_len;
}

static UNUSED void slow_wait(void *arg)
{
    (void)arg;
    while (is_slow)
        vv_waitq_wait(&slow, VV_NEVER);
}

static UNUSED void slow_begin(struct mount *mount, struct vv_fs_watch *watch, unsigned door)
{
    *watch = (struct vv_fs_watch){.door = door, .on_inode = slow_inode, .on_entry = slow_entry, .wait = slow_wait};
    vv_waitq_init(&slow);
    is_slow = true;
    vv_fs_watch_add(mount->fs, watch);
}

static UNUSED void slow_end(void)
{
    is_slow = false;
    vv_waitq_wake_all(&slow);
}

/* ---- requests. Errors below 0 ---- */

static UNUSED ssize_t ask_name(uint32_t opcode, uint64_t parent, const char *name)
{
    struct kernel_ask ask = {.opcode = opcode, .nodeid = parent, .tail = KERNEL_NAME(name)};
    return kernel_call(ask);
}

/* The inode; 0 = the reply says that there is none. */
static UNUSED int64_t ask_lookup(uint64_t parent, const char *name)
{
    struct fuse_entry_out out;
    TRY(ask_name(FUSE_LOOKUP, parent, name));
    memcpy(&out, kernel.reply, sizeof(out));
    return (int64_t)out.nodeid;
}

static UNUSED int ask_create(uint64_t parent, const char *name, uint64_t *out_inode, uint64_t *out_fh)
{
    struct fuse_create_in in = {.flags = O_RDWR | O_CREAT | O_EXCL, .mode = S_IFREG | 0644};
    struct kernel_ask ask = {
        .opcode = FUSE_CREATE, .nodeid = parent, .fixed = KERNEL_FIXED(in), .tail = KERNEL_NAME(name)};
    struct fuse_entry_out entry;
    struct fuse_open_out open;
    TRY(kernel_call(ask));
    memcpy(&entry, kernel.reply, sizeof(entry));
    memcpy(&open, kernel.reply + sizeof(entry), sizeof(open));
    *out_inode = entry.nodeid;
    *out_fh = open.fh;
    return 0;
}

static UNUSED int ask_open(uint32_t opcode, uint64_t inode, uint32_t flags, uint64_t *out_fh)
{
    struct fuse_open_in in = {.flags = flags};
    struct kernel_ask ask = {.opcode = opcode, .nodeid = inode, .fixed = KERNEL_FIXED(in)};
    struct fuse_open_out out;
    TRY(kernel_call(ask));
    memcpy(&out, kernel.reply, sizeof(out));
    *out_fh = out.fh;
    return 0;
}

static UNUSED int ask_release(uint32_t opcode, uint64_t inode, uint64_t fh)
{
    struct fuse_release_in in = {.fh = fh};
    struct kernel_ask ask = {.opcode = opcode, .nodeid = inode, .fixed = KERNEL_FIXED(in)};
    return (int)kernel_call(ask);
}

static UNUSED struct kernel_call *post_write(uint64_t inode, uint64_t fh, uint64_t offset, struct vv_bytes data)
{
    struct fuse_write_in in = {.fh = fh, .offset = offset, .size = (uint32_t)data.len};
    struct kernel_ask ask = {.opcode = FUSE_WRITE, .nodeid = inode, .fixed = KERNEL_FIXED(in), .tail = data};
    return kernel_post(ask);
}

/* Bytes that were written. */
static UNUSED ssize_t finish_write(struct kernel_call *call)
{
    struct fuse_write_out out;
    TRY(kernel_finish(call));
    memcpy(&out, kernel.reply, sizeof(out));
    return (ssize_t)out.size;
}

static UNUSED ssize_t ask_write(uint64_t inode, uint64_t fh, uint64_t offset, struct vv_bytes data)
{
    return finish_write(post_write(inode, fh, offset, data));
}

/* Bytes read, which are in kernel.reply; of a directory, entries. */
static UNUSED ssize_t ask_read(uint32_t opcode, uint64_t inode, uint64_t fh, uint64_t offset, uint32_t size)
{
    struct fuse_read_in in = {.fh = fh, .offset = offset, .size = size};
    struct kernel_ask ask = {.opcode = opcode, .nodeid = inode, .fixed = KERNEL_FIXED(in)};
    return kernel_call(ask);
}

static UNUSED int ask_rename(uint64_t from, const char *name, uint64_t to, const char *new_name)
{
    char names[2 * (VV_NAME_MAX + 1)];
    size_t len = strlen(name) + 1, new_len = strlen(new_name) + 1;
    struct fuse_rename_in in = {.newdir = to};
    memcpy(names, name, len);
    memcpy(names + len, new_name, new_len);
    struct kernel_ask ask = {.opcode = FUSE_RENAME,
                             .nodeid = from,
                             .fixed = KERNEL_FIXED(in),
                             .tail = {(const uint8_t *)names, len + new_len}};
    return (int)kernel_call(ask);
}

static UNUSED struct kernel_call *post_lock(uint32_t opcode, uint64_t inode, uint64_t fh, uint64_t owner,
                                            uint32_t type)
{
    struct fuse_lk_in in = {.fh = fh, .owner = owner, .lk = {.end = INT64_MAX, .type = type, .pid = 1}};
    struct kernel_ask ask = {.opcode = opcode, .nodeid = inode, .fixed = KERNEL_FIXED(in)};
    return kernel_post(ask);
}

static UNUSED int ask_lock(uint32_t opcode, uint64_t inode, uint64_t fh, uint64_t owner, uint32_t type)
{
    return (int)kernel_finish(post_lock(opcode, inode, fh, owner, type));
}

#endif
