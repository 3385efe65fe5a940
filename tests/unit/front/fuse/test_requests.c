/* Requests that make no sense, requests that are taken back, locks that wait, and ends of the connection: each is answered
 * that can be, nothing is kept, and the next request is served. */
#include "front/fuse/fuse.h"

#include "mount.h"

#define NO_INODE 987654321u
#define NAME_LEN_LONG 300
#define LONG_ENTRIES 800u /* more than a reply has */

static struct mount mount;
static uint64_t inode, fh;

/* Who comes after a request that makes no sense. */
static bool is_served(void)
{
    return ask_lookup(MOUNT_ROOT, "file") == (int64_t)inode;
}

static struct vv_bytes bytes_of(const void *ptr, size_t len)
{
    return (struct vv_bytes){ptr, len};
}

/* ---- headers ---- */

static void test_lengths(void)
{
    static const int32_t lies[] = {-1, 1, -5, -40, 4096, INT32_MIN / 2, 1 << 20};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct kernel_ask ask = {
            .opcode = FUSE_LOOKUP, .nodeid = MOUNT_ROOT, .tail = KERNEL_NAME("file"), .lie = lies[i]};
        tap_is_int(kernel_call(ask), -EIO, "a header whose length is %d too long", lies[i]);
    }
    struct kernel_ask ask = {.opcode = FUSE_LOOKUP, .nodeid = MOUNT_ROOT, .tail = KERNEL_NAME("file"), .extlen = 9};
    tap_is_int(kernel_call(ask), -EIO, "extensions that are longer than the request");
    ask.extlen = UINT16_MAX;
    tap_is_int(kernel_call(ask), -EIO, "by far");
    ask = (struct kernel_ask){.opcode = FUSE_FORGET, .nodeid = inode, .lie = 8};
    kernel_tell(ask);
    tap_ok(is_served(), "the next is served");
    uint8_t piece[sizeof(struct fuse_in_header)] = {1, 2, 3};
    for (size_t len = 1; len < sizeof(piece); len += 13) {
        struct kernel_call *call = kernel_post_bytes(piece, len);
        tap_ok(is_served() && call->is_read && !call->is_answered, "%zu bytes are passed over", len);
        kernel_drop(call);
    }
}

static void test_opcodes(void)
{
    static const uint32_t opcodes[] = {0, 7, 19, FUSE_BMAP, FUSE_POLL, FUSE_NOTIFY_REPLY, FUSE_SETUPMAPPING,
                                       VV_FUSE_COPY_FILE_RANGE_64 + 1, 4096, UINT32_MAX};
    for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
        struct kernel_ask ask = {.opcode = opcodes[i], .nodeid = MOUNT_ROOT};
        tap_is_int(kernel_call(ask), -ENOSYS, "opcode %u is not known", opcodes[i]);
    }
}

/* Each opcode with nothing behind the header. */
static void test_empty(void)
{
    for (uint32_t opcode = 1; opcode <= VV_FUSE_COPY_FILE_RANGE_64; opcode++) {
        static const uint32_t whole[] = {FUSE_GETATTR, FUSE_STATFS, FUSE_FSYNC, FUSE_FSYNCDIR, FUSE_SYNCFS,
                                         FUSE_DESTROY, VV_FUSE_STATX};
        bool needs_nothing = false;
        for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
            needs_nothing |= opcode == whole[i];
        struct kernel_ask ask = {.opcode = opcode, .nodeid = MOUNT_ROOT};
        if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT) {
            kernel_tell(ask);
            continue;
        }
        ssize_t got = kernel_call(ask);
        tap_ok(needs_nothing ? got >= 0 : got < 0 && got != -ETIMEDOUT, "%s of nothing: %zd",
               vv_fuse_opcode_name(opcode), got);
    }
    tap_ok(is_served(), "the next is served");
}

/* ---- names ---- */

/* The operations that take names, with what stands before them. */
static const struct named {
    uint32_t opcode;
    size_t fixed_len;
    bool has_two;
} nameds[] = {
    {FUSE_LOOKUP, 0, false},
    {FUSE_MKNOD, sizeof(struct fuse_mknod_in), false},
    {FUSE_MKDIR, sizeof(struct fuse_mkdir_in), false},
    {FUSE_UNLINK, 0, false},
    {FUSE_RMDIR, 0, false},
    {FUSE_SYMLINK, 0, true},
    {FUSE_RENAME, sizeof(struct fuse_rename_in), true},
    {FUSE_RENAME2, sizeof(struct fuse_rename2_in), true},
    {FUSE_LINK, sizeof(struct fuse_link_in), false},
    {FUSE_CREATE, sizeof(struct fuse_create_in), false},
};

static ssize_t call_named(const struct named *named, const char *tail, size_t tail_len)
{
    uint8_t fixed[sizeof(struct fuse_mknod_in) + sizeof(struct fuse_create_in)] = {0};
    uint64_t node = named->opcode == FUSE_LINK ? inode : MOUNT_ROOT; /* oldnodeid; newdir */
    memcpy(fixed, &node, sizeof(node));
    struct kernel_ask ask = {.opcode = named->opcode,
                             .nodeid = MOUNT_ROOT,
                             .fixed = bytes_of(fixed, named->fixed_len),
                             .tail = bytes_of(tail, tail_len)};
    return kernel_call(ask);
}

static void test_names(void)
{
    char name[NAME_LEN_LONG];
    memset(name, 'n', sizeof(name));
    name[NAME_LEN_LONG - 1] = '\0';
    for (size_t i = 0; i < sizeof(nameds) / sizeof(nameds[0]); i++) {
        const struct named *named = &nameds[i];
        const char *text = vv_fuse_opcode_name(named->opcode);
        tap_is_int(call_named(named, "name", 4), -EINVAL, "%s of a name without an end", text);
        tap_is_int(call_named(named, "", 1), -EINVAL, "%s of an empty name", text);
        tap_is_int(call_named(named, name, sizeof(name)), -ENAMETOOLONG, "%s of a long one", text);
        if (!named->has_two)
            continue;
        tap_is_int(call_named(named, "file\0two", 8), -EINVAL, "%s of a second name without an end", text);
        tap_is_int(call_named(named, "file\0", 5), -EINVAL, "%s without a second name", text);
        tap_is_int(call_named(named, "file\0\0", 6), -EINVAL, "%s of an empty second one", text);
    }
    static const char *const bads[] = {"a/b", "..", "."};
    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++)
        for (size_t j = 1; j < sizeof(nameds) / sizeof(nameds[0]); j++)
            if (!nameds[j].has_two) {
                ssize_t got = call_named(&nameds[j], bads[i], strlen(bads[i]) + 1);
                tap_ok(got < 0 && got != -ETIMEDOUT && got != -EIO, "%s of \"%s\": %zd",
                       vv_fuse_opcode_name(nameds[j].opcode), bads[i], got);
            }
    tap_ok(is_served(), "the next is served");
}

static ssize_t call_value(uint32_t opcode, const char *tail, size_t tail_len, uint32_t size)
{
    struct fuse_setxattr_in set = {.size = size};
    struct fuse_getxattr_in get = {.size = size};
    bool is_set = opcode == FUSE_SETXATTR;
    struct kernel_ask ask = {.opcode = opcode,
                             .nodeid = inode,
                             .fixed = is_set ? bytes_of(&set, sizeof(set)) : bytes_of(&get, sizeof(get)),
                             .tail = bytes_of(tail, tail_len)};
    if (opcode == FUSE_REMOVEXATTR)
        ask.fixed.len = 0;
    return kernel_call(ask);
}

static void test_values(void)
{
    static char big[VV_XATTR_VALUE_MAX + 8] = "user.k";
    static const uint32_t opcodes[] = {FUSE_SETXATTR, FUSE_GETXATTR, FUSE_REMOVEXATTR};
    for (size_t i = 0; i < 3; i++) {
        const char *text = vv_fuse_opcode_name(opcodes[i]);
        tap_is_int(call_value(opcodes[i], "user.k", 6, 0), -ERANGE, "%s of a name without an end", text);
        tap_is_int(call_value(opcodes[i], "", 1, 0), -ERANGE, "%s of an empty one", text);
        char name[NAME_LEN_LONG];
        memset(name, 'n', sizeof(name));
        name[NAME_LEN_LONG - 1] = '\0';
        tap_is_int(call_value(opcodes[i], name, sizeof(name), 0), -ERANGE, "%s of a long one", text);
    }
    tap_is_int(call_value(FUSE_SETXATTR, "user.k\0value", 12, 6), -EINVAL, "a value shorter than it says");
    tap_is_int(call_value(FUSE_SETXATTR, "user.k\0value", 12, UINT32_MAX), -EINVAL, "by far");
    tap_is_int(call_value(FUSE_SETXATTR, big, sizeof(big), VV_XATTR_VALUE_MAX + 1), -E2BIG, "a value over the limit");
    tap_is_int(call_value(FUSE_SETXATTR, "user.k\0value", 12, 5), 0, "a value");
    tap_is_int(call_value(FUSE_GETXATTR, "user.k", 7, UINT32_MAX), 5, "asked for with more room than there is");
    tap_is_int(call_value(FUSE_GETXATTR, "user.k", 7, 4), -ERANGE, "with too little");
    tap_is_int(call_value(FUSE_LISTXATTR, "", 0, UINT32_MAX), 7, "the list with more room than there is");
    tap_is_int(call_value(FUSE_LISTXATTR, "", 0, 3), -ERANGE, "with too little");
}

/* ---- sizes and numbers ---- */

static void test_sizes(void)
{
    uint64_t dir_fh = 0;
    tap_is_int(ask_open(FUSE_OPENDIR, MOUNT_ROOT, O_RDONLY, &dir_fh), 0, "a directory");
    tap_is_int(ask_read(FUSE_READ, inode, fh, 0, UINT32_MAX), -EINVAL, "a READ over all limits");
    tap_is_int(ask_read(FUSE_READ, inode, fh, 0, VV_FUSE_BUFFER_BYTES + 1), -EINVAL, "just over them");
    tap_is_int(ask_read(FUSE_READ, inode, fh, 0, VV_FUSE_BUFFER_BYTES), 0, "one of an empty file");
    tap_is_int(ask_read(FUSE_READ, inode, fh, UINT64_MAX, 4096), 0, "behind all ends");
    ssize_t all = ask_read(FUSE_READDIR, MOUNT_ROOT, dir_fh, 0, UINT32_MAX);
    tap_ok(all >= 3 * 32, "a listing with more room than there is: %zd bytes", all);
    for (uint32_t room = 0; room < 24; room += 23)
        tap_is_int(ask_read(FUSE_READDIRPLUS, MOUNT_ROOT, dir_fh, 0, room), 0, "one into %u bytes", room);
    tap_is_int(ask_read(FUSE_READDIR, MOUNT_ROOT, dir_fh, UINT64_MAX, 4096), 0, "one from nowhere");
    tap_is_int(ask_release(FUSE_RELEASEDIR, MOUNT_ROOT, dir_fh), 0, "released");
    ssize_t got = ask_write(inode, fh, UINT64_MAX - 2, bytes_of("12345", 5));
    tap_ok(got < 0 && got != -ETIMEDOUT && got != -EIO, "a WRITE over the end of numbers: %zd", got);
    struct fuse_fallocate_in in = {.fh = fh, .offset = UINT64_MAX, .length = UINT64_MAX};
    struct kernel_ask ask = {.opcode = FUSE_FALLOCATE, .nodeid = inode, .fixed = KERNEL_FIXED(in)};
    got = kernel_call(ask);
    tap_ok(got < 0 && got != -ETIMEDOUT && got != -EIO, "FALLOCATE likewise: %zd", got);
    struct fuse_lseek_in seek = {.fh = fh, .offset = 0, .whence = SEEK_END};
    ask = (struct kernel_ask){.opcode = FUSE_LSEEK, .nodeid = inode, .fixed = KERNEL_FIXED(seek)};
    tap_is_int(kernel_call(ask), -EINVAL, "LSEEK of a kind that the kernel keeps to itself");
    struct fuse_ioctl_in ioctl_in = {.cmd = 0x12345678, .in_size = UINT32_MAX, .out_size = UINT32_MAX};
    ask = (struct kernel_ask){.opcode = FUSE_IOCTL, .nodeid = inode, .fixed = KERNEL_FIXED(ioctl_in)};
    tap_is_int(kernel_call(ask), -ENOTTY, "an ioctl that nobody knows");
}

/* A directory that is longer than a reply may be. */
static void test_long_listing(void)
{
    char name[VV_NAME_MAX + 1];
    struct fuse_mkdir_in in = {.mode = 0755};
    struct kernel_ask ask = {
        .opcode = FUSE_MKDIR, .nodeid = MOUNT_ROOT, .fixed = KERNEL_FIXED(in), .tail = KERNEL_NAME("long")};
    tap_is_int(kernel_call(ask), sizeof(struct fuse_entry_out), "a directory");
    uint64_t dir = (uint64_t)ask_lookup(MOUNT_ROOT, "long");
    memset(name, 'n', sizeof(name));
    name[VV_NAME_MAX] = '\0';
    ask.nodeid = dir;
    ask.tail = bytes_of(name, sizeof(name));
    for (unsigned i = 0; i < LONG_ENTRIES; i++) {
        name[0] = (char)('a' + i / 32);
        name[1] = (char)('a' + i % 32);
        if (kernel_call(ask) < 0)
            tap_ok(false, "an entry");
    }
    unsigned count = 0, replies = 0;
    ssize_t most = 0, got;
    uint64_t offset = 0;
    while ((got = ask_read(FUSE_READDIRPLUS, dir, 0, offset, UINT32_MAX)) > 0 && replies++ < LONG_ENTRIES) {
        most = got > most ? got : most;
        for (size_t at = 0; at < (size_t)got; count++) {
            struct fuse_dirent dirent;
            memcpy(&dirent, kernel.reply + at + sizeof(struct fuse_entry_out), FUSE_NAME_OFFSET);
            offset = dirent.off;
            at += sizeof(struct fuse_entry_out) + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + dirent.namelen);
        }
    }
    tap_ok(got == 0 && count == LONG_ENTRIES + 2, "all of %u long names are listed", count);
    tap_ok(replies > 1 && most <= 256 << 10, "in %u replies, of up to %zd bytes", replies, most);
}

static void test_inodes(void)
{
    static const uint64_t inodes[] = {0, NO_INODE, UINT64_MAX};
    for (size_t i = 0; i < sizeof(inodes) / sizeof(inodes[0]); i++) {
        unsigned long long number = inodes[i];
        uint64_t unused_fh;
        tap_is_int(ask_lookup(inodes[i], "name"), 0, "LOOKUP in inode %llu finds nothing", number);
        tap_is_int(ask_lookup(inodes[i], "."), -ESTALE, "of its own");
        tap_is_int(kernel_call((struct kernel_ask){.opcode = FUSE_GETATTR, .nodeid = inodes[i]}), -ESTALE, "GETATTR");
        tap_is_int(ask_open(FUSE_OPEN, inodes[i], O_RDONLY, &unused_fh), -ESTALE, "OPEN");
        tap_is_int(ask_open(FUSE_OPENDIR, inodes[i], O_RDONLY, &unused_fh), -ESTALE, "OPENDIR");
        tap_is_int(ask_read(FUSE_READ, inodes[i], 0, 0, 4096), -ESTALE, "READ");
        tap_is_int(ask_read(FUSE_READDIR, inodes[i], 0, 0, 4096), -ESTALE, "READDIR");
        tap_is_int(ask_write(inodes[i], 0, 0, bytes_of("x", 1)), -ESTALE, "WRITE");
        tap_is_int(ask_name(FUSE_UNLINK, inodes[i], "name"), -ESTALE, "UNLINK");
        tap_is_int(ask_create(inodes[i], "name", &(uint64_t){0}, &unused_fh), -ESTALE, "CREATE");
        tap_is_int(ask_rename(MOUNT_ROOT, "file", inodes[i], "name"), -ESTALE, "RENAME to there");
    }
    tap_ok(is_served(), "the next is served");
}

/* Two requests of one number are each answered. */
static void test_unique(void)
{
    struct kernel_ask ask = {
        .opcode = FUSE_LOOKUP, .nodeid = MOUNT_ROOT, .tail = KERNEL_NAME("file"), .unique = 77};
    struct kernel_call *calls[3];
    for (int i = 0; i < 3; i++)
        calls[i] = kernel_post(ask);
    for (int i = 0; i < 3; i++)
        tap_is_int(kernel_finish(calls[i]), sizeof(struct fuse_entry_out), "one of three of the same number");
    tap_is_int(kernel_call(ask), sizeof(struct fuse_entry_out), "and later again");
}

/* ---- forgetting ---- */

/* A batch that says how many it has, and has `len` bytes of: two of nothing, and two of `number`. */
static void forget_batch(uint32_t said, uint64_t number, size_t len)
{
    struct fuse_batch_forget_in in = {.count = said};
    struct fuse_forget_one ones[4] = {{NO_INODE, 0}, {UINT64_MAX, 0}, {number, 1}, {number, 1}};
    struct kernel_ask ask = {.opcode = FUSE_BATCH_FORGET, .fixed = KERNEL_FIXED(in), .tail = bytes_of(ones, len)};
    kernel_tell(ask);
}

static void forget(uint64_t number, uint64_t count)
{
    struct fuse_forget_in in = {.nlookup = count};
    struct kernel_ask ask = {.opcode = FUSE_FORGET, .nodeid = number, .fixed = KERNEL_FIXED(in)};
    kernel_tell(ask);
}

static void test_forget(void)
{
    const size_t one = sizeof(struct fuse_forget_one);
    uint64_t other, other_fh;
    tap_is_int(ask_create(MOUNT_ROOT, "other", &other, &other_fh), 0, "another file");
    tap_is_int(ask_release(FUSE_RELEASE, other, other_fh), 0, "of which the kernel was told once");
    forget_batch(0, other, 4 * one);
    forget_batch(2, other, 4 * one);
    forget_batch(3, other, 2 * one);
    forget_batch(UINT32_MAX, other, 3 * one - 1);
    forget_batch(2, other, 0);
    struct kernel_ask ask = {.opcode = FUSE_FORGET, .nodeid = other, .tail = bytes_of("\1\0\0\0\0\0\0", 7)};
    kernel_tell(ask);
    tap_ok(is_served() && vv_fuse_is_known(mount.fuse, other), "what was not wholly forgotten is known");
    forget_batch(3, other, 4 * one);
    tap_ok(!vv_fuse_is_known(mount.fuse, other), "one in a batch that has more than it says is forgotten");
    tap_is_int(ask_lookup(MOUNT_ROOT, "other"), (int64_t)other, "told again");
    tap_is_int(ask_lookup(MOUNT_ROOT, "other"), (int64_t)other, "and again");
    forget(other, UINT64_MAX); /* one more, */
    forget(other, 2);          /* and two less */
    tap_ok(is_served() && vv_fuse_is_known(mount.fuse, other), "numbers that overflow do no harm");
    forget_batch(UINT32_MAX, other, 3 * one);
    tap_ok(!vv_fuse_is_known(mount.fuse, other), "nor does a batch that has less than it says");
    tap_is_int(ask_name(FUSE_UNLINK, MOUNT_ROOT, "other"), 0, "removed");
}

/* ---- directories that somebody may be in ---- */

static uint64_t make_dir(uint64_t parent, const char *name)
{
    struct fuse_mkdir_in in = {.mode = 0755};
    struct kernel_ask ask = {
        .opcode = FUSE_MKDIR, .nodeid = parent, .fixed = KERNEL_FIXED(in), .tail = KERNEL_NAME(name)};
    struct fuse_entry_out out = {0};
    if (kernel_call(ask) < 0)
        return 0;
    memcpy(&out, kernel.reply, sizeof(out));
    return out.nodeid;
}

/* The links that GETATTR says it has. */
static int64_t links_of(uint64_t number)
{
    struct fuse_attr_out out;
    TRY(kernel_call((struct kernel_ask){.opcode = FUSE_GETATTR, .nodeid = number}));
    memcpy(&out, kernel.reply, sizeof(out));
    return out.attr.nlink;
}

static void test_removed(void)
{
    uint64_t outer = make_dir(MOUNT_ROOT, "outer"), inner = make_dir(outer, "inner");
    uint64_t dir_fh, last = make_dir(MOUNT_ROOT, "last"), moved = make_dir(MOUNT_ROOT, "moved");
    tap_is_int(ask_name(FUSE_RMDIR, MOUNT_ROOT, "outer"), -ENOTEMPTY, "a directory that is not empty stays");
    tap_is_int(links_of(outer), 3, "as it was");
    tap_is_int(ask_name(FUSE_RMDIR, outer, "inner"), 0, "one is removed");
    tap_is_int(ask_name(FUSE_RMDIR, MOUNT_ROOT, "outer"), 0, "and the one it was in");
    tap_is_int(links_of(inner), 0, "who is in it still has its attributes");
    tap_is_int(links_of(outer), 0, "and those of the one above");
    tap_is_int(ask_open(FUSE_OPENDIR, inner, O_RDONLY, &dir_fh), 0, "and opens it");
    tap_is_int(ask_release(FUSE_RELEASEDIR, inner, dir_fh), 0, "and closes it");
    tap_is_int((int64_t)make_dir(inner, "new"), 0, "but makes nothing there");
    tap_is_int(ask_rename(MOUNT_ROOT, "file", inner, "new"), -ENOENT, "and moves nothing there");
    forget(inner, 1);
    tap_is_int(links_of(inner), -ESTALE, "until the kernel forgets it");
    tap_is_int(links_of(outer), 0, "it alone");
    forget_batch(3, outer, 3 * sizeof(struct fuse_forget_one));
    tap_is_int(links_of(outer), -ESTALE, "until that is forgotten, too");
    tap_is_int(ask_rename(MOUNT_ROOT, "moved", MOUNT_ROOT, "last"), 0, "a directory in place of an empty one");
    tap_is_int(links_of(last), 0, "of which the same is true");
    tap_is_int(links_of(moved), 2, "and nothing of the one that was moved");
    forget(last, 1);
    tap_is_int(links_of(last), -ESTALE, "forgotten");
    forget(moved, 1);
    tap_is_int(links_of(moved), 2, "what has a name is there when it is forgotten");
    tap_is_int(ask_name(FUSE_RMDIR, MOUNT_ROOT, "last"), 0, "one that is still known when the mount ends");
}

/* ---- locks that wait ---- */

static void interrupt(uint64_t unique)
{
    struct fuse_interrupt_in in = {.unique = unique};
    kernel_tell((struct kernel_ask){.opcode = FUSE_INTERRUPT, .unique = unique | 1, .fixed = KERNEL_FIXED(in)});
}

static bool is_waiting(struct kernel_call *call)
{
    vv_rt_sleep_ns(VV_NS_PER_MS);
    return call->is_read && !call->is_answered;
}

static void test_interrupt(void)
{
    interrupt(123456);
    tap_ok(is_served(), "an interrupt of nothing does nothing");
    tap_is_int(ask_lock(FUSE_SETLK, inode, fh, 1, F_WRLCK), 0, "a lock");
    tap_is_int(ask_lock(FUSE_SETLK, inode, fh, 2, F_WRLCK), -EAGAIN, "which another can't have");
    struct kernel_call *first = post_lock(FUSE_SETLKW, inode, fh, 2, F_WRLCK);
    struct kernel_call *second = post_lock(FUSE_SETLKW, inode, fh, 3, F_WRLCK);
    tap_ok(is_waiting(first) && is_waiting(second), "and two wait for");
    interrupt(123456);
    tap_ok(is_waiting(first) && is_waiting(second), "an interrupt of nothing wakes neither");
    interrupt(first->header.unique);
    tap_is_int(kernel_finish(first), -EINTR, "one of the first wakes it");
    tap_ok(is_waiting(second), "and not the other");
    uint64_t unique = second->header.unique;
    tap_is_int(ask_lock(FUSE_SETLK, inode, fh, 1, F_UNLCK), 0, "unlocked");
    tap_is_int(kernel_finish(second), 0, "the other has it");
    first = post_lock(FUSE_SETLKW, inode, fh, 2, F_WRLCK);
    interrupt(first->header.unique);
    tap_is_int(kernel_finish(first), -EINTR, "an interrupt that comes with its request");
    interrupt(unique);
    tap_is_int(ask_lock(FUSE_SETLK, inode, fh, 3, F_UNLCK), 0, "unlocked, with an interrupt after the fact");
    tap_is_int(mount.fuse->stats.lock_waiters, 0, "nobody waits any more");
}

/* ---- answers that nobody waits for ---- */

/* What was handed out is taken back. */
static void test_taken_back(void)
{
    uint32_t process = (uint32_t)vv_sim_process_self();
    struct vv_fs_call call = {.cred = {.is_checked = true}, .door = 1};
    struct vv_attr taken;
    uint64_t some, dir_fh;
    tap_is_int(ask_open(FUSE_OPENDIR, MOUNT_ROOT, O_RDONLY, &dir_fh), 0, "a directory");
    struct vv_list *opens = &mount.fuse->opens;
    const struct vv_list *last = opens->prev;
    kernel.is_taking_back = true;
    tap_is_int(ask_create(MOUNT_ROOT, "taken", &some, &some), -EINTR, "a CREATE that was taken back");
    tap_is_int(vv_fs_lookup(mount.fs, &call, MOUNT_ROOT, "taken", 5, &taken), 0, "has made its file");
    tap_ok(opens->prev == last && !vv_fuse_is_known(mount.fuse, taken.inode), "of which the kernel has nothing");
    tap_is_int(vv_fs_sync(mount.fs, 0), 0, "synced");
    size_t count = vv_alloc_domain_count(process);
    tap_is_int(ask_open(FUSE_OPEN, inode, O_RDWR, &some), -EINTR, "an OPEN");
    tap_is_int(ask_open(FUSE_OPENDIR, MOUNT_ROOT, O_RDONLY, &some), -EINTR, "an OPENDIR");
    tap_ok(opens->prev == last, "leave nothing open");
    tap_is_int(ask_lookup(MOUNT_ROOT, "taken"), -EINTR, "a LOOKUP");
    tap_ok(!vv_fuse_is_known(mount.fuse, taken.inode), "tells of nothing");
    tap_is_int(ask_read(FUSE_READDIRPLUS, MOUNT_ROOT, dir_fh, 0, 4096), -EINTR, "a READDIRPLUS");
    tap_ok(!vv_fuse_is_known(mount.fuse, taken.inode), "neither");
    tap_ok(vv_alloc_domain_count(process) <= count, "and none keeps memory");
    kernel.is_taking_back = false;
    tap_is_int(ask_release(FUSE_RELEASEDIR, MOUNT_ROOT, dir_fh), 0, "released");
    tap_is_int(ask_name(FUSE_UNLINK, MOUNT_ROOT, "taken"), 0, "and removed");
}

/* ---- ends ---- */

static void remount(void)
{
    mount_close_door(&mount);
    tap_is_int(mount.gone_count, 1, "who mounted is told once that it is gone");
    tap_is_int(mount_door(&mount, (struct vv_fuse_options){0}), 0, "mounted again");
    tap_is_int(mount_init(38, MOUNT_OFFERED, sizeof(struct fuse_init_in)), sizeof(struct fuse_init_out), "INIT");
    tap_is_int(ask_lookup(MOUNT_ROOT, "file"), (int64_t)inode, "the file is there");
    tap_is_int(ask_open(FUSE_OPEN, inode, O_RDWR, &fh), 0, "opened");
}

static void test_reading_errors(void)
{
    static const int errors[] = {-EINTR, -ENOENT};
    for (size_t i = 0; i < 2; i++) {
        kernel.read_error = errors[i];
        vv_waitq_wake_all(&kernel.readers);
        tap_ok(is_served() && kernel.read_error == 0, "reading fails with %d, and goes on", errors[i]);
    }
}

static void test_ends(void)
{
    static uint8_t bytes[VV_FUSE_IO_BYTES_MAX];
    tap_is_int(ask_lock(FUSE_SETLK, inode, fh, 1, F_WRLCK), 0, "a lock");
    struct kernel_call *wait = post_lock(FUSE_SETLKW, inode, fh, 2, F_WRLCK);
    tap_ok(is_waiting(wait), "which another waits for");
    for (int i = 0; i < 12; i++) /* more than there are buffers */
        post_write(inode, fh, (uint64_t)i << 20, bytes_of(bytes, sizeof(bytes)));
    for (int i = 0; i < 12; i++)
        kernel_post((struct kernel_ask){.opcode = FUSE_SYNCFS, .nodeid = MOUNT_ROOT});
    vv_fiber_yield();
    kernel_end();
    remount();
    tap_is_int(ask_lock(FUSE_SETLK, inode, fh, 2, F_WRLCK), 0, "with the connection, its locks are gone");
    tap_is_int(kernel_call((struct kernel_ask){.opcode = FUSE_DESTROY}), 0, "DESTROY is answered");
    tap_ok(is_served(), "and ends nothing by itself");
    wait = post_lock(FUSE_SETLKW, inode, fh, 3, F_WRLCK);
    tap_ok(is_waiting(wait), "another waits for the lock");
    kernel_end();
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(vv_fuse_is_gone(mount.fuse), "the connection does");
    tap_is_int(mount.fuse->stats.lock_waiters, 0, "and nobody waits any more");
    remount();
    kernel.read_error = -EIO;
    vv_waitq_wake_all(&kernel.readers);
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(vv_fuse_is_gone(mount.fuse), "a device that fails ends it too");
    kernel_end();
    remount();
    kernel.is_busy = true;
    unsigned syncs = kernel.syncs;
    remount();
    tap_is_int(kernel.syncs, syncs + 1, "a mount that is busy is written back before it is cut");
}

static void test(void *arg)
{
    (void)arg;
    mount_open(&mount);
    tap_is_int(ask_create(MOUNT_ROOT, "file", &inode, &fh), 0, "a file");
    test_lengths();
    test_opcodes();
    test_empty();
    test_names();
    test_values();
    test_sizes();
    test_long_listing();
    test_inodes();
    test_unique();
    test_forget();
    test_removed();
    test_interrupt();
    test_taken_back();
    test_reading_errors();
    test_ends();
    mount_close(&mount);
}

int main(void)
{
    return mount_main(test);
}
