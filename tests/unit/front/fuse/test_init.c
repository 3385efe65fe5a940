/* What is agreed on with kernels of several ages, and what follows from it for later requests. */
#include "front/fuse/fuse.h"

#include "mount.h"

#define LEN_OLD 16 /* of an INIT before 7.36 */
#define LEN_NEW sizeof(struct fuse_init_in)
#define OLD_OFFERED (MOUNT_OFFERED & ~(uint64_t)(FUSE_INIT_EXT | FUSE_SETXATTR_EXT | FUSE_HANDLE_KILLPRIV_V2))
#define NEW_OFFERED                                                                                \
    (MOUNT_OFFERED | VV_FUSE_CREATE_SUPP_GROUP | VV_FUSE_DIRECT_IO_ALLOW_MMAP | VV_FUSE_NO_EXPORT |  \
     VV_FUSE_ALLOW_IDMAP)
#define EVERYTHING UINT64_MAX

static struct mount mount;

static struct fuse_init_out init_out(void)
{
    struct fuse_init_out out;
    memcpy(&out, kernel.reply, sizeof(out));
    return out;
}

static uint64_t agreed(void)
{
    struct fuse_init_out out = init_out();
    return out.flags | (uint64_t)out.flags2 << 32;
}

/* ---- which flags ---- */

static const struct age {
    const char *name;
    uint32_t minor;
    uint64_t offered;
    size_t len;
    uint64_t wanted, refused; /* among the flags of the answer */
    uint32_t answer;          /* minor */
} ages[] = {
    {"Linux 5.4", 31, OLD_OFFERED, LEN_OLD, FUSE_BIG_WRITES | FUSE_POSIX_ACL,
     FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_WRITEBACK_CACHE, 31},
    {"Linux 6.1", 37, MOUNT_OFFERED, LEN_NEW, FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT,
     VV_FUSE_ALLOW_IDMAP | VV_FUSE_NO_EXPORT, 37},
    {"without HANDLE_KILLPRIV_V2", 37, MOUNT_OFFERED & ~(uint64_t)FUSE_HANDLE_KILLPRIV_V2, LEN_NEW, FUSE_SETXATTR_EXT,
     FUSE_HANDLE_KILLPRIV_V2 | FUSE_HANDLE_KILLPRIV, 37},
    {"without READDIRPLUS", 37, MOUNT_OFFERED & ~(uint64_t)(FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO), LEN_NEW,
     FUSE_PARALLEL_DIROPS, FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO, 37},
    {"with nothing", 31, 0, LEN_OLD, 0, EVERYTHING, 31},
    {"Linux 6.12", 41, NEW_OFFERED, LEN_NEW,
     VV_FUSE_ALLOW_IDMAP | VV_FUSE_CREATE_SUPP_GROUP | VV_FUSE_DIRECT_IO_ALLOW_MMAP, VV_FUSE_NO_EXPORT, 41},
    {"before epochs", 43, NEW_OFFERED, LEN_NEW, FUSE_EXPORT_SUPPORT, VV_FUSE_NO_EXPORT, VV_FUSE_MINOR},
    {"with epochs", 44, NEW_OFFERED, LEN_NEW, FUSE_EXPORT_SUPPORT | VV_FUSE_NO_EXPORT, 0, VV_FUSE_MINOR},
    {"a later one, with flags that nobody knows", 99, EVERYTHING, LEN_NEW, VV_FUSE_NO_EXPORT | FUSE_POSIX_LOCKS,
     1ull << 63 | FUSE_AUTO_INVAL_DATA | FUSE_HANDLE_KILLPRIV | FUSE_WRITEBACK_CACHE, VV_FUSE_MINOR},
    /* An older kernel has something else behind its INIT, or nothing. */
    {"without INIT_EXT", 41, NEW_OFFERED & ~(uint64_t)FUSE_INIT_EXT, LEN_NEW, FUSE_POSIX_LOCKS, ~(uint64_t)UINT32_MAX, 41},
};

static void test_ages(void)
{
    for (size_t i = 0; i < sizeof(ages) / sizeof(ages[0]); i++) {
        const struct age *age = &ages[i];
        tap_is_int(mount_init(age->minor, age->offered, age->len), sizeof(struct fuse_init_out), "%s", age->name);
        struct fuse_init_out out = init_out();
        uint64_t flags = agreed();
        tap_is_int((int64_t)(flags & ~age->offered), 0, "%s: nothing that it did not offer", age->name);
        tap_is_int((int64_t)(flags & (age->wanted | age->refused)), (int64_t)age->wanted, "%s: the flags", age->name);
        tap_ok(out.major == FUSE_KERNEL_VERSION && out.minor == age->answer, "%s: version 7.%u, answered %u.%u",
               age->name, age->answer, out.major, out.minor);
        tap_ok(out.max_write == VV_FUSE_IO_BYTES_MAX && out.max_pages * 4096u == VV_FUSE_IO_BYTES_MAX &&
                   out.max_readahead == 131072 && out.time_gran == 1 && out.max_background > 0 &&
                   out.congestion_threshold <= out.max_background,
               "%s: the limits", age->name);
    }
}

/* ---- who is refused ---- */

static ssize_t init_version(uint32_t major, uint32_t minor, size_t len)
{
    struct fuse_init_in in = {.major = major, .minor = minor, .flags = (uint32_t)MOUNT_OFFERED};
    struct kernel_ask ask = {.opcode = FUSE_INIT, .fixed = {(const uint8_t *)&in, len}};
    return kernel_call(ask);
}

static void test_refused(void)
{
    tap_is_int(init_version(7, 30, LEN_OLD), -EPROTO, "a kernel that is too old is refused");
    tap_is_int(init_version(7, 0, LEN_NEW), -EPROTO, "the first one too");
    tap_is_int(init_version(6, 99, LEN_NEW), -EPROTO, "another protocol");
    tap_is_int(init_version(7, 38, 0), -EPROTO, "an INIT of nothing");
    tap_is_int(init_version(7, 38, 4), -EPROTO, "an INIT without a minor");
    tap_is_int(mount_init(31, OLD_OFFERED, LEN_OLD), sizeof(struct fuse_init_out), "which does no harm to the next");
}

/* ---- by option ---- */

static void test_option(const char *name, struct vv_fuse_options options, uint64_t asked_for, uint64_t not_asked_for)
{
    tap_is_int(mount_door(&mount, options), 0, "%s: mounted", name);
    tap_is_int(mount_init(44, NEW_OFFERED, LEN_NEW), sizeof(struct fuse_init_out), "%s: INIT", name);
    tap_is_int((int64_t)(agreed() & (asked_for | not_asked_for)), (int64_t)asked_for, "%s: the flags", name);
    mount_close_door(&mount);
    tap_is_int(mount.gone_count, 1, "%s: and it is unmounted", name);
}

static void test_options(void)
{
    uint64_t locks = FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
    test_option("none", (struct vv_fuse_options){0}, locks | FUSE_CACHE_SYMLINKS | VV_FUSE_NO_EXPORT,
                FUSE_WRITEBACK_CACHE);
    test_option("writeback", (struct vv_fuse_options){.is_writeback = true}, locks | FUSE_WRITEBACK_CACHE, 0);
    test_option("no cache", (struct vv_fuse_options){.is_no_cache = true}, locks, FUSE_CACHE_SYMLINKS);
    test_option("kernel locking", (struct vv_fuse_options){.is_kernel_locking = true}, FUSE_CACHE_SYMLINKS, locks);
    test_option("handles", (struct vv_fuse_options){.is_opening_handles = true}, FUSE_EXPORT_SUPPORT, VV_FUSE_NO_EXPORT);
}

/* ---- what follows ---- */

static ssize_t set_value(size_t fixed_len, uint32_t size, const char *tail, size_t tail_len)
{
    struct fuse_setxattr_in in = {.size = size};
    struct kernel_ask ask = {.opcode = FUSE_SETXATTR,
                             .nodeid = MOUNT_ROOT,
                             .fixed = {(const uint8_t *)&in, fixed_len},
                             .tail = {(const uint8_t *)tail, tail_len}};
    return kernel_call(ask);
}

static ssize_t get_value(void)
{
    struct fuse_getxattr_in in = {.size = 100};
    struct kernel_ask ask = {
        .opcode = FUSE_GETXATTR, .nodeid = MOUNT_ROOT, .fixed = KERNEL_FIXED(in), .tail = KERNEL_NAME("user.k")};
    return kernel_call(ask);
}

/* A request that has another form when something was agreed on, and one that is then not wanted. */
static void test_forms(void)
{
    struct fuse_flush_in in = {0};
    struct kernel_ask flush = {.opcode = FUSE_FLUSH, .nodeid = MOUNT_ROOT, .fixed = KERNEL_FIXED(in)};
    tap_is_int(mount_door(&mount, (struct vv_fuse_options){0}), 0, "another mount");
    tap_is_int(mount_init(31, OLD_OFFERED & ~(uint64_t)FUSE_POSIX_LOCKS, LEN_OLD), sizeof(struct fuse_init_out),
               "of an old kernel");
    tap_is_int(set_value(FUSE_COMPAT_SETXATTR_IN_SIZE, 3, "user.k\0old", 10), 0, "sets an attribute in the old form");
    tap_is_int(get_value(), 3, "which has three bytes");
    tap_is_bytes(kernel.reply, "old", 3, "as they were sent");
    tap_is_int(kernel_call(flush), -ENOSYS, "without locks it is to send no FLUSH");
    tap_is_int(mount_init(37, MOUNT_OFFERED, LEN_NEW), sizeof(struct fuse_init_out), "a newer one");
    tap_is_int(set_value(sizeof(struct fuse_setxattr_in), 6, "user.k\0newer", 12), -EINVAL,
               "sets no attribute that is shorter than it says");
    tap_is_int(set_value(sizeof(struct fuse_setxattr_in), 5, "user.k\0newer", 12), 0, "but one in the new form");
    tap_is_int(get_value(), 5, "which has five bytes");
    tap_is_bytes(kernel.reply, "newer", 5, "as they were sent");
    tap_is_int(kernel_call(flush), 0, "with locks FLUSH is answered");
    mount_close_door(&mount);
}

static void test(void *arg)
{
    (void)arg;
    mount_open(&mount);
    test_ages();
    test_refused();
    mount_close_door(&mount);
    test_options();
    test_forms();
    mount_close(&mount);
}

int main(void)
{
    return mount_main(test);
}
