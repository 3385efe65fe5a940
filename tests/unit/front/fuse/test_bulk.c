/* Long requests: WRITEs that are received into the memory of extents, what else comes while they do, and what is left when
 * there is no memory for one. */
#include "front/fuse/fuse.h"

#include "mount.h"

#define FILE_BYTES (2u << 20)
#define VALUE_BYTES 60000u /* of an attribute: a request that is long, and no WRITE */
#define STORM_WRITES 40u
#define FAILURES_MAX 400

static struct mount mount;
static uint64_t inode, fh;
static uint8_t content[FILE_BYTES]; /* what the file should hold */
static uint8_t data[FILE_BYTES + 4]; /* what is written next */
static uint32_t state = 1;

static uint32_t draw(uint32_t bound)
{
    state = state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(state ^ state >> 15) * bound >> 32);
}

static struct vv_bytes fresh_data(size_t len)
{
    uint32_t word = draw(UINT32_MAX);
    for (size_t i = 0; i < len; i += sizeof(word), word += 0x01000193)
        memcpy(data + i, &word, sizeof(word));
    return (struct vv_bytes){data, len};
}

static uint64_t handed_layers(void)
{
    struct vv_volume_stats stats;
    vv_volume_stats(mount.rig.volume, &stats);
    return stats.handed_layers;
}

/* The file holds `content`, of which it has `len` bytes. */
static bool is_as_written(size_t len)
{
    for (size_t at = 0; at < len; at += VV_FUSE_IO_BYTES_MAX) {
        size_t part = len - at < VV_FUSE_IO_BYTES_MAX ? len - at : VV_FUSE_IO_BYTES_MAX;
        ssize_t got = ask_read(FUSE_READ, inode, fh, at, (uint32_t)part);
        if (got != (ssize_t)part || memcmp(kernel.reply, content + at, part) != 0)
            return false;
    }
    return true;
}

/* Write new bytes; `content` follows. What was answered. */
static ssize_t write_at(uint64_t offset, size_t len)
{
    ssize_t got = ask_write(inode, fh, offset, fresh_data(len));
    if (got > 0 && got <= (ssize_t)len)
        memcpy(content + offset, data, (size_t)got);
    return got;
}

/* After this the next request is received into a payload. */
static void begin_bulk(void)
{
    if (write_at(0, VV_FUSE_BULK_BYTES) != VV_FUSE_BULK_BYTES || mount.fuse->bulk_left == 0)
        tap_ok(false, "large WRITEs come");
}

/* ---- WRITEs ---- */

static void test_writes(void)
{
    static const size_t lens[] = {VV_FUSE_IO_BYTES_MAX, VV_FUSE_IO_BYTES_MAX - 1, 1, 65536, 65535, 4096, 300000,
                                  VV_FUSE_SMALL_BYTES - VV_FUSE_WRITE_HEAD_BYTES,
                                  VV_FUSE_SMALL_BYTES - VV_FUSE_WRITE_HEAD_BYTES + 1};
    static const uint64_t offsets[] = {0, 1u << 20, 4096, 12345};
    begin_bulk();
    uint64_t before = handed_layers();
    tap_is_int(write_at(0, VV_FUSE_IO_BYTES_MAX), VV_FUSE_IO_BYTES_MAX, "a WRITE of max_write");
    tap_ok(handed_layers() >= before + VV_FUSE_PAYLOAD_PIECES, "its memory becomes the file's");
    tap_ok(is_as_written(VV_FUSE_IO_BYTES_MAX), "which holds what was written");
    tap_is_int(write_at(FILE_BYTES / 2, FILE_BYTES / 2), FILE_BYTES / 2, "and a second MiB");
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
        for (size_t j = 0; j < sizeof(offsets) / sizeof(offsets[0]); j++) {
            size_t len = offsets[j] + lens[i] <= FILE_BYTES ? lens[i] : FILE_BYTES - offsets[j];
            begin_bulk();
            ssize_t got = write_at(offsets[j], len);
            tap_ok(got == (ssize_t)len && is_as_written(FILE_BYTES), "%zu bytes at %llu", len,
                   (unsigned long long)offsets[j]);
        }
}

/* One that is not what it says: long ones come as they are, and nothing of another's data may be in them. */
static void test_false_sizes(void)
{
    static const int64_t wrongs[] = {1, -1, 4096, 1 << 20, -(1 << 20), INT32_MAX};
    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++)
        for (unsigned is_bulk = 0; is_bulk < 2; is_bulk++) {
            struct vv_bytes bytes = fresh_data(100000);
            if (is_bulk)
                begin_bulk();
            mount.fuse->bulk_left = is_bulk ? mount.fuse->bulk_left : 0;
            bytes = fresh_data(100000);
            struct fuse_write_in in = {.fh = fh, .size = (uint32_t)((int64_t)bytes.len + wrongs[i])};
            struct kernel_ask ask = {.opcode = FUSE_WRITE, .nodeid = inode, .fixed = KERNEL_FIXED(in), .tail = bytes};
            ssize_t got = kernel_call(ask);
            bool is_right = wrongs[i] == -1 ? got == sizeof(struct fuse_write_out) : got == -EINVAL;
            if (wrongs[i] == -1)
                memcpy(content, data, bytes.len - 1);
            tap_ok(is_right && is_as_written(FILE_BYTES), "a WRITE that says %lld bytes more than it has: %zd%s",
                   (long long)wrongs[i], got, is_bulk ? ", among large ones" : "");
        }
}

/* ---- others while WRITEs are expected ---- */

/* Headers that are not right, received into a payload. */
static void test_false_headers(void)
{
    static const size_t lens[] = {5, 41, 80, 5000, 70000};
    static const int32_t lies[] = {-1, 1, 1 << 20, -30};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
        for (size_t j = 0; j < sizeof(lies) / sizeof(lies[0]); j++) {
            begin_bulk();
            struct kernel_ask ask = {.opcode = j % 2 ? FUSE_WRITE : FUSE_LOOKUP,
                                     .nodeid = inode,
                                     .tail = fresh_data(lens[i]),
                                     .lie = lies[j]};
            tap_is_int(kernel_call(ask), -EIO, "a header that says %d bytes more than there are, %zu behind it", lies[j],
                       lens[i]);
        }
    begin_bulk();
    static uint8_t piece[sizeof(struct fuse_in_header) - 1];
    struct kernel_call *call = kernel_post_bytes(piece, sizeof(piece));
    tap_ok(is_as_written(FILE_BYTES) && call->is_read && !call->is_answered, "a piece of a header is passed over");
    kernel_drop(call);
}

static uint8_t value[VALUE_BYTES];

static struct kernel_call *post_value(size_t len)
{
    static uint8_t tail[VALUE_BYTES + 7] = "user.k";
    struct fuse_setxattr_in in = {.size = (uint32_t)len};
    uint8_t fill = (uint8_t)draw(256);
    for (size_t i = 0; i < len; i++)
        tail[7 + i] = (uint8_t)(fill + i / 5);
    struct kernel_ask ask = {
        .opcode = FUSE_SETXATTR, .nodeid = inode, .fixed = KERNEL_FIXED(in), .tail = {tail, 7 + len}};
    memcpy(value, tail + 7, len);
    return kernel_post(ask);
}

/* The value that the file has is the last that was posted. */
static bool has_value(size_t len)
{
    struct fuse_getxattr_in in = {.size = VALUE_BYTES};
    struct kernel_ask ask = {
        .opcode = FUSE_GETXATTR, .nodeid = inode, .fixed = KERNEL_FIXED(in), .tail = KERNEL_NAME("user.k")};
    return kernel_call(ask) == (ssize_t)len && memcmp(kernel.reply, value, len) == 0;
}

static void test_others(void)
{
    size_t edge = VV_FUSE_SMALL_BYTES - sizeof(struct fuse_in_header) - sizeof(struct fuse_setxattr_in) - 7;
    const size_t lens[] = {1, 25, 26, edge - 1, edge, edge + 1, 33000, VALUE_BYTES};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        begin_bulk();
        tap_ok(kernel_finish(post_value(lens[i])) == 0 && has_value(lens[i]), "a value of %zu bytes between WRITEs",
               lens[i]);
    }
    struct kernel_call *calls[3];
    begin_bulk();
    for (int i = 0; i < 3; i++)
        calls[i] = post_write(inode, fh, 0, (struct vv_bytes){content, VV_FUSE_IO_BYTES_MAX});
    for (int i = 0; i < 3; i++)
        tap_is_int(finish_write(calls[i]), VV_FUSE_IO_BYTES_MAX, "one of three at once");
    tap_ok(mount.fuse->free_buffers[true] != NULL, "whose memory is kept for the next");
    size_t count = vv_alloc_domain_count((uint32_t)vv_sim_process_self());
    for (int i = 0; i < VV_FUSE_BULK_REQUESTS; i++)
        if (ask_lookup(MOUNT_ROOT, "file") != (int64_t)inode)
            tap_ok(false, "a look-up");
    tap_is_int(mount.fuse->bulk_left, 0, "after %d others none is expected", VV_FUSE_BULK_REQUESTS);
    tap_ok(vv_alloc_domain_count((uint32_t)vv_sim_process_self()) + VV_FUSE_PAYLOAD_PIECES <= count,
           "and the memory for one is given back");
    tap_ok(mount.fuse->free_buffers[true] == NULL, "with all that was kept");
}

/* ---- no memory ---- */

/* Its reply within a second with memory, or after one without: what failed for good goes on when there is some. */
static ssize_t finish_without(struct kernel_call *call, int64_t n, bool is_sticky)
{
    vv_alloc_fail_at(n, is_sticky);
    uint64_t deadline_ns = vv_rt_now_ns() + VV_NS_PER_S;
    while (!call->is_answered && vv_waitq_wait(&kernel.askers, deadline_ns) == 0)
        continue;
    vv_alloc_fail_at(-1, false);
    return kernel_finish(call);
}

/* A long request that has been received into a payload, and there is no memory to put it together. */
static void test_join(void)
{
    uint8_t old[100];
    tap_is_int(kernel_finish(post_value(100)), 0, "a value");
    memcpy(old, value, sizeof(old));
    begin_bulk();
    vv_rt_sleep_ns(VV_NS_PER_MS); /* the receiver has its memory, and waits */
    tap_is_int(finish_without(post_value(VALUE_BYTES), 0, false), -ENOMEM,
               "a long request without memory to join is answered so");
    memcpy(value, old, sizeof(old));
    tap_ok(has_value(100), "and has changed nothing");
    tap_ok(kernel_finish(post_value(VALUE_BYTES)) == 0 && has_value(VALUE_BYTES), "the next one is served");
    begin_bulk();
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_is_int(finish_without(post_value(VALUE_BYTES), 0, true), -ENOMEM, "also when there is none for a second");
    begin_bulk();
    tap_ok(is_as_written(FILE_BYTES), "then WRITEs go on");
}

/* Each allocation of a request's way failing, alone or with all after it. */
static void test_long_failures(bool is_sticky)
{
    unsigned n = 0, refused = 0;
    for (bool has_failed = true; has_failed && n < FAILURES_MAX; n++) {
        begin_bulk();
        vv_rt_sleep_ns(VV_NS_PER_MS);
        ssize_t err = finish_without(post_value(VALUE_BYTES), n, is_sticky);
        has_failed = vv_alloc_failed();
        refused += err == -ENOMEM;
        if (err != 0 && err != -ENOMEM && err != -EIO)
            tap_ok(false, "allocation %u: a long request's answer is %zd", n, err);
        if (err == 0 && !has_value(VALUE_BYTES))
            tap_ok(false, "allocation %u: what was answered is not there", n);
    }
    tap_ok(n > 1 && n < FAILURES_MAX && refused > 0, "a long request with each of %u allocations failing%s: %u refused",
           n - 1, is_sticky ? " for a second" : "", refused);
}

static void test_write_failures(bool is_sticky)
{
    unsigned n = 0, refused = 0, handed = 0;
    for (bool has_failed = true; has_failed && n < FAILURES_MAX; n += is_sticky ? 5 : 1) {
        begin_bulk();
        vv_rt_sleep_ns(VV_NS_PER_MS);
        uint64_t before = handed_layers();
        struct vv_bytes bytes = fresh_data(VV_FUSE_IO_BYTES_MAX);
        uint64_t offset = draw(2) ? 1u << 20 : 500000;
        struct fuse_write_out out = {0};
        ssize_t got = finish_without(post_write(inode, fh, offset, bytes), n, is_sticky);
        has_failed = vv_alloc_failed();
        refused += got == -ENOMEM;
        handed += handed_layers() > before;
        if (got > 0)
            memcpy(&out, kernel.reply, sizeof(out));
        if (got < 0 ? got != -ENOMEM && got != -EIO : out.size == 0 || out.size > bytes.len)
            tap_ok(false, "allocation %u: a WRITE's answer is %zd, %u bytes", n, got, out.size);
        memcpy(content + offset, bytes.ptr, out.size);
        if (!is_as_written(FILE_BYTES))
            tap_ok(false, "allocation %u: the file is not what was answered", n);
    }
    tap_ok(n > 1 && n < FAILURES_MAX && refused > 0 && handed > 0,
           "a WRITE of a MiB with %s of %u allocations failing: %u refused",
           is_sticky ? "all behind every fifth" : "each", n - 1, refused);
}

/* More at once than there are buffers, and than the volume keeps in memory. */
static void test_storm(void)
{
    static struct kernel_call *calls[STORM_WRITES];
    struct vv_bytes bytes[2];
    static uint8_t other[VV_FUSE_IO_BYTES_MAX];
    unsigned right_count = 0;
    memcpy(other, fresh_data(sizeof(other)).ptr, sizeof(other));
    bytes[0] = (struct vv_bytes){other, sizeof(other)};
    bytes[1] = fresh_data(VV_FUSE_IO_BYTES_MAX);
    for (unsigned i = 0; i < STORM_WRITES; i++)
        calls[i] = post_write(inode, fh, (uint64_t)i << 20, bytes[i % 2]);
    for (unsigned i = 0; i < STORM_WRITES; i++)
        right_count += finish_write(calls[i]) == VV_FUSE_IO_BYTES_MAX;
    tap_is_int(right_count, STORM_WRITES, "%u WRITEs at once are served with %u buffers", STORM_WRITES,
               mount.fuse->buffer_max);
    tap_ok(mount.fuse->buffer_max < STORM_WRITES && mount.fuse->buffer_count <= mount.fuse->buffer_max,
           "which are no more");
    for (unsigned i = right_count = 0; i < STORM_WRITES; i++) {
        struct fuse_read_in in = {.fh = fh, .offset = (uint64_t)i << 20, .size = VV_FUSE_IO_BYTES_MAX};
        struct kernel_ask ask = {.opcode = FUSE_READ, .nodeid = inode, .fixed = KERNEL_FIXED(in)};
        calls[i] = kernel_post(ask);
    }
    for (unsigned i = 0; i < STORM_WRITES; i++)
        right_count += kernel_finish(calls[i]) == VV_FUSE_IO_BYTES_MAX &&
                       memcmp(kernel.reply, bytes[i % 2].ptr, VV_FUSE_IO_BYTES_MAX) == 0;
    tap_is_int(right_count, STORM_WRITES, "and as many READs, which find what was written");
}

static void test(void *arg)
{
    (void)arg;
    mount_open(&mount);
    tap_is_int(ask_create(MOUNT_ROOT, "file", &inode, &fh), 0, "a file");
    test_writes();
    test_false_sizes();
    test_false_headers();
    test_others();
    test_join();
    for (int is_sticky = 0; is_sticky < 2; is_sticky++) {
        test_long_failures(is_sticky);
        test_write_failures(is_sticky);
    }
    test_storm();
    tap_is_int(ask_release(FUSE_RELEASE, inode, fh), 0, "released");
    mount_close(&mount);
}

int main(void)
{
    return mount_main(test);
}
