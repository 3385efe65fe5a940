/* The NFS server over a unix socket, on a file system in memory: sessions, repeated requests,
 * records that make no sense, registration, and each allocation failing in turn. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "front/nfs/codec.h"
#include "front/nfs/nfs.h"
#include "front/nfs/rpc.h"
#include "unit/front/wire.h"
#include "unit/fs/fake_volume.h"

#define TEXT(text) ((struct vv_bytes){(const uint8_t *)(text), strlen(text)})
#define BUF_BYTES (1u << 17)

static struct vv_volume *volume;
static struct vv_fs *fs;
static struct vv_nfs *nfs;
static char address[108];

struct client {
    struct wire wire;
    uint32_t xid;
    uint8_t out[BUF_BYTES];
};

/* ---- a client ---- */

static int send_call(struct client *client, uint32_t procedure, const struct vv_nfs_args *args)
{
    uint8_t bytes[4096];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    TRY(vv_nfs_encode_args(&writer, procedure, args));
    struct vv_rpc_call rpc = {.xid = client->xid,
                              .program = VV_NFS_PROGRAM,
                              .version = VV_NFS_VERSION,
                              .procedure = procedure,
                              .flavor = VV_RPC_AUTH_SYS,
                              .args = {bytes, writer.len}};
    writer = vv_writer_of(client->out, sizeof(client->out));
    TRY(vv_rpc_encode_call(&writer, &rpc));
    return wire_send(&client->wire, writer.ptr, writer.len);
}

/* The next reply; its bytes are good until the call after it. -EPIPE at the end of the stream. */
static int receive(struct client *client, struct vv_rpc_reply *out_reply, struct vv_bytes *out)
{
    bool is_last;
    const uint8_t *bytes;
    TRY(wire_need(&client->wire, 4, &bytes));
    size_t len = 4 + vv_rpc_fragment(bytes, &is_last);
    TRY(wire_need(&client->wire, len, &bytes));
    client->wire.in_used = len;
    return vv_rpc_decode_reply(bytes + 4, len - 4, out_reply, out);
}

/* Send and wait: 0, the server's status below 0, or what the connection says. */
static int call(struct client *client, uint32_t procedure, struct vv_nfs_args args,
                struct vv_nfs_results *out_results)
{
    struct vv_rpc_reply reply;
    struct vv_bytes results;
    client->xid++;
    TRY(send_call(client, procedure, &args));
    TRY(receive(client, &reply, &results));
    if (reply.xid != client->xid)
        return -EBADMSG;
    if (reply.status != VV_RPC_SUCCESS)
        return -EPROTO;
    TRY(vv_nfs_decode_results(procedure, results, out_results));
    return -(int)out_results->status;
}

static int open_client(struct client *client)
{
    *client = (struct client){.xid = (uint32_t)vv_rt_random_u64()};
    return wire_open(&client->wire, address);
}

static struct vv_nfs_handle root_handle(void)
{
    struct vv_nfs_handle handle = {.len = 32};
    memcpy(handle.bytes, vv_volume_id(volume), 16);
    vv_store_be64(handle.bytes + 16, VV_ROOT_INODE);
    vv_store_be64(handle.bytes + 24, 1);
    return handle;
}

/* ---- the tests ---- */

/* A bit of everything. The first error. */
static int session(struct client *client, const char *name)
{
    struct vv_nfs_results results;
    struct vv_nfs_handle root = root_handle();
    TRY(open_client(client));
    TRY(call(client, VV_NFS_NULL, (struct vv_nfs_args){0}, &results));
    TRY(call(client, VV_NFS_CREATE,
             (struct vv_nfs_args){.handle = root, .name = TEXT(name), .how = VV_NFS_GUARDED},
             &results));
    struct vv_nfs_handle file = results.handle;
    TRY(call(client, VV_NFS_WRITE,
             (struct vv_nfs_args){.handle = file, .offset = 3, .count = 5, .data = TEXT("hello")},
             &results));
    TRY(call(client, VV_NFS_READ, (struct vv_nfs_args){.handle = file, .count = 100}, &results));
    if (results.data.len != 8 || memcmp(results.data.ptr, "\0\0\0hello", 8) != 0)
        return -EBADMSG;
    TRY(call(client, VV_NFS_COMMIT, (struct vv_nfs_args){.handle = file}, &results));
    TRY(call(client, VV_NFS_READDIRPLUS,
             (struct vv_nfs_args){.handle = root, .dir_count = 4096, .count = 8192}, &results));
    struct vv_nfs_entry entry;
    if (vv_nfs_decode_entry(&results.data, true, &entry) != 1)
        return -EBADMSG;
    TRY(call(client, VV_NFS_LOOKUP, (struct vv_nfs_args){.handle = root, .name = TEXT(name)},
             &results));
    if (memcmp(&results.handle, &file, sizeof(file)) != 0)
        return -EBADMSG;
    TRY(call(client, VV_NFS_ACCESS, (struct vv_nfs_args){.handle = file, .access = 1}, &results));
    return call(client, VV_NFS_REMOVE, (struct vv_nfs_args){.handle = root, .name = TEXT(name)},
                &results);
}

static void test_session(void)
{
    static struct client client;
    tap_is_int(session(&client, "file"), 0, "a session");
    wire_close(&client.wire);
}

/* The same xid and request: the same answer, on whichever connection; 4096 requests later it is
 * forgotten. */
static void test_repeated(void)
{
    static struct client client, other;
    struct vv_nfs_results results;
    struct vv_nfs_stats before, after;
    struct vv_nfs_args args = {
        .handle = root_handle(), .name = TEXT("repeat"), .how = VV_NFS_GUARDED};
    tap_is_int(open_client(&client), 0, "a client");
    tap_is_int(open_client(&other), 0, "another connection");
    tap_is_int(call(&client, VV_NFS_CREATE, args, &results), 0, "CREATE");
    uint32_t xid = client.xid;
    struct vv_nfs_handle file = results.handle;
    vv_nfs_stats(nfs, &before);
    client.xid = xid - 1;
    tap_is_int(call(&client, VV_NFS_CREATE, args, &results), 0, "repeated");
    other.xid = xid - 1;
    tap_is_int(call(&other, VV_NFS_CREATE, args, &results), 0, "and elsewhere");
    tap_is_bytes(&results.handle, &file, sizeof(file), "the same handle");
    vv_nfs_stats(nfs, &after);
    tap_is_int((int64_t)(after.repeated - before.repeated), 2, "two were repeated");
    client.xid = xid;
    tap_is_int(call(&client, VV_NFS_CREATE, args, &results), -VV_NFS3ERR_EXIST, "another xid");
    args.name = TEXT("no such name");
    int err = -VV_NFS3ERR_NOENT;
    for (int i = 0; i < VV_NFS_REPLIES_MAX + 10 && err == -VV_NFS3ERR_NOENT; i++)
        err = call(&client, VV_NFS_REMOVE, args, &results);
    tap_is_int(err, -VV_NFS3ERR_NOENT, "thousands more");
    vv_nfs_stats(nfs, &after);
    tap_ok(after.replies <= VV_NFS_REPLIES_MAX, "%u replies are kept", after.replies);
    args.name = TEXT("repeat");
    client.xid = xid - 1;
    tap_is_int(call(&client, VV_NFS_CREATE, args, &results), -VV_NFS3ERR_EXIST, "forgotten");
    tap_is_int(call(&client, VV_NFS_REMOVE, args, &results), 0, "removed");
    wire_close(&client.wire);
    wire_close(&other.wire);
}

/* "Try again later" is tried again, not repeated. */
static void test_later(void)
{
    static struct client client;
    struct vv_nfs_results results;
    struct vv_nfs_args args = {
        .handle = root_handle(), .name = TEXT("later"), .how = VV_NFS_GUARDED};
    tap_is_int(open_client(&client), 0, "a client");
    volume->apply_error = -VV_ERR_FENCED;
    tap_is_int(call(&client, VV_NFS_CREATE, args, &results), -VV_NFS3ERR_JUKEBOX,
               "a fenced server says later");
    volume->apply_error = 0;
    client.xid--;
    tap_is_int(call(&client, VV_NFS_CREATE, args, &results), 0, "the same xid is done then");
    volume->apply_error = -ENOSPC;
    args.name = TEXT("full");
    tap_is_int(call(&client, VV_NFS_CREATE, args, &results), -28, "a full store says so");
    volume->apply_error = 0;
    args.name = TEXT("later");
    tap_is_int(call(&client, VV_NFS_REMOVE, args, &results), 0, "removed");
    wire_close(&client.wire);
}

static void test_read_only(void)
{
    static struct client client;
    char usual[108];
    struct vv_nfs *usual_nfs = nfs;
    struct vv_nfs_export exports[1];
    struct vv_nfs_results results;
    const char *why;
    vv_copy_text(usual, sizeof(usual), address);
    vv_format(address, sizeof(address), "unix:/tmp/varve-test-nfs-ro.%d", (int)getpid());
    int err = vv_nfs_export_parse("/:ro", &exports[0], &why);
    struct vv_nfs_options options = {
        .address = address, .door = 4, .exports = exports, .export_count = 1};
    if (err == 0)
        err = vv_nfs_listen(fs, &options, &nfs);
    tap_is_int(err, 0, "a read-only export");
    tap_is_int(open_client(&client), 0, "a client");
    for (uint32_t procedure = 0; procedure < VV_NFS_PROCEDURES; procedure++) {
        struct vv_nfs_args args = {
            .handle = root_handle(), .to_handle = root_handle(), .name = TEXT("x"), .count = 0};
        args.how = procedure == VV_NFS_MKNOD ? VV_NF3FIFO : 0;
        bool is_changing = procedure == VV_NFS_SETATTR || procedure == VV_NFS_WRITE ||
                           (procedure >= VV_NFS_CREATE && procedure <= VV_NFS_LINK);
        int status = call(&client, procedure, args, &results);
        tap_ok((status == -VV_NFS3ERR_ROFS) == is_changing, "%s",
               vv_nfs_procedure_name(procedure));
    }
    wire_close(&client.wire);
    vv_nfs_close(nfs);
    nfs = usual_nfs;
    vv_copy_text(address, sizeof(address), usual);
    struct vv_nfs *none = NULL;
    err = vv_nfs_export_parse("/not/there", &exports[0], &why);
    if (err == 0)
        err = vv_nfs_listen(fs, &options, &none);
    tap_is_int(err, -ENOENT, "an export of what is not there");
}

/* What a client sends until the server hangs up, or nothing more. */
static void send_noise(uint64_t seed)
{
    static struct client client;
    struct vv_volume noise = {.random = seed};
    if (open_client(&client) < 0)
        return;
    for (int i = 0; i < 40; i++) {
        uint8_t bytes[256] = {0};
        struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
        size_t body_len = (size_t)fake_random(&noise, 100) & ~3ull;
        vv_writer_be32(&writer, (uint32_t)(0x80000000u + 40 + body_len));
        vv_writer_be32(&writer, (uint32_t)i);
        vv_writer_be32(&writer, 0);
        vv_writer_be32(&writer, fake_random(&noise, 20) ? 2 : 3);
        vv_writer_be32(&writer, fake_random(&noise, 4) ? 100003 : 100005);
        vv_writer_be32(&writer, 3);
        vv_writer_be32(&writer, (uint32_t)fake_random(&noise, 24));
        for (int word = 0; word < 4; word++)
            vv_writer_be32(&writer, 0);
        bool has_handle = body_len >= 36 && fake_random(&noise, 2);
        if (has_handle) {
            struct vv_nfs_handle handle = root_handle();
            vv_writer_be32(&writer, 32);
            vv_writer_bytes(&writer, handle.bytes, 32);
            body_len -= 36;
        }
        for (size_t at = 0; at < body_len; at++)
            vv_writer_u8(&writer, (uint8_t)fake_random(&noise, fake_random(&noise, 2) ? 3 : 256));
        struct vv_rpc_reply reply;
        struct vv_bytes results;
        if (wire_send(&client.wire, bytes, writer.len) < 0 ||
            (fake_random(&noise, 2) && receive(&client, &reply, &results) < 0))
            break;
    }
    wire_close(&client.wire);
}

static void test_hostile(void)
{
    static struct client client, witness;
    struct vv_rpc_reply reply;
    struct vv_bytes bytes;
    struct vv_nfs_results results;
    tap_is_int(open_client(&witness), 0, "a witness");
    static const struct {
        const char *name, *bytes;
        size_t len;
    } bad[] = {
        {"a record of nothing", "\x80\0\0\0", 4},
        {"a record of three bytes", "\x80\0\0\3abc", 7},
        {"a record over the limit", "\xff\0\0\0", 4},
        {"another protocol", "GET / HTTP/1.1\r\n\r\n", 18},
        {"a reply", "\x80\0\0\x0c\0\0\0\1\0\0\0\1\0\0\0\0", 16},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int err = open_client(&client);
        if (err == 0)
            err = wire_send(&client.wire, bad[i].bytes, bad[i].len);
        tap_is_int(err, 0, "%s", bad[i].name);
        tap_is_int(receive(&client, &reply, &bytes), -EPIPE, "ends the connection");
        wire_close(&client.wire);
    }
    for (uint64_t seed = 1; seed <= 150; seed++)
        send_noise(seed);
    tap_is_int(call(&witness, VV_NFS_GETATTR, (struct vv_nfs_args){.handle = root_handle()},
                    &results),
               0, "the witness has not noticed");
    wire_close(&witness.wire);
}

/* More clients than may be connected: the idle ones make room. */
static void test_many(void)
{
    static struct client last;
    struct vv_nfs_stats stats;
    struct vv_nfs_results results;
    struct vv_socket *sockets[VV_NFS_CONNECTIONS_MAX + 5] = {NULL};
    int err = 0;
    for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]) && err == 0; i++) {
        err = vv_socket_connect(address, vv_rt_now_ns() + WIRE_TIMEOUT_NS, &sockets[i]);
        vv_fiber_yield(); /* to the one that accepts */
    }
    tap_is_int(err, 0, "five clients more than may be");
    tap_is_int(open_client(&last), 0, "and one more");
    tap_is_int(call(&last, VV_NFS_GETATTR, (struct vv_nfs_args){.handle = root_handle()}, &results),
               0, "is served");
    vv_nfs_stats(nfs, &stats);
    tap_ok(stats.connections <= VV_NFS_CONNECTIONS_MAX && stats.connections_evicted >= 6,
           "%u connections, %llu had to go", stats.connections,
           (unsigned long long)stats.connections_evicted);
    wire_close(&last.wire);
    for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++)
        vv_socket_close(sockets[i]);
}

/* ---- rpcbind ---- */

static struct {
    struct vv_socket *listener;
    unsigned set_count, unset_count;
    bool is_refusing;
    bool has_ended;
} rpcbind;

/* Answers each call: a bool, true unless it refuses. */
static void serve_rpcbind(void *arg)
{
    struct vv_socket *socket;
    while (vv_socket_accept(rpcbind.listener, &socket) == 0) {
        uint8_t in[512];
        ssize_t len;
        while ((len = vv_socket_recv(socket, in, sizeof(in), VV_NEVER)) > 4) {
            uint8_t out[64];
            struct vv_writer writer = vv_writer_of(out, sizeof(out));
            struct vv_rpc_call rpc;
            struct vv_rpc_reply reply;
            if (vv_rpc_decode_call(in + 4, (size_t)len - 4, &rpc, &reply) < 0)
                break;
            rpcbind.set_count += rpc.procedure == 1;
            rpcbind.unset_count += rpc.procedure == 2;
            int err = vv_rpc_encode_reply(&writer, &reply);
            vv_writer_be32(&writer, !rpcbind.is_refusing);
            struct iovec iov = {out, writer.len};
            if (err < 0 || vv_rpc_finish(&writer, 0, 0) < 0 ||
                vv_socket_send(socket, &iov, 1, VV_NEVER) < 0)
                break;
        }
        vv_socket_close(socket);
    }
    rpcbind.has_ended = true;
}

static void test_register(void)
{
    char place[108];
    char listen[108];
    struct vv_nfs *registered = NULL;
    vv_format(place, sizeof(place), "unix:/tmp/varve-test-rpcbind.%d", (int)getpid());
    vv_format(listen, sizeof(listen), "unix:/tmp/varve-test-nfs-reg.%d", (int)getpid());
    struct vv_nfs_options options = {.address = listen, .door = 4, .rpcbind = place};
    tap_is_int(vv_nfs_listen(fs, &options, &registered), -ENOENT, "no rpcbind is there");
    int err = vv_socket_listen(place, &rpcbind.listener);
    if (err == 0)
        err = vv_fiber_start(serve_rpcbind, NULL, "rpcbind");
    tap_is_int(err, 0, "one is");
    tap_is_int(vv_nfs_listen(fs, &options, &registered), 0, "registered");
    tap_is_int(rpcbind.set_count, 3, "three programs");
    unsigned unset_count = rpcbind.unset_count;
    vv_nfs_close(registered);
    tap_is_int(rpcbind.unset_count - unset_count, 3, "and no longer");
    rpcbind.is_refusing = true;
    tap_is_int(vv_nfs_listen(fs, &options, &registered), -EACCES, "it may refuse");
    vv_socket_shutdown(rpcbind.listener);
    while (!rpcbind.has_ended)
        vv_fiber_yield();
    vv_socket_close(rpcbind.listener);
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
    struct vv_nfs_stats stats;
    vv_nfs_stats(nfs, &stats);
    return stats.connections == 0;
}

static int serve_volume(struct vv_volume *served)
{
    vv_format(address, sizeof(address), "unix:/tmp/varve-test-nfs.%d", (int)getpid());
    struct vv_nfs_export exports[1];
    const char *why;
    struct vv_nfs_options options = {
        .address = address, .door = 3, .exports = exports, .export_count = 1};
    TRY(vv_nfs_export_parse("/:no_root_squash", &exports[0], &why));
    volume = served;
    TRY(vv_fs_open(volume, &fs));
    return vv_nfs_listen(fs, &options, &nfs);
}

static int open_server(void)
{
    struct vv_volume *made = fake_volume_new(1);
    made->miss_permille = 100;
    return serve_volume(made);
}

/* As after a crash: nothing is remembered but what the volume holds. */
static int restart_server(void)
{
    struct vv_volume *kept = volume;
    vv_nfs_close(nfs);
    vv_fs_close(fs);
    nfs = NULL;
    fs = NULL;
    return serve_volume(kept);
}

/* What an earlier server has done is answered, not done. */
static void test_restarted(void)
{
    static struct client client;
    struct vv_nfs_results results;
    struct vv_nfs_stats stats;
    struct vv_nfs_args make = {
        .handle = root_handle(), .name = TEXT("restarted"), .how = VV_NFS_GUARDED};
    struct vv_nfs_args move = {.handle = root_handle(),
                               .to_handle = root_handle(),
                               .name = TEXT("restarted"),
                               .to_name = TEXT("moved")};
    struct vv_nfs_args failed = {.handle = root_handle(), .name = TEXT("none")};
    tap_is_int(open_client(&client), 0, "a client");
    uint32_t xid = client.xid;
    tap_is_int(call(&client, VV_NFS_CREATE, make, &results), 0, "CREATE");
    struct vv_nfs_handle file = results.handle;
    tap_is_int(call(&client, VV_NFS_RENAME, move, &results), 0, "RENAME");
    tap_is_int(call(&client, VV_NFS_REMOVE, failed, &results), -VV_NFS3ERR_NOENT, "REMOVE fails");
    wire_close(&client.wire);
    tap_is_int(restart_server(), 0, "another server");
    tap_is_int(open_client(&client), 0, "the client comes again");
    client.xid = xid;
    tap_is_int(call(&client, VV_NFS_CREATE, make, &results), 0, "CREATE again");
    tap_is_bytes(&results.handle, &file, sizeof(file), "the same handle");
    tap_ok(results.has_attr && results.attr.fileid == vv_load_be64(file.bytes + 16) &&
               results.wcc.has_after && !results.wcc.has_before,
           "its attributes, and what the directory has become");
    tap_is_int(call(&client, VV_NFS_RENAME, move, &results), 0, "RENAME again");
    tap_ok(results.wcc.has_after && results.to_wcc.has_after, "and both directories");
    tap_is_int(call(&client, VV_NFS_REMOVE, failed, &results), -VV_NFS3ERR_NOENT,
               "what failed is tried again");
    vv_nfs_stats(nfs, &stats);
    tap_is_int((int64_t)stats.recovered, 2, "two were answered for the server before");
    client.xid = xid;
    tap_is_int(call(&client, VV_NFS_CREATE, make, &results), 0, "CREATE a third time");
    vv_nfs_stats(nfs, &stats);
    tap_ok(stats.recovered == 2 && stats.repeated == 1, "is known to this server by now");
    client.xid = xid;
    tap_is_int(call(&client, VV_NFS_MKDIR, make, &results), 0,
               "another request with that number is done");
    make.name = TEXT("moved");
    tap_is_int(call(&client, VV_NFS_RMDIR, make, &results), -VV_NFS3ERR_NOTDIR, "a file is there");
    tap_is_int(call(&client, VV_NFS_REMOVE, make, &results), 0, "which is removed");
    make.name = TEXT("restarted");
    tap_is_int(call(&client, VV_NFS_RMDIR, make, &results), 0, "and so is the directory");
    wire_close(&client.wire);
}

static void run(void *arg)
{
    int err = open_server();
    tap_is_int(err, 0, "the server listens");
    if (err < 0)
        return;
    test_session();
    test_repeated();
    test_later();
    test_restarted();
    test_read_only();
    test_hostile();
    test_many();
    test_register();
    test_no_memory();
    for (int i = 0; i < 10000 && !is_quiet(); i++)
        vv_fiber_yield();
    tap_ok(is_quiet(), "no connection is left");
    static struct client client;
    struct vv_nfs_results results;
    tap_is_int(open_client(&client), 0, "a last client");
    tap_is_int(call(&client, VV_NFS_NULL, (struct vv_nfs_args){0}, &results), 0, "is served");
    vv_nfs_close(nfs);
    struct vv_rpc_reply reply;
    struct vv_bytes bytes;
    tap_is_int(receive(&client, &reply, &bytes), -EPIPE, "and cut off when the server closes");
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
