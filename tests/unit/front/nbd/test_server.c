/* The NBD server over a unix socket, on a file system in memory: negotiation, every command, the
 * edges of a device, resizing, pipelines, messages that make no sense, and each allocation failing
 * in turn. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "front/nbd/codec.h"
#include "front/nbd/device.h"
#include "front/nbd/nbd.h"
#include "unit/front/wire.h"
#include "unit/fs/fake_volume.h"

#define TEXT(text) ((struct vv_bytes){(const uint8_t *)(text), strlen(text)})
#define BUF_BYTES WIRE_BYTES
#define DEVICE_BYTES (1u << 20)
#define DOOR 7
#define OTHER_DOOR 8

static struct vv_volume *volume;
static struct vv_fs *fs;
static struct vv_nbd *nbd;
static char address[108];

struct client {
    struct wire wire;
    uint64_t cookie;
    bool is_structured;
    /* what the last call brought */
    uint8_t data[BUF_BYTES];
    unsigned chunks, holes;
    uint8_t status[256];
    size_t status_len;
    /* what the last option brought */
    uint64_t size;
    uint16_t flags;
    unsigned servers, contexts, block_sizes;
    char name[256];
};

/* ---- a client ---- */

static int open_client(struct client *client, uint32_t client_flags)
{
    const uint8_t *bytes;
    uint16_t flags;
    client->is_structured = false;
    TRY(wire_open(&client->wire, address));
    TRY(wire_need(&client->wire, VV_NBD_HELLO_BYTES, &bytes));
    TRY(vv_nbd_decode_hello(bytes, &flags));
    client->wire.in_used = VV_NBD_HELLO_BYTES;
    uint8_t answer[4] = {0, 0, 0, (uint8_t)client_flags};
    return wire_send(&client->wire, answer, sizeof(answer));
}

static void take_answer(struct client *client, const struct vv_nbd_option_reply *reply,
                        const uint8_t *data)
{
    struct vv_cursor cursor = vv_cursor_of(data, reply->len);
    uint16_t info = reply->type == VV_NBD_REP_INFO ? vv_cursor_be16(&cursor) : 99;
    client->servers += reply->type == VV_NBD_REP_SERVER;
    client->contexts += reply->type == VV_NBD_REP_META_CONTEXT;
    client->block_sizes += info == VV_NBD_INFO_BLOCK_SIZE;
    if (info == VV_NBD_INFO_EXPORT) {
        client->size = vv_cursor_be64(&cursor);
        client->flags = vv_cursor_be16(&cursor);
    }
    if (info == VV_NBD_INFO_NAME)
        vv_format(client->name, sizeof(client->name), "%.*s", (int)cursor.len,
                  (const char *)cursor.ptr);
}

/* Send an option and take its answers. 0; the low bits of its error, negative. */
static int option(struct client *client, uint32_t number, const struct vv_nbd_option_data *data)
{
    static const struct vv_nbd_option_data nothing;
    uint8_t out[1024];
    struct vv_writer writer = vv_writer_of(out, sizeof(out));
    vv_nbd_encode_option(&writer, number, data ? data : &nothing);
    TRY(vv_writer_check(&writer));
    TRY(wire_send(&client->wire, out, writer.len));
    client->servers = client->contexts = client->block_sizes = 0;
    for (;;) {
        const uint8_t *bytes;
        struct vv_nbd_option_reply reply;
        TRY(wire_need(&client->wire, VV_NBD_OPTION_REPLY_HEAD_BYTES, &bytes));
        TRY(vv_nbd_decode_option_reply(bytes, &reply));
        TRY(wire_need(&client->wire, VV_NBD_OPTION_REPLY_HEAD_BYTES + reply.len, &bytes));
        client->wire.in_used = VV_NBD_OPTION_REPLY_HEAD_BYTES + reply.len;
        if (reply.option != number)
            return -EBADMSG;
        if (reply.type & VV_NBD_REP_ERROR)
            return -(int)(reply.type & 0xff) - 10000;
        if (reply.type == VV_NBD_REP_ACK)
            return 0;
        take_answer(client, &reply, bytes + VV_NBD_OPTION_REPLY_HEAD_BYTES);
    }
}
#define REFUSED(type) (-(int)((type)&0xff) - 10000)

static int go(struct client *client, const char *name)
{
    struct vv_nbd_option_data data = {.name = TEXT(name), .infos = 0xf};
    return option(client, VV_NBD_OPT_GO, &data);
}

static const struct vv_nbd_option_data allocation = {
    .name = {(const uint8_t *)"disk", 4},
    .query_count = 1,
    .queries = {(const uint8_t *)"\0\0\0\17base:allocation", 19}};

static int start_session(struct client *client, const char *name, bool is_structured)
{
    TRY(open_client(client, VV_NBD_FIXED_NEWSTYLE | VV_NBD_NO_ZEROES));
    if (is_structured) {
        TRY(option(client, VV_NBD_OPT_STRUCTURED_REPLY, NULL));
        TRY(option(client, VV_NBD_OPT_SET_META_CONTEXT, &allocation));
    }
    client->is_structured = is_structured;
    return go(client, name);
}

/* The next reply or chunk, as it is. */
static int receive(struct client *client, uint32_t read_len, struct vv_nbd_reply *out_reply)
{
    const uint8_t *bytes;
    int64_t len = 0;
    size_t have = VV_NBD_SIMPLE_REPLY_BYTES;
    while (len == 0) {
        TRY(wire_need(&client->wire, have, &bytes));
        len = vv_nbd_reply_len(bytes, client->wire.in_len, read_len);
        TRY((int)(len < 0 ? len : 0));
        have++;
    }
    TRY(wire_need(&client->wire, (size_t)len, &bytes));
    client->wire.in_used = (size_t)len;
    return vv_nbd_decode_reply(bytes, (size_t)len, out_reply);
}

static int take_chunk(struct client *client, const struct vv_nbd_request *request,
                      const struct vv_nbd_reply *reply)
{
    uint64_t at = reply->offset - request->offset;
    client->chunks++;
    switch (reply->type) {
    case VV_NBD_CHUNK_OFFSET_DATA:
        if (at + reply->data.len > request->len)
            return -EBADMSG;
        memcpy(client->data + at, reply->data.ptr, reply->data.len);
        return 0;
    case VV_NBD_CHUNK_OFFSET_HOLE:
        if (at + reply->hole_len > request->len)
            return -EBADMSG;
        memset(client->data + at, 0, reply->hole_len);
        client->holes++;
        return 0;
    case VV_NBD_CHUNK_BLOCK_STATUS:
        client->status_len = reply->data.len < 256 ? reply->data.len : 256;
        memcpy(client->status, reply->data.ptr, client->status_len);
        return 0;
    case VV_NBD_CHUNK_ERROR:
        return -(int)reply->error;
    default:
        return -EBADMSG;
    }
}

static int finish(struct client *client, const struct vv_nbd_request *request)
{
    client->chunks = client->holes = 0;
    memset(client->data, 0xcc, request->command == VV_NBD_CMD_READ ? request->len % BUF_BYTES : 0);
    for (;;) {
        struct vv_nbd_reply reply;
        TRY(receive(client, request->command == VV_NBD_CMD_READ ? request->len : 0, &reply));
        if (reply.cookie != request->cookie)
            return -EBADMSG;
        if (!reply.is_chunk) {
            if (reply.error == 0 && reply.data.len > 0)
                memcpy(client->data, reply.data.ptr, reply.data.len);
            return -(int)reply.error;
        }
        int err = take_chunk(client, request, &reply);
        if (err < 0 || (reply.flags & VV_NBD_CHUNK_DONE))
            return err;
    }
}

static int start(struct client *client, struct vv_nbd_request *request, const void *payload)
{
    uint8_t head[VV_NBD_REQUEST_BYTES];
    struct vv_writer writer = vv_writer_of(head, sizeof(head));
    request->cookie = ++client->cookie << 32 | 0xabc;
    vv_nbd_encode_request(&writer, request);
    TRY(wire_send(&client->wire, head, sizeof(head)));
    return payload ? wire_send(&client->wire, payload, request->len) : 0;
}

static int call(struct client *client, uint16_t command, uint16_t flags, uint64_t offset,
                uint32_t len, const void *payload)
{
    struct vv_nbd_request request = {flags, command, 0, offset, len};
    TRY(start(client, &request, payload));
    return finish(client, &request);
}

#define READ(client, offset, len) call(client, VV_NBD_CMD_READ, 0, offset, len, NULL)
#define WRITE(client, offset, len, bytes) call(client, VV_NBD_CMD_WRITE, 0, offset, len, bytes)

static bool is_filled(const uint8_t *bytes, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != value)
            return false;
    }
    return true;
}

/* ---- negotiation ---- */

static void test_negotiation(void)
{
    static struct client client;
    struct vv_nbd_option_data data = {.name = TEXT("nosuch"), .infos = 1};
    tap_is_int(open_client(&client, 3), 0, "a client");
    tap_is_int(option(&client, 99, NULL), REFUSED(VV_NBD_REP_ERR_UNSUP), "an unknown option");
    tap_is_int(option(&client, VV_NBD_OPT_STARTTLS, NULL), REFUSED(VV_NBD_REP_ERR_UNSUP),
               "TLS, which is not set up");
    tap_is_int(option(&client, VV_NBD_OPT_INFO, &data), REFUSED(VV_NBD_REP_ERR_UNKNOWN),
               "INFO of nothing");
    data.name = TEXT("../etc");
    tap_is_int(option(&client, VV_NBD_OPT_INFO, &data), REFUSED(VV_NBD_REP_ERR_UNKNOWN),
               "INFO of a path");
    tap_is_int(option(&client, VV_NBD_OPT_LIST, NULL), 0, "LIST");
    tap_is_int(client.servers, 1, "has the one device, and not the folder");
    data.name = TEXT("");
    data.infos = 0xf;
    tap_is_int(option(&client, VV_NBD_OPT_INFO, &data), 0, "INFO of the only device");
    tap_is_int((int64_t)client.size, DEVICE_BYTES, "its size");
    tap_ok(strcmp(client.name, "disk") == 0 && client.block_sizes == 1, "its name, block sizes");
    tap_is_int(client.flags & VV_NBD_FLAG_SEND_DF, 0, "no DF without structured replies");
    tap_is_int(option(&client, VV_NBD_OPT_SET_META_CONTEXT, &allocation),
               REFUSED(VV_NBD_REP_ERR_INVALID), "nor contexts");
    tap_is_int(option(&client, VV_NBD_OPT_STRUCTURED_REPLY, NULL), 0, "structured replies");
    tap_is_int(option(&client, VV_NBD_OPT_LIST_META_CONTEXT, &data), 0, "contexts");
    tap_is_int(client.contexts, 1, "one");
    data.query_count = 1;
    data.queries = (struct vv_bytes){(const uint8_t *)"\0\0\0\5other", 9};
    tap_is_int(option(&client, VV_NBD_OPT_SET_META_CONTEXT, &data), 0, "another context");
    tap_is_int(client.contexts, 0, "is not there");
    static uint8_t large[16 + (VV_NBD_OPTION_BYTES_MAX + 1)];
    memcpy(large, "IHAVEOPT\0\0\0\6\0\1\0\1", 16);
    tap_is_int(wire_send(&client.wire, large, sizeof(large)), 0, "an option that is too long");
    const uint8_t *bytes;
    struct vv_nbd_option_reply reply = {0};
    if (wire_need(&client.wire, VV_NBD_OPTION_REPLY_HEAD_BYTES, &bytes) == 0 &&
        vv_nbd_decode_option_reply(bytes, &reply) == 0 &&
        wire_need(&client.wire, VV_NBD_OPTION_REPLY_HEAD_BYTES + reply.len, &bytes) == 0)
        client.wire.in_used = VV_NBD_OPTION_REPLY_HEAD_BYTES + reply.len;
    tap_is_int(reply.type, VV_NBD_REP_ERR_TOO_BIG, "is refused");
    tap_is_int(option(&client, VV_NBD_OPT_ABORT, NULL), 0, "ABORT");
    tap_is_int(wire_need(&client.wire, 1, &bytes), -EPIPE, "ends the connection");
    wire_close(&client.wire);
}

static void test_export_name(bool has_no_zeroes)
{
    static struct client client;
    const uint8_t *bytes;
    struct vv_nbd_option_data data = {.name = TEXT("disk")};
    uint8_t out[64];
    struct vv_writer writer = vv_writer_of(out, sizeof(out));
    vv_nbd_encode_option(&writer, VV_NBD_OPT_EXPORT_NAME, &data);
    tap_is_int(open_client(&client, has_no_zeroes ? 3 : 1), 0, "an older client");
    tap_is_int(wire_send(&client.wire, out, writer.len), 0, "names its export");
    size_t len = 10 + (has_no_zeroes ? 0 : VV_NBD_EXPORT_NAME_ZEROES);
    tap_is_int(wire_need(&client.wire, len, &bytes), 0, "and is answered");
    tap_is_int((int64_t)vv_load_be64(bytes), DEVICE_BYTES, "with the size");
    client.wire.in_used = len;
    tap_is_int(READ(&client, 0, 512), 0, "and may read");
    wire_close(&client.wire);
}

/* ---- commands ---- */

static void test_data(bool is_structured)
{
    static struct client client;
    static uint8_t bytes[65536];
    const char *how = is_structured ? "structured" : "simple";
    memset(bytes, 0x5a, sizeof(bytes));
    tap_is_int(start_session(&client, "disk", is_structured), 0, "a client, %s replies", how);
    tap_is_int(READ(&client, 0, 65536), 0, "reads nothing yet");
    tap_ok(is_filled(client.data, 65536, 0), "which is zeros");
    tap_is_int(client.holes, is_structured ? 1 : 0, "in %u holes", client.holes);
    tap_is_int(WRITE(&client, 1, 65535, bytes), 0, "writes at an odd place");
    tap_is_int(READ(&client, 0, 65536), 0, "reads it");
    tap_ok(client.data[0] == 0 && is_filled(client.data + 1, 65535, 0x5a), "as it was written");
    tap_is_int(call(&client, VV_NBD_CMD_WRITE_ZEROES, 0, 8192, 16384, NULL), 0, "zeros");
    tap_is_int(call(&client, VV_NBD_CMD_TRIM, VV_NBD_CMD_FLAG_FUA, 40960, 4096, NULL), 0, "trim");
    tap_is_int(READ(&client, 0, 65536), 0, "reads again");
    tap_ok(is_filled(client.data + 1, 8191, 0x5a) && is_filled(client.data + 8192, 16384, 0) &&
               is_filled(client.data + 24576, 16384, 0x5a) &&
               is_filled(client.data + 40960, 4096, 0) &&
               is_filled(client.data + 45056, 20480, 0x5a),
           "zeros where they belong");
    tap_is_int(client.holes, is_structured ? 2 : 0, "sent as holes");
    if (is_structured) {
        tap_is_int(call(&client, VV_NBD_CMD_READ, VV_NBD_CMD_FLAG_DF, 0, 65536, NULL), 0, "DF");
        tap_is_int(client.chunks, 1, "is one piece");
        tap_ok(is_filled(client.data + 8192, 16384, 0), "of the same");
    } else {
        tap_is_int(call(&client, VV_NBD_CMD_READ, VV_NBD_CMD_FLAG_DF, 0, 512, NULL),
                   -(int)VV_NBD_EINVAL, "no DF without structured replies");
    }
    unsigned syncs = volume->syncs;
    tap_is_int(call(&client, VV_NBD_CMD_FLUSH, 0, 0, 0, NULL), 0, "flush");
    tap_is_int(volume->syncs, syncs + 1, "is a sync");
    tap_is_int(call(&client, VV_NBD_CMD_WRITE, VV_NBD_CMD_FLAG_FUA, 512, 512, bytes), 0, "FUA");
    tap_is_int(volume->syncs, syncs + 2, "is another");
    tap_is_int(call(&client, VV_NBD_CMD_WRITE_ZEROES,
                    VV_NBD_CMD_FLAG_FUA | VV_NBD_CMD_FLAG_NO_HOLE | VV_NBD_CMD_FLAG_FAST_ZERO, 0,
                    DEVICE_BYTES, NULL),
               0, "zeros everywhere");
    tap_is_int(volume->syncs, syncs + 3, "durably");
    tap_is_int(call(&client, VV_NBD_CMD_CACHE, 0, 0, DEVICE_BYTES, NULL), 0, "cache");
    tap_is_int(READ(&client, 0, 65536), 0, "reads");
    tap_ok(is_filled(client.data, 65536, 0), "zeros");
    wire_close(&client.wire);
}

static void test_status(void)
{
    static struct client client;
    static uint8_t bytes[8192];
    memset(bytes, 1, sizeof(bytes));
    tap_is_int(start_session(&client, "disk", true), 0, "a client");
    tap_is_int(call(&client, VV_NBD_CMD_TRIM, 0, 0, DEVICE_BYTES, NULL), 0, "trims all");
    tap_is_int(WRITE(&client, 16384, 8192, bytes), 0, "writes two blocks");
    tap_is_int(call(&client, VV_NBD_CMD_BLOCK_STATUS, 0, 0, DEVICE_BYTES, NULL), 0, "status");
    static const uint8_t want[] = "\0\0\x40\0\0\0\0\3\0\0\x20\0\0\0\0\0\0\x0f\xa0\0\0\0\0\3";
    tap_ok(client.status_len == 24 && memcmp(client.status, want, 24) == 0,
           "hole, data, hole: %zu bytes", client.status_len);
    tap_is_int(call(&client, VV_NBD_CMD_BLOCK_STATUS, VV_NBD_CMD_FLAG_REQ_ONE, 20000, 65536, NULL),
               0, "REQ_ONE");
    tap_ok(client.status_len == 8 && memcmp(client.status, "\0\0\x11\xe0\0\0\0\0", 8) == 0,
           "the data from there");
    wire_close(&client.wire);
    tap_is_int(start_session(&client, "disk", false), 0, "a client that did not ask for contexts");
    tap_is_int(call(&client, VV_NBD_CMD_BLOCK_STATUS, 0, 0, 512, NULL), -(int)VV_NBD_EINVAL,
               "gets no status");
    wire_close(&client.wire);
}

static void test_edges(void)
{
    static struct client client;
    static uint8_t bytes[4096];
    const uint64_t end = DEVICE_BYTES;
    const int einval = -(int)VV_NBD_EINVAL, enospc = -(int)VV_NBD_ENOSPC;
    tap_is_int(start_session(&client, "disk", true), 0, "a client");
    tap_is_int(WRITE(&client, end - 1, 1, bytes), 0, "the last byte");
    tap_is_int(READ(&client, end - 1, 1), 0, "is there");
    tap_is_int(READ(&client, end - 1, 2), einval, "one more is not");
    tap_is_int(READ(&client, end, 1), einval, "nor is what is behind");
    tap_is_int(READ(&client, UINT64_MAX, 2), einval, "an offset that wraps around");
    tap_is_int(WRITE(&client, end - 1, 2, bytes), enospc, "a write over the end");
    tap_is_int(WRITE(&client, UINT64_MAX - 10, 4096, bytes), enospc, "or around it");
    tap_is_int(call(&client, VV_NBD_CMD_WRITE_ZEROES, 0, end, 1, NULL), enospc, "zeros behind");
    tap_is_int(call(&client, VV_NBD_CMD_TRIM, 0, end, 1, NULL), einval, "trim behind");
    tap_is_int(call(&client, VV_NBD_CMD_CACHE, 0, 1, (uint32_t)end, NULL), einval, "cache");
    tap_is_int(call(&client, VV_NBD_CMD_BLOCK_STATUS, 0, 1, (uint32_t)end, NULL), einval, "status");
    tap_is_int(READ(&client, 0, 0), einval, "a read of nothing");
    tap_is_int(WRITE(&client, 0, 0, bytes), einval, "a write of nothing");
    tap_is_int(call(&client, VV_NBD_CMD_FLUSH, 0, 1, 0, NULL), einval, "a flush of a place");
    tap_is_int(call(&client, 77, 0, 0, 1, NULL), einval, "an unknown command");
    tap_is_int(call(&client, VV_NBD_CMD_TRIM, VV_NBD_CMD_FLAG_NO_HOLE, 0, 1, NULL), einval,
               "a flag of another command");
    tap_is_int(READ(&client, 0, VV_NBD_PAYLOAD_MAX + 1), einval, "a read that is too long");
    static uint8_t much[VV_NBD_PAYLOAD_MAX + 1];
    tap_is_int(WRITE(&client, 0, sizeof(much), much), einval, "a write that is too long");
    tap_is_int(READ(&client, 0, 512), 0, "and all goes on");
    wire_close(&client.wire);
}

/* Another door makes, resizes, protects and removes what is in use. */
static void test_changes(void)
{
    static struct client client, other;
    static uint8_t bytes[4096];
    struct vv_attr attr, set = {.mode = 0400};
    struct vv_fs_call call_of_root = {.door = OTHER_DOOR};
    tap_is_int(start_session(&client, "disk", false), 0, "a client");
    tap_is_int(vv_nbd_device_find(fs, OTHER_DOOR, TEXT("disk"), &attr), 0, "the file");
    tap_is_int(vv_nbd_users(nbd, attr.inode), 1, "is in use");
    tap_is_int(vv_nbd_device_resize(fs, OTHER_DOOR, TEXT("disk"), 8192), 0, "is made smaller");
    tap_is_int(READ(&client, 4096, 4096), 0, "what is left can be read");
    tap_is_int(READ(&client, 8192, 512), -(int)VV_NBD_EINVAL, "what is gone can't");
    tap_is_int(WRITE(&client, 8192, 512, bytes), -(int)VV_NBD_ENOSPC, "nor be written");
    tap_is_int(vv_nbd_device_resize(fs, OTHER_DOOR, TEXT("disk"), 2 * DEVICE_BYTES), 0, "larger");
    tap_is_int(READ(&client, DEVICE_BYTES, 512), 0, "and there is more at once");
    tap_is_int(start_session(&other, "disk", false), 0, "another client");
    tap_is_int((int64_t)other.size, 2 * DEVICE_BYTES, "is told of it");
    tap_is_int(WRITE(&client, 0, 4096, bytes), 0, "one writes");
    tap_is_int(vv_fs_write(fs, &call_of_root, attr.inode, NULL, "file", 4, 0, 0), 4,
               "another door too");
    tap_is_int(READ(&other, 0, 4), 0, "and the other client");
    tap_ok(memcmp(other.data, "file", 4) == 0, "sees it");
    wire_close(&other.wire);
    tap_is_int(vv_fs_unlink(fs, &call_of_root, VV_ROOT_INODE, VV_NBD_DIRECTORY, 4), -EISDIR,
               "the folder stays");
    tap_is_int(vv_nbd_device_remove(fs, OTHER_DOOR, TEXT("disk")), 0, "the device is removed");
    tap_is_int(READ(&client, 0, 4), 0, "and still there for who has it");
    wire_close(&client.wire);
    tap_is_int(start_session(&client, "disk", false), REFUSED(VV_NBD_REP_ERR_UNKNOWN),
               "and for nobody else");
    wire_close(&client.wire);
    tap_is_int(vv_nbd_device_create(fs, OTHER_DOOR, TEXT("disk"), DEVICE_BYTES), 0, "a new one");
    tap_is_int(vv_nbd_device_create(fs, OTHER_DOOR, TEXT("disk"), 1), -EEXIST, "but one only");
    tap_is_int(vv_nbd_device_find(fs, OTHER_DOOR, TEXT("disk"), &attr), 0, "its file");
    tap_is_int(vv_fs_setattr(fs, &call_of_root, attr.inode, NULL, &set, VV_SET_MODE, &attr), 0,
               "which nobody may write");
    tap_is_int(start_session(&client, "disk", false), 0, "a client");
    tap_ok(client.flags & VV_NBD_FLAG_READ_ONLY, "is told that it is read-only");
    tap_is_int(WRITE(&client, 0, 4096, bytes), -(int)VV_NBD_EPERM, "and may not write");
    tap_is_int(call(&client, VV_NBD_CMD_TRIM, 0, 0, 4096, NULL), -(int)VV_NBD_EPERM, "nor trim");
    tap_is_int(call(&client, VV_NBD_CMD_FLUSH, 0, 0, 0, NULL), 0, "but flush");
    wire_close(&client.wire);
    set.mode = 0600;
    tap_is_int(vv_fs_setattr(fs, &call_of_root, attr.inode, NULL, &set, VV_SET_MODE, &attr), 0,
               "until it may be written again");
}

static void test_devices(void)
{
    static const struct {
        struct vv_bytes name;
        int error;
    } bad[] = {{{(const uint8_t *)"", 0}, -EINVAL},
               {{(const uint8_t *)".", 1}, -EINVAL},
               {{(const uint8_t *)"..", 2}, -EINVAL},
               {{(const uint8_t *)"a/b", 3}, -EINVAL},
               {{(const uint8_t *)"a\0b", 3}, -EINVAL}};
    static uint8_t name[256];
    struct vv_dirent entries[4];
    uint64_t after = 0;
    memset(name, 'n', sizeof(name));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        tap_is_int(vv_nbd_device_create(fs, DOOR, bad[i].name, 1), bad[i].error, "bad name %zu", i);
    tap_is_int(vv_nbd_device_create(fs, DOOR, (struct vv_bytes){name, 256}, 1), -ENAMETOOLONG,
               "a name that is too long");
    tap_is_int(vv_nbd_device_create(fs, DOOR, TEXT("huge"), VV_FILE_BYTES_MAX + 1), -EFBIG,
               "a size that is too large");
    tap_is_int(vv_nbd_device_resize(fs, DOOR, TEXT("none"), 1), -ENOENT, "resizing nothing");
    tap_is_int(vv_nbd_device_remove(fs, DOOR, TEXT("none")), -ENOENT, "removing nothing");
    for (unsigned i = 0; i < 6; i++) {
        name[0] = (uint8_t)('a' + i);
        tap_is_int(vv_nbd_device_create(fs, DOOR, (struct vv_bytes){name, 255}, i), 0, "device");
    }
    unsigned count = 0;
    do {
        int got = vv_nbd_device_list(fs, DOOR, &after, entries, 4);
        if (got < 0)
            break;
        count += (unsigned)got;
    } while (after != 0);
    tap_is_int(count, 7, "all are listed, in two pieces");
    static struct client client;
    tap_is_int(start_session(&client, "", false), REFUSED(VV_NBD_REP_ERR_UNKNOWN),
               "the empty name says too little now");
    wire_close(&client.wire);
    for (unsigned i = 0; i < 6; i++) {
        name[0] = (uint8_t)('a' + i);
        tap_is_int(vv_nbd_device_remove(fs, DOOR, (struct vv_bytes){name, 255}), 0, "removed");
    }
}

/* The largest device there can be, at its end. */
static void test_huge(void)
{
    static struct client client;
    const uint64_t end = VV_FILE_BYTES_MAX;
    tap_is_int(vv_nbd_device_create(fs, DOOR, TEXT("huge"), end), 0, "2 EiB");
    tap_is_int(start_session(&client, "huge", true), 0, "a client");
    tap_is_int((int64_t)client.size, (int64_t)end, "all of it");
    tap_is_int(WRITE(&client, end - 5, 5, "hello"), 0, "the last bytes are written");
    tap_is_int(READ(&client, end - 5, 5), 0, "and read");
    tap_ok(memcmp(client.data, "hello", 5) == 0, "as they were");
    tap_is_int(WRITE(&client, end - 5, 6, "hello!"), -(int)VV_NBD_ENOSPC, "not one more");
    tap_is_int(call(&client, VV_NBD_CMD_TRIM, 0, end - UINT32_MAX, UINT32_MAX, NULL), 0, "trim");
    tap_is_int(READ(&client, end - 5, 5), 0, "read again");
    tap_ok(is_filled(client.data, 5, 0), "gone");
    wire_close(&client.wire);
    tap_is_int(vv_nbd_device_remove(fs, DOOR, TEXT("huge")), 0, "removed");
}

/* Many requests in one piece, more than may be under way; each is answered once. */
static void test_pipeline(void)
{
    enum { COUNT = 1000 };
    static struct client client;
    static uint8_t seen[COUNT];
    static uint8_t bytes[512];
    struct vv_writer writer = vv_writer_new();
    memset(seen, 0, sizeof(seen));
    tap_is_int(start_session(&client, "disk", false), 0, "a client");
    for (unsigned i = 0; i < COUNT; i++) {
        struct vv_nbd_request request = {0, VV_NBD_CMD_WRITE, i, i * 512ull, 512};
        memset(bytes, (int)(i % 251), sizeof(bytes));
        vv_nbd_encode_request(&writer, &request);
        vv_writer_bytes(&writer, bytes, sizeof(bytes));
    }
    tap_is_int(wire_send(&client.wire, writer.ptr, writer.len), 0, "a thousand writes");
    vv_writer_done(&writer);
    unsigned wrong = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        struct vv_nbd_reply reply = {.cookie = COUNT};
        int err = receive(&client, 0, &reply);
        if (err < 0 || reply.error != 0 || reply.cookie >= COUNT || seen[reply.cookie]++ != 0)
            wrong++;
    }
    tap_is_int(wrong, 0, "are answered, each once");
    for (unsigned i = 0; i < COUNT; i += 100) {
        wrong += READ(&client, i * 512ull, 512) < 0;
        wrong += !is_filled(client.data, 512, (uint8_t)(i % 251));
    }
    tap_is_int(wrong, 0, "and have written what they said");
    wire_close(&client.wire);
}

/* The volume refuses a change: the client is told why, in both kinds of replies, and all goes on. */
static void test_refusals(void)
{
    static struct client client;
    static uint8_t bytes[4096];
    static const struct {
        int err;
        uint32_t wire;
    } refusals[] = {{-ENOSPC, VV_NBD_ENOSPC}, {-EIO, VV_NBD_EIO}, {-VV_ERR_FENCED, VV_NBD_EIO}};
    tap_is_int(start_session(&client, "disk", true), 0, "a client");
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        volume->apply_error = refusals[i].err;
        tap_is_int(WRITE(&client, 8192, 4096, bytes), -(int)refusals[i].wire, "a write: %s",
                   vv_err_name(refusals[i].err));
        volume->apply_error = refusals[i].err;
        tap_is_int(call(&client, VV_NBD_CMD_TRIM, 0, 0, 4096, NULL), -(int)refusals[i].wire,
                   "a trim: %s", vv_err_name(refusals[i].err));
    }
    tap_is_int(WRITE(&client, 8192, 4096, bytes), 0, "then a write succeeds");
    wire_close(&client.wire);
}

/* ---- what makes no sense ---- */

static void send_noise(uint64_t seed)
{
    static struct client client;
    struct vv_volume noise = {.random = seed};
    bool is_in_session = fake_random(&noise, 2);
    int err = is_in_session ? start_session(&client, "disk", true) : open_client(&client, 3);
    for (int i = 0; i < 40 && err == 0; i++) {
        uint8_t bytes[160];
        size_t len = 1 + (size_t)fake_random(&noise, sizeof(bytes) - 1);
        for (size_t at = 0; at < sizeof(bytes); at++)
            bytes[at] = (uint8_t)fake_random(&noise, fake_random(&noise, 3) ? 8 : 256);
        if (is_in_session && fake_random(&noise, 8))
            memcpy(bytes, "\x25\x60\x95\x13\0", 5);
        else if (fake_random(&noise, 8))
            memcpy(bytes, "IHAVEOPT\0\0\0", 11);
        err = wire_send(&client.wire, bytes, len);
    }
    wire_close(&client.wire);
}

static void test_hostile(void)
{
    static struct client client, witness;
    const uint8_t *bytes;
    tap_is_int(start_session(&witness, "disk", true), 0, "a witness");
    static const struct {
        const char *name, *bytes;
        size_t len;
    } bad[] = {
        {"another protocol", "GET / HTTP/1.1\r\n\r\n", 18},
        {"client flags that nobody has", "\0\0\0\x10", 4},
        {"an option without magic", "\0\0\0\3NOTANOPTION.....", 20},
        {"an option of 4 GiB", "\0\0\0\3IHAVEOPT\0\0\0\7\xff\xff\xff\xff", 20},
        {"EXPORT_NAME of nothing", "\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\4none", 24},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int err = open_client(&client, 3);
        wire_close(&client.wire);
        err = err == 0 ? wire_open(&client.wire, address)
                       : err;
        if (err == 0)
            err = wire_send(&client.wire, bad[i].bytes, bad[i].len);
        tap_is_int(err, 0, "%s", bad[i].name);
        err = wire_need(&client.wire, VV_NBD_HELLO_BYTES + 1, &bytes);
        tap_ok(err == -EPIPE || err == -ECONNRESET, "ends the connection");
        wire_close(&client.wire);
    }
    tap_is_int(start_session(&client, "disk", false), 0, "a client");
    tap_is_int(wire_send(&client.wire, "no request, but 28 bytes long", 28), 0, "sends rubbish");
    int err = wire_need(&client.wire, 1, &bytes);
    tap_ok(err == -EPIPE || err == -ECONNRESET, "and is cut off");
    wire_close(&client.wire);
    for (uint64_t seed = 1; seed <= 200; seed++)
        send_noise(seed);
    tap_is_int(READ(&witness, 0, 512), 0, "the witness has not noticed");
    wire_close(&witness.wire);
}

static int session(struct client *client)
{
    static uint8_t bytes[4096];
    struct vv_nbd_option_data data = {.name = TEXT("disk"), .infos = 0xf};
    memset(bytes, 7, sizeof(bytes));
    TRY(open_client(client, 3));
    TRY(option(client, VV_NBD_OPT_LIST, NULL));
    TRY(option(client, VV_NBD_OPT_STRUCTURED_REPLY, NULL));
    TRY(option(client, VV_NBD_OPT_SET_META_CONTEXT, &allocation));
    TRY(option(client, VV_NBD_OPT_GO, &data));
    TRY(call(client, VV_NBD_CMD_TRIM, 0, 0, DEVICE_BYTES, NULL));
    TRY(WRITE(client, 4096, 4096, bytes));
    TRY(READ(client, 0, 65536));
    if (client->chunks != 3 || !is_filled(client->data + 4096, 4096, 7))
        return -EBADMSG;
    TRY(call(client, VV_NBD_CMD_BLOCK_STATUS, 0, 0, DEVICE_BYTES, NULL));
    TRY(call(client, VV_NBD_CMD_CACHE, 0, 0, DEVICE_BYTES, NULL));
    return call(client, VV_NBD_CMD_FLUSH, 0, 0, 0, NULL);
}

/* A session in which the n-th allocation fails, n = 0, 1, ... Each has a server of its own, which
 * has no memory put aside yet. The client uses none but its socket's. */
static int session_without_memory(int64_t n)
{
    static struct client client;
    struct vv_nbd_options options = {.door = OTHER_DOOR + 1};
    struct vv_nbd *fresh;
    char first[sizeof(address)];
    memcpy(first, address, sizeof(first));
    vv_format(address, sizeof(address), "%s.fresh", first);
    int err = vv_nbd_new(fs, &options, &fresh);
    if (err == 0)
        err = vv_nbd_listen(fresh, address, NULL);
    vv_alloc_fail_at(n, false);
    if (err == 0)
        err = session(&client);
    wire_close(&client.wire);
    vv_nbd_close(fresh);
    memcpy(address, first, sizeof(first));
    return err;
}

static void test_no_memory(void)
{
    int64_t n = 0;
    int err;
    do {
        err = session_without_memory(n++);
    } while (vv_alloc_failed() && n < 2000);
    vv_alloc_fail_at(-1, false);
    tap_ok(n > 25 && n < 2000, "%lld allocations failed in turn", (long long)n - 1);
    tap_is_int(err, 0, "the session without a failure");
}

static bool is_quiet(void)
{
    struct vv_nbd_stats stats;
    vv_nbd_stats(nbd, &stats);
    return stats.connections == 0 && stats.memory_bytes == 0;
}

static int open_server(void)
{
    vv_format(address, sizeof(address), "unix:/tmp/varve-test-nbd.%d", (int)getpid());
    struct vv_nbd_options options = {.door = DOOR};
    volume = fake_volume_new(1);
    volume->miss_permille = 100;
    TRY(vv_fs_open(volume, &fs));
    TRY(vv_nbd_new(fs, &options, &nbd));
    TRY(vv_nbd_listen(nbd, address, NULL));
    TRY(vv_nbd_device_create(fs, OTHER_DOOR, TEXT("disk"), DEVICE_BYTES));
    struct vv_attr attr;
    struct vv_fs_call call_of_root = {.door = OTHER_DOOR};
    TRY(vv_fs_lookup(fs, &call_of_root, VV_ROOT_INODE, VV_NBD_DIRECTORY, 4, &attr));
    return vv_fs_mkdir(fs, &call_of_root, attr.inode, "folder", 6,
                       &(struct vv_create){.mode = S_IFDIR | 0755}, &attr);
}

static void run(void *arg)
{
    int err = open_server();
    tap_is_int(err, 0, "the server listens");
    if (err < 0)
        return;
    test_negotiation();
    test_export_name(true);
    test_export_name(false);
    test_data(true);
    test_data(false);
    test_status();
    test_edges();
    test_changes();
    test_devices();
    test_huge();
    test_pipeline();
    test_refusals();
    test_hostile();
    test_no_memory();
    for (int i = 0; i < 10000 && !is_quiet(); i++)
        vv_fiber_yield();
    tap_ok(is_quiet(), "no connection and no memory is left");
    static struct client client;
    const uint8_t *bytes;
    tap_is_int(start_session(&client, "disk", true), 0, "a last client");
    vv_nbd_close(nbd);
    tap_is_int(wire_need(&client.wire, 1, &bytes), -EPIPE, "is cut off when the server closes");
    wire_close(&client.wire);
    vv_fs_close(fs);
    fake_volume_free(volume);
    unlink(address + 5);
}

static void drop_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(void)
{
    const struct vv_rt_options options = {.workers = 1};
    vv_log_set_sink(drop_line, NULL);
    tap_is_int(vv_rt_run(&options, run, NULL), 0, "the runtime ends well");
    return tap_done();
}
