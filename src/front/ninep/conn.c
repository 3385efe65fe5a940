/* A connection: reading messages, and starting a fiber for each. */
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

static struct vv_conn_memory *memory_of(const struct vv_ninep_job *job)
{
    return job->conn->base.conns->memory;
}

static void job_done(struct vv_job *base)
{
    struct vv_ninep_job *job = vv_container_of(base, struct vv_ninep_job, base);
    vv_buffer_free(memory_of(job), job->message);
    vv_payload_free(job->payload);
    vv_buffer_free(memory_of(job), job->data);
    if (job->view)
        vv_view_done(job->view);
    vv_free(job->view);
    vv_writer_done(&job->head);
    vv_free(job);
}

/* A job that is charged for a message of `len` bytes and `more`, but has no memory for either yet. */
static int job_new(struct vv_ninep_conn *conn, size_t len, size_t more,
                   struct vv_ninep_job **out_job)
{
    struct vv_ninep_job *job = vv_zalloc(sizeof(*job));
    if (!job)
        return -ENOMEM;
    int err = vv_job_begin(&job->base, &conn->base, sizeof(*job) + len + more);
    if (err < 0) {
        vv_free(job);
        return err;
    }
    job->conn = conn;
    job->head = vv_writer_new();
    vv_list_init(&job->node);
    vv_waitq_init(&job->answered);
    *out_job = job;
    return 0;
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
    job->data = vv_buffer_new(memory_of(job), size);
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

/* ---- answering ---- */

/* The request is answered: its tag is free, flushes of it may be answered behind it. */
static void answer(struct vv_ninep_job *job)
{
    flip_tag(job->conn, job->request.tag);
    vv_list_remove(&job->node);
    vv_waitq_wake_all(&job->answered);
    vv_buffer_free(memory_of(job), job->message);
    job->message = NULL;
    vv_payload_free(job->payload);
    job->payload = NULL;
    vv_job_piece(&job->base, job->head.ptr, job->head.len);
    for (unsigned i = 0; job->view && job->data_len > 0 && i < job->view->count; i++)
        vv_job_piece(&job->base, job->view->pieces[i].iov_base, job->view->pieces[i].iov_len);
    if (job->data_len > 0 && !job->view)
        vv_job_piece(&job->base, job->data->bytes, job->data_len);
    vv_job_answer(&job->base, sizeof(*job) + job->head.len + (job->data ? job->data->size : 0));
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
            vv_conn_break(&job->conn->base);
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

/* Nobody wants the locks any more that requests wait for. */
static void cancel_waiting(struct vv_conn *base)
{
    struct vv_ninep_conn *conn = vv_container_of(base, struct vv_ninep_conn, base);
    vv_list_each (node, &conn->requests)
        vv_list_entry(node, struct vv_ninep_job, node)->is_cancelled = true;
    vv_fs_lock_poke(conn->ninep->fs);
}

/* Tversion begins the connection anew: everything under way ends first. Served by the reading
 * fiber. */
static void serve_version(struct vv_ninep_conn *conn, struct vv_ninep_job *job)
{
    struct vv_ninep_reply reply = {0};
    const struct vv_ninep_request *request = &job->request;
    uint32_t msize_max = conn->ninep->options.msize_max;
    int err = request->msize < VV_NINEP_MSIZE_MIN ? -EINVAL : 0;
    cancel_waiting(&conn->base);
    vv_conn_wait_idle(&conn->base, 1);
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
    encode(job, err, &reply);
    answer(job);
}

/* What the answer will take besides the message, of which at least the first bytes are here. */
static size_t reply_bytes(const uint8_t *message, size_t len)
{
    uint8_t type = message[sizeof(uint32_t)];
    if (type != VV_NINEP_TREAD && type != VV_NINEP_TREADDIR)
        return 0;
    /* size type tag fid offset count, of both */
    struct vv_cursor cursor = vv_cursor_of(message, len);
    vv_cursor_skip(&cursor, VV_NINEP_HEADER_BYTES + 4 + 8);
    uint32_t count = vv_cursor_u32(&cursor);
    return count < VV_NINEP_MSIZE_MAX ? count : VV_NINEP_MSIZE_MAX;
}

/* Take the job over; decode_err is what is wrong with its request. An error ends the connection: the stream can't be trusted. */
static int accept_job(struct vv_ninep_conn *conn, struct vv_ninep_job *job, int decode_err)
{
    const struct vv_ninep_request *request = &job->request;
    if (is_tag_used(conn, request->tag)) {
        vv_job_end(&job->base);
        return -EPROTO;
    }
    if (decode_err == 0 && request->type == VV_NINEP_TVERSION) {
        serve_version(conn, job);
        return 0;
    }
    if (decode_err == 0 && !conn->has_version)
        decode_err = -EPROTO;
    flip_tag(conn, request->tag);
    vv_list_push_back(&conn->requests, &job->node);
    if (decode_err == 0)
        decode_err = vv_fiber_start(serve, job, "ninep request");
    if (decode_err < 0) {
        struct vv_ninep_reply reply = {0};
        conn->base.conns->stats.protocol_errors++;
        encode(job, decode_err == -VV_ERR_FORMAT ? -EPROTO : decode_err, &reply);
        answer(job);
    }
    return 0;
}

/* ---- reading ---- */

/* A message of `len` bytes, in one piece. As vv_conn_take. */
static int take_message(struct vv_ninep_job *job, size_t len)
{
    job->message = vv_buffer_new(memory_of(job), len);
    if (!job->message)
        return -ENOMEM;
    return vv_conn_take(&job->conn->base, job->message->bytes, len, VV_NEVER);
}

/* A long Twrite, whose head is read ahead and decoded. */
static int take_payload(struct vv_ninep_job *job)
{
    struct vv_conn *base = &job->conn->base;
    const struct vv_ninep_request *request = &job->request;
    TRY(vv_fs_payload_new(job->conn->ninep->fs, request->offset, request->data.len, &job->payload));
    vv_conn_skip(base, VV_NINEP_WRITE_HEAD_BYTES);
    return vv_conn_take_payload(base, job->payload, VV_NEVER);
}

/* One message. 1; 0 = the stream has ended; errors end the connection. Memory is taken when it has begun to
 * come: who announces much and sends nothing holds none. */
static int read_one(struct vv_ninep_conn *conn)
{
    struct vv_conn *base = &conn->base;
    int result = vv_conn_next(base, sizeof(uint32_t));
    if (result <= 0)
        return result;
    uint32_t len = vv_ninep_size(vv_conn_ahead(base));
    if (len < VV_NINEP_HEADER_BYTES || len > conn->msize)
        return -EPROTO;
    size_t first = len < VV_CONN_FIRST_BYTES ? len : VV_CONN_FIRST_BYTES;
    if (vv_conn_ahead_len(base) < first)
        result = vv_conn_fill(base, first, vv_conn_deadline(base));
    if (result <= 0)
        return result;
    struct vv_ninep_job *job;
    TRY(job_new(conn, len, reply_bytes(vv_conn_ahead(base), first), &job));
    bool is_long = len >= VV_CONN_PAYLOAD_MIN + VV_NINEP_WRITE_HEAD_BYTES &&
                   vv_ninep_decode_write(vv_conn_ahead(base), len, &job->request) == 0;
    result = is_long ? take_payload(job) : take_message(job, len);
    if (result <= 0) {
        vv_job_end(&job->base);
        return result;
    }
    TRY(accept_job(conn, job,
                   is_long ? 0 : vv_ninep_decode_request(job->message->bytes, len, &job->request)));
    return 1;
}

/* ---- life ---- */

static int serve_conn(struct vv_conn *base)
{
    int result = 1;
    while (result > 0 && !base->is_broken)
        result = read_one(vv_container_of(base, struct vv_ninep_conn, base));
    return result > 0 ? 0 : result;
}

static void close_conn(struct vv_conn *base)
{
    struct vv_ninep_conn *conn = vv_container_of(base, struct vv_ninep_conn, base);
    struct vv_fs_call call = {.door = conn->ninep->options.door};
    vv_ninep_fid_drop_all(conn);
    vv_fs_unlock_client(conn->ninep->fs, &call, conn->client);
    vv_map_done(&conn->fids);
}

/* Who is at the other end, if that can be told. Root and our own user are as good as the kernel. */
static void look_at_peer(struct vv_ninep_conn *conn)
{
    struct vv_socket *socket = vv_stream_socket(conn->base.stream);
    if (vv_socket_peer(socket, &conn->peer_uid, &conn->peer_gid) < 0)
        return;
    conn->is_restricted = conn->peer_uid != 0 && conn->peer_uid != geteuid();
}

static int open_conn(struct vv_conn *base)
{
    struct vv_ninep_conn *conn = vv_container_of(base, struct vv_ninep_conn, base);
    TRY(vv_map_init(&conn->fids));
    conn->ninep = base->conns->server;
    conn->client = (uint64_t)conn->ninep->options.door << 48 | base->number;
    conn->msize = VV_NINEP_MSIZE_FIRST;
    vv_list_init(&conn->requests);
    look_at_peer(conn);
    return 0;
}

const struct vv_conn_kind vv_ninep_conn_kind = {
    .name = "ninep",
    .speech = "9P2000.L",
    .conn_bytes = sizeof(struct vv_ninep_conn),
    .connections_max = VV_NINEP_CONNECTIONS_MAX,
    .requests_max = VV_NINEP_REQUESTS_MAX,
    .recv_max_s = VV_NINEP_RECV_MAX_S,
    .send_max_s = VV_NINEP_SEND_MAX_S,
    .open = open_conn,
    .serve = serve_conn,
    .stop = cancel_waiting,
    .close = close_conn,
    .done = job_done,
};
