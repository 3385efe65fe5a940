/* Files and paths, in both runtimes: one body. */
#include "both.h"

#include <errno.h>

#include "base/alloc.h"

static const char *path_in(const struct both *both, const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", both->dir, name);
    return path;
}

static int write_text(struct vv_file *file, const char *text, uint64_t offset)
{
    char copy[256];
    snprintf(copy, sizeof(copy), "%s", text);
    struct iovec iov = {copy, strlen(copy)};
    return vv_file_pwritev(file, &iov, 1, offset);
}

/* The file's bytes as text, cut to the buffer. */
static const char *read_text(struct vv_file *file, uint64_t offset)
{
    static char text[64];
    memset(text, 0, sizeof(text));
    ssize_t got = vv_file_pread(file, text, sizeof(text) - 1, offset);
    return got < 0 ? "(error)" : text;
}

#define READ_WRITE (VV_FILE_READ | VV_FILE_WRITE)

static struct vv_file *open_new(const struct both *both, const char *name)
{
    struct vv_file *file = NULL;
    int err = vv_file_open(path_in(both, name), READ_WRITE | VV_FILE_CREATE, &file);
    tap_is_int(err, 0, "%s: %s is opened", both->runtime, name);
    return file;
}

static void test_open(struct both *both)
{
    struct vv_file *file = NULL;
    const char *rt = both->runtime;
    int err = vv_file_open(path_in(both, "none"), VV_FILE_READ, &file);
    tap_is_int(err, -ENOENT, "%s: a file that is not there", rt);
    err = vv_file_open(path_in(both, "none/none"), READ_WRITE | VV_FILE_CREATE, &file);
    tap_is_int(err, -ENOENT, "%s: a directory that is not there", rt);
    err = vv_file_open(path_in(both, ""), READ_WRITE, &file);
    tap_is_int(err, -EISDIR, "%s: a directory is no file", rt);
    err = vv_file_open(path_in(both, "x"), VV_FILE_CREATE, &file);
    tap_is_int(err, -EINVAL, "%s: a file is read or written", rt);
    tap_ok(file == NULL, "%s: outputs untouched", rt);
    file = open_new(both, "open");
    tap_is_int(write_text(file, "text", 0), 0, "%s: write", rt);
    vv_file_close(file);
    err =
        vv_file_open(path_in(both, "open"), READ_WRITE | VV_FILE_CREATE | VV_FILE_EXCLUSIVE, &file);
    tap_is_int(err, -EEXIST, "%s: an exclusive file must be new", rt);
    err = vv_file_open(path_in(both, "open/x"), READ_WRITE | VV_FILE_CREATE, &file);
    tap_is_int(err, -ENOTDIR, "%s: a file is no directory", rt);
    err = vv_file_open(path_in(both, "open"), VV_FILE_READ, &file);
    tap_is_int(err, 0, "%s: open for reading", rt);
    tap_is_str(read_text(file, 0), "text", "%s: what was written", rt);
    tap_is_int(write_text(file, "x", 0), -EBADF, "%s: not for writing", rt);
    vv_file_close(file);
    err = vv_file_open(path_in(both, "open"), READ_WRITE | VV_FILE_TRUNCATE, &file);
    tap_is_int(err, 0, "%s: open and truncate", rt);
    tap_is_str(read_text(file, 0), "", "%s: nothing is left", rt);
    vv_file_close(file);
    vv_file_close(NULL);
}

static void test_read_write(struct both *both)
{
    const char *rt = both->runtime;
    struct vv_file *file = open_new(both, "data");
    uint64_t size = 1;
    tap_is_int(vv_file_size(file, &size), 0, "%s: size", rt);
    tap_is_int((int64_t)size, 0, "%s: a new file is empty", rt);
    char a[] = "abc";
    char b[] = "defgh";
    struct iovec iov[4] = {{a, 3}, {NULL, 0}, {b, 5}, {NULL, 0}};
    tap_is_int(vv_file_pwritev(file, iov, 4, 2), 0, "%s: a vector is written", rt);
    char buf[32] = "";
    ssize_t got = vv_file_pread(file, buf, sizeof(buf), 0);
    tap_is_int(got, 10, "%s: short at the end", rt);
    tap_is_bytes(buf, "\0\0abcdefgh", 10, "%s: a hole reads as zeros", rt);
    tap_is_int(vv_file_pread(file, buf, 3, 10), 0, "%s: nothing at the end", rt);
    tap_is_int(vv_file_pread(file, buf, 3, 1000), 0, "%s: nothing after the end", rt);
    tap_is_int(vv_file_pread(file, buf, 0, 0), 0, "%s: nothing asked for", rt);
    tap_is_int(vv_file_truncate(file, 4), 0, "%s: truncate", rt);
    tap_is_int(vv_file_truncate(file, 6), 0, "%s: extend", rt);
    got = vv_file_pread(file, buf, sizeof(buf), 0);
    tap_is_int(got, 6, "%s: the new size", rt);
    tap_is_bytes(buf, "\0\0ab\0\0", 6, "%s: what was cut off is zero", rt);
    tap_is_int(vv_file_datasync(file), 0, "%s: sync", rt);
    struct iovec one = {b, 5};
    tap_is_int(vv_file_pwritev_sync(file, &one, 1, 6), 0, "%s: write and sync", rt);
    tap_is_int(vv_file_pwritev(file, NULL, 0, 0), 0, "%s: an empty vector", rt);
    tap_is_int(vv_file_allocate(file, 0, 100000), 0, "%s: allocate", rt);
    tap_is_int(vv_file_size(file, &size), 0, "%s: size", rt);
    tap_is_int((int64_t)size, 100000, "%s: allocating extends", rt);
    got = vv_file_pread(file, buf, 5, 6);
    tap_is_int(got, 5, "%s: read", rt);
    tap_is_bytes(buf, "defgh", 5, "%s: allocating keeps what is there", rt);
    vv_file_close(file);
}

#define BIG_BYTES (3u << 20)

/* Larger than what is done inline, and not aligned to anything. */
static void test_big(struct both *both)
{
    const char *rt = both->runtime;
    struct vv_file *file = open_new(both, "big");
    uint8_t *bytes = vv_alloc(BIG_BYTES);
    uint8_t *back = vv_alloc(BIG_BYTES);
    for (size_t i = 0; i < BIG_BYTES; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 4096);
    struct iovec iov[3] = {
        {bytes, 1}, {bytes + 1, 1000000}, {bytes + 1000001, BIG_BYTES - 1000001}};
    tap_is_int(vv_file_pwritev(file, iov, 3, 12345), 0, "%s: a big write", rt);
    tap_is_int(vv_file_pread(file, back, BIG_BYTES, 12345), BIG_BYTES, "%s: a big read", rt);
    tap_is_bytes(back, bytes, BIG_BYTES, "%s: the same bytes", rt);
    tap_is_int(vv_file_pread(file, back, 5000, 12345 + 5000), 5000, "%s: in the middle", rt);
    tap_is_bytes(back, bytes + 5000, 5000, "%s: the same bytes", rt);
    vv_free(bytes);
    vv_free(back);
    vv_file_close(file);
}

/* Writes around the kernel's cache, where the filesystem has them: aligned, with a rest, and not at all. */
static void test_direct(struct both *both)
{
    const char *rt = both->runtime;
    struct vv_file *file = NULL;
    uint8_t *bytes = vv_alloc_aligned(4096, BIG_BYTES);
    uint8_t *back = vv_alloc(BIG_BYTES);
    int err = vv_file_open(path_in(both, "direct"), READ_WRITE | VV_FILE_CREATE | VV_FILE_DIRECT, &file);
    tap_is_int(err, 0, "%s: open for direct writes", rt);
    for (size_t i = 0; i < BIG_BYTES; i++)
        bytes[i] = (uint8_t)(i * 11 + i / 4096);
    static const struct { size_t from, len; uint64_t offset; } writes[] = {
        {0, 1u << 20, 0}, {1u << 20, (1u << 20) + 777, 1u << 20}, {(2u << 20) + 777, 300000, (2u << 20) + 777},
        {4096, 65536, 4096}, {8192, 4096, 8192},
    };
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        struct iovec iov = {bytes + writes[i].from, writes[i].len};
        err = i % 2 == 0 ? vv_file_pwritev(file, &iov, 1, writes[i].offset)
                         : vv_file_pwritev_sync(file, &iov, 1, writes[i].offset);
        tap_is_int(err, 0, "%s: direct write %zu", rt, i);
    }
    size_t total = (2u << 20) + 777 + 300000;
    uint64_t size = 0;
    tap_is_int(vv_file_size(file, &size), 0, "%s: size", rt);
    tap_is_int((int64_t)size, (int64_t)total, "%s: not a byte more", rt);
    tap_is_int(vv_file_pread(file, back, BIG_BYTES, 0), (int64_t)total, "%s: read", rt);
    tap_is_bytes(back, bytes, total, "%s: the same bytes", rt);
    vv_free(bytes);
    vv_free(back);
    vv_file_close(file);
}

#define SYNCED_BYTES 40000

/* Synced writes around the kernel's cache, between ones that are not aligned, or not synced, in the same pages. */
static void test_direct_synced(struct both *both)
{
    const char *rt = both->runtime;
    struct vv_file *file = NULL;
    uint8_t *bytes = vv_alloc_aligned(VV_FILE_SECTOR, SYNCED_BYTES);
    uint8_t *expected = vv_zalloc(SYNCED_BYTES);
    uint8_t *back = vv_alloc(SYNCED_BYTES);
    unsigned flags = READ_WRITE | VV_FILE_CREATE | VV_FILE_DIRECT_SYNCED;
    int err = vv_file_open(path_in(both, "direct-synced"), flags, &file);
    tap_is_int(err, 0, "%s: open for direct synced writes", rt);
    static const struct { size_t from[2], len[2]; uint64_t offset; bool is_synced; } writes[] = {
        {{0, 0}, {SYNCED_BYTES, 0}, 0, false},      {{512, 4096}, {4608, 0}, 0, true},
        {{1024, 0}, {512, 0}, 4608, true},          {{0, 8192}, {512, 1536}, 5120, true},
        {{3, 0}, {700, 0}, 7000, true},             {{512, 515}, {512, 512}, 7168, true},
        {{2048, 0}, {1024, 0}, 6656, true},         {{1, 0}, {100, 0}, 6700, false},
        {{4096, 0}, {20480, 0}, 8192, true},        {{9, 0}, {512, 0}, 512, true},
        {{512, 0}, {511, 0}, 1024, true},           {{512, 1536}, {0, 1024}, 30720, true},
    };
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        struct iovec iov[2];
        size_t at = writes[i].offset;
        for (size_t j = 0; j < SYNCED_BYTES; j++)
            bytes[j] = (uint8_t)(j * 7 + j / 512 + i * 31);
        for (int j = 0; j < 2; j++) {
            iov[j] = (struct iovec){bytes + writes[i].from[j], writes[i].len[j]};
            memcpy(expected + at, iov[j].iov_base, iov[j].iov_len);
            at += iov[j].iov_len;
        }
        err = writes[i].is_synced ? vv_file_pwritev_sync(file, iov, 2, writes[i].offset)
                                  : vv_file_pwritev(file, iov, 2, writes[i].offset);
        tap_is_int(err, 0, "%s: synced write %zu", rt, i);
        tap_is_int(vv_file_pread(file, back, SYNCED_BYTES, 0), SYNCED_BYTES, "%s: read", rt);
        tap_is_bytes(back, expected, SYNCED_BYTES, "%s: what was written", rt);
    }
    vv_free(bytes);
    vv_free(expected);
    vv_free(back);
    vv_file_close(file);
}

static void test_lock(struct both *both)
{
    const char *rt = both->runtime;
    struct vv_file *first = open_new(both, "lock");
    struct vv_file *second = open_new(both, "lock");
    tap_is_int(vv_file_lock(first), 0, "%s: a lock", rt);
    tap_is_int(vv_file_lock(first), 0, "%s: taking it again is harmless", rt);
    tap_is_int(vv_file_lock(second), -EWOULDBLOCK, "%s: there is one lock", rt);
    vv_file_close(first);
    tap_is_int(vv_file_lock(second), 0, "%s: closing gives it up", rt);
    vv_file_close(second);
}

/* ---- paths ---- */

static bool is_there(const char *path)
{
    struct vv_path_stat stat;
    return vv_path_stat(path, &stat) == 0;
}

static void test_names(struct both *both)
{
    const char *rt = both->runtime;
    struct vv_file *file = open_new(both, "a");
    tap_is_int(write_text(file, "first", 0), 0, "%s: write", rt);
    tap_is_int(vv_path_link(path_in(both, "a"), path_in(both, "b")), 0, "%s: link", rt);
    tap_is_int(vv_path_link(path_in(both, "a"), path_in(both, "b")), -EEXIST,
               "%s: a link replaces nothing", rt);
    tap_is_int(vv_path_link(path_in(both, "none"), path_in(both, "c")), -ENOENT,
               "%s: a link to nothing", rt);
    tap_is_int(vv_path_unlink(path_in(both, "a")), 0, "%s: unlink", rt);
    tap_ok(!is_there(path_in(both, "a")), "%s: the name is gone", rt);
    tap_is_int(vv_path_unlink(path_in(both, "a")), -ENOENT, "%s: once", rt);
    tap_is_str(read_text(file, 0), "first", "%s: the open file is there", rt);
    vv_file_close(file);

    file = open_new(both, "c");
    tap_is_int(write_text(file, "second", 0), 0, "%s: write", rt);
    vv_file_close(file);
    tap_is_int(vv_path_rename(path_in(both, "c"), path_in(both, "b")), 0, "%s: rename", rt);
    tap_ok(!is_there(path_in(both, "c")), "%s: the old name is gone", rt);
    file = open_new(both, "b");
    tap_is_str(read_text(file, 0), "second", "%s: the new name is replaced", rt);
    vv_file_close(file);
    tap_is_int(vv_path_rename(path_in(both, "none"), path_in(both, "b")), -ENOENT,
               "%s: renaming nothing", rt);
    tap_is_int(vv_path_unlink(path_in(both, "b")), 0, "%s: unlink", rt);
}

static void test_directories(struct both *both)
{
    const char *rt = both->runtime;
    struct vv_path_stat stat;
    tap_is_int(vv_path_mkdir(path_in(both, "d")), 0, "%s: mkdir", rt);
    tap_is_int(vv_path_mkdir(path_in(both, "d")), -EEXIST, "%s: once", rt);
    tap_is_int(vv_path_mkdir(path_in(both, "none/d")), -ENOENT, "%s: in nothing", rt);
    struct vv_file *file = open_new(both, "d/file");
    tap_is_int(write_text(file, "12345", 0), 0, "%s: write", rt);
    vv_file_close(file);
    tap_is_int(vv_path_stat(path_in(both, "d/file"), &stat), 0, "%s: stat", rt);
    tap_ok(stat.size == 5 && !stat.is_dir, "%s: a file of 5 bytes", rt);
    tap_is_int(vv_path_stat(path_in(both, "d/"), &stat), 0, "%s: stat", rt);
    tap_ok(stat.is_dir, "%s: a directory", rt);
    tap_is_int(vv_path_rmdir(path_in(both, "d")), -ENOTEMPTY, "%s: not empty", rt);
    tap_is_int(vv_path_rmdir(path_in(both, "d/file")), -ENOTDIR, "%s: no directory", rt);
    tap_is_int(vv_path_unlink(path_in(both, "d")), -EISDIR, "%s: no file", rt);
    tap_is_int(vv_path_sync_dir(path_in(both, "d")), 0, "%s: sync", rt);
    tap_is_int(vv_path_sync_dir(path_in(both, "none")), -ENOENT, "%s: sync nothing", rt);
    tap_is_int(vv_path_sync_dir(path_in(both, "d/file")), -ENOTDIR, "%s: sync a file", rt);
    tap_is_int(vv_path_rename(path_in(both, "d/file"), path_in(both, "moved")), 0,
               "%s: move to another directory", rt);
    tap_is_int(vv_path_rename(path_in(both, "d"), path_in(both, "e")), 0, "%s: rename a directory",
               rt);
    tap_is_int(vv_path_rename(path_in(both, "e"), path_in(both, "e/f")), -EINVAL,
               "%s: not into itself", rt);
    tap_is_int(vv_path_rmdir(path_in(both, "e")), 0, "%s: rmdir", rt);
    tap_is_int(vv_path_unlink(path_in(both, "moved")), 0, "%s: unlink", rt);
    uint64_t free_bytes = 1;
    uint64_t total = 0;
    tap_is_int(vv_path_space(both->dir, &free_bytes, &total), 0, "%s: space", rt);
    tap_ok(free_bytes <= total && total > 0, "%s: free is part of the total", rt);
}

#define LISTED 100

struct listing {
    bool seen[LISTED];
    int files;
    int directories;
    int limit;
};

static int visit(void *arg, const char *name, bool is_dir)
{
    struct listing *listing = arg;
    int number = atoi(name + 1);
    if (is_dir)
        listing->directories++;
    else if (number >= 0 && number < LISTED && !listing->seen[number]) {
        listing->seen[number] = true;
        listing->files++;
    }
    return listing->files >= listing->limit ? -ECANCELED : 0;
}

static void test_list(struct both *both)
{
    const char *rt = both->runtime;
    char name[32];
    struct listing listing = {.limit = LISTED + 1};
    struct vv_file *file = NULL;
    tap_is_int(vv_path_mkdir(path_in(both, "l")), 0, "%s: mkdir", rt);
    tap_is_int(vv_path_list(path_in(both, "l"), visit, &listing), 0, "%s: list", rt);
    tap_is_int(listing.files + listing.directories, 0, "%s: an empty directory", rt);
    for (int i = 0; i < LISTED; i++) {
        snprintf(name, sizeof(name), "l/f%d", i);
        if (vv_file_open(path_in(both, name), VV_FILE_WRITE | VV_FILE_CREATE, &file) == 0)
            vv_file_close(file);
    }
    tap_is_int(vv_path_mkdir(path_in(both, "l/d")), 0, "%s: mkdir", rt);
    tap_is_int(vv_path_list(path_in(both, "l"), visit, &listing), 0, "%s: list", rt);
    tap_is_int(listing.files, LISTED, "%s: each file once", rt);
    tap_is_int(listing.directories, 1, "%s: a directory", rt);
    listing = (struct listing){.limit = 3};
    tap_is_int(vv_path_list(path_in(both, "l"), visit, &listing), -ECANCELED,
               "%s: the visitor ends it", rt);
    tap_is_int(listing.files, 3, "%s: at once", rt);
    tap_is_int(vv_path_list(path_in(both, "none"), visit, &listing), -ENOENT, "%s: nothing", rt);
    tap_is_int(vv_path_list(path_in(both, "l/f1"), visit, &listing), -ENOTDIR, "%s: a file", rt);
}

/* Every allocation of an operation fails in turn; afterwards it succeeds. */
static void test_alloc_failure(struct both *both)
{
    const char *rt = both->runtime;
    int n = 0;
    bool is_ended = false;
    for (; n < 100 && !is_ended; n++) {
        struct vv_file *file = NULL;
        size_t before = vv_alloc_domain_count(0);
        vv_alloc_fail_at(n, false);
        int err = vv_file_open(path_in(both, "failing"), READ_WRITE | VV_FILE_CREATE, &file);
        if (err == 0)
            err = write_text(file, "text", 5000);
        vv_alloc_fail_at(-1, false);
        is_ended = !vv_alloc_failed();
        if (!is_ended && err != -ENOMEM)
            tap_is_int(err, -ENOMEM, "%s: allocation %d fails", rt, n);
        if (is_ended)
            tap_is_int(err, 0, "%s: without a failure it succeeds", rt);
        vv_file_close(file);
        if (err != 0 && both->is_real)
            tap_is_int((int64_t)vv_alloc_domain_count(0), (int64_t)before, "%s: no leak", rt);
    }
    tap_ok(is_ended, "%s: the walk ends after %d", rt, n);
}

static void test_all(struct both *both)
{
    test_open(both);
    test_read_write(both);
    test_big(both);
    test_direct(both);
    test_direct_synced(both);
    test_lock(both);
    test_names(both);
    test_directories(both);
    test_list(both);
    test_alloc_failure(both);
}

int main(void)
{
    vv_alloc_track(true);
    run_both(test_all);
    run_real_with(test_all, true);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    return tap_done();
}
