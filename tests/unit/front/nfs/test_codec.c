/* The arguments and results of each procedure there and back, cut off at every byte, and with
 * bytes too many; and the sizes that RFC 1813 gives. */
#include "front/nfs/codec.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "tap.h"

#define TEXT(text) ((struct vv_bytes){(const uint8_t *)(text), sizeof(text) - 1})
#define HANDLE(n) {.len = 32, .bytes = {n, 2, 3, 4}}
#define FATTR                                                                                      \
    {                                                                                              \
        .type = 1, .mode = 0644, .nlink = 2, .uid = 3, .gid = 4, .size = 1ull << 40, .used = 4096, \
        .major = 7, .minor = 8, .fsid = 9, .fileid = 10, .atime = {1, 2}, .mtime = {3, 4},         \
        .ctime = {5, 6}                                                                            \
    }
#define WCC                                                                                        \
    {                                                                                              \
        .has_before = true, .has_after = true, .size = 5, .mtime = {1, 2}, .ctime = {3, 4},        \
        .after = FATTR                                                                             \
    }
#define SATTR                                                                                      \
    {                                                                                              \
        .has_mode = true, .has_uid = true, .has_gid = true, .has_size = true, .mode = 0600,        \
        .uid = 1, .gid = 2, .size = 3, .atime_how = 1, .mtime_how = 2, .mtime = {7, 8}             \
    }

static const struct {
    uint32_t procedure;
    size_t bytes; /* as the RFC has them */
    struct vv_nfs_args args;
} calls[] = {
    {VV_NFS_NULL, 0, {.access = 0}},
    {VV_NFS_GETATTR, 36, {.handle = HANDLE(1)}},
    {VV_NFS_SETATTR, 36 + 52 + 12, {.handle = HANDLE(1), .sattr = SATTR, .has_guard = true, .guard = {1, 2}}},
    {VV_NFS_SETATTR, 36 + 24 + 4, {.handle = HANDLE(1)}},
    {VV_NFS_LOOKUP, 36 + 12, {.handle = HANDLE(1), .name = TEXT("name5")}},
    {VV_NFS_ACCESS, 40, {.handle = HANDLE(1), .access = 0x3f}},
    {VV_NFS_READLINK, 36, {.handle = HANDLE(1)}},
    {VV_NFS_READ, 48, {.handle = HANDLE(1), .offset = 1ull << 50, .count = 77}},
    {VV_NFS_WRITE, 52 + 4 + 8, {.handle = HANDLE(1), .offset = 5, .count = 5, .how = 2, .data = TEXT("hello")}},
    {VV_NFS_CREATE, 36 + 8 + 4 + 52, {.handle = HANDLE(1), .name = TEXT("f"), .how = 1, .sattr = SATTR}},
    {VV_NFS_CREATE, 36 + 8 + 4 + 8, {.handle = HANDLE(1), .name = TEXT("f"), .how = 2, .verifier = "verifie"}},
    {VV_NFS_MKDIR, 36 + 8 + 52, {.handle = HANDLE(1), .name = TEXT("d"), .sattr = SATTR}},
    {VV_NFS_SYMLINK, 36 + 8 + 52 + 12, {.handle = HANDLE(1), .name = TEXT("l"), .sattr = SATTR, .data = TEXT("target")}},
    {VV_NFS_MKNOD, 36 + 8 + 4 + 52 + 8, {.handle = HANDLE(1), .name = TEXT("n"), .how = VV_NF3CHR, .sattr = SATTR, .major = 1, .minor = 3}},
    {VV_NFS_MKNOD, 36 + 8 + 4 + 52, {.handle = HANDLE(1), .name = TEXT("n"), .how = VV_NF3FIFO, .sattr = SATTR}},
    {VV_NFS_MKNOD, 36 + 8 + 4, {.handle = HANDLE(1), .name = TEXT("n"), .how = VV_NF3REG}},
    {VV_NFS_REMOVE, 36 + 8, {.handle = HANDLE(1), .name = TEXT("f")}},
    {VV_NFS_RMDIR, 36 + 8, {.handle = HANDLE(1), .name = TEXT("f")}},
    {VV_NFS_RENAME, 36 + 8 + 36 + 8, {.handle = HANDLE(1), .name = TEXT("f"), .to_handle = HANDLE(2), .to_name = TEXT("g")}},
    {VV_NFS_LINK, 36 + 36 + 8, {.handle = HANDLE(1), .to_handle = HANDLE(2), .name = TEXT("g")}},
    {VV_NFS_READDIR, 36 + 8 + 8 + 4, {.handle = HANDLE(1), .offset = 3, .verifier = "verifie", .count = 4096}},
    {VV_NFS_READDIRPLUS, 36 + 8 + 8 + 8, {.handle = HANDLE(1), .offset = 3, .dir_count = 512, .count = 4096}},
    {VV_NFS_FSSTAT, 36, {.handle = HANDLE(1)}},
    {VV_NFS_FSINFO, 36, {.handle = HANDLE(1)}},
    {VV_NFS_PATHCONF, 36, {.handle = HANDLE(1)}},
    {VV_NFS_COMMIT, 48, {.handle = HANDLE(1), .offset = 1, .count = 2}},
};

static const struct {
    uint32_t procedure;
    size_t bytes;
    struct vv_nfs_results results;
} answers[] = {
    {VV_NFS_NULL, 0, {.access = 0}},
    {VV_NFS_GETATTR, 88, {.attr = FATTR}},
    {VV_NFS_GETATTR, 4, {.status = 70}},
    {VV_NFS_SETATTR, 4 + 28 + 88, {.wcc = WCC}},
    {VV_NFS_SETATTR, 4 + 8, {.status = 1}},
    {VV_NFS_LOOKUP, 4 + 36 + 88 + 88, {.handle = HANDLE(1), .has_attr = true, .attr = FATTR, .has_dir_attr = true, .dir_attr = FATTR}},
    {VV_NFS_LOOKUP, 8, {.status = 2}},
    {VV_NFS_ACCESS, 4 + 88 + 4, {.has_attr = true, .attr = FATTR, .access = 5}},
    {VV_NFS_READLINK, 4 + 4 + 12, {.data = TEXT("target")}},
    {VV_NFS_READ, 4 + 4 + 8 + 12, {.count = 5, .is_eof = true, .data = TEXT("hello")}},
    {VV_NFS_READ, 4 + 88, {.status = 5, .has_attr = true, .attr = FATTR}},
    {VV_NFS_WRITE, 4 + 116 + 16, {.wcc = WCC, .count = 5, .committed = 1, .verifier = "verifie"}},
    {VV_NFS_CREATE, 4 + 40 + 88 + 116, {.has_handle = true, .handle = HANDLE(1), .has_attr = true, .attr = FATTR, .wcc = WCC}},
    {VV_NFS_MKDIR, 4 + 4 + 4 + 8, {.status = 0}},
    {VV_NFS_SYMLINK, 4 + 8, {.status = 17}},
    {VV_NFS_MKNOD, 4 + 116, {.status = 10007, .wcc = WCC}},
    {VV_NFS_REMOVE, 4 + 116, {.wcc = WCC}},
    {VV_NFS_RMDIR, 4 + 116, {.status = 66, .wcc = WCC}},
    {VV_NFS_RENAME, 4 + 116 + 116, {.wcc = WCC, .to_wcc = WCC}},
    {VV_NFS_LINK, 4 + 88 + 116, {.has_attr = true, .attr = FATTR, .wcc = WCC}},
    {VV_NFS_READDIR, 4 + 4 + 8 + 8, {.is_eof = true, .verifier = "verifie"}},
    {VV_NFS_FSSTAT, 4 + 4 + 52, {.space = {1, 2, 3, 4, 5, 6}, .invarsec = 1}},
    {VV_NFS_FSINFO, 4 + 4 + 28 + 8 + 8 + 4, {.io = {1, 2, 3, 4, 5, 6, 7}, .max_file_size = 8, .time_delta = {0, 1}, .properties = 0x1b}},
    {VV_NFS_PATHCONF, 4 + 4 + 24, {.link_max = 1, .name_max = 255, .is_no_trunc = true, .is_case_preserving = true}},
    {VV_NFS_COMMIT, 4 + 116 + 8, {.wcc = WCC, .verifier = "verifie"}},
};

static void test_args(void)
{
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        uint32_t procedure = calls[i].procedure;
        const char *name = vv_nfs_procedure_name(procedure);
        uint8_t bytes[512] = {0};
        uint8_t again[512];
        struct vv_nfs_args args;
        struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
        struct vv_writer writer_again = vv_writer_of(again, sizeof(again));
        tap_is_int(vv_nfs_encode_args(&writer, procedure, &calls[i].args), 0, "%s", name);
        tap_is_int((int64_t)writer.len, (int64_t)calls[i].bytes, "has its length");
        tap_is_int(vv_nfs_decode_args(procedure, (struct vv_bytes){bytes, writer.len}, &args), 0,
                   "decodes");
        tap_is_int(vv_nfs_encode_args(&writer_again, procedure, &args), 0, "encodes again");
        tap_is_bytes(again, bytes, writer.len, "to the same");
        size_t bad_count = 0;
        for (size_t cut = 0; cut < writer.len; cut++)
            bad_count += vv_nfs_decode_args(procedure, (struct vv_bytes){bytes, cut}, &args) ==
                         -VV_ERR_FORMAT;
        tap_is_int((int64_t)bad_count, (int64_t)writer.len, "cut off it is refused");
        tap_is_int(vv_nfs_decode_args(procedure, (struct vv_bytes){bytes, writer.len + 4}, &args),
                   -VV_ERR_FORMAT, "and with more behind it");
    }
}

static void test_results(void)
{
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        uint32_t procedure = answers[i].procedure;
        uint8_t bytes[512] = {0};
        uint8_t again[512];
        struct vv_nfs_results results;
        struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
        struct vv_writer writer_again = vv_writer_of(again, sizeof(again));
        tap_is_int(vv_nfs_encode_results(&writer, procedure, &answers[i].results), 0, "%s results",
                   vv_nfs_procedure_name(procedure));
        tap_is_int((int64_t)writer.len, (int64_t)answers[i].bytes, "have their length");
        struct vv_bytes all = {bytes, writer.len};
        tap_is_int(vv_nfs_decode_results(procedure, all, &results), 0, "decode");
        tap_is_int(vv_nfs_encode_results(&writer_again, procedure, &results), 0, "encode again");
        tap_is_bytes(again, bytes, writer.len, "to the same");
    }
}

/* The head of a WRITE is decoded as the whole is; nothing of it depends on what follows. */
static void test_write(void)
{
    uint8_t bytes[2048];
    struct vv_nfs_args args = {
        .handle = HANDLE(1), .offset = 9, .count = 5, .how = 1, .data = TEXT("hello")};
    struct vv_nfs_args got;
    size_t len = 0;
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    tap_is_int(vv_nfs_encode_args(&writer, VV_NFS_WRITE, &args), 0, "a WRITE");
    struct vv_bytes head = {bytes, writer.len - 8};
    tap_is_int(vv_nfs_decode_write((struct vv_bytes){bytes, writer.len}, &got, &len), 0,
               "its head, with the data behind it");
    tap_is_int((int64_t)len, (int64_t)head.len, "ends where the data begins");
    tap_is_int(vv_nfs_decode_write(head, &got, &len), 0, "its head alone");
    tap_ok(got.offset == 9 && got.count == 5 && got.how == 1 && got.data.len == 5 &&
               got.data.ptr == NULL && got.handle.len == args.handle.len,
           "is what it was");
    int bad_count = 0;
    for (size_t i = 0; i < head.len; i++)
        bad_count += vv_nfs_decode_write((struct vv_bytes){bytes, i}, &got, &len) == -VV_ERR_FORMAT;
    tap_is_int(bad_count, (int64_t)head.len, "cut off anywhere");
    bytes[head.len - 1] = 4;
    tap_is_int(vv_nfs_decode_write(head, &got, &len), -VV_ERR_FORMAT, "count and length differ");
    bytes[head.len - 1] = 5;
    bytes[head.len - 5] = 3;
    tap_is_int(vv_nfs_decode_write(head, &got, &len), -VV_ERR_FORMAT, "stable_how 3");
}

static void test_refused(void)
{
    uint8_t bytes[2048];
    struct vv_nfs_args args = {.handle = HANDLE(1), .count = 3, .data = TEXT("hello")};
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    tap_is_int(vv_nfs_encode_args(&writer, VV_NFS_WRITE, &args), -EOVERFLOW,
               "a WRITE whose count is not the length");
    args.count = 5;
    writer = vv_writer_of(bytes, sizeof(bytes));
    tap_is_int(vv_nfs_encode_args(&writer, VV_NFS_WRITE, &args), 0, "a WRITE");
    bytes[36 + 8 + 3] = 4;
    struct vv_bytes all = {bytes, writer.len};
    tap_is_int(vv_nfs_decode_args(VV_NFS_WRITE, all, &args), -VV_ERR_FORMAT, "is refused then");
    bytes[36 + 8 + 3] = 5;
    bytes[36 + 12 + 3] = 3;
    tap_is_int(vv_nfs_decode_args(VV_NFS_WRITE, all, &args), -VV_ERR_FORMAT, "stable_how 3");
    bytes[36 + 12 + 3] = 0;
    tap_is_int(vv_nfs_decode_args(VV_NFS_WRITE, all, &args), 0, "as it was");
    bytes[3] = 65;
    tap_is_int(vv_nfs_decode_args(VV_NFS_WRITE, all, &args), -VV_ERR_FORMAT, "a handle of 65 bytes");
    tap_is_int(vv_nfs_decode_args(22, all, &args), -EOPNOTSUPP, "procedure 22");
    writer = vv_writer_of(bytes, sizeof(bytes));
    tap_is_int(vv_nfs_encode_args(&writer, 22, &args), -EOPNOTSUPP, "there is none");
    tap_is_str(vv_nfs_procedure_name(22), "?", "nor a name for it");
}

static void test_entries(void)
{
    uint8_t bytes[1024];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    struct vv_nfs_entry entry = {.fileid = 5,
                                 .cookie = 6,
                                 .name = TEXT("entry"),
                                 .has_attr = true,
                                 .attr = FATTR,
                                 .has_handle = true,
                                 .handle = HANDLE(3)};
    for (int is_plus = 0; is_plus < 2; is_plus++) {
        struct vv_nfs_entry found;
        writer = vv_writer_of(bytes, sizeof(bytes));
        tap_is_int(vv_nfs_encode_entry(&writer, &entry, is_plus), 0, "an entry");
        tap_is_int((int64_t)writer.len, (int64_t)vv_nfs_entry_bytes(&entry, is_plus), "as long as said");
        tap_is_int(vv_nfs_encode_entry(&writer, &entry, is_plus), 0, "and another");
        struct vv_bytes all = {bytes, writer.len};
        tap_is_int(vv_nfs_decode_entry(&all, is_plus, &found), 1, "decodes");
        tap_ok(found.fileid == 5 && found.cookie == 6 && found.name.len == 5 &&
                   found.has_handle == is_plus && found.has_attr == is_plus,
               "to the same");
        tap_is_int(vv_nfs_decode_entry(&all, is_plus, &found), 1, "the other");
        tap_is_int(vv_nfs_decode_entry(&all, is_plus, &found), 0, "the end");
        all = (struct vv_bytes){bytes, 20};
        tap_is_int(vv_nfs_decode_entry(&all, is_plus, &found), -VV_ERR_FORMAT, "cut off");
    }
}

static void test_mount(void)
{
    struct vv_bytes path;
    tap_is_int(vv_nfs_decode_mount_args(VV_NFS_MOUNT_MNT, TEXT("\0\0\0\2/a\0\0"), &path), 0, "MNT");
    tap_ok(path.len == 2 && memcmp(path.ptr, "/a", 2) == 0, "its path");
    tap_is_int(vv_nfs_decode_mount_args(VV_NFS_MOUNT_MNT, TEXT("\0\0\4\1/a\0\0"), &path),
               -VV_ERR_FORMAT, "one that is too long");
    tap_is_int(vv_nfs_decode_mount_args(VV_NFS_MOUNT_EXPORT, TEXT(""), &path), 0, "EXPORT");
    tap_is_int(vv_nfs_decode_mount_args(6, TEXT(""), &path), -EOPNOTSUPP, "there is no sixth");
}

static void test_no_memory(void)
{
    int64_t n = 0;
    int err;
    do {
        struct vv_writer writer = vv_writer_new();
        vv_alloc_fail_at(n++, false);
        err = vv_nfs_encode_args(&writer, VV_NFS_CREATE, &calls[9].args);
        vv_alloc_fail_at(-1, false);
        vv_writer_done(&writer);
        if (err != 0)
            tap_is_int(err, -ENOMEM, "allocation %lld fails", (long long)n - 1);
    } while (err != 0 && n < 100);
    tap_ok(n > 1 && n < 100, "until it succeeds");
}

int main(void)
{
    test_args();
    test_results();
    test_write();
    test_refused();
    test_entries();
    test_mount();
    test_no_memory();
    return tap_done();
}
