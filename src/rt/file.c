/* Files of the real runtime. */
#include "rt/real_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"

/* Copies up to this size are done on the reactor when the page cache can serve them. */
#define INLINE_READ_MAX (256u << 10)
#define INLINE_WRITE_MAX (256u << 10)
#define FILE_MODE 0600
/* What VV_FILE_DIRECT asks of memory, offset and length; and the shortest write that it is for. */
#define DIRECT_ALIGN 4096u
#define DIRECT_MIN (64u << 10)
/* Longer writes are a worker's: pinning their memory takes the reactor longer than waking one. */
#define RING_WRITE_MAX (256u << 10)
/* After so many refusals in turn the filesystem is taken to be one that can't write without waiting. */
#define RING_REFUSALS_MAX 64
#define EXPECTED_MAX_NS 400000u /* a synced write that takes so long is not polled for */

struct real_file {
    struct vv_file base;
    int fd;
    bool is_written;
    bool has_no_nowait; /* the filesystem can't read without waiting */
    bool is_direct;     /* VV_FILE_DIRECT, and the filesystem has not refused yet */
    bool is_direct_synced; /* likewise VV_FILE_DIRECT_SYNCED */
    bool is_direct_now;    /* the descriptor has O_DIRECT */
    bool is_cached;        /* the cache may hold pages of it */
    unsigned ring_refusals; /* since the last write by io_uring */
    uint64_t changes; /* counts what only fdatasync makes durable; who had the file before may have left some */
    uint64_t synced;  /* those of them for which that was done */
};

static struct real_file *real_file(struct vv_file *file)
{
    return vv_container_of(file, struct real_file, base);
}

/* Outside fibers there is nothing to suspend: what closes files at the end runs inline. */
static void run_blocking(void (*fn)(void *), void *arg)
{
    if (vv_fiber_self())
        vv_real_offload_blocking(fn, arg);
    else
        fn(arg);
}

/* ---- opening and closing ---- */

struct open_call {
    const char *path;
    int flags;
    int fd; /* or -errno */
};

static void run_open(void *arg)
{
    struct open_call *call = arg;
    do {
        call->fd = open(call->path, call->flags, FILE_MODE);
        call->fd = call->fd < 0 ? -errno : call->fd;
    } while (call->fd == -EINTR);
}

/* Open without waiting for a disk, which works when the path is in the kernel's cache. Any error
 * means: ask a worker. */
static int open_cached(const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)flags, .resolve = RESOLVE_CACHED};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

static int os_flags(unsigned flags)
{
    int os = O_RDONLY;
    if (flags & VV_FILE_WRITE)
        os = flags & VV_FILE_READ ? O_RDWR : O_WRONLY;
    if (flags & VV_FILE_CREATE)
        os |= O_CREAT;
    if (flags & VV_FILE_EXCLUSIVE)
        os |= O_EXCL;
    if (flags & VV_FILE_TRUNCATE)
        os |= O_TRUNC;
    return os | O_CLOEXEC;
}

int vv_real_file_open(const char *path, unsigned flags, struct vv_file **out_file)
{
    if ((flags & (VV_FILE_READ | VV_FILE_WRITE)) == 0)
        return -EINVAL;
    struct real_file *file = vv_zalloc(sizeof(*file));
    if (!file)
        return -ENOMEM;
    struct open_call call = {.path = path, .flags = os_flags(flags), .fd = -1};
    if ((flags & ~VV_FILE_READ) == 0)
        call.fd = open_cached(path, call.flags);
    if (call.fd < 0)
        vv_real_offload_blocking(run_open, &call);
    if (call.fd < 0) {
        vv_free(file);
        return call.fd;
    }
    file->base.ops = &vv_real_file_ops;
    file->fd = call.fd;
    file->is_written = (flags & VV_FILE_WRITE) != 0;
    file->changes = 1;
    file->is_cached = true;
    file->is_direct = (flags & VV_FILE_DIRECT) != 0;
    file->is_direct_synced = (flags & VV_FILE_DIRECT_SYNCED) != 0;
    *out_file = &file->base;
    return 0;
}

static void run_close(void *arg)
{
    const struct real_file *file = arg;
    close(file->fd);
}

/* Closing is quick, unless it ends writing or frees the blocks of a file without a name. */
static void real_close(struct vv_file *base)
{
    struct real_file *file = real_file(base);
    struct stat stat;
    if (!file->is_written && fstat(file->fd, &stat) == 0 && stat.st_nlink > 0)
        run_close(file);
    else
        run_blocking(run_close, file);
    vv_free(file);
}

/* ---- around the kernel's cache ---- */

static bool set_direct(int fd, bool is_on)
{
    int flags = fcntl(fd, F_GETFL);
    int wanted = is_on ? flags | O_DIRECT : flags & ~O_DIRECT;
    return flags >= 0 && fcntl(fd, F_SETFL, wanted) == 0;
}

/* O_DIRECT stays on from one synced write to the next, and goes before anything else. */
static int leave_direct(struct real_file *file)
{
    if (file->is_direct_now && !set_direct(file->fd, false))
        return -EIO;
    file->is_direct_now = false;
    return 0;
}

/* ---- reading ---- */

struct read_call {
    int fd;
    char *buf;
    size_t len;
    uint64_t offset;
    size_t done;
    int err;
    bool is_at_end;
};

/* Read on until done, the end or an error. */
static void read_all(struct read_call *call, int flags)
{
    while (call->done < call->len) {
        struct iovec iov = {call->buf + call->done, call->len - call->done};
        ssize_t got = preadv2(call->fd, &iov, 1, (off_t)(call->offset + call->done), flags);
        if (got < 0 && errno == EINTR)
            continue;
        call->err = got < 0 ? -errno : 0;
        call->is_at_end = got == 0;
        if (got <= 0)
            return;
        call->done += (size_t)got;
    }
}

static void run_read(void *arg)
{
    read_all(arg, 0);
}

static ssize_t real_pread(struct vv_file *base, void *buf, size_t len, uint64_t offset)
{
    struct real_file *file = real_file(base);
    struct read_call call = {.fd = file->fd, .buf = buf, .len = len, .offset = offset};
    if (len > SSIZE_MAX)
        return -EINVAL;
    TRY(leave_direct(file));
    file->is_cached = true;
    if (len <= INLINE_READ_MAX && !file->has_no_nowait) {
        read_all(&call, RWF_NOWAIT);
        if (call.done == len || call.is_at_end)
            return (ssize_t)call.done;
        if (call.err == -EOPNOTSUPP)
            file->has_no_nowait = true;
        else if (call.err != -EAGAIN)
            return call.err;
        call.err = 0;
    }
    vv_real_offload_blocking(run_read, &call);
    return call.err < 0 ? call.err : (ssize_t)call.done;
}

/* ---- writing ---- */

struct write_call {
    struct real_file *file;
    int fd;
    struct iovec *iov;
    int count;
    uint64_t offset;
    bool is_syncing;
    int err;
};

/* Take `len` bytes, which were written, off the front. */
static void advance(struct write_call *call, size_t len)
{
    call->offset += len;
    while (call->count > 0 && len >= call->iov->iov_len) {
        len -= call->iov->iov_len;
        call->iov++;
        call->count--;
    }
    if (len > 0) {
        call->iov->iov_base = (char *)call->iov->iov_base + len;
        call->iov->iov_len -= len;
    }
}

static int write_all(struct write_call *call)
{
    advance(call, 0);
    while (call->count > 0) {
        int count = call->count < IOV_MAX ? call->count : IOV_MAX;
        ssize_t written = pwritev(call->fd, call->iov, count, (off_t)call->offset);
        if (written < 0 && errno != EINTR)
            return -errno;
        if (written == 0)
            return -EIO;
        if (written > 0)
            advance(call, (size_t)written);
    }
    return 0;
}

/* Of a call with one buffer: how many bytes at its beginning may go around the cache. */
static size_t direct_len(const struct write_call *call)
{
    if (!call->file->is_direct || call->count != 1)
        return 0;
    uintptr_t base = (uintptr_t)call->iov->iov_base;
    size_t len = call->iov->iov_len & ~(size_t)(DIRECT_ALIGN - 1);
    bool is_aligned = base % DIRECT_ALIGN == 0 && call->offset % DIRECT_ALIGN == 0;
    return is_aligned && len >= DIRECT_MIN ? len : 0;
}

/* Write the beginning that is aligned without copying it into the kernel's cache: on a first touch of
 * its pages that copy costs several times what sealing does. What is left, or refused, is for write_all. */
static void write_direct(struct write_call *call)
{
    size_t left = direct_len(call);
    if (left == 0)
        return;
    if (!set_direct(call->fd, true)) {
        call->file->is_direct = false;
        return;
    }
    while (left > 0) {
        ssize_t written = pwrite(call->fd, call->iov->iov_base, left, (off_t)call->offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EINVAL)
            call->file->is_direct = false;
        if (written <= 0)
            break; /* write_all meets the same error, and reports it */
        advance(call, (size_t)written);
        left -= (size_t)written;
        if (written % DIRECT_ALIGN != 0)
            break;
    }
    if (!set_direct(call->fd, false))
        call->err = -EIO;
}

static bool is_sector_aligned(const struct write_call *call)
{
    uint64_t bits = call->offset;
    for (int i = 0; i < call->count; i++)
        bits |= (uintptr_t)call->iov[i].iov_base | call->iov[i].iov_len;
    return bits % VV_FILE_SECTOR == 0;
}

/* A synced write around the kernel's cache: nothing to copy, and nothing for fdatasync to look for and write.
 * What is left, or refused (sectors are larger, the filesystem can't), is for write_all. */
static void write_direct_synced(struct write_call *call)
{
    if (!call->is_syncing || !call->file->is_direct_synced || !is_sector_aligned(call))
        return;
    advance(call, 0);
    if (call->count == 0)
        return;
    if (!set_direct(call->fd, true)) {
        call->file->is_direct_synced = false;
        return;
    }
    int err = write_all(call);
    if (err == -EINVAL)
        call->file->is_direct_synced = false;
    if (!set_direct(call->fd, false))
        call->err = -EIO;
}

static void run_write(void *arg)
{
    struct write_call *call = arg;
    write_direct(call);
    write_direct_synced(call);
    if (call->err == 0)
        call->err = write_all(call);
    if (call->err == 0 && call->is_syncing && fdatasync(call->fd) != 0)
        call->err = -errno;
}

static void run_drop_cache(void *arg)
{
    const struct real_file *file = arg;
    (void)posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* May this synced write go by io_uring? It makes durable what it writes, so nothing may be left that only
 * fdatasync does. */
static bool is_for_ring(const struct write_call *call)
{
    const struct real_file *file = call->file;
    size_t total = 0;
    for (int i = 0; i < call->count && total <= RING_WRITE_MAX; i++)
        total += call->iov[i].iov_len;
    return file->is_direct_synced && vv_rt_uses_uring() && total > 0 && total <= RING_WRITE_MAX &&
           call->count <= IOV_MAX && is_sector_aligned(call) && file->changes == file->synced &&
           file->ring_refusals < RING_REFUSALS_MAX;
}

/* False: the descriptor can't have O_DIRECT. */
static bool enter_direct(struct real_file *file)
{
    /* A direct write to pages that the cache holds has to wait for them to go. */
    if (file->is_cached)
        vv_real_offload_blocking(run_drop_cache, file);
    file->is_cached = false;
    if (!file->is_direct_now)
        file->is_direct_now = set_direct(file->fd, true);
    return file->is_direct_now;
}

/* Write and sync from the reactor. False: a worker is to write what is left of `call`, and to sync. It meets the
 * same error again, and reports it; or, writing it again, makes it durable. */
static bool write_by_ring(struct write_call *call)
{
    struct real_file *file = call->file;
    struct vv_uring *uring = &vv_real_self()->uring;
    advance(call, 0);
    while (call->count > 0) {
        int written =
            vv_uring_pwritev_synced(uring, call->fd, call->iov, call->count, call->offset);
        if (written <= 0) {
            file->ring_refusals += written == -EAGAIN || written == -EOPNOTSUPP || written == -EINVAL;
            return false;
        }
        advance(call, (size_t)written);
    }
    file->ring_refusals = 0;
    return true;
}

static int real_pwritev(struct vv_file *base, struct iovec *iov, int count, uint64_t offset)
{
    struct real_file *file = real_file(base);
    struct write_call call = {
        .file = file, .fd = file->fd, .iov = iov, .count = count, .offset = offset};
    size_t total = 0;
    for (int i = 0; i < count && total <= INLINE_WRITE_MAX; i++)
        total += iov[i].iov_len;
    TRY(leave_direct(file));
    file->is_cached = true;
    if (total <= INLINE_WRITE_MAX && direct_len(&call) == 0)
        run_write(&call);
    else
        vv_real_offload_blocking(run_write, &call);
    file->changes++;
    return call.err;
}

static int real_pwritev_sync(struct vv_file *base, struct iovec *iov, int count, uint64_t offset)
{
    struct real_file *file = real_file(base);
    struct write_call call = {.file = file,
                              .fd = file->fd,
                              .iov = iov,
                              .count = count,
                              .offset = offset,
                              .is_syncing = true};
    struct vv_uring *uring = &vv_real_self()->uring;
    bool is_either = is_for_ring(&call);
    bool is_by_ring = is_either && vv_uring_is_quicker(uring) && enter_direct(file);
    uint64_t from_ns = vv_real_now_ns(NULL);
    if (is_by_ring) {
        bool is_expected = uring->ring_ns > 0 && uring->ring_ns <= EXPECTED_MAX_NS;
        if (is_expected)
            vv_real_expect(vv_real_self(), uring->ring_ns);
        bool is_written = write_by_ring(&call);
        if (is_expected)
            vv_real_expect_end(vv_real_self());
        if (is_written) {
            vv_uring_learn(uring, true, vv_real_now_ns(NULL) - from_ns);
            return 0;
        }
    }
    TRY(leave_direct(file));
    file->is_cached = file->is_cached || !is_either;
    uint64_t changes = file->changes; /* what ends meanwhile is for the next */
    bool is_expected = is_either && uring->worker_ns > 0 && uring->worker_ns <= EXPECTED_MAX_NS;
    if (is_expected)
        vv_real_expect(vv_real_self(), uring->worker_ns);
    vv_real_offload_blocking(run_write, &call);
    if (is_expected)
        vv_real_expect_end(vv_real_self());
    if (call.err != 0)
        file->changes++;
    else if (file->synced < changes)
        file->synced = changes;
    if (is_either && !is_by_ring && call.err == 0)
        vv_uring_learn(uring, false, vv_real_now_ns(NULL) - from_ns);
    return call.err;
}

static int real_datasync(struct vv_file *base)
{
    return real_pwritev_sync(base, NULL, 0, 0);
}

/* ---- size, space, lock ---- */

static int real_size(struct vv_file *base, uint64_t *out_bytes)
{
    struct stat stat;
    if (fstat(real_file(base)->fd, &stat) != 0)
        return -errno;
    *out_bytes = (uint64_t)stat.st_size;
    return 0;
}

struct change_call {
    int fd;
    uint64_t offset;
    uint64_t len;
    int err;
};

static void run_truncate(void *arg)
{
    struct change_call *call = arg;
    call->err = ftruncate(call->fd, (off_t)call->len) != 0 ? -errno : 0;
}

static int real_truncate(struct vv_file *base, uint64_t size)
{
    struct change_call call = {.fd = real_file(base)->fd, .len = size};
    vv_real_offload_blocking(run_truncate, &call);
    real_file(base)->changes++;
    return call.err;
}

static void run_allocate(void *arg)
{
    struct change_call *call = arg;
    do
        call->err = fallocate(call->fd, 0, (off_t)call->offset, (off_t)call->len) != 0 ? -errno : 0;
    while (call->err == -EINTR);
}

static int real_allocate(struct vv_file *base, uint64_t offset, uint64_t len)
{
    struct change_call call = {.fd = real_file(base)->fd, .offset = offset, .len = len};
    vv_real_offload_blocking(run_allocate, &call);
    real_file(base)->changes++;
    return call.err;
}

/* Of all lock families flock alone belongs to the open file: closing another descriptor of the
 * same file does not end it. */
static void run_lock(void *arg)
{
    struct change_call *call = arg;
    call->err = flock(call->fd, LOCK_EX | LOCK_NB) != 0 ? -errno : 0;
}

static int real_lock(struct vv_file *base)
{
    struct change_call call = {.fd = real_file(base)->fd};
    vv_real_offload_blocking(run_lock, &call);
    return call.err;
}

const struct vv_file_ops vv_real_file_ops = {
    .close = real_close,
    .pread = real_pread,
    .pwritev = real_pwritev,
    .datasync = real_datasync,
    .pwritev_sync = real_pwritev_sync,
    .size = real_size,
    .truncate = real_truncate,
    .allocate = real_allocate,
    .lock = real_lock,
};
