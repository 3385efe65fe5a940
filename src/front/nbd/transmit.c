/* The transmission phase: reading requests, and waiting for the memory that they need. */
#include <string.h>

#include "base/log.h"
#include "front/nbd/nbd_impl.h"

/* ---- memory ---- */

static bool is_stalled(uint64_t since_ns, uint64_t now_ns)
{
    return since_ns != 0 && now_ns - since_ns > VV_NBD_STALL_PRESSED_S * VV_NS_PER_S;
}

/* Somebody waits for memory: those who hold some and do not move are cut off. */
static void cut_stalled(struct vv_nbd *nbd)
{
    uint64_t now_ns = vv_rt_now_ns();
    vv_list_each (node, &nbd->conns) {
        struct vv_nbd_conn *conn = vv_list_entry(node, struct vv_nbd_conn, node);
        bool is_holding = is_stalled(conn->recv_since_ns, now_ns) ||
                          is_stalled(conn->send_since_ns, now_ns);
        if (conn->is_broken || !is_holding)
            continue;
        nbd->stats.connections_cut++;
        vv_warn("nbd", "client %llu is too slow for the memory that it holds, connection closed",
                (unsigned long long)conn->number);
        vv_nbd_conn_break(conn);
    }
}

static int wait_for_memory(struct vv_nbd_conn *conn, struct vv_budget *budget, size_t bytes)
{
    int err;
    do {
        if (conn->is_broken)
            return -VV_ERR_STOPPED;
        err = vv_budget_wait(budget, bytes, vv_rt_now_ns() + VV_NS_PER_S / 2);
        if (err == -ETIMEDOUT)
            cut_stalled(conn->nbd);
    } while (err == -ETIMEDOUT);
    return err;
}

/* ---- jobs ---- */

static int job_new(struct vv_nbd_conn *conn, const struct vv_nbd_request *request, size_t data_len,
                   struct vv_nbd_job **out_job)
{
    struct vv_nbd *nbd = conn->nbd;
    struct vv_budget *budget = data_len > VV_NBD_SMALL_BYTES ? &nbd->large : &nbd->small;
    size_t charge = VV_NBD_REQUEST_COST + data_len;
    while (!conn->is_broken && conn->request_count > 0 &&
           (conn->request_count >= VV_NBD_REQUESTS_MAX ||
            conn->charged + charge > budget->limit / VV_NBD_CONN_SHARE))
        vv_waitq_wait(&conn->room, VV_NEVER);
    TRY(wait_for_memory(conn, budget, charge));
    struct vv_nbd_job *job = vv_nbd_job_take(nbd);
    if (!job) {
        vv_budget_release(budget, charge);
        return -ENOMEM;
    }
    vv_list_init(&job->node);
    job->conn = conn;
    job->request = *request;
    job->charge = charge;
    job->budget = budget;
    conn->charged += charge;
    job->head = vv_writer_of(job->head_bytes, sizeof(job->head_bytes));
    conn->request_count++;
    *out_job = job;
    return 0;
}

void vv_nbd_job_discharge(struct vv_nbd_job *job, size_t kept)
{
    if (kept >= job->charge)
        return;
    vv_budget_release(job->budget, job->charge - kept);
    job->conn->charged -= job->charge - kept;
    job->charge = kept;
    vv_waitq_wake_all(&job->conn->room);
}

void vv_nbd_job_free(struct vv_nbd_job *job)
{
    struct vv_nbd_conn *conn = job->conn;
    vv_nbd_job_discharge(job, 0);
    vv_nbd_buffer_free(conn->nbd, job->data);
    if (job->head.ptr != job->head_bytes)
        vv_writer_done(&job->head);
    if (job->iov != job->few_iov)
        vv_free(job->iov);
    vv_nbd_job_give(conn->nbd, job);
    conn->request_count--;
    vv_waitq_wake_all(&conn->room);
}

/* ---- requests ---- */

static uint64_t stall_deadline(void)
{
    return vv_rt_now_ns() + VV_NBD_STALL_MAX_S * VV_NS_PER_S;
}

/* Which flags a command may have; 0 and more, or -1: there is no such command. */
static int flags_allowed(const struct vv_nbd_conn *conn, uint16_t command)
{
    switch (command) {
    case VV_NBD_CMD_READ:
        return VV_NBD_CMD_FLAG_FUA | (conn->has_structured ? VV_NBD_CMD_FLAG_DF : 0u);
    case VV_NBD_CMD_WRITE:
    case VV_NBD_CMD_FLUSH:
    case VV_NBD_CMD_TRIM:
    case VV_NBD_CMD_CACHE:
        return VV_NBD_CMD_FLAG_FUA;
    case VV_NBD_CMD_WRITE_ZEROES:
        return VV_NBD_CMD_FLAG_FUA | VV_NBD_CMD_FLAG_NO_HOLE | VV_NBD_CMD_FLAG_FAST_ZERO;
    case VV_NBD_CMD_BLOCK_STATUS:
        return conn->has_allocation ? (int)(VV_NBD_CMD_FLAG_FUA | VV_NBD_CMD_FLAG_REQ_ONE) : -1;
    default:
        return -1;
    }
}

static int check_request(const struct vv_nbd_conn *conn, const struct vv_nbd_request *request)
{
    int allowed = flags_allowed(conn, request->command);
    bool is_flush = request->command == VV_NBD_CMD_FLUSH;
    bool has_payload = request->command == VV_NBD_CMD_READ || request->command == VV_NBD_CMD_WRITE;
    if (allowed < 0 || (request->flags & ~(unsigned)allowed) != 0)
        return -EINVAL;
    if (is_flush ? request->len != 0 || request->offset != 0 : request->len == 0)
        return -EINVAL;
    return has_payload && request->len > conn->nbd->payload_max ? -EINVAL : 0;
}

/* What a request holds beside its fiber. */
static size_t data_bytes(const struct vv_nbd_request *request)
{
    switch (request->command) {
    case VV_NBD_CMD_READ:
    case VV_NBD_CMD_WRITE:
        return request->len;
    case VV_NBD_CMD_CACHE:
        return request->len < VV_NBD_PAYLOAD_MIN ? request->len : VV_NBD_PAYLOAD_MIN;
    case VV_NBD_CMD_BLOCK_STATUS:
        return VV_NBD_EXTENTS_MAX * 8;
    default:
        return 0;
    }
}

/* 1; 0 = the stream has ended. An error ends the connection: the stream, or the memory, can't be
 * trusted. `check` is what is wrong with the request already. */
static int accept_request(struct vv_nbd_conn *conn, const struct vv_nbd_request *request, int check)
{
    struct vv_nbd_job *job;
    bool is_write = request->command == VV_NBD_CMD_WRITE;
    size_t data = check == 0 ? data_bytes(request) : 0;
    if (is_write) {
        /* Who announces much and sends little holds no memory. */
        size_t first = request->len < VV_NBD_RECV_BYTES ? request->len : VV_NBD_RECV_BYTES;
        int filled = vv_nbd_fill(conn, first, stall_deadline());
        if (filled <= 0)
            return filled;
    }
    TRY(job_new(conn, request, data, &job));
    if (is_write && check == 0) {
        job->data = vv_nbd_buffer_new(conn->nbd, request->len);
        check = job->data ? 0 : -ENOMEM;
    }
    int taken = is_write ? vv_nbd_take(conn, job->data ? job->data->bytes : NULL, request->len) : 1;
    if (taken <= 0) {
        vv_nbd_job_free(job);
        return taken;
    }
    if (check == 0 && vv_fiber_start(vv_nbd_serve, job, "nbd") < 0)
        check = -ENOMEM;
    if (check < 0)
        vv_nbd_answer(job, check);
    return 1;
}

/* The next request's head may be long in coming; once it has begun, it comes. */
static int read_one(struct vv_nbd_conn *conn)
{
    if (conn->recv_at == conn->recv_end && conn->request_count > 0)
        vv_fiber_yield(); /* the answers first: they are what the client waits for */
    int filled = vv_nbd_fill(conn, VV_NBD_MAGIC_BYTES, VV_NEVER);
    if (filled > 0 && !vv_nbd_is_request(conn->recv_bytes + conn->recv_at))
        return -VV_ERR_FORMAT;
    if (filled > 0)
        filled = vv_nbd_fill(conn, VV_NBD_REQUEST_BYTES, stall_deadline());
    if (filled <= 0)
        return filled;
    struct vv_nbd_request request;
    TRY(vv_nbd_decode_request(conn->recv_bytes + conn->recv_at, &request));
    conn->recv_at += VV_NBD_REQUEST_BYTES;
    if (request.command == VV_NBD_CMD_DISC)
        return 0;
    return accept_request(conn, &request, check_request(conn, &request));
}

int vv_nbd_transmit(struct vv_nbd_conn *conn)
{
    int result = 1;
    while (result > 0 && !conn->is_broken)
        result = read_one(conn);
    return result > 0 ? 0 : result;
}
