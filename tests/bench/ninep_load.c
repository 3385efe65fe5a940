/* A load for 9P2000.L servers: one connection, so many files or requests at once, one kind of work.
 *
 *   bench-ninep PORT PATH LINE DEPTH COUNT      (of 127.0.0.1; PATH is what is attached)
 *
 * LINE: create (walk, lcreate, clunk), walk (walk, clunk), getattr, remove (walk, remove: COUNT files
 * of a directory that it makes), readdir (that directory), write-seq, read-seq (COUNT MiB of one file in the largest
 * messages that the server agrees to, a power of two), write-4k, read-4k (COUNT requests at random
 * places of that file), sync-4k (write and fsync). What is written is fsynced at the end. Prints the
 * seconds that it took, preparations apart, and the count. Any error of the server ends it with 1. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "front/ninep/codec.h"

#define MSIZE (1u << 20)
#define DEPTH_MAX 256u
#define SMALL 4096u
#define DIR_FID 1u
#define FILE_FID 2u
#define SLOT_FID 100u /* of slot 0; a slot's tag is its number */

static uint8_t in[4 * MSIZE], out[2 * MSIZE], pattern[MSIZE];
static size_t in_at, in_end;
static int sock;
static uint32_t chunk; /* bytes of a large message */
static uint64_t file_bytes;
static const char *line;

/* What one of those at once is doing: its unit of work and the step of it that was sent last. */
static struct {
    uint32_t unit;
    unsigned step;
} slots[DEPTH_MAX];

static void die(const char *what, uint32_t status)
{
    fprintf(stderr, "bench-ninep: %s: %u\n", what, status);
    exit(1);
}

static bool is(const char *name)
{
    return strcmp(line, name) == 0;
}

static void dial(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sock = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(sock, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("connecting", (uint32_t)port);
}

static void send_request(const struct vv_ninep_request *request)
{
    struct vv_writer writer = vv_writer_of(out, sizeof(out));
    if (vv_ninep_encode_request(&writer, request) < 0)
        die("encoding", request->type);
    for (size_t at = 0; at < writer.len;) {
        ssize_t sent = send(sock, out + at, writer.len - at, 0);
        if (sent <= 0)
            die("sending", 0);
        at += (size_t)sent;
    }
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

/* The next reply; its bytes are good until the next call. */
static void receive(struct vv_ninep_reply *reply)
{
    fill(4);
    size_t len = vv_ninep_size(in + in_at);
    fill(len);
    if (vv_ninep_decode_reply(in + in_at, len, reply) < 0)
        die("decoding", 0);
    in_at += len;
    if (in_at == in_end)
        in_at = in_end = 0;
}

/* One request and its reply; the server's error. */
static uint32_t call(struct vv_ninep_request request, struct vv_ninep_reply *reply)
{
    request.tag = DEPTH_MAX;
    if (request.type == VV_NINEP_TVERSION)
        request.tag = UINT16_MAX;
    send_request(&request);
    receive(reply);
    return reply->type == VV_NINEP_RLERROR ? reply->error : 0;
}

static void must(const char *what, uint32_t error)
{
    if (error != 0)
        die(what, error);
}

static struct vv_bytes text(const char *string)
{
    return (struct vv_bytes){(const uint8_t *)string, strlen(string)};
}

static struct vv_bytes name_of(uint32_t i)
{
    static char name[32];
    int len = snprintf(name, sizeof(name), "file-%07u", i);
    return (struct vv_bytes){(uint8_t *)name, (size_t)len};
}

static struct vv_ninep_request walk(uint32_t from, uint32_t to, struct vv_bytes name)
{
    return (struct vv_ninep_request){.type = VV_NINEP_TWALK,
                                     .fid = from,
                                     .newfid = to,
                                     .name_count = name.len > 0,
                                     .names = {name}};
}

static uint64_t random_next(void)
{
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* ---- the lines ---- */

/* The step of the slot's unit; false when the unit has no such step. */
static bool file_step(uint32_t slot, uint32_t fid, struct vv_ninep_request *request)
{
    unsigned step = slots[slot].step;
    struct vv_bytes name = name_of(slots[slot].unit);
    if (is("getattr")) {
        *request = (struct vv_ninep_request){
            .type = VV_NINEP_TGETATTR, .fid = fid, .mask = VV_NINEP_GETATTR_ALL};
        return step == 0;
    }
    bool is_create = is("create");
    if (step == 0) {
        *request = walk(DIR_FID, fid, is_create ? (struct vv_bytes){0} : name);
    } else if (step == 1 && is_create) {
        *request = (struct vv_ninep_request){.type = VV_NINEP_TLCREATE,
                                             .fid = fid,
                                             .name = name,
                                             .flags = VV_NINEP_O_CREAT | VV_NINEP_O_EXCL | 2,
                                             .mode = 0644};
    } else {
        *request = (struct vv_ninep_request){
            .type = is("remove") ? VV_NINEP_TREMOVE : VV_NINEP_TCLUNK, .fid = fid};
    }
    return step < (is_create ? 3u : 2u);
}

static bool data_step(uint32_t slot, struct vv_ninep_request *request)
{
    unsigned step = slots[slot].step;
    bool is_large = is("write-seq") || is("read-seq");
    bool is_read = is("read-seq") || is("read-4k");
    *request = (struct vv_ninep_request){.type = is_read ? VV_NINEP_TREAD : VV_NINEP_TWRITE,
                                         .fid = FILE_FID};
    if (step == 1 && is("sync-4k")) {
        request->type = VV_NINEP_TFSYNC;
        return true;
    }
    request->count = is_large ? chunk : SMALL;
    request->offset = is_large ? (uint64_t)slots[slot].unit * chunk
                               : random_next() % (file_bytes / SMALL) * SMALL;
    if (!is_read)
        request->data = (struct vv_bytes){pattern, request->count};
    return step == 0;
}

static bool is_data(void)
{
    return is("write-seq") || is("read-seq") || is("write-4k") || is("read-4k") || is("sync-4k");
}

static bool send_step(uint32_t slot)
{
    struct vv_ninep_request request;
    bool has_step = is_data() ? data_step(slot, &request)
                              : file_step(slot, SLOT_FID + slot, &request);
    if (!has_step)
        return false;
    request.tag = (uint16_t)slot;
    send_request(&request);
    return true;
}

static void check_reply(const struct vv_ninep_reply *reply)
{
    uint32_t wanted = is("write-seq") || is("read-seq") ? chunk : SMALL;
    if (reply->type == VV_NINEP_RLERROR)
        die(line, reply->error);
    if (reply->type == VV_NINEP_TREAD + 1 && reply->data.len != wanted)
        die("a short read", (uint32_t)reply->data.len);
    if (reply->type == VV_NINEP_TWRITE + 1 && reply->count != wanted)
        die("a short write", reply->count);
}

/* `count` units of work, `depth` at once. */
static void run(uint32_t count, uint32_t depth)
{
    uint32_t begun = 0;
    uint32_t done = 0;
    for (; begun < depth && begun < count; begun++) {
        slots[begun].unit = begun;
        slots[begun].step = 0;
        send_step(begun);
    }
    while (done < count) {
        struct vv_ninep_reply reply;
        receive(&reply);
        check_reply(&reply);
        slots[reply.tag].step++;
        if (send_step(reply.tag))
            continue;
        done++;
        if (begun == count)
            continue;
        slots[reply.tag].unit = begun++;
        slots[reply.tag].step = 0;
        send_step(reply.tag);
    }
}

static uint32_t list(void)
{
    uint32_t count = 0;
    struct vv_ninep_reply reply;
    must("walk", call(walk(DIR_FID, SLOT_FID, (struct vv_bytes){0}), &reply));
    must("lopen", call((struct vv_ninep_request){.type = VV_NINEP_TLOPEN, .fid = SLOT_FID}, &reply));
    struct vv_ninep_request request = {.type = VV_NINEP_TREADDIR, .fid = SLOT_FID, .count = chunk};
    for (;;) {
        must("readdir", call(request, &reply));
        if (reply.data.len == 0)
            return count;
        struct vv_cursor cursor = vv_cursor_of(reply.data.ptr, reply.data.len);
        while (cursor.len > 0 && !cursor.is_bad) {
            vv_cursor_skip(&cursor, 13);
            request.offset = vv_cursor_u64(&cursor);
            vv_cursor_skip(&cursor, 1);
            vv_cursor_skip(&cursor, vv_cursor_u16(&cursor));
            count++;
        }
    }
}

/* The session, the directory and the file. */
static void prepare(const char *path, uint32_t depth)
{
    struct vv_ninep_reply reply;
    must("version", call((struct vv_ninep_request){.type = VV_NINEP_TVERSION,
                                                   .msize = MSIZE + VV_NINEP_IO_HEADER_BYTES,
                                                   .name = text(VV_NINEP_VERSION)},
                         &reply));
    for (chunk = MSIZE; chunk > reply.msize - VV_NINEP_IO_HEADER_BYTES;)
        chunk /= 2;
    must("attach", call((struct vv_ninep_request){.type = VV_NINEP_TATTACH,
                                                  .fid = 0,
                                                  .newfid = VV_NINEP_NOFID,
                                                  .name = text("root"),
                                                  .newname = text(path)},
                        &reply));
    if (call(walk(0, DIR_FID, text("files")), &reply) != 0) {
        must("mkdir", call((struct vv_ninep_request){.type = VV_NINEP_TMKDIR,
                                                     .name = text("files"),
                                                     .mode = 0755},
                           &reply));
        must("walk", call(walk(0, DIR_FID, text("files")), &reply));
    }
    if (call(walk(0, FILE_FID, text("bytes")), &reply) != 0) {
        must("clone", call(walk(0, FILE_FID, (struct vv_bytes){0}), &reply));
        must("lcreate", call((struct vv_ninep_request){.type = VV_NINEP_TLCREATE,
                                                       .fid = FILE_FID,
                                                       .name = text("bytes"),
                                                       .flags = VV_NINEP_O_CREAT | 2,
                                                       .mode = 0644},
                             &reply));
    } else {
        must("lopen", call((struct vv_ninep_request){.type = VV_NINEP_TLOPEN,
                                                     .fid = FILE_FID,
                                                     .flags = 2},
                           &reply));
    }
    must("getattr", call((struct vv_ninep_request){.type = VV_NINEP_TGETATTR,
                                                   .fid = FILE_FID,
                                                   .mask = VV_NINEP_GETATTR_ALL},
                         &reply));
    file_bytes = reply.getattr.size;
    for (uint32_t i = 0; is("getattr") && i < depth; i++)
        must("walk", call(walk(DIR_FID, SLOT_FID + i, name_of(i)), &reply));
}

int main(int argc, char **argv)
{
    if (argc != 6)
        die("usage: bench-ninep PORT PATH LINE DEPTH COUNT", 0);
    uint32_t depth = (uint32_t)atoi(argv[4]);
    uint32_t count = (uint32_t)atoi(argv[5]);
    struct timespec from, to;
    struct vv_ninep_reply reply;
    line = argv[3];
    if (depth == 0 || depth > DEPTH_MAX)
        die("the depth is 1 to", DEPTH_MAX);
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(random_next() >> 20);
    dial(atoi(argv[1]));
    prepare(argv[2], depth);
    uint32_t units = is("write-seq") || is("read-seq") ? count * (MSIZE / chunk) : count;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (is("readdir"))
        count = list();
    else
        run(units, depth);
    if (is("write-seq") || is("write-4k"))
        must("fsync", call((struct vv_ninep_request){.type = VV_NINEP_TFSYNC, .fid = FILE_FID}, &reply));
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.6f %u\n", (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9,
           count);
    return 0;
}
