/* Replies: putting them together, and sending those that are ready in one go. */
#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "front/nbd/nbd_impl.h"

uint32_t vv_nbd_error_of(int err)
{
    switch (vv_err_errno(err)) {
    case 0:
        return 0;
    case EPERM:
    case EACCES:
    case EROFS:
        return VV_NBD_EPERM;
    case ENOMEM:
        return VV_NBD_ENOMEM;
    case EINVAL:
        return VV_NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return VV_NBD_ENOSPC;
    case EOVERFLOW:
        return VV_NBD_EOVERFLOW;
    case EOPNOTSUPP:
        return VV_NBD_ENOTSUP;
    case ESHUTDOWN:
        return VV_NBD_ESHUTDOWN;
    default:
        return VV_NBD_EIO;
    }
}

/* ---- sending ---- */

/* The next answers as one piece; how many pieces. They stay queued; *out_count is how many. */
static int gather(struct vv_nbd_conn *conn, struct iovec *iov, unsigned *out_count)
{
    unsigned count = 0;
    unsigned iov_count = 0;
    vv_list_each (node, &conn->outgoing) {
        const struct vv_nbd_job *job = vv_list_entry(node, struct vv_nbd_job, node);
        if (count == VV_NBD_SEND_BATCH || iov_count + job->iov_count > VV_NBD_SEND_IOV)
            break;
        memcpy(iov + iov_count, job->iov, job->iov_count * sizeof(*iov));
        iov_count += job->iov_count;
        count++;
    }
    *out_count = count;
    return (int)iov_count;
}

/* One slice at a time, each of which has its time. `iov` is changed. */
static int send_slices(struct vv_nbd_conn *conn, struct iovec *iov, int count)
{
    int err = 0;
    while (count > 0 && err == 0) {
        struct iovec slice[VV_NBD_SEND_IOV];
        int slice_count = 0;
        size_t len = 0;
        while (count > 0 && len < VV_NBD_SLICE_BYTES) {
            size_t part = VV_NBD_SLICE_BYTES - len;
            if (part > iov->iov_len)
                part = iov->iov_len;
            slice[slice_count++] = (struct iovec){iov->iov_base, part};
            iov->iov_base = (uint8_t *)iov->iov_base + part;
            iov->iov_len -= part;
            len += part;
            if (iov->iov_len > 0)
                break;
            iov++;
            count--;
        }
        conn->send_since_ns = vv_rt_now_ns();
        err = vv_stream_send(conn->stream, slice, slice_count,
                             conn->send_since_ns + VV_NBD_STALL_MAX_S * VV_NS_PER_S);
    }
    conn->send_since_ns = 0;
    return err;
}

static void send_all(struct vv_nbd_conn *conn)
{
    if (conn->is_sending)
        return;
    conn->is_sending = true;
    if (conn->request_count > 1)
        vv_fiber_yield(); /* others may be about to answer: one call sends all */
    while (!vv_list_is_empty(&conn->outgoing)) {
        struct iovec iov[VV_NBD_SEND_IOV];
        unsigned count;
        int iov_count = gather(conn, iov, &count);
        int err = conn->is_broken ? 0 : send_slices(conn, iov, iov_count);
        if (err < 0) {
            vv_debug("nbd", "client %llu: sending: %s", (unsigned long long)conn->number,
                     vv_err_text(err));
            vv_nbd_conn_break(conn);
        }
        for (unsigned i = 0; i < count; i++) {
            struct vv_nbd_job *job = vv_list_first(&conn->outgoing, struct vv_nbd_job, node);
            vv_list_remove(&job->node);
            vv_nbd_job_free(job);
        }
    }
    conn->is_sending = false;
}

void vv_nbd_reply_send(struct vv_nbd_job *job)
{
    struct vv_nbd_conn *conn = job->conn;
    conn->nbd->stats.requests++;
    /* Its fiber is about to end; data that is not sent is not needed. */
    size_t kept = job->has_data_piece ? job->request.len : 0;
    if (!job->has_data_piece) {
        vv_nbd_buffer_free(conn->nbd, job->data);
        job->data = NULL;
    }
    vv_nbd_job_discharge(job, VV_NBD_REPLY_COST + kept);
    vv_list_push_back(&conn->outgoing, &job->node);
    send_all(conn);
}

/* ---- putting together ---- */

int vv_nbd_reply_begin(struct vv_nbd_job *job, unsigned chunk_count)
{
    size_t head_len = chunk_count * (VV_NBD_CHUNK_HEAD_BYTES + 12u);
    unsigned iov_count = 2 * chunk_count + 1;
    job->iov = job->few_iov;
    if (iov_count > sizeof(job->few_iov) / sizeof(job->few_iov[0])) {
        job->iov = vv_calloc(iov_count, sizeof(*job->iov));
        if (!job->iov)
            return -ENOMEM;
    }
    if (head_len > sizeof(job->head_bytes)) {
        /* Its pieces are pointed to: it must not move later. */
        job->head = vv_writer_new();
        vv_writer_reserve(&job->head, head_len);
        TRY(vv_writer_check(&job->head));
    }
    return 0;
}

void vv_nbd_reply_piece(struct vv_nbd_job *job, size_t head_from, const uint8_t *data, size_t len)
{
    if (job->head.len > head_from)
        job->iov[job->iov_count++] =
            (struct iovec){job->head.ptr + head_from, job->head.len - head_from};
    if (len == 0)
        return;
    job->has_data_piece = true;
    job->iov[job->iov_count++] = (struct iovec){(void *)(uintptr_t)data, len};
}

/* Whatever stood there before is forgotten: the error's head and its text fit without memory. */
static void encode_error(struct vv_nbd_job *job, int err)
{
    uint32_t error = vv_nbd_error_of(err);
    const struct vv_nbd_request *request = &job->request;
    bool is_structured =
        job->conn->has_structured && (request->command == VV_NBD_CMD_READ ||
                                      request->command == VV_NBD_CMD_BLOCK_STATUS);
    if (job->head.ptr != job->head_bytes)
        vv_writer_done(&job->head);
    if (job->iov != job->few_iov)
        vv_free(job->iov);
    job->iov = job->few_iov;
    job->iov_count = 0;
    job->has_data_piece = false;
    job->head = vv_writer_of(job->head_bytes, sizeof(job->head_bytes));
    if (is_structured) {
        const char *text = vv_err_text(err);
        size_t room = sizeof(job->head_bytes) - VV_NBD_CHUNK_HEAD_BYTES - 6;
        vv_nbd_encode_error(&job->head, request->cookie, error, strlen(text) <= room ? text : "");
    } else {
        vv_nbd_encode_simple_reply(&job->head, request->cookie, error);
    }
}

void vv_nbd_answer(struct vv_nbd_job *job, int err)
{
    if (err < 0) {
        char text[128];
        vv_debug("nbd", "client %llu: %s: %s", (unsigned long long)job->conn->number,
                 vv_nbd_request_to_text(&job->request, text, sizeof(text)), vv_err_text(err));
        job->conn->nbd->stats.errors++;
        encode_error(job, err);
    } else {
        job->iov = job->few_iov;
        vv_nbd_encode_simple_reply(&job->head, job->request.cookie, 0);
    }
    assert(!job->head.is_bad);
    vv_nbd_reply_piece(job, 0, NULL, 0);
    vv_nbd_reply_send(job);
}
