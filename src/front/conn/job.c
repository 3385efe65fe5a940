/* Requests: the memory that they wait for, and sending their answers. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "front/conn/conn.h"

/* ---- memory ---- */

static bool is_stalled(uint64_t since_ns, uint64_t now_ns)
{
    return since_ns != 0 && now_ns - since_ns > VV_CONN_PRESSED_S * VV_NS_PER_S;
}

/* Somebody waits for memory: those who hold some and do not move are cut off. */
static void cut_stalled(struct vv_conn_memory *memory)
{
    uint64_t now_ns = vv_rt_now_ns();
    vv_list_each (node, &memory->conns) {
        struct vv_conn *conn = vv_list_entry(node, struct vv_conn, memory_node);
        bool is_holding =
            is_stalled(conn->recv_since_ns, now_ns) || is_stalled(conn->send_since_ns, now_ns);
        if (conn->is_broken || !is_holding)
            continue;
        uint64_t count = ++conn->conns->stats.connections_cut;
        if ((count & (count - 1)) == 0)
            vv_warn(conn->conns->kind->name,
                    "client %llu is too slow for the memory that it holds, connection closed (%llu such)",
                    (unsigned long long)conn->number, (unsigned long long)count);
        vv_conn_break(conn);
    }
}

static int wait_for_memory(struct vv_conn *conn, struct vv_budget *budget, size_t bytes)
{
    int err;
    do {
        if (conn->is_broken)
            return -VV_ERR_STOPPED;
        err = vv_budget_wait(budget, bytes, vv_rt_now_ns() + VV_NS_PER_S / 2);
        if (err == -ETIMEDOUT)
            cut_stalled(conn->conns->memory);
    } while (err == -ETIMEDOUT);
    return err;
}

int vv_job_begin(struct vv_job *job, struct vv_conn *conn, size_t bytes)
{
    struct vv_conn_memory *memory = conn->conns->memory;
    struct vv_budget *budget = bytes > VV_CONN_SMALL_BYTES ? &memory->large : &memory->small;
    size_t charge = VV_CONN_REQUEST_COST + bytes;
    while (!conn->is_broken && conn->request_count > 0 &&
           (conn->request_count >= conn->conns->kind->requests_max ||
            conn->charged + charge > budget->limit / VV_CONN_SHARE))
        vv_waitq_wait(&conn->room, VV_NEVER);
    /* Most often there is room, and no deadline to be made. */
    int err = conn->is_broken ? -VV_ERR_STOPPED : vv_budget_try(budget, charge);
    if (err == -VV_ERR_BUDGET)
        err = wait_for_memory(conn, budget, charge);
    TRY(err);
    job->conn = conn;
    job->budget = budget;
    job->charge = charge;
    job->iov = job->few_iov;
    job->iov_count = 0;
    vv_list_init(&job->node);
    conn->charged += charge;
    conn->request_count++;
    vv_list_remove(&conn->node);
    vv_list_push_back(&conn->conns->conns, &conn->node);
    return 0;
}

void vv_job_discharge(struct vv_job *job, size_t kept)
{
    if (kept >= job->charge)
        return;
    vv_budget_release(job->budget, job->charge - kept);
    job->conn->charged -= job->charge - kept;
    job->charge = kept;
    vv_waitq_wake_all(&job->conn->room);
}

void vv_job_end(struct vv_job *job)
{
    struct vv_conn *conn = job->conn;
    struct iovec *iov = job->iov != job->few_iov ? job->iov : NULL;
    vv_job_discharge(job, 0);
    conn->conns->kind->done(job);
    vv_free(iov);
    conn->request_count--;
    vv_waitq_wake_all(&conn->room);
}

/* ---- sending ---- */

int vv_job_room(struct vv_job *job, unsigned count)
{
    assert(count <= VV_CONN_SEND_IOV && job->iov == job->few_iov && job->iov_count == 0);
    if (count <= sizeof(job->few_iov) / sizeof(job->few_iov[0]))
        return 0;
    struct iovec *iov = vv_calloc(count, sizeof(*iov));
    if (!iov)
        return -ENOMEM;
    job->iov = iov;
    return 0;
}

void vv_job_piece(struct vv_job *job, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    assert(job->iov_count < VV_CONN_SEND_IOV);
    job->iov[job->iov_count++] = (struct iovec){(void *)(uintptr_t)bytes, len};
}

/* The next answers as one piece; how many pieces. They stay queued; *out_count is how many. */
static int gather(struct vv_conn *conn, struct iovec *iov, unsigned *out_count)
{
    unsigned count = 0;
    unsigned iov_count = 0;
    vv_list_each (node, &conn->outgoing) {
        const struct vv_job *job = vv_list_entry(node, struct vv_job, node);
        if (count == VV_CONN_SEND_BATCH || iov_count + job->iov_count > VV_CONN_SEND_IOV)
            break;
        memcpy(iov + iov_count, job->iov, job->iov_count * sizeof(*iov));
        iov_count += job->iov_count;
        count++;
    }
    *out_count = count;
    return (int)iov_count;
}

/* Moves up to a slice from the front of `iov` to `slice`; how many pieces that are. */
static int cut_slice(struct iovec **iov, int *count, struct iovec *slice)
{
    int slice_count = 0;
    size_t len = 0;
    while (*count > 0 && len < VV_CONN_SLICE_BYTES) {
        size_t part = VV_CONN_SLICE_BYTES - len;
        if (part > (*iov)->iov_len)
            part = (*iov)->iov_len;
        slice[slice_count++] = (struct iovec){(*iov)->iov_base, part};
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + part;
        (*iov)->iov_len -= part;
        len += part;
        if ((*iov)->iov_len > 0)
            break;
        (*iov)++;
        (*count)--;
    }
    return slice_count;
}

/* One slice at a time, each of which has its time. `iov` is changed. */
static int send_slices(struct vv_conn *conn, struct iovec *iov, int count)
{
    int err = 0;
    while (count > 0 && err == 0) {
        struct iovec slice[VV_CONN_SEND_IOV];
        int slice_count = cut_slice(&iov, &count, slice);
        conn->send_since_ns = vv_rt_now_ns();
        err = vv_stream_send(conn->stream, slice, slice_count,
                             conn->send_since_ns + conn->conns->kind->send_max_s * VV_NS_PER_S);
    }
    conn->send_since_ns = 0;
    return err;
}

static void send_all(struct vv_conn *conn)
{
    if (conn->is_sending)
        return;
    conn->is_sending = true;
    if (conn->request_count > 1)
        vv_fiber_yield(); /* others may be about to answer: one call sends all */
    while (!vv_list_is_empty(&conn->outgoing)) {
        struct iovec iov[VV_CONN_SEND_IOV];
        unsigned count;
        int iov_count = gather(conn, iov, &count);
        int err = conn->is_broken ? 0 : send_slices(conn, iov, iov_count);
        if (err < 0) {
            vv_debug(conn->conns->kind->name, "client %llu: sending: %s",
                     (unsigned long long)conn->number, vv_err_text(err));
            vv_conn_break(conn);
        }
        for (unsigned i = 0; i < count; i++) {
            struct vv_job *job = vv_list_first(&conn->outgoing, struct vv_job, node);
            vv_list_remove(&job->node);
            vv_job_end(job);
        }
    }
    conn->is_sending = false; /* nothing has suspended since the last one ended: the connection is there */
}

void vv_job_answer(struct vv_job *job, size_t kept)
{
    struct vv_conn *conn = job->conn;
    vv_job_discharge(job, VV_CONN_ANSWER_COST + kept);
    vv_list_push_back(&conn->outgoing, &job->node);
    send_all(conn);
}
