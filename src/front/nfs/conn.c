/* A connection: one fiber reads it and starts a fiber for each request; who has an answer queues
 * it, and starts a fiber that sends all that is queued unless there is one. It runs behind those
 * that are ready to run now, so that the answers to what came at once leave at once.
 *
 * The reading fiber stops reading while VV_NFS_REQUESTS_MAX requests or VV_NFS_BYTES_MAX bytes are
 * under way, counted until the answer is sent, so a client that does not take its answers is not
 * read either. Memory for a record grows with what has come of it, not with what it announces. */
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "front/nfs/nfs_impl.h"

#define PRIVILEGED_PORTS 1024

/* ---- jobs ---- */

static struct vv_nfs_job *job_new(struct vv_nfs_conn *conn)
{
    struct vv_nfs_job *job = vv_zalloc(sizeof(*job));
    if (!job)
        return NULL;
    job->conn = conn;
    job->head = vv_writer_new();
    vv_list_init(&job->node);
    return job;
}

static void job_free(struct vv_nfs_job *job)
{
    struct vv_nfs *nfs = job->conn->nfs;
    vv_nfs_buffer_free(nfs, job->record);
    vv_nfs_buffer_free(nfs, job->data);
    vv_writer_done(&job->head);
    vv_free(job);
}

int vv_nfs_job_data(struct vv_nfs_job *job, size_t size)
{
    job->data = vv_nfs_buffer_new(job->conn->nfs, size);
    return job->data ? 0 : -ENOMEM;
}

static void charge(struct vv_nfs_job *job, size_t bytes)
{
    job->charge += bytes;
    job->conn->bytes += bytes;
    job->conn->nfs->bytes += bytes;
}

static void uncharge(struct vv_nfs_job *job)
{
    struct vv_nfs *nfs = job->conn->nfs;
    job->conn->bytes -= job->charge;
    nfs->bytes -= job->charge;
    if (job->charge > VV_NFS_SMALL_BYTES)
        vv_waitq_wake_all(&nfs->room);
    job->charge = 0;
}

/* The request is over: its answer has been sent, or can't be. */
static void job_end(struct vv_nfs_job *job)
{
    struct vv_nfs_conn *conn = job->conn;
    uncharge(job);
    job_free(job);
    conn->request_count--;
    vv_waitq_wake_all(&conn->room);
}

/* ---- sending ---- */

/* The next answers as one piece; how many. They stay queued. */
static int gather(struct vv_nfs_conn *conn, struct iovec *iov, int *out_iov_count)
{
    int count = 0;
    int iov_count = 0;
    vv_list_each (node, &conn->outgoing) {
        struct vv_nfs_job *job = vv_list_entry(node, struct vv_nfs_job, node);
        if (count == VV_NFS_SEND_BATCH)
            break;
        count++;
        iov[iov_count++] = (struct iovec){job->head.ptr, job->head.len};
        if (job->data_len > 0)
            iov[iov_count++] = (struct iovec){job->data->bytes, job->data_len};
    }
    *out_iov_count = iov_count;
    return count;
}

static void break_off(struct vv_nfs_conn *conn)
{
    conn->is_broken = true;
    vv_socket_shutdown(conn->socket);
}

static void send_all(void *arg)
{
    struct vv_nfs_conn *conn = arg;
    while (!vv_list_is_empty(&conn->outgoing)) {
        struct iovec iov[2 * VV_NFS_SEND_BATCH];
        int iov_count;
        int count = gather(conn, iov, &iov_count);
        uint64_t deadline_ns = vv_rt_now_ns() + VV_NFS_SEND_MAX_S * VV_NS_PER_S;
        int err = conn->is_broken ? 0 : vv_socket_send(conn->socket, iov, iov_count, deadline_ns);
        if (err < 0) {
            vv_debug("nfs", "sending a reply: %s", vv_err_text(err));
            break_off(conn);
        }
        for (int i = 0; i < count; i++) {
            struct vv_nfs_job *job = vv_list_first(&conn->outgoing, struct vv_nfs_job, node);
            vv_list_remove(&job->node);
            job_end(job);
        }
    }
    conn->is_sending = false;
}

void vv_nfs_job_answer(struct vv_nfs_job *job)
{
    struct vv_nfs_conn *conn = job->conn;
    vv_nfs_buffer_free(conn->nfs, job->record);
    job->record = NULL;
    vv_list_push_back(&conn->outgoing, &job->node);
    if (conn->is_sending)
        return;
    conn->is_sending = true;
    if (vv_fiber_start(send_all, conn, "nfs send") < 0)
        send_all(conn);
}

void vv_nfs_job_drop(struct vv_nfs_job *job)
{
    /* A client that waits for a reply sends again only when the connection has ended. */
    break_off(job->conn);
    job_end(job);
}

/* ---- reading ---- */

/* At least `len` bytes (at most VV_NFS_RECV_BYTES) in the read-ahead. 1, 0 = the stream has ended.
 */
static int fill(struct vv_nfs_conn *conn, size_t len, uint64_t deadline_ns)
{
    while (conn->recv_end - conn->recv_at < len) {
        if (conn->recv_at > 0) {
            conn->recv_end -= conn->recv_at;
            memmove(conn->recv_bytes, conn->recv_bytes + conn->recv_at, conn->recv_end);
            conn->recv_at = 0;
        }
        ssize_t got = vv_socket_recv(conn->socket, conn->recv_bytes + conn->recv_end,
                                     VV_NFS_RECV_BYTES - conn->recv_end, deadline_ns);
        if (got <= 0)
            return (int)got;
        conn->recv_end += (size_t)got;
    }
    return 1;
}

/* `len` bytes: what was read ahead, the rest directly when it is much. 1, 0 = the stream has
 * ended. */
static int take(struct vv_nfs_conn *conn, uint8_t *out, size_t len, uint64_t deadline_ns)
{
    while (len > 0) {
        size_t ahead = conn->recv_end - conn->recv_at;
        size_t part = ahead < len ? ahead : len;
        if (part == 0 && len >= VV_NFS_RECV_BYTES) {
            ssize_t got = vv_socket_recv(conn->socket, out, len, deadline_ns);
            if (got <= 0)
                return (int)got;
            out += got;
            len -= (size_t)got;
            continue;
        }
        if (part == 0) {
            int filled = fill(conn, 1, deadline_ns);
            if (filled <= 0)
                return filled;
            continue;
        }
        memcpy(out, conn->recv_bytes + conn->recv_at, part);
        conn->recv_at += part;
        out += part;
        len -= part;
    }
    return 1;
}

static bool is_full(const struct vv_nfs_conn *conn, size_t bytes)
{
    if (conn->request_count >= VV_NFS_REQUESTS_MAX)
        return true;
    if (conn->request_count > 0 && conn->bytes + bytes > VV_NFS_BYTES_MAX)
        return true;
    return bytes > VV_NFS_SMALL_BYTES && conn->nfs->bytes + bytes > VV_NFS_ALL_BYTES_MAX;
}

static int wait_for_room(struct vv_nfs_conn *conn, size_t bytes)
{
    while (is_full(conn, bytes)) {
        if (conn->is_broken || conn->nfs->is_closing)
            return -VV_ERR_STOPPED;
        bool is_ours = conn->request_count >= VV_NFS_REQUESTS_MAX ||
                       (conn->request_count > 0 && conn->bytes + bytes > VV_NFS_BYTES_MAX);
        vv_waitq_wait(is_ours ? &conn->room : &conn->nfs->room, VV_NEVER);
    }
    return 0;
}

/* Room for `len` bytes of the record. */
static int grow(struct vv_nfs_job *job, size_t len)
{
    struct vv_nfs *nfs = job->conn->nfs;
    struct vv_nfs_buffer *old = job->record;
    if (old && old->size >= len)
        return 0;
    if (len > VV_NFS_SMALL_BYTES && (!old || old->size <= VV_NFS_SMALL_BYTES)) {
        TRY(wait_for_room(job->conn, VV_NFS_RECORD_MAX));
        charge(job, VV_NFS_RECORD_MAX);
    }
    struct vv_nfs_buffer *grown = vv_nfs_buffer_new(nfs, len);
    if (!grown)
        return -ENOMEM;
    if (old)
        memcpy(grown->bytes, old->bytes, job->record_len);
    vv_nfs_buffer_free(nfs, old);
    job->record = grown;
    return 0;
}

/* A fragment behind what the record has. 1, 0 = the stream has ended. */
static int read_fragment(struct vv_nfs_job *job, size_t len, uint64_t deadline_ns)
{
    while (len > 0) {
        size_t part = len;
        if (job->record_len < VV_NFS_SMALL_BYTES && len > VV_NFS_SMALL_BYTES - job->record_len)
            part = VV_NFS_SMALL_BYTES - job->record_len;
        TRY(grow(job, job->record_len + part));
        int taken = take(job->conn, job->record->bytes + job->record_len, part, deadline_ns);
        if (taken <= 0)
            return taken;
        job->record_len += part;
        len -= part;
    }
    return 1;
}

/* A whole record. 1, 0 = the stream has ended. */
static int read_record(struct vv_nfs_job *job)
{
    struct vv_nfs_conn *conn = job->conn;
    uint64_t deadline_ns = VV_NEVER;
    bool is_last = false;
    for (unsigned count = 0; !is_last; count++) {
        int filled = fill(conn, VV_RPC_FRAGMENT_HEADER_BYTES, deadline_ns);
        if (filled <= 0)
            return filled;
        if (count == 0)
            deadline_ns = vv_rt_now_ns() + VV_NFS_RECORD_MAX_S * VV_NS_PER_S;
        size_t len = vv_rpc_fragment(conn->recv_bytes + conn->recv_at, &is_last);
        conn->recv_at += VV_RPC_FRAGMENT_HEADER_BYTES;
        if (len > VV_NFS_RECORD_MAX - job->record_len || count == VV_NFS_FRAGMENTS_MAX)
            return -VV_ERR_FORMAT;
        int got = read_fragment(job, len, deadline_ns);
        if (got <= 0)
            return got;
    }
    return job->record_len > 0 ? 1 : -VV_ERR_FORMAT;
}

/* What the answer will take, besides the request. */
static size_t reply_bytes(const struct vv_rpc_call *rpc)
{
    bool is_large = rpc->program == VV_NFS_PROGRAM &&
                    (rpc->procedure == VV_NFS_READ || rpc->procedure == VV_NFS_READDIR ||
                     rpc->procedure == VV_NFS_READDIRPLUS);
    if (!is_large || rpc->args.len < sizeof(uint32_t))
        return 0;
    /* The count is the last word of the arguments of all three. */
    struct vv_cursor cursor = vv_cursor_of(rpc->args.ptr + rpc->args.len - sizeof(uint32_t), 4);
    uint32_t count = vv_cursor_be32(&cursor);
    return count < VV_NFS_IO_MAX ? count : VV_NFS_IO_MAX;
}

/* The record is a call: serve it. The job is gone unless there is an error, which ends the
 * connection. */
static int accept_job(struct vv_nfs_job *job)
{
    struct vv_nfs_conn *conn = job->conn;
    TRY(vv_rpc_decode_call(job->record->bytes, job->record_len, &job->rpc, &job->reply));
    size_t more = sizeof(*job) + reply_bytes(&job->rpc);
    if (job->charge == 0)
        more += job->record_len;
    /* What it holds already counts for it. */
    TRY(wait_for_room(conn, more));
    charge(job, more);
    conn->request_count++;
    if (job->reply.status == VV_RPC_SUCCESS) {
        if (vv_fiber_start(vv_nfs_serve, job, "nfs") == 0)
            return 0;
        job->reply.status = VV_RPC_SYSTEM_ERR;
    }
    vv_nfs_refuse(job);
    return 0;
}

/* One record. 1; 0 = the stream has ended; errors end the connection. */
static int read_one(struct vv_nfs_conn *conn)
{
    struct vv_nfs_job *job = job_new(conn);
    if (!job)
        return -ENOMEM;
    int err = read_record(job);
    if (err > 0) {
        vv_list_remove(&conn->node);
        vv_list_push_back(&conn->nfs->conns, &conn->node);
        int accepted = accept_job(job);
        if (accepted == 0)
            return 1;
        err = accepted;
    }
    uncharge(job);
    job_free(job);
    return err;
}

/* ---- life ---- */

static void conn_free(struct vv_nfs_conn *conn)
{
    vv_free(conn->recv_bytes);
    vv_free(conn);
}

/* Logged ever more rarely: whoever makes them shall not fill the log. */
static void note_protocol_error(struct vv_nfs_conn *conn)
{
    uint64_t count = ++conn->nfs->stats.protocol_errors;
    if ((count & (count - 1)) == 0)
        vv_warn("nfs", "a client does not speak ONC RPC, connection closed (%llu such errors)",
                (unsigned long long)count);
}

/* The connection's fiber. */
static void run(void *arg)
{
    struct vv_nfs_conn *conn = arg;
    struct vv_nfs *nfs = conn->nfs;
    int err = 1;
    while (err > 0 && !conn->is_broken && !nfs->is_closing)
        err = read_one(conn);
    if (err == -VV_ERR_FORMAT)
        note_protocol_error(conn);
    if (err < 0)
        break_off(conn);
    while (conn->request_count > 0)
        vv_waitq_wait(&conn->room, VV_NEVER);
    vv_socket_close(conn->socket);
    vv_list_remove(&conn->node);
    conn_free(conn);
    nfs->conn_count--;
    nfs->stats.connections--;
    vv_waitq_wake_all(&nfs->ended);
}

/* Where the client is. Who reaches a unix socket is on this machine; root and our own user are as
 * good as a privileged port. */
static int look_at_peer(struct vv_nfs_conn *conn)
{
    unsigned port = 0;
    uid_t uid = 0;
    gid_t gid = 0;
    int err = vv_socket_remote(conn->socket, conn->address, &port);
    if (err == 0) {
        conn->is_privileged = port < PRIVILEGED_PORTS;
        return 0;
    }
    if (err != -ENOTSUP)
        return err;
    TRY(vv_socket_peer(conn->socket, &uid, &gid));
    conn->address[15] = 1; /* ::1 */
    conn->is_privileged = uid == 0 || uid == geteuid();
    return 0;
}

static int conn_new(struct vv_nfs *nfs, struct vv_nfs_conn **out_conn)
{
    struct vv_nfs_conn *conn = vv_zalloc(sizeof(*conn));
    if (!conn)
        return -ENOMEM;
    conn->recv_bytes = vv_alloc(VV_NFS_RECV_BYTES);
    if (!conn->recv_bytes) {
        conn_free(conn);
        return -ENOMEM;
    }
    conn->nfs = nfs;
    vv_list_init(&conn->outgoing);
    vv_waitq_init(&conn->room);
    *out_conn = conn;
    return 0;
}

int vv_nfs_conn_start(struct vv_nfs *nfs, struct vv_socket *socket)
{
    struct vv_nfs_conn *conn = NULL;
    int err = conn_new(nfs, &conn);
    if (err == 0) {
        conn->socket = socket;
        err = look_at_peer(conn);
    }
    /* A client that has gone already is no trouble of ours. */
    bool is_gone = err == -ENOTCONN;
    if (err == 0)
        err = vv_fiber_start(run, conn, "nfs connection");
    if (err < 0) {
        vv_socket_close(socket);
        if (conn)
            conn_free(conn);
        return is_gone ? 0 : err;
    }
    vv_list_push_back(&nfs->conns, &conn->node);
    nfs->conn_count++;
    nfs->stats.connections++;
    nfs->stats.connections_total++;
    return 0;
}
