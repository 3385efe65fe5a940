/* A connection: one fiber reads it and starts a fiber for each request; who has an answer queues
 * it, and starts a fiber that sends all that is queued unless there is one. It runs behind those
 * that are ready to run now, so that the answers to what came at once leave at once.
 *
 * The reading fiber stops reading while VV_NINEP_REQUESTS_MAX requests or VV_NINEP_BYTES_MAX bytes
 * are under way, counted until the answer is sent, so a client that does not take its answers is
 * not read either. */
#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "front/ninep/ninep_impl.h"

uint32_t vv_ninep_error_of(int err)
{
    return (uint32_t)vv_err_errno(err);
}

uint32_t vv_ninep_io_max(const struct vv_ninep_conn *conn)
{
    return conn->msize - VV_NINEP_IO_HEADER_BYTES;
}

/* ---- jobs ---- */

static struct vv_ninep_job *job_new(struct vv_ninep_conn *conn, size_t message_len)
{
    struct vv_ninep_job *job = vv_zalloc(sizeof(*job));
    if (!job)
        return NULL;
    job->message = vv_ninep_buffer_new(conn->ninep, message_len);
    if (!job->message) {
        vv_free(job);
        return NULL;
    }
    job->conn = conn;
    job->head = vv_writer_new();
    vv_list_init(&job->node);
    vv_waitq_init(&job->answered);
    return job;
}

static void job_free(struct vv_ninep_job *job)
{
    struct vv_ninep *ninep = job->conn->ninep;
    vv_ninep_buffer_free(ninep, job->message);
    vv_ninep_buffer_free(ninep, job->data);
    vv_writer_done(&job->head);
    vv_free(job);
}

struct vv_ninep_job *vv_ninep_job_find(struct vv_ninep_conn *conn, uint16_t tag)
{
    vv_list_each (node, &conn->requests) {
        struct vv_ninep_job *job = vv_list_entry(node, struct vv_ninep_job, node);
        if (job->request.tag == tag)
            return job;
    }
    return NULL;
}

void vv_ninep_job_cancel(struct vv_ninep_job *job)
{
    job->is_cancelled = true;
    vv_fs_lock_poke(job->conn->ninep->fs);
}

int vv_ninep_job_data(struct vv_ninep_job *job, size_t size)
{
    job->data = vv_ninep_buffer_new(job->conn->ninep, size);
    return job->data ? 0 : -ENOMEM;
}

static bool is_tag_used(const struct vv_ninep_conn *conn, uint16_t tag)
{
    return conn->tags[tag / 64] >> (tag % 64) & 1;
}

static void flip_tag(struct vv_ninep_conn *conn, uint16_t tag)
{
    conn->tags[tag / 64] ^= 1ull << (tag % 64);
}

/* ---- sending ---- */

/* The request is over: its answer has been sent, or can't be. */
static void job_end(struct vv_ninep_job *job)
{
    struct vv_ninep_conn *conn = job->conn;
    conn->request_count--;
    conn->bytes -= job->charge;
    job_free(job);
    vv_waitq_wake_all(&conn->room);
}

/* The next answers as one piece; how many. They stay queued. */
static int gather(struct vv_ninep_conn *conn, struct iovec *iov, int *out_iov_count)
{
    int count = 0;
    int iov_count = 0;
    vv_list_each (node, &conn->outgoing) {
        struct vv_ninep_job *job = vv_list_entry(node, struct vv_ninep_job, node);
        if (count == VV_NINEP_SEND_BATCH)
            break;
        count++;
        iov[iov_count++] = (struct iovec){job->head.ptr, job->head.len};
        if (job->data_len > 0)
            iov[iov_count++] = (struct iovec){job->data->bytes, job->data_len};
    }
    *out_iov_count = iov_count;
    return count;
}

static void send_all(void *arg)
{
    struct vv_ninep_conn *conn = arg;
    while (!vv_list_is_empty(&conn->outgoing)) {
        struct iovec iov[2 * VV_NINEP_SEND_BATCH];
        int iov_count;
        int count = gather(conn, iov, &iov_count);
        uint64_t deadline_ns = vv_rt_now_ns() + VV_NINEP_SEND_MAX_S * VV_NS_PER_S;
        int err = conn->is_broken ? 0 : vv_socket_send(conn->socket, iov, iov_count, deadline_ns);
        if (err < 0) {
            vv_debug("ninep", "client %llu: sending: %s", (unsigned long long)conn->client,
                     vv_err_text(err));
            conn->is_broken = true;
            vv_socket_shutdown(conn->socket);
        }
        for (int i = 0; i < count; i++) {
            struct vv_ninep_job *job = vv_list_first(&conn->outgoing, struct vv_ninep_job, node);
            vv_list_remove(&job->node);
            job_end(job);
        }
    }
    conn->is_sending = false;
}

/* The request is answered: its tag is free, flushes of it may be answered behind it. */
static void answer(struct vv_ninep_job *job)
{
    struct vv_ninep_conn *conn = job->conn;
    flip_tag(conn, job->request.tag);
    vv_list_remove(&job->node);
    vv_list_push_back(&conn->outgoing, &job->node);
    vv_waitq_wake_all(&job->answered);
    if (conn->is_sending)
        return;
    conn->is_sending = true;
    if (vv_fiber_start(send_all, conn, "ninep send") < 0)
        send_all(conn);
}

static void encode(struct vv_ninep_job *job, int err, struct vv_ninep_reply *reply)
{
    struct vv_ninep_stats *stats = &job->conn->ninep->stats;
    stats->requests++;
    if (err == 0) {
        reply->type = job->request.type + 1;
        reply->tag = job->request.tag;
        job->data_len = reply->data.ptr ? 0 : reply->data.len;
        err = vv_ninep_encode_reply(&job->head, reply);
    }
    if (err < 0) {
        stats->errors++;
        *reply = (struct vv_ninep_reply){
            .type = VV_NINEP_RLERROR, .tag = job->request.tag, .error = vv_ninep_error_of(err)};
        job->data_len = 0;
        vv_writer_reset(&job->head);
        if (vv_ninep_encode_reply(&job->head, reply) < 0) {
            /* No memory for 11 bytes: the client must not wait for ever. */
            job->conn->is_broken = true;
            vv_socket_shutdown(job->conn->socket);
        }
    }
}

/* ---- serving ---- */

static void serve(void *arg)
{
    struct vv_ninep_job *job = arg;
    struct vv_ninep_reply reply = {0};
    const struct vv_ninep_op *op = vv_ninep_op_of(job->request.type);
    int err = -EOPNOTSUPP;
    if (op->is_changing && job->conn->ninep->options.is_read_only)
        err = -EROFS;
    else if (op->serve)
        err = op->serve(job, &reply);
    if (err < 0) {
        char text[256];
        vv_debug("ninep", "%s: %s", vv_ninep_request_to_text(&job->request, text, sizeof(text)),
                 vv_err_text(err));
    }
    encode(job, err, &reply);
    answer(job);
}

/* All requests have been answered, and the answers sent. Nobody wants their locks any more. */
static void wait_until_idle(struct vv_ninep_conn *conn)
{
    vv_list_each (node, &conn->requests)
        vv_list_entry(node, struct vv_ninep_job, node)->is_cancelled = true;
    vv_fs_lock_poke(conn->ninep->fs);
    while (conn->request_count > 0)
        vv_waitq_wait(&conn->room, VV_NEVER);
}

/* Tversion begins the connection anew: everything under way ends first. Served by the reading
 * fiber. */
static void serve_version(struct vv_ninep_conn *conn, struct vv_ninep_job *job)
{
    struct vv_ninep_reply reply = {0};
    const struct vv_ninep_request *request = &job->request;
    uint32_t msize_max = conn->ninep->options.msize_max;
    int err = request->msize < VV_NINEP_MSIZE_MIN ? -EINVAL : 0;
    wait_until_idle(conn);
    vv_ninep_fid_drop_all(conn);
    conn->has_version = false;
    reply.msize = request->msize < msize_max ? request->msize : msize_max;
    bool is_ours = request->name.len == strlen(VV_NINEP_VERSION) &&
                   memcmp(request->name.ptr, VV_NINEP_VERSION, request->name.len) == 0;
    const char *version = is_ours ? VV_NINEP_VERSION : "unknown";
    reply.name = (struct vv_bytes){(const uint8_t *)version, strlen(version)};
    if (err == 0 && is_ours) {
        conn->msize = reply.msize;
        conn->has_version = true;
    }
    flip_tag(conn, request->tag);
    vv_list_push_back(&conn->requests, &job->node);
    conn->request_count++;
    encode(job, err, &reply);
    answer(job);
}

/* What the answer will take, besides the request. */
static size_t reply_bytes(const struct vv_ninep_request *request)
{
    bool is_reading = request->type == VV_NINEP_TREAD || request->type == VV_NINEP_TREADDIR;
    size_t count = request->count < VV_NINEP_MSIZE_MAX ? request->count : VV_NINEP_MSIZE_MAX;
    return is_reading ? count : VV_NINEP_HEADER_BYTES;
}

static void wait_for_room(struct vv_ninep_conn *conn, size_t charge)
{
    while (
        !conn->is_broken && conn->request_count > 0 &&
        (conn->request_count >= VV_NINEP_REQUESTS_MAX || conn->bytes + charge > VV_NINEP_BYTES_MAX))
        vv_waitq_wait(&conn->room, VV_NEVER);
}

/* Take the job over. An error ends the connection: the stream, or the memory, can't be trusted. */
static int accept_job(struct vv_ninep_conn *conn, struct vv_ninep_job *job, size_t len)
{
    struct vv_ninep_request *request = &job->request;
    int decode_err = vv_ninep_decode_request(job->message->bytes, len, request);
    if (is_tag_used(conn, request->tag)) {
        job_free(job);
        return -EPROTO;
    }
    if (decode_err == 0 && request->type == VV_NINEP_TVERSION) {
        serve_version(conn, job);
        return 0;
    }
    if (decode_err == 0 && !conn->has_version)
        decode_err = -EPROTO;
    job->charge = len + reply_bytes(request);
    wait_for_room(conn, job->charge);
    flip_tag(conn, request->tag);
    vv_list_push_back(&conn->requests, &job->node);
    conn->request_count++;
    conn->bytes += job->charge;
    if (decode_err == 0)
        decode_err = vv_fiber_start(serve, job, "ninep");
    if (decode_err < 0) {
        struct vv_ninep_reply reply = {0};
        conn->ninep->stats.protocol_errors++;
        encode(job, decode_err == -VV_ERR_FORMAT ? -EPROTO : decode_err, &reply);
        answer(job);
    }
    return 0;
}

/* ---- reading ---- */

/* At least `len` bytes (at most VV_NINEP_RECV_BYTES) in the read-ahead. 1, 0 = the stream has
 * ended. */
static int fill(struct vv_ninep_conn *conn, size_t len)
{
    while (conn->recv_end - conn->recv_at < len) {
        if (conn->recv_at > 0) {
            conn->recv_end -= conn->recv_at;
            memmove(conn->recv_bytes, conn->recv_bytes + conn->recv_at, conn->recv_end);
            conn->recv_at = 0;
        }
        ssize_t got = vv_socket_recv(conn->socket, conn->recv_bytes + conn->recv_end,
                                     VV_NINEP_RECV_BYTES - conn->recv_end, VV_NEVER);
        if (got <= 0)
            return (int)got;
        conn->recv_end += (size_t)got;
    }
    return 1;
}

/* A whole message: what was read ahead, the rest directly. 1, 0 = the stream has ended. */
static int take_message(struct vv_ninep_conn *conn, uint8_t *out, size_t len)
{
    size_t ahead = conn->recv_end - conn->recv_at;
    size_t at = ahead < len ? ahead : len;
    memcpy(out, conn->recv_bytes + conn->recv_at, at);
    conn->recv_at += at;
    while (at < len) {
        ssize_t got;
        if (len - at < VV_NINEP_RECV_BYTES) {
            int filled = fill(conn, len - at);
            if (filled <= 0)
                return filled;
            got = (ssize_t)(len - at);
            memcpy(out + at, conn->recv_bytes + conn->recv_at, len - at);
            conn->recv_at += len - at;
        } else {
            got = vv_socket_recv(conn->socket, out + at, len - at, VV_NEVER);
            if (got <= 0)
                return (int)got;
        }
        at += (size_t)got;
    }
    return 1;
}

/* One message. 1; 0 = the stream has ended; errors end the connection. */
static int read_one(struct vv_ninep_conn *conn)
{
    int filled = fill(conn, sizeof(uint32_t));
    if (filled <= 0)
        return filled;
    uint32_t len = vv_ninep_size(conn->recv_bytes + conn->recv_at);
    if (len < VV_NINEP_HEADER_BYTES || len > conn->msize)
        return -EPROTO;
    struct vv_ninep_job *job = job_new(conn, len);
    if (!job)
        return -ENOMEM;
    int taken = take_message(conn, job->message->bytes, len);
    if (taken <= 0) {
        job_free(job);
        return taken;
    }
    TRY(accept_job(conn, job, len));
    return 1;
}

/* ---- life ---- */

static void conn_free(struct vv_ninep_conn *conn)
{
    vv_map_done(&conn->fids);
    vv_free(conn->recv_bytes);
    vv_free(conn);
}

/* Logged ever more rarely: whoever makes them shall not fill the log. */
static void note_protocol_error(struct vv_ninep_conn *conn)
{
    uint64_t count = ++conn->ninep->stats.protocol_errors;
    if ((count & (count - 1)) == 0)
        vv_warn("ninep", "client %llu: not 9P2000.L, connection closed (%llu such errors)",
                (unsigned long long)conn->client, (unsigned long long)count);
}

/* The connection's fiber. */
static void run(void *arg)
{
    struct vv_ninep_conn *conn = arg;
    struct vv_ninep *ninep = conn->ninep;
    int err = 1;
    while (err > 0 && !conn->is_broken && !ninep->is_closing)
        err = read_one(conn);
    if (err == -EPROTO)
        note_protocol_error(conn);
    if (err < 0)
        vv_socket_shutdown(conn->socket);
    wait_until_idle(conn);
    vv_ninep_fid_drop_all(conn);
    struct vv_fs_call call = {.door = ninep->options.door};
    vv_fs_unlock_client(ninep->fs, &call, conn->client);
    vv_socket_close(conn->socket);
    vv_list_remove(&conn->node);
    conn_free(conn);
    ninep->stats.connections--;
    vv_waitq_wake_all(&ninep->ended);
}

/* Who is at the other end, if that can be told. Root and our own user are as good as the kernel. */
static void look_at_peer(struct vv_ninep_conn *conn)
{
    if (vv_socket_peer(conn->socket, &conn->peer_uid, &conn->peer_gid) < 0)
        return;
    conn->is_restricted = conn->peer_uid != 0 && conn->peer_uid != geteuid();
}

static int conn_new(struct vv_ninep *ninep, struct vv_ninep_conn **out_conn)
{
    struct vv_ninep_conn *conn = vv_zalloc(sizeof(*conn));
    if (!conn)
        return -ENOMEM;
    conn->recv_bytes = vv_alloc(VV_NINEP_RECV_BYTES);
    if (!conn->recv_bytes || vv_map_init(&conn->fids) < 0) {
        conn_free(conn);
        return -ENOMEM;
    }
    conn->ninep = ninep;
    conn->msize = VV_NINEP_MSIZE_FIRST;
    vv_list_init(&conn->requests);
    vv_list_init(&conn->outgoing);
    vv_waitq_init(&conn->room);
    *out_conn = conn;
    return 0;
}

int vv_ninep_conn_start(struct vv_ninep *ninep, struct vv_socket *socket)
{
    struct vv_ninep_conn *conn;
    int err = conn_new(ninep, &conn);
    if (err < 0) {
        vv_socket_close(socket);
        return err;
    }
    conn->socket = socket;
    conn->client = (uint64_t)ninep->options.door << 48 | ++ninep->next_client;
    look_at_peer(conn);
    err = vv_fiber_start(run, conn, "ninep connection");
    if (err < 0) {
        vv_socket_close(socket);
        conn_free(conn);
        return err;
    }
    vv_list_push_back(&ninep->conns, &conn->node);
    ninep->stats.connections++;
    ninep->stats.connections_total++;
    return 0;
}
