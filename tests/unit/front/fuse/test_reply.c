/* How long the kernel may keep what it is told: names and attributes for long, but not a count of blocks that will
 * change without anybody's doing. */
#include "unit/front/fuse/mount.h"

#define FILE_BYTES (64u << 10)

static struct mount mount;
static uint64_t inode, fh;

struct told {
    uint64_t entry_s, attr_s, sectors;
};

static struct told of_entry(size_t at)
{
    struct fuse_entry_out out;
    memcpy(&out, kernel.reply + at, sizeof(out));
    return (struct told){out.entry_valid, out.attr_valid, out.attr.blocks};
}

static void is_told(struct told told, bool is_name, uint64_t attr_s, uint64_t sectors, const char *what)
{
    tap_is_int((int64_t)told.entry_s, is_name ? VV_FUSE_TIMEOUT_S : 0, "%s: the name", what);
    tap_is_int((int64_t)told.attr_s, (int64_t)attr_s, "the attributes");
    tap_is_int((int64_t)told.sectors, (int64_t)sectors, "the sectors");
}

/* The same in every reply that has attributes for the kernel to keep. */
static void ask_all(uint64_t attr_s, uint64_t sectors, const char *when)
{
    struct fuse_getattr_in getattr = {0};
    struct vv_fuse_statx_in statx = {0};
    struct fuse_attr_out attr;
    struct vv_fuse_statx_out statx_out;
    uint64_t dir_fh = 0;
    tap_note("%s", when);
    struct kernel_ask ask = {.opcode = FUSE_GETATTR, .nodeid = inode, .fixed = KERNEL_FIXED(getattr)};
    tap_is_int(kernel_call(ask), sizeof(attr), "GETATTR");
    memcpy(&attr, kernel.reply, sizeof(attr));
    is_told((struct told){0, attr.attr_valid, attr.attr.blocks}, false, attr_s, sectors, "GETATTR");
    ask = (struct kernel_ask){.opcode = VV_FUSE_STATX, .nodeid = inode, .fixed = KERNEL_FIXED(statx)};
    tap_is_int(kernel_call(ask), sizeof(statx_out), "STATX");
    memcpy(&statx_out, kernel.reply, sizeof(statx_out));
    is_told((struct told){0, statx_out.attr_valid, statx_out.blocks}, false, attr_s, sectors, "STATX");
    tap_is_int(ask_lookup(MOUNT_ROOT, "file"), (int64_t)inode, "LOOKUP");
    is_told(of_entry(0), true, attr_s, sectors, "LOOKUP");
    tap_is_int(ask_open(FUSE_OPENDIR, MOUNT_ROOT, O_RDONLY, &dir_fh), 0, "OPENDIR");
    ssize_t len = ask_read(FUSE_READDIRPLUS, MOUNT_ROOT, dir_fh, 0, 4096);
    /* "." and "..", 2 names of up to 8 bytes, come first. */
    size_t at = 2 * (sizeof(struct fuse_direntplus) + 8);
    tap_ok(len >= (ssize_t)(at + sizeof(struct fuse_direntplus)), "READDIRPLUS: %zd bytes", len);
    is_told(of_entry(at), true, attr_s, sectors, "READDIRPLUS");
    tap_is_int(ask_release(FUSE_RELEASEDIR, MOUNT_ROOT, dir_fh), 0, "RELEASEDIR");
}

static void write_all(void)
{
    static uint8_t bytes[FILE_BYTES];
    vv_rt_random(bytes, sizeof(bytes));
    tap_is_int(ask_write(inode, fh, 0, (struct vv_bytes){bytes, sizeof(bytes)}), sizeof(bytes), "WRITE");
}

static void test(void *arg)
{
    (void)arg;
    mount_open(&mount);
    tap_is_int(ask_create(MOUNT_ROOT, "file", &inode, &fh), 0, "a file");
    ask_all(VV_FUSE_TIMEOUT_S, 0, "an empty file");
    write_all();
    ask_all(VV_FUSE_TIMEOUT_S, FILE_BYTES / 512, "in memory, over nothing");
    tap_is_int(vv_volume_settle(mount.rig.volume), 0, "settle");
    ask_all(VV_FUSE_TIMEOUT_S, FILE_BYTES / 512, "in the store");
    write_all();
    ask_all(VV_FUSE_SETTLING_S, 2 * FILE_BYTES / 512, "in memory, over what is in the store");
    tap_is_int(vv_volume_settle(mount.rig.volume), 0, "settle");
    ask_all(VV_FUSE_TIMEOUT_S, FILE_BYTES / 512, "in the store");
    struct fuse_setattr_in in = {.valid = FATTR_SIZE, .size = 4096};
    struct kernel_ask ask = {.opcode = FUSE_SETATTR, .nodeid = inode, .fixed = KERNEL_FIXED(in)};
    tap_is_int(kernel_call(ask), sizeof(struct fuse_attr_out), "SETATTR of the size");
    ask_all(VV_FUSE_SETTLING_S, FILE_BYTES / 512, "cut, not reclaimed");
    tap_is_int(vv_volume_settle(mount.rig.volume), 0, "settle");
    ask_all(VV_FUSE_TIMEOUT_S, 4096 / 512, "reclaimed");
    tap_is_int(ask_release(FUSE_RELEASE, inode, fh), 0, "RELEASE");
    mount_close(&mount);
}

int main(void)
{
    return mount_main(test);
}
