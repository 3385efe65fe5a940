/* A load for NFS servers: one connection, so many requests at once, one kind of request.
 *
 *   bench-nfs PORT MOUNT-PORT PATH LINE DEPTH COUNT      (of 127.0.0.1)
 *
 * LINE: create, lookup, getattr, remove (COUNT files of a directory that it makes), readdirplus (that
 * directory), write-seq, read-seq (COUNT MiB of one file), write-4k, sync-4k, read-4k (COUNT requests
 * at random places of that file). Prints the seconds that it took, preparations apart. Any status but
 * OK ends it with 1. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "front/nfs/codec.h"
#include "front/nfs/rpc.h"

#define BUF_BYTES (4u << 20)
#define DEPTH_MAX 256
#define SMALL 4096u
#define LARGE (1u << 20)

static uint8_t in[BUF_BYTES], out[BUF_BYTES], args_bytes[BUF_BYTES], pattern[LARGE];
static size_t in_at, in_end;
static int sock = -1;
static struct vv_nfs_handle *handles;
static struct vv_nfs_handle dir, file;
static uint64_t file_bytes;
/* Where xids begin. Servers know a repetition by its xid: each run has its own. */
static uint32_t xid_base;

static void die(const char *what, uint32_t status)
{
    fprintf(stderr, "bench-nfs: %s: %u\n", what, status);
    exit(1);
}

static void dial(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (sock >= 0)
        close(sock);
    in_at = in_end = 0;
    for (int local = 1023; local > 600; local--) {
        struct sockaddr_in ours = {.sin_family = AF_INET, .sin_port = htons((uint16_t)local)};
        sock = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (bind(sock, (struct sockaddr *)&ours, sizeof(ours)) == 0 &&
            connect(sock, (struct sockaddr *)&address, sizeof(address)) == 0)
            return;
        close(sock);
    }
    die("connecting", (uint32_t)port);
}

static void send_rpc(uint32_t xid, uint32_t program, uint32_t procedure, struct vv_bytes args)
{
    struct vv_writer writer = vv_writer_of(out, sizeof(out));
    struct vv_rpc_call call = {.xid = xid,
                               .program = program,
                               .version = 3,
                               .procedure = procedure,
                               .flavor = VV_RPC_AUTH_SYS,
                               .args = args};
    if (vv_rpc_encode_call(&writer, &call) < 0)
        die("encoding", 0);
    for (size_t at = 0; at < writer.len;) {
        ssize_t sent = send(sock, out + at, writer.len - at, 0);
        if (sent <= 0)
            die("sending", 0);
        at += (size_t)sent;
    }
}

static void send_nfs(uint32_t xid, uint32_t procedure, const struct vv_nfs_args *args)
{
    struct vv_writer writer = vv_writer_of(args_bytes, sizeof(args_bytes));
    if (vv_nfs_encode_args(&writer, procedure, args) < 0)
        die("encoding", procedure);
    send_rpc(xid, VV_NFS_PROGRAM, procedure, (struct vv_bytes){args_bytes, writer.len});
}

static void fill(size_t need)
{
    if (in_at > 0 && in_at + need > sizeof(in)) {
        memmove(in, in + in_at, in_end - in_at);
        in_end -= in_at;
        in_at = 0;
    }
    while (in_end - in_at < need) {
        ssize_t got = recv(sock, in + in_end, sizeof(in) - in_end, 0);
        if (got <= 0)
            die("the server is gone", 0);
        in_end += (size_t)got;
    }
}

/* The next reply; its results are good until the next call. */
static uint32_t receive(struct vv_bytes *results)
{
    bool is_last;
    struct vv_rpc_reply reply;
    fill(4);
    size_t len = vv_rpc_fragment(in + in_at, &is_last);
    fill(4 + len);
    if (!is_last || vv_rpc_decode_reply(in + in_at + 4, len, &reply, results) < 0 ||
        reply.status != VV_RPC_SUCCESS)
        die("RPC", reply.status);
    in_at += 4 + len;
    if (in_at == in_end)
        in_at = in_end = 0;
    return reply.xid;
}

static struct vv_nfs_results call(uint32_t procedure, const struct vv_nfs_args *args)
{
    struct vv_bytes bytes;
    struct vv_nfs_results results;
    send_nfs(--xid_base, procedure, args);
    receive(&bytes);
    if (vv_nfs_decode_results(procedure, bytes, &results) < 0)
        die("decoding", procedure);
    return results;
}

static struct vv_bytes name_of(uint32_t i)
{
    static char name[32];
    int len = snprintf(name, sizeof(name), "file-%07u", i);
    return (struct vv_bytes){(uint8_t *)name, (size_t)len};
}

static struct vv_nfs_handle mount_path(const char *path)
{
    struct vv_writer writer = vv_writer_of(args_bytes, sizeof(args_bytes));
    struct vv_bytes bytes;
    struct vv_nfs_handle handle = {0};
    size_t len = strlen(path);
    vv_writer_be32(&writer, (uint32_t)len);
    vv_writer_bytes(&writer, path, len);
    vv_writer_bytes(&writer, "\0\0\0", (4 - len % 4) % 4);
    send_rpc(1, VV_NFS_MOUNT_PROGRAM, VV_NFS_MOUNT_MNT, (struct vv_bytes){args_bytes, writer.len});
    receive(&bytes);
    struct vv_cursor cursor = vv_cursor_of(bytes.ptr, bytes.len);
    uint32_t status = vv_cursor_be32(&cursor);
    handle.len = vv_cursor_be32(&cursor);
    if (status != 0 || handle.len > sizeof(handle.bytes))
        die("MNT", status);
    vv_cursor_copy(&cursor, handle.bytes, handle.len);
    return handle;
}

/* The entry, made when it is not there. */
static struct vv_nfs_handle entry(struct vv_nfs_handle parent, const char *name, uint32_t procedure)
{
    struct vv_nfs_args args = {.handle = parent, .name = {(const uint8_t *)name, strlen(name)}};
    args.sattr.has_mode = true;
    args.sattr.mode = 0755;
    struct vv_nfs_results results = call(VV_NFS_LOOKUP, &args);
    if (results.status != 0)
        results = call(procedure, &args);
    if (results.status != 0)
        die(name, results.status);
    return results.handle;
}

/* ---- the lines ---- */

static uint64_t random_next(void)
{
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static uint64_t place(void)
{
    return random_next() % (file_bytes / SMALL) * SMALL;
}

static const char *line;

static bool is(const char *name)
{
    return strcmp(line, name) == 0;
}

static uint32_t request(uint32_t i, uint32_t count, struct vv_nfs_args *args)
{
    *args = (struct vv_nfs_args){.handle = dir, .name = name_of(i)};
    if (is("create")) {
        args->how = VV_NFS_GUARDED;
        args->sattr.has_mode = true;
        args->sattr.mode = 0644;
        return VV_NFS_CREATE;
    }
    if (is("lookup"))
        return VV_NFS_LOOKUP;
    if (is("remove"))
        return VV_NFS_REMOVE;
    if (is("getattr")) {
        args->handle = handles[random_next() % count];
        return VV_NFS_GETATTR;
    }
    bool is_large = is("write-seq") || is("read-seq");
    args->handle = file;
    args->count = is_large ? LARGE : SMALL;
    args->offset = is_large ? (uint64_t)i * LARGE : place();
    if (is("read-seq") || is("read-4k"))
        return VV_NFS_READ;
    args->how = is("sync-4k") ? VV_NFS_FILE_SYNC : VV_NFS_UNSTABLE;
    args->data = (struct vv_bytes){pattern, args->count};
    return VV_NFS_WRITE;
}

/* COUNT requests, `depth` at once. `keep`: handles of what LOOKUP finds. */
static void run(uint32_t count, uint32_t depth, bool keep)
{
    uint32_t sent = 0;
    for (uint32_t done = 0; done < count; done++) {
        struct vv_nfs_args args;
        struct vv_nfs_results results;
        struct vv_bytes bytes;
        static uint32_t procedure;
        for (; sent < count && sent < done + depth; sent++) {
            procedure = request(sent, count, &args);
            send_nfs(xid_base + sent, procedure, &args);
        }
        uint32_t xid = receive(&bytes);
        if (vv_nfs_decode_results(procedure, bytes, &results) < 0 || results.status != 0)
            die(line, results.status);
        if (keep)
            handles[xid - xid_base] = results.handle;
        if ((procedure == VV_NFS_READ || procedure == VV_NFS_WRITE) &&
            results.count != (is("write-seq") || is("read-seq") ? LARGE : SMALL))
            die("a short answer", results.count);
    }
    struct vv_nfs_args commit = {.handle = file};
    if (is("write-seq") || is("write-4k"))
        if (call(VV_NFS_COMMIT, &commit).status != 0)
            die("COMMIT", 0);
}

static uint32_t list(void)
{
    uint32_t count = 0;
    struct vv_nfs_args args = {.handle = dir, .dir_count = 65536, .count = 65536};
    struct vv_nfs_results results;
    do {
        results = call(VV_NFS_READDIRPLUS, &args);
        if (results.status != 0)
            die("READDIRPLUS", results.status);
        struct vv_nfs_entry found;
        while (vv_nfs_decode_entry(&results.data, true, &found) > 0) {
            args.offset = found.cookie;
            count++;
        }
        memcpy(args.verifier, results.verifier, sizeof(args.verifier));
    } while (!results.is_eof);
    return count;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        die("usage: bench-nfs PORT MOUNT-PORT PATH LINE DEPTH COUNT", 0);
    uint32_t depth = (uint32_t)atoi(argv[5]);
    uint32_t count = (uint32_t)atoi(argv[6]);
    struct timespec from, to;
    line = argv[4];
    clock_gettime(CLOCK_REALTIME, &from);
    xid_base = (uint32_t)from.tv_nsec * 2654435761u ^ (uint32_t)getpid();
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(random_next() >> 20);
    dial(atoi(argv[2]));
    struct vv_nfs_handle root = mount_path(argv[3]);
    dial(atoi(argv[1]));
    dir = entry(root, "files", VV_NFS_MKDIR);
    file = entry(root, "bytes", VV_NFS_CREATE);
    struct vv_nfs_args args = {.handle = file};
    file_bytes = call(VV_NFS_GETATTR, &args).attr.size;
    handles = calloc(count, sizeof(*handles));
    if (is("getattr")) {
        line = "lookup";
        run(count, 32, true);
        line = argv[4];
    }
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (is("readdirplus"))
        count = list();
    else
        run(count, depth < DEPTH_MAX ? depth : DEPTH_MAX, false);
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.6f %u\n", (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9,
           count);
    return 0;
}
