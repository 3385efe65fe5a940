/* The 9P server over a unix socket, on a file system in memory: sessions, several clients at once,
 * messages that make no sense, and each allocation failing in turn. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "front/ninep/codec.h"
#include "front/ninep/ninep.h"
#include "unit/front/wire.h"
#include "unit/fs/fake_volume.h"

#define TEXT(text) ((struct vv_bytes){(const uint8_t *)(text), strlen(text)})
#define BUF_BYTES (1u << 16)

static struct vv_volume *volume;
static struct vv_fs *fs;
static struct vv_ninep *ninep;
static char address[108];

struct client {
    struct wire wire;
    uint16_t tag;
    uint8_t out[BUF_BYTES];
};

/* ---- a client ---- */

static int send_request(struct client *client, struct vv_ninep_request request)
{
    struct vv_writer writer = vv_writer_of(client->out, sizeof(client->out));
    TRY(vv_ninep_encode_request(&writer, &request));
    return wire_send(&client->wire, writer.ptr, writer.len);
}

/* The next reply; its bytes are good until the call after it. -EPIPE at the end of the stream. */
static int receive(struct client *client, struct vv_ninep_reply *out_reply)
{
    const uint8_t *bytes;
    TRY(wire_need(&client->wire, 4, &bytes));
    size_t len = vv_ninep_size(bytes);
    TRY(wire_need(&client->wire, len, &bytes));
    client->wire.in_used = len;
    return vv_ninep_decode_reply(bytes, len, out_reply);
}

/* Send and wait: 0, the server's error below 0, or what the connection says. */
static int call(struct client *client, struct vv_ninep_request request,
                struct vv_ninep_reply *out_reply)
{
    request.tag = ++client->tag;
    TRY(send_request(client, request));
    TRY(receive(client, out_reply));
    if (out_reply->tag != request.tag)
        return -EBADMSG;
    if (out_reply->type == VV_NINEP_RLERROR)
        return -(int)out_reply->error;
    return out_reply->type == request.type + 1 ? 0 : -EBADMSG;
}

static int open_client(struct client *client)
{
    *client = (struct client){0};
    return wire_open(&client->wire, address);
}

static int start_session(struct client *client, uint32_t root)
{
    struct vv_ninep_reply reply;
    TRY(open_client(client));
    TRY(call(client,
             (struct vv_ninep_request){
                 .type = VV_NINEP_TVERSION, .msize = 32768, .name = TEXT(VV_NINEP_VERSION)},
             &reply));
    return call(client,
                (struct vv_ninep_request){
                    .type = VV_NINEP_TATTACH, .fid = root, .newfid = VV_NINEP_NOFID, .n_uname = 0},
                &reply);
}

static int walk(struct client *client, uint32_t fid, uint32_t newfid, const char *name)
{
    struct vv_ninep_reply reply;
    return call(client,
                (struct vv_ninep_request){.type = VV_NINEP_TWALK,
                                          .fid = fid,
                                          .newfid = newfid,
                                          .name_count = name ? 1 : 0,
                                          .names = {name ? TEXT(name) : TEXT("")}},
                &reply);
}

static int clunk(struct client *client, uint32_t fid)
{
    struct vv_ninep_reply reply;
    return call(client, (struct vv_ninep_request){.type = VV_NINEP_TCLUNK, .fid = fid}, &reply);
}

static int create(struct client *client, uint32_t dir, uint32_t fid, const char *name)
{
    struct vv_ninep_reply reply;
    TRY(walk(client, dir, fid, NULL));
    return call(client,
                (struct vv_ninep_request){.type = VV_NINEP_TLCREATE,
                                          .fid = fid,
                                          .name = TEXT(name),
                                          .flags = O_RDWR,
                                          .mode = 0644,
                                          .gid = 0},
                &reply);
}

static int lock(struct client *client, uint32_t fid, uint8_t type)
{
    struct vv_ninep_reply reply;
    TRY(call(client,
             (struct vv_ninep_request){
                 .type = VV_NINEP_TLOCK,
                 .fid = fid,
                 .lock = {.type = type, .proc_id = 1, .client_id = TEXT("client")}},
             &reply));
    return reply.status;
}

/* ---- the tests ---- */

/* A bit of everything. The first error. */
static int session(struct client *client, const char *name)
{
    struct vv_ninep_reply reply;
    TRY(start_session(client, 1));
    TRY(create(client, 1, 2, name));
    TRY(call(client,
             (struct vv_ninep_request){
                 .type = VV_NINEP_TWRITE, .fid = 2, .offset = 3, .data = TEXT("hello")},
             &reply));
    TRY(call(client, (struct vv_ninep_request){.type = VV_NINEP_TREAD, .fid = 2, .count = 100},
             &reply));
    if (reply.data.len != 8 || memcmp(reply.data.ptr, "\0\0\0hello", 8) != 0)
        return -EBADMSG;
    TRY(lock(client, 2, VV_NINEP_LOCK_WRLCK));
    TRY(walk(client, 1, 3, name));
    TRY(call(client,
             (struct vv_ninep_request){
                 .type = VV_NINEP_TXATTRCREATE, .fid = 3, .name = TEXT("user.key"), .size = 5},
             &reply));
    TRY(call(client,
             (struct vv_ninep_request){.type = VV_NINEP_TWRITE, .fid = 3, .data = TEXT("value")},
             &reply));
    TRY(clunk(client, 3));
    TRY(call(client,
             (struct vv_ninep_request){
                 .type = VV_NINEP_TXATTRWALK, .fid = 2, .newfid = 3, .name = TEXT("user.key")},
             &reply));
    if (reply.size != 5)
        return -EBADMSG;
    TRY(walk(client, 1, 4, NULL));
    TRY(call(client, (struct vv_ninep_request){.type = VV_NINEP_TLOPEN, .fid = 4}, &reply));
    TRY(call(client, (struct vv_ninep_request){.type = VV_NINEP_TREADDIR, .fid = 4, .count = 4096},
             &reply));
    if (reply.data.len < 3 * 24)
        return -EBADMSG;
    TRY(call(client, (struct vv_ninep_request){.type = VV_NINEP_TGETATTR, .fid = 2, .mask = 0x3fff},
             &reply));
    if (reply.getattr.size != 8 || reply.getattr.mode != (S_IFREG | 0644))
        return -EBADMSG;
    TRY(call(client,
             (struct vv_ninep_request){.type = VV_NINEP_TUNLINKAT, .fid = 1, .name = TEXT(name)},
             &reply));
    return clunk(client, 2);
}

static void test_session(void)
{
    static struct client client;
    tap_is_int(session(&client, "file"), 0, "a session");
    wire_close(&client.wire);
}

static void test_locks(void)
{
    static struct client one, two;
    tap_is_int(start_session(&one, 1), 0, "a client");
    tap_is_int(create(&one, 1, 2, "locked"), 0, "makes a file");
    tap_is_int(start_session(&two, 1), 0, "another one");
    struct vv_ninep_reply reply;
    tap_is_int(walk(&two, 1, 2, "locked"), 0, "finds it");
    tap_is_int(lock(&two, 2, VV_NINEP_LOCK_RDLCK), -EBADF, "must open it to lock it");
    tap_is_int(call(&two,
                    (struct vv_ninep_request){.type = VV_NINEP_TLOPEN, .fid = 2, .flags = O_RDWR},
                    &reply),
               0, "opens it");
    tap_is_int(lock(&one, 2, VV_NINEP_LOCK_WRLCK), VV_NINEP_LOCK_SUCCESS, "the first locks it");
    tap_is_int(lock(&two, 2, VV_NINEP_LOCK_RDLCK), VV_NINEP_LOCK_BLOCKED, "the other has to wait");
    tap_is_int(clunk(&one, 2), 0, "the first clunks it");
    tap_is_int(lock(&two, 2, VV_NINEP_LOCK_RDLCK), VV_NINEP_LOCK_SUCCESS, "which unlocks it");
    wire_close(&two.wire);
    tap_is_int(walk(&one, 1, 3, "locked"), 0, "once more");
    tap_is_int(call(&one,
                    (struct vv_ninep_request){.type = VV_NINEP_TLOPEN, .fid = 3, .flags = O_RDWR},
                    &reply),
               0, "opened");
    int status = VV_NINEP_LOCK_BLOCKED;
    for (int i = 0; i < 1000 && status == VV_NINEP_LOCK_BLOCKED; i++) {
        vv_fiber_yield();
        status = lock(&one, 3, VV_NINEP_LOCK_WRLCK);
    }
    tap_is_int(status, VV_NINEP_LOCK_SUCCESS, "a connection that ends unlocks");
    wire_close(&one.wire);
}

/* Many requests in one piece; a flush is answered behind what it flushes. */
/* A lock that waits: its answer comes when it is granted, or it is flushed. */
static struct vv_ninep_request waiting_lock(uint32_t fid, uint16_t tag)
{
    return (struct vv_ninep_request){.type = VV_NINEP_TLOCK,
                                     .tag = tag,
                                     .fid = fid,
                                     .lock = {.type = VV_NINEP_LOCK_WRLCK,
                                              .flags = VV_NINEP_LOCK_FLAG_BLOCK,
                                              .proc_id = 1,
                                              .client_id = TEXT("client")}};
}

static void test_waiting_locks(void)
{
    static struct client one, two;
    struct vv_ninep_reply reply;
    tap_is_int(start_session(&one, 1), 0, "a client");
    tap_is_int(create(&one, 1, 2, "waited"), 0, "makes a file");
    tap_is_int(start_session(&two, 1), 0, "another one");
    tap_is_int(walk(&two, 1, 2, "waited"), 0, "finds it");
    const struct vv_ninep_request open = {.type = VV_NINEP_TLOPEN, .fid = 2, .flags = O_RDWR};
    tap_is_int(call(&two, open, &reply), 0, "opens it");
    tap_is_int(lock(&one, 2, VV_NINEP_LOCK_WRLCK), VV_NINEP_LOCK_SUCCESS, "the first locks it");
    tap_is_int(send_request(&two, waiting_lock(2, 1000)), 0, "the other waits for it");
    tap_is_int(walk(&two, 1, 3, NULL), 0, "and does other things meanwhile");
    tap_is_int(lock(&one, 2, VV_NINEP_LOCK_UNLCK), VV_NINEP_LOCK_SUCCESS, "the first unlocks it");
    tap_is_int(receive(&two, &reply), 0, "the other is answered");
    tap_ok(reply.tag == 1000 && reply.type == VV_NINEP_TLOCK + 1 &&
               reply.status == VV_NINEP_LOCK_SUCCESS,
           "and has it");
    tap_is_int(send_request(&one, waiting_lock(2, 1001)), 0, "now the first waits");
    tap_is_int(send_request(&one, (struct vv_ninep_request){.type = VV_NINEP_TFLUSH,
                                                            .tag = 1002,
                                                            .oldtag = 1001}),
               0, "and gives up");
    tap_is_int(receive(&one, &reply), 0, "an answer");
    tap_ok(reply.tag == 1001 && reply.type == VV_NINEP_RLERROR && reply.error == EINTR,
           "interrupted");
    tap_is_int(receive(&one, &reply), 0, "another");
    tap_ok(reply.tag == 1002 && reply.type == VV_NINEP_TFLUSH + 1, "the flush's, behind it");
    tap_is_int(send_request(&one, waiting_lock(2, 1003)), 0, "it waits again");
    wire_close(&one.wire);
    tap_is_int(lock(&two, 2, VV_NINEP_LOCK_UNLCK), VV_NINEP_LOCK_SUCCESS, "it is gone: the lock");
    int status = VV_NINEP_LOCK_BLOCKED;
    for (int i = 0; i < 1000 && status == VV_NINEP_LOCK_BLOCKED; i++) {
        vv_fiber_yield();
        status = lock(&two, 2, VV_NINEP_LOCK_WRLCK);
    }
    tap_is_int(status, VV_NINEP_LOCK_SUCCESS, "does not go to it for long");
    wire_close(&two.wire);
}

static int get_mode(struct client *client, uint32_t fid)
{
    struct vv_ninep_reply reply;
    TRY(call(client,
             (struct vv_ninep_request){.type = VV_NINEP_TGETATTR, .fid = fid, .mask = 0x3fff},
             &reply));
    return (int)(reply.getattr.mode & 07777);
}

static int set_mode(struct client *client, uint32_t fid, uint32_t mode)
{
    struct vv_ninep_reply reply;
    return call(client,
                (struct vv_ninep_request){.type = VV_NINEP_TSETATTR,
                                          .fid = fid,
                                          .setattr = {.valid = VV_NINEP_SET_MODE, .mode = mode}},
                &reply);
}

/* What an ordinary user may do to the mode of another's file that he may write. */
static void test_set_ids(void)
{
    static struct client root, user;
    struct vv_ninep_reply reply;
    tap_is_int(start_session(&root, 1), 0, "root");
    tap_is_int(create(&root, 1, 2, "program"), 0, "makes a file");
    tap_is_int(set_mode(&root, 2, 06777), 0, "for all to write, with setuid and setgid");
    tap_is_int(start_session(&user, 1), 0, "a client");
    tap_is_int(call(&user,
                    (struct vv_ninep_request){.type = VV_NINEP_TATTACH,
                                              .fid = 5,
                                              .newfid = VV_NINEP_NOFID,
                                              .n_uname = 54321},
                    &reply),
               0, "of an ordinary user");
    tap_is_int(walk(&user, 5, 6, "program"), 0, "finds it");
    tap_is_int(set_mode(&user, 6, 06755), -EPERM, "who may not chmod it");
    tap_is_int(set_mode(&user, 6, 02777), 0, "but may drop setuid, as his write would");
    tap_is_int(get_mode(&root, 2), 0777, "which takes both, as his write does");
    tap_is_int(set_mode(&user, 6, 06777), -EPERM, "he may not set them");
    tap_is_int(set_mode(&root, 2, 06755), 0, "for all to read");
    tap_is_int(set_mode(&user, 6, 0755), -EPERM, "then he may drop nothing");
    tap_is_int(get_mode(&root, 2), 06755, "and nothing is dropped");
    wire_close(&user.wire);
    wire_close(&root.wire);
}

static void test_pipeline(void)
{
    static struct client client;
    tap_is_int(start_session(&client, 1), 0, "a client");
    tap_is_int(create(&client, 1, 2, "pipe"), 0, "makes a file");
    struct vv_writer writer = vv_writer_new();
    int err = 0;
    for (uint16_t i = 0; i < 1000 && err == 0; i++) {
        struct vv_ninep_request request = {
            .type = VV_NINEP_TWRITE, .tag = i, .fid = 2, .offset = i, .data = TEXT("x")};
        err = vv_ninep_encode_request(&writer, &request);
    }
    struct vv_ninep_request flush = {.type = VV_NINEP_TFLUSH, .tag = 2000, .oldtag = 999};
    if (err == 0)
        err = vv_ninep_encode_request(&writer, &flush);
    tap_is_int(err, 0, "a thousand writes and a flush");
    tap_is_int(wire_send(&client.wire, writer.ptr, writer.len), 0, "sent");
    vv_writer_done(&writer);
    int answered_count = 0;
    int write_at = -1, flush_at = -1;
    struct vv_ninep_reply reply;
    while (answered_count < 1001 && receive(&client, &reply) == 0) {
        write_at = reply.tag == flush.oldtag ? answered_count : write_at;
        flush_at = reply.tag == flush.tag ? answered_count : flush_at;
        answered_count++;
    }
    tap_is_int(answered_count, 1001, "and all answered");
    tap_ok(write_at >= 0 && flush_at > write_at, "the flush behind its write");
    tap_is_int(
        call(&client, (struct vv_ninep_request){.type = VV_NINEP_TGETATTR, .fid = 2}, &reply), 0,
        "the file");
    tap_is_int((int64_t)reply.getattr.size, 1000, "has them all");
    /* Tversion ends everything: all fids are gone. */
    tap_is_int(call(&client,
                    (struct vv_ninep_request){
                        .type = VV_NINEP_TVERSION, .msize = 8192, .name = TEXT(VV_NINEP_VERSION)},
                    &reply),
               0, "a new version");
    tap_is_int(clunk(&client, 2), -EBADF, "has no fids");
    wire_close(&client.wire);
}

/* What a client sends until the server hangs up, or nothing more. */
static void send_noise(uint64_t seed)
{
    static struct client client;
    struct vv_volume noise = {.random = seed};
    if (start_session(&client, 1) < 0) {
        wire_close(&client.wire);
        return;
    }
    for (int i = 0; i < 40; i++) {
        uint8_t bytes[128];
        size_t body_len = (size_t)fake_random(&noise, sizeof(bytes) - 7);
        for (size_t at = 7; at < sizeof(bytes); at++)
            bytes[at] = (uint8_t)fake_random(&noise, fake_random(&noise, 2) ? 4 : 256);
        vv_store_u32(bytes, (uint32_t)(7 + body_len));
        bytes[4] = (uint8_t)(fake_random(&noise, 10) ? 2 * fake_random(&noise, 62)
                                                     : fake_random(&noise, 256));
        bytes[5] = (uint8_t)i;
        bytes[6] = 1;
        if (bytes[4] == VV_NINEP_TFLUSH)
            bytes[7] = (uint8_t)(i - 1);
        if (wire_send(&client.wire, bytes, 7 + body_len) < 0)
            break;
        struct vv_ninep_reply reply;
        if (fake_random(&noise, 2) && receive(&client, &reply) < 0)
            break;
    }
    wire_close(&client.wire);
}

static void test_hostile(void)
{
    static struct client client, witness;
    struct vv_ninep_reply reply;
    tap_is_int(start_session(&witness, 1), 0, "a witness");
    static const struct {
        const char *name, *bytes;
        size_t len;
    } bad[] = {
        {"a size of nothing", "\0\0\0\0", 4},
        {"a size below the header's", "\6\0\0\0\x64\0", 6},
        {"a size above msize", "\1\0\0\x7f\x64\0\0", 7},
        {"another protocol", "GET / HTTP/1.1\r\n\r\n", 18},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int err = open_client(&client);
        if (err == 0)
            err = wire_send(&client.wire, bad[i].bytes, bad[i].len);
        tap_is_int(err, 0, "%s", bad[i].name);
        tap_is_int(receive(&client, &reply), -EPIPE, "ends the connection");
        wire_close(&client.wire);
    }
    tap_is_int(open_client(&client), 0, "a client");
    tap_is_int(clunk(&client, 1), -EPROTO, "that sends no version is refused");
    wire_close(&client.wire);

    for (uint64_t seed = 1; seed <= 150; seed++)
        send_noise(seed);
    tap_is_int(walk(&witness, 1, 9, NULL), 0, "the witness has not noticed");
    wire_close(&witness.wire);
}

/* A session in which the n-th allocation fails, n = 0, 1, ... The client uses none but its
 * socket's. */
static void test_no_memory(void)
{
    static struct client client;
    int64_t n = 0;
    int err;
    do {
        char name[32];
        vv_format(name, sizeof(name), "memory%lld", (long long)n);
        vv_alloc_fail_at(n, false);
        err = session(&client, name);
        wire_close(&client.wire);
        for (int i = 0; i < 100 && !vv_alloc_failed(); i++)
            vv_fiber_yield();
        n++;
    } while (vv_alloc_failed() && n < 2000);
    vv_alloc_fail_at(-1, false);
    tap_ok(n > 20 && n < 2000, "%lld allocations failed in turn", (long long)n - 1);
    tap_is_int(err, 0, "the session without a failure");
}

static bool is_quiet(void)
{
    struct vv_ninep_stats stats;
    vv_ninep_stats(ninep, &stats);
    return stats.connections == 0 && stats.fids == 0;
}

static int open_server(void)
{
    vv_format(address, sizeof(address), "unix:/tmp/varve-test-ninep.%d", (int)getpid());
    struct vv_ninep_options options = {.address = address, .door = 3, .msize_max = 32768};
    volume = fake_volume_new(1);
    volume->miss_permille = 100;
    TRY(vv_fs_open(volume, &fs));
    return vv_ninep_listen(fs, &options, &ninep);
}

static void run(void *arg)
{
    int err = open_server();
    tap_is_int(err, 0, "the server listens");
    if (err < 0)
        return;
    test_session();
    test_locks();
    test_waiting_locks();
    test_set_ids();
    test_pipeline();
    test_hostile();
    test_no_memory();
    for (int i = 0; i < 10000 && !is_quiet(); i++)
        vv_fiber_yield();
    tap_ok(is_quiet(), "no connection and no fid is left");
    static struct client client;
    tap_is_int(start_session(&client, 1), 0, "a last client");
    vv_ninep_close(ninep);
    struct vv_ninep_reply reply;
    tap_is_int(receive(&client, &reply), -EPIPE, "is cut off when the server closes");
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
