/* A connection: reading records, and starting a fiber for each. */
#include <string.h>
#include <unistd.h>

#include "front/nfs/nfs_impl.h"
#include "front/nfs/xdr.h"

#define PRIVILEGED_PORTS 1024

/* ---- jobs ---- */

static struct vv_conn_memory *memory_of(const struct vv_nfs_job *job)
{
    return job->conn->base.conns->memory;
}

static void job_done(struct vv_job *base)
{
    struct vv_nfs_job *job = vv_container_of(base, struct vv_nfs_job, base);
    vv_buffer_free(memory_of(job), job->record);
    vv_payload_free(job->payload);
    vv_buffer_free(memory_of(job), job->data);
    if (job->view)
        vv_view_done(job->view);
    vv_free(job->view);
    vv_writer_done(&job->head);
    vv_free(job);
}

/* A job that is charged for a record of up to `record_max` bytes and `more`. */
static int job_new(struct vv_nfs_conn *conn, size_t record_max, size_t more,
                   struct vv_nfs_job **out_job)
{
    struct vv_nfs_job *job = vv_zalloc(sizeof(*job));
    if (!job)
        return -ENOMEM;
    int err = vv_job_begin(&job->base, &conn->base, sizeof(*job) + record_max + more);
    if (err < 0) {
        vv_free(job);
        return err;
    }
    job->conn = conn;
    job->head = vv_writer_new();
    job->record = vv_buffer_new(memory_of(job), record_max);
    if (!job->record) {
        vv_job_end(&job->base);
        return -ENOMEM;
    }
    *out_job = job;
    return 0;
}

int vv_nfs_job_data(struct vv_nfs_job *job, size_t size)
{
    job->data = vv_buffer_new(memory_of(job), size);
    return job->data ? 0 : -ENOMEM;
}

void vv_nfs_job_answer(struct vv_nfs_job *job)
{
    vv_buffer_free(memory_of(job), job->record);
    job->record = NULL;
    vv_payload_free(job->payload);
    job->payload = NULL;
    size_t viewed = 0;
    vv_job_piece(&job->base, job->head.ptr, job->head.len);
    for (unsigned i = 0; job->view && job->data_len > 0 && i < job->view->count; i++) {
        vv_job_piece(&job->base, job->view->pieces[i].iov_base, job->view->pieces[i].iov_len);
        viewed += job->view->pieces[i].iov_len;
    }
    if (job->data_len > viewed)
        vv_job_piece(&job->base, job->data->bytes + viewed, job->data_len - viewed);
    vv_job_answer(&job->base, sizeof(*job) + job->head.len + (job->data ? job->data->size : 0));
}

void vv_nfs_job_drop(struct vv_nfs_job *job)
{
    /* A client that waits for a reply sends again only when the connection has ended. */
    vv_conn_break(&job->conn->base);
    vv_job_end(&job->base);
}

/* ---- reading ---- */

/* What the answer to a record, whose first `ahead` bytes are here, will take besides. */
static size_t reply_bytes(const uint8_t *record, size_t len, size_t ahead)
{
    struct vv_cursor cursor = vv_cursor_of(record, ahead);
    vv_cursor_skip(&cursor, 12);
    uint32_t program = vv_cursor_be32(&cursor);
    vv_cursor_skip(&cursor, 4);
    uint32_t procedure = vv_cursor_be32(&cursor);
    bool is_large = procedure == VV_NFS_READ || procedure == VV_NFS_READDIR ||
                    procedure == VV_NFS_READDIRPLUS;
    if (cursor.is_bad || program != VV_NFS_PROGRAM || !is_large)
        return 0;
    if (ahead < len)
        return VV_NFS_IO_MAX; /* longer than such a call can be */
    /* The count is the last word of the arguments of all three. */
    cursor = vv_cursor_of(record + len - sizeof(uint32_t), sizeof(uint32_t));
    uint32_t count = vv_cursor_be32(&cursor);
    return count < VV_NFS_IO_MAX ? count : VV_NFS_IO_MAX;
}

/* The fragments behind the first. As vv_conn_take. */
static int read_more(struct vv_nfs_job *job, uint64_t deadline_ns)
{
    struct vv_conn *base = &job->conn->base;
    bool is_last = false;
    for (unsigned count = 1; !is_last; count++) {
        uint8_t header[VV_RPC_FRAGMENT_HEADER_BYTES];
        int taken = vv_conn_take(base, header, sizeof(header), deadline_ns);
        if (taken <= 0)
            return taken;
        size_t len = vv_rpc_fragment(header, &is_last);
        if (len > VV_NFS_RECORD_MAX - job->record_len || count == VV_NFS_FRAGMENTS_MAX)
            return -VV_ERR_FORMAT;
        taken = vv_conn_take(base, job->record->bytes + job->record_len, len, deadline_ns);
        if (taken <= 0)
            return taken;
        job->record_len += len;
    }
    return 1;
}

/* Is the record of `len` bytes, the first `ahead` of which are here, a long WRITE and nothing behind it? Then the length of what is
 * before its data, and its arguments but for that; else 0. */
static size_t write_head(const uint8_t *bytes, size_t len, size_t ahead, struct vv_nfs_args *args)
{
    struct vv_rpc_call call;
    struct vv_rpc_reply reply;
    size_t args_len;
    if (len < VV_CONN_PAYLOAD_MIN || vv_rpc_decode_call(bytes, ahead, &call, &reply) < 0 ||
        reply.status != VV_RPC_SUCCESS || call.program != VV_NFS_PROGRAM ||
        call.version != VV_NFS_VERSION || call.procedure != VV_NFS_WRITE ||
        vv_nfs_decode_write(call.args, args, &args_len) < 0)
        return 0;
    size_t head = (size_t)(call.args.ptr - bytes) + args_len;
    bool is_long = args->data.len >= VV_CONN_PAYLOAD_MIN;
    return is_long && len == head + args->data.len + vv_xdr_padding(args->data.len) ? head : 0;
}

/* The data of a long WRITE whose head has been taken. As vv_conn_take. */
static int take_payload(struct vv_nfs_job *job, const struct vv_nfs_args *args,
                        uint64_t deadline_ns)
{
    struct vv_conn *base = &job->conn->base;
    size_t len = args->data.len;
    TRY(vv_fs_payload_new(job->conn->nfs->fs, args->offset, len, &job->payload));
    int taken = vv_conn_take_payload(base, job->payload, deadline_ns);
    return taken > 0 ? vv_conn_take(base, NULL, vv_xdr_padding(len), deadline_ns) : taken;
}

static uint64_t record_deadline(void)
{
    return vv_rt_now_ns() + VV_NFS_RECORD_MAX_S * VV_NS_PER_S;
}

/* A whole record in *out_job. 1, 0 = the stream has ended. Memory is taken when it has begun to come: who
 * announces much and sends nothing holds none. */
static int read_record(struct vv_nfs_conn *conn, struct vv_nfs_job **out_job)
{
    struct vv_conn *base = &conn->base;
    bool is_last;
    int result = vv_conn_next(base, VV_RPC_FRAGMENT_HEADER_BYTES);
    if (result <= 0)
        return result;
    uint64_t deadline_ns = record_deadline();
    size_t len = vv_rpc_fragment(vv_conn_ahead(base), &is_last);
    vv_conn_skip(base, VV_RPC_FRAGMENT_HEADER_BYTES);
    if (len > VV_NFS_RECORD_MAX)
        return -VV_ERR_FORMAT;
    size_t first = len < VV_CONN_FIRST_BYTES ? len : VV_CONN_FIRST_BYTES;
    result = vv_conn_fill(base, first, deadline_ns);
    if (result <= 0)
        return result;
    struct vv_nfs_job *job;
    struct vv_nfs_args args;
    size_t head = is_last ? write_head(vv_conn_ahead(base), len, first, &args) : 0;
    if (head > 0)
        TRY(job_new(conn, head, len - head, &job));
    else
        TRY(job_new(conn, is_last ? len : VV_NFS_RECORD_MAX,
                    reply_bytes(vv_conn_ahead(base), len, first), &job));
    job->record_len = head > 0 ? head : len;
    result = vv_conn_take(base, job->record->bytes, job->record_len, deadline_ns);
    if (result > 0 && head > 0)
        result = take_payload(job, &args, deadline_ns);
    if (result > 0 && !is_last)
        result = read_more(job, deadline_ns);
    if (result > 0 && job->record_len == 0)
        result = -VV_ERR_FORMAT;
    if (result > 0)
        *out_job = job;
    else
        vv_job_end(&job->base);
    return result;
}

/* One record. 1; 0 = the stream has ended; errors end the connection. */
static int read_one(struct vv_nfs_conn *conn)
{
    struct vv_nfs_job *job;
    int result = read_record(conn, &job);
    if (result <= 0)
        return result;
    int err = vv_rpc_decode_call(job->record->bytes, job->record_len, &job->rpc, &job->reply);
    if (err < 0) {
        vv_job_end(&job->base);
        return err;
    }
    if (job->reply.status == VV_RPC_SUCCESS) {
        if (vv_fiber_start(vv_nfs_serve, job, "nfs request") == 0)
            return 1;
        job->reply.status = VV_RPC_SYSTEM_ERR;
    }
    vv_nfs_refuse(job);
    return 1;
}

/* ---- life ---- */

static int serve(struct vv_conn *base)
{
    int result = 1;
    while (result > 0 && !base->is_broken)
        result = read_one(vv_container_of(base, struct vv_nfs_conn, base));
    return result > 0 ? 0 : result;
}

/* Where the client is. Who reaches a unix socket is on this machine; root and our own user are as
 * good as a privileged port. */
static int open_conn(struct vv_conn *base)
{
    struct vv_nfs_conn *conn = vv_container_of(base, struct vv_nfs_conn, base);
    struct vv_socket *socket = vv_stream_socket(base->stream);
    unsigned port = 0;
    uid_t uid = 0;
    gid_t gid = 0;
    conn->nfs = base->conns->server;
    int err = vv_socket_remote(socket, conn->address, &port);
    if (err == 0) {
        conn->is_privileged = port < PRIVILEGED_PORTS;
        return 0;
    }
    if (err != -ENOTSUP)
        return err;
    TRY(vv_socket_peer(socket, &uid, &gid));
    conn->address[15] = 1; /* ::1 */
    conn->is_privileged = uid == 0 || uid == geteuid();
    return 0;
}

const struct vv_conn_kind vv_nfs_conn_kind = {
    .name = "nfs",
    .speech = "ONC RPC",
    .conn_bytes = sizeof(struct vv_nfs_conn),
    .connections_max = VV_NFS_CONNECTIONS_MAX,
    .requests_max = VV_NFS_REQUESTS_MAX,
    .recv_max_s = VV_NFS_RECORD_MAX_S,
    .send_max_s = VV_NFS_SEND_MAX_S,
    .is_evicting = true,
    .open = open_conn,
    .serve = serve,
    .done = job_done,
};
