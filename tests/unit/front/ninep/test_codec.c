/* Each message of 9P2000.L there and back, cut off at every byte, and with a byte too many. */
#include "front/ninep/codec.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tap.h"

#define TEXT(text) ((struct vv_bytes){(const uint8_t *)(text), sizeof(text) - 1})

static const struct vv_ninep_request requests[] = {
    {.type = VV_NINEP_TSTATFS, .fid = 7},
    {.type = VV_NINEP_TLOPEN, .fid = 7, .flags = VV_NINEP_O_TRUNC | 2},
    {.type = VV_NINEP_TLCREATE,
     .fid = 7,
     .name = TEXT("file"),
     .flags = 0x42,
     .mode = 0100644,
     .gid = 1000},
    {.type = VV_NINEP_TSYMLINK,
     .fid = 7,
     .name = TEXT("link"),
     .newname = TEXT("../target"),
     .gid = 5},
    {.type = VV_NINEP_TMKNOD,
     .fid = 7,
     .name = TEXT("null"),
     .mode = 020666,
     .major = 1,
     .minor = 3,
     .gid = 5},
    {.type = VV_NINEP_TRENAME, .fid = 7, .newfid = 8, .name = TEXT("new")},
    {.type = VV_NINEP_TREADLINK, .fid = 7},
    {.type = VV_NINEP_TGETATTR, .fid = 7, .mask = 0x7ff},
    {.type = VV_NINEP_TSETATTR,
     .fid = 7,
     .setattr = {.valid = 0x1ff,
                 .mode = 0644,
                 .uid = 1,
                 .gid = 2,
                 .size = 1ull << 40,
                 .atime = {-5, 1},
                 .mtime = {1ll << 33, 999999999}}},
    {.type = VV_NINEP_TXATTRWALK, .fid = 7, .newfid = 9, .name = TEXT("user.x")},
    {.type = VV_NINEP_TXATTRCREATE, .fid = 7, .name = TEXT("user.x"), .size = 12, .flags = 1},
    {.type = VV_NINEP_TREADDIR, .fid = 7, .offset = 1ull << 60, .count = 4096},
    {.type = VV_NINEP_TFSYNC, .fid = 7, .flags = 1},
    {.type = VV_NINEP_TLOCK,
     .fid = 7,
     .lock = {.type = 1,
              .flags = 1,
              .start = 10,
              .length = 20,
              .proc_id = 44,
              .client_id = TEXT("host")}},
    {.type = VV_NINEP_TGETLOCK,
     .fid = 7,
     .lock = {.type = 0, .start = 10, .length = 0, .proc_id = 44, .client_id = TEXT("host")}},
    {.type = VV_NINEP_TLINK, .fid = 7, .newfid = 8, .name = TEXT("second")},
    {.type = VV_NINEP_TMKDIR, .fid = 7, .name = TEXT("dir"), .mode = 0755, .gid = 9},
    {.type = VV_NINEP_TRENAMEAT, .fid = 7, .name = TEXT("a"), .newfid = 8, .newname = TEXT("b")},
    {.type = VV_NINEP_TUNLINKAT, .fid = 7, .name = TEXT("a"), .flags = VV_NINEP_UNLINK_DIR},
    {.type = VV_NINEP_TVERSION, .msize = 1 << 20, .name = TEXT(VV_NINEP_VERSION)},
    {.type = VV_NINEP_TAUTH, .fid = 7, .name = TEXT("me"), .newname = TEXT("/"), .n_uname = 4},
    {.type = VV_NINEP_TATTACH,
     .fid = 7,
     .newfid = VV_NINEP_NOFID,
     .name = TEXT("me"),
     .newname = TEXT("/sub"),
     .n_uname = 1000},
    {.type = VV_NINEP_TFLUSH, .oldtag = 3},
    {.type = VV_NINEP_TWALK, .fid = 7, .newfid = 8},
    {.type = VV_NINEP_TWALK,
     .fid = 7,
     .newfid = 8,
     .name_count = 3,
     .names = {TEXT("a"), TEXT(".."), TEXT("")}},
    {.type = VV_NINEP_TREAD, .fid = 7, .offset = 1 << 20, .count = 65536},
    {.type = VV_NINEP_TWRITE, .fid = 7, .offset = 5, .count = 4, .data = TEXT("\0\1\2\3")},
    {.type = VV_NINEP_TWRITE, .fid = 7},
    {.type = VV_NINEP_TCLUNK, .fid = 7},
    {.type = VV_NINEP_TREMOVE, .fid = 7},
};
#define REQUEST_COUNT (sizeof(requests) / sizeof(requests[0]))

#define QID                                                                                        \
    {                                                                                              \
        .type = VV_NINEP_QID_DIR, .version = 0x01020304, .path = 0x1122334455667788                \
    }

static const struct vv_ninep_reply replies[] = {
    {.type = VV_NINEP_RLERROR, .error = ENOENT},
    {.type = VV_NINEP_TSTATFS + 1,
     .statfs = {.type = 0x01021997,
                .bsize = 4096,
                .blocks = 1,
                .bfree = 2,
                .bavail = 3,
                .files = 4,
                .ffree = 5,
                .fsid = 6,
                .namelen = 255}},
    {.type = VV_NINEP_TLOPEN + 1, .qid = QID, .iounit = 8168},
    {.type = VV_NINEP_TLCREATE + 1, .qid = QID, .iounit = 8168},
    {.type = VV_NINEP_TSYMLINK + 1, .qid = QID},
    {.type = VV_NINEP_TMKNOD + 1, .qid = QID},
    {.type = VV_NINEP_TRENAME + 1},
    {.type = VV_NINEP_TREADLINK + 1, .name = TEXT("../target")},
    {.type = VV_NINEP_TGETATTR + 1,
     .getattr = {.valid = VV_NINEP_GETATTR_ALL,
                 .qid = QID,
                 .mode = 0100644,
                 .uid = 1,
                 .gid = 2,
                 .nlink = 3,
                 .rdev = 4,
                 .size = 5,
                 .blksize = 6,
                 .blocks = 7,
                 .atime = {8, 9},
                 .mtime = {-10, 11},
                 .ctime = {12, 13},
                 .btime = {14, 15},
                 .gen = 16,
                 .data_version = 17}},
    {.type = VV_NINEP_TSETATTR + 1},
    {.type = VV_NINEP_TXATTRWALK + 1, .size = 1ull << 33},
    {.type = VV_NINEP_TXATTRCREATE + 1},
    {.type = VV_NINEP_TREADDIR + 1, .data = TEXT("entries")},
    {.type = VV_NINEP_TFSYNC + 1},
    {.type = VV_NINEP_TLOCK + 1, .status = VV_NINEP_LOCK_BLOCKED},
    {.type = VV_NINEP_TGETLOCK + 1,
     .lock = {.type = 2, .start = 1, .length = 2, .proc_id = 3, .client_id = TEXT("other")}},
    {.type = VV_NINEP_TLINK + 1},
    {.type = VV_NINEP_TMKDIR + 1, .qid = QID},
    {.type = VV_NINEP_TRENAMEAT + 1},
    {.type = VV_NINEP_TUNLINKAT + 1},
    {.type = VV_NINEP_TVERSION + 1, .msize = 8192, .name = TEXT("unknown")},
    {.type = VV_NINEP_TATTACH + 1, .qid = QID},
    {.type = VV_NINEP_TFLUSH + 1},
    {.type = VV_NINEP_TWALK + 1},
    {.type = VV_NINEP_TWALK + 1, .qid_count = 2, .qids = {QID, QID}},
    {.type = VV_NINEP_TREAD + 1, .data = TEXT("data")},
    {.type = VV_NINEP_TREAD + 1},
    {.type = VV_NINEP_TWRITE + 1, .count = 4},
    {.type = VV_NINEP_TCLUNK + 1},
    {.type = VV_NINEP_TREMOVE + 1},
};
#define REPLY_COUNT (sizeof(replies) / sizeof(replies[0]))

/* A message encoded, decoded and encoded again gives the same bytes; the fields were all used. */
static void test_requests(void)
{
    for (size_t i = 0; i < REQUEST_COUNT; i++) {
        char text[256];
        uint8_t first[512], second[512];
        struct vv_writer writer = vv_writer_of(first, sizeof(first));
        struct vv_ninep_request request = requests[i], decoded;
        request.tag = 0x1234;
        vv_ninep_request_to_text(&request, text, sizeof(text));
        tap_is_int(vv_ninep_encode_request(&writer, &request), 0, "%s", text);
        tap_is_int(vv_ninep_size(first), (int64_t)writer.len, "its size");
        int bad_count = 0;
        for (size_t len = 0; len < writer.len; len++) {
            uint8_t cut[512];
            memcpy(cut, first, len);
            if (len >= 4)
                vv_store_u32(cut, (uint32_t)len);
            int err = vv_ninep_decode_request(cut, len, &decoded);
            /* An fsync without its last field is what old clients send. */
            bad_count += err == -VV_ERR_FORMAT ||
                         (request.type == VV_NINEP_TFSYNC && len == writer.len - 4 && err == 0);
        }
        tap_is_int(bad_count, (int64_t)writer.len, "is refused when it is cut off anywhere");
        tap_is_int(vv_ninep_decode_request(first, writer.len, &decoded), 0, "is decoded");
        tap_ok(decoded.type == request.type && decoded.tag == 0x1234, "type and tag");
        struct vv_writer again = vv_writer_of(second, sizeof(second));
        tap_is_int(vv_ninep_encode_request(&again, &decoded), 0, "is encoded again");
        tap_ok(again.len == writer.len && memcmp(first, second, writer.len) == 0,
               "to the same bytes");
        first[writer.len] = 0;
        vv_store_u32(first, (uint32_t)writer.len + 1);
        tap_is_int(vv_ninep_decode_request(first, writer.len + 1, &decoded), -VV_ERR_FORMAT,
                   "a byte too many");
    }
}

static void test_replies(void)
{
    for (size_t i = 0; i < REPLY_COUNT; i++) {
        uint8_t first[512], second[512];
        struct vv_writer writer = vv_writer_of(first, sizeof(first));
        struct vv_ninep_reply reply = replies[i], decoded;
        reply.tag = 0x4321;
        tap_is_int(vv_ninep_encode_reply(&writer, &reply), 0, "reply %d", reply.type);
        tap_is_int(vv_ninep_size(first), (int64_t)writer.len, "its size");
        int bad_count = 0;
        for (size_t len = 0; len < writer.len; len++) {
            uint8_t cut[512];
            memcpy(cut, first, len);
            if (len >= 4)
                vv_store_u32(cut, (uint32_t)len);
            bad_count += vv_ninep_decode_reply(cut, len, &decoded) == -VV_ERR_FORMAT;
        }
        tap_is_int(bad_count, (int64_t)writer.len, "is refused when it is cut off anywhere");
        tap_is_int(vv_ninep_decode_reply(first, writer.len, &decoded), 0, "is decoded");
        tap_ok(decoded.type == reply.type && decoded.tag == 0x4321, "type and tag");
        struct vv_writer again = vv_writer_of(second, sizeof(second));
        /* Data that was not there is encoded as data that follows: the same when empty. */
        tap_is_int(vv_ninep_encode_reply(&again, &decoded), 0, "is encoded again");
        tap_ok(again.len == writer.len && memcmp(first, second, writer.len) == 0,
               "to the same bytes");
    }
}

/* The layout as other implementations have it, byte by byte. */
static void test_layout(void)
{
    static const uint8_t walk[] = "\x18\0\0\0\x6e\x05\0\1\0\0\0\2\0\0\0\2\0\1\0a\2\0bc";
    struct vv_ninep_request request;
    tap_is_int(vv_ninep_decode_request(walk, sizeof(walk) - 1, &request), 0, "a Twalk");
    tap_ok(request.tag == 5 && request.fid == 1 && request.newfid == 2, "its fids");
    tap_ok(request.name_count == 2 && request.names[1].len == 2 &&
               memcmp(request.names[1].ptr, "bc", 2) == 0,
           "its names");
    static const uint8_t version[] = "\x15\0\0\0\x64\xff\xff\0\0\x10\0\x08\0"
                                     "9P2000.L";
    tap_is_int(vv_ninep_decode_request(version, sizeof(version) - 1, &request), 0, "a Tversion");
    tap_ok(request.tag == VV_NINEP_NOTAG && request.msize == 1 << 20, "its msize");
    static const uint8_t rversion[] = "\x15\0\0\0\x65\xff\xff\0\0\x10\0\x08\0"
                                      "9P2000.L";
    uint8_t bytes[64];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    struct vv_ninep_reply reply = {.type = VV_NINEP_TVERSION + 1,
                                   .tag = VV_NINEP_NOTAG,
                                   .msize = 1 << 20,
                                   .name = TEXT(VV_NINEP_VERSION)};
    tap_is_int(vv_ninep_encode_reply(&writer, &reply), 0, "an Rversion");
    tap_is_bytes(bytes, rversion, sizeof(rversion) - 1, "its bytes");
}

static void test_refused(void)
{
    struct vv_ninep_request request;
    uint8_t bytes[512] = {0};
    /* Types that are not requests of 9P2000.L, replies among them. */
    int refused_count = 0, known_count = 0;
    for (int type = 0; type < 256; type++) {
        vv_store_u32(bytes, 7);
        bytes[4] = (uint8_t)type;
        int err = vv_ninep_decode_request(bytes, 7, &request);
        refused_count += err == -EOPNOTSUPP;
        known_count += err == -VV_ERR_FORMAT;
    }
    tap_is_int(known_count, 28, "the requests there are");
    tap_is_int(refused_count, 256 - 28, "all other types are refused");
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    request = (struct vv_ninep_request){.type = 113};
    tap_is_int(vv_ninep_encode_request(&writer, &request), -EOPNOTSUPP, "nor encoded");
    struct vv_ninep_reply reply = {.type = 113};
    tap_is_int(vv_ninep_encode_reply(&writer, &reply), -EOPNOTSUPP, "as a reply neither");
    tap_is_int((int64_t)writer.len, 0, "and leave no bytes");

    static const uint8_t nul_name[] = "\x12\0\0\0\x6e\0\0\1\0\0\0\2\0\0\0\1\0\1\0\0";
    vv_store_u32(bytes, sizeof(nul_name) - 1);
    memcpy(bytes + 4, nul_name + 4, sizeof(nul_name) - 5);
    tap_is_int(vv_ninep_decode_request(bytes, sizeof(nul_name) - 1, &request), -VV_ERR_FORMAT,
               "a NUL in a name");

    writer = vv_writer_of(bytes, sizeof(bytes));
    request = (struct vv_ninep_request){.type = VV_NINEP_TWALK, .name_count = VV_NINEP_WALK_MAX};
    tap_is_int(vv_ninep_encode_request(&writer, &request), 0, "a walk of 16 names");
    tap_is_int(vv_ninep_decode_request(bytes, writer.len, &request), 0, "is decoded");
    bytes[15] = VV_NINEP_WALK_MAX + 1;
    tap_is_int(vv_ninep_decode_request(bytes, writer.len, &request), -EINVAL, "17 are too many");

    writer = vv_writer_of(bytes, sizeof(bytes));
    request = (struct vv_ninep_request){.type = VV_NINEP_TWRITE, .data = TEXT("data")};
    tap_is_int(vv_ninep_encode_request(&writer, &request), 0, "a write");
    bytes[19] = 0xff;
    bytes[22] = 0xff;
    tap_is_int(vv_ninep_decode_request(bytes, writer.len, &request), -VV_ERR_FORMAT,
               "whose count is a lie");
}

static void test_room(void)
{
    uint8_t bytes[64];
    struct vv_writer writer = vv_writer_of(bytes, 30);
    struct vv_ninep_qid qid = QID;
    tap_ok(vv_ninep_encode_dirent(&writer, &qid, 5, 4, TEXT("abcd")), "an entry that fits");
    tap_is_int((int64_t)writer.len, 28, "its length");
    tap_ok(!vv_ninep_encode_dirent(&writer, &qid, 6, 4, TEXT("e")), "one that does not");
    tap_is_int((int64_t)writer.len, 28, "leaves nothing");
    tap_is_int(vv_writer_check(&writer), 0, "and breaks nothing");

    struct vv_ninep_reply reply = {.type = VV_NINEP_TREAD + 1, .data = {NULL, 1000}};
    writer = vv_writer_of(bytes, sizeof(bytes));
    tap_is_int(vv_ninep_encode_reply(&writer, &reply), 0, "a read whose data follows");
    tap_is_int((int64_t)writer.len, 11, "is its header");
    tap_is_int(vv_ninep_size(bytes), 1011, "whose size counts the data");
    reply = (struct vv_ninep_reply){.type = VV_NINEP_TGETATTR + 1};
    tap_is_int(vv_ninep_encode_reply(&writer, &reply), -EOVERFLOW, "a reply without room");
}

static void test_write(void)
{
    static const uint8_t head[] = {23 + 5, 0, 0, 0, VV_NINEP_TWRITE, 7, 0, 3, 0, 0, 0, 1,
                                   2, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0};
    uint8_t bytes[sizeof(head)];
    struct vv_ninep_request request;
    memcpy(bytes, head, sizeof(head));
    tap_is_int(sizeof(head), VV_NINEP_WRITE_HEAD_BYTES, "the head of a Twrite");
    tap_is_int(vv_ninep_decode_write(bytes, 28, &request), 0, "is decoded without its data");
    tap_ok(request.tag == 7 && request.fid == 3 && request.offset == 513 && request.data.len == 5 &&
               request.data.ptr == NULL,
           "into what it says");
    tap_is_int(vv_ninep_decode_write(bytes, 27, &request), -VV_ERR_FORMAT, "not the size");
    bytes[19] = 4;
    tap_is_int(vv_ninep_decode_write(bytes, 28, &request), -VV_ERR_FORMAT, "less data than room");
    bytes[19] = 6;
    tap_is_int(vv_ninep_decode_write(bytes, 28, &request), -VV_ERR_FORMAT, "more");
    bytes[19] = 5;
    bytes[4] = VV_NINEP_TREAD;
    tap_is_int(vv_ninep_decode_write(bytes, 28, &request), -VV_ERR_FORMAT, "another message");
}

int main(void)
{
    test_requests();
    test_replies();
    test_layout();
    test_refused();
    test_room();
    test_write();
    return tap_done();
}
