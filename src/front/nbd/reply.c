/* Replies: putting them together. */
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

/* ---- the end of a request ---- */

void vv_nbd_reply_send(struct vv_nbd_job *job)
{
    struct vv_nbd_conn *conn = job->conn;
    conn->nbd->stats.requests++;
    /* Its fiber is about to end; data that is not sent is not needed. */
    size_t kept = job->has_data_piece ? job->request.len : 0;
    if (!job->has_data_piece) {
        vv_buffer_free(conn->base.conns->memory, job->data);
        job->data = NULL;
        vv_payload_free(job->payload);
        job->payload = NULL;
    }
    vv_job_answer(&job->base, kept);
}

void vv_nbd_job_done(struct vv_job *base)
{
    struct vv_nbd_job *job = vv_container_of(base, struct vv_nbd_job, base);
    vv_buffer_free(job->conn->base.conns->memory, job->data);
    vv_payload_free(job->payload);
    if (job->view)
        vv_view_done(job->view);
    vv_free(job->view);
    if (job->head.ptr != job->head_bytes)
        vv_writer_done(&job->head);
    vv_free(job);
}

/* ---- putting together ---- */

int vv_nbd_reply_begin(struct vv_nbd_job *job, unsigned chunk_count)
{
    size_t head_len = chunk_count * (VV_NBD_CHUNK_HEAD_BYTES + 12u);
    TRY(vv_job_room(&job->base, 2 * chunk_count + 1));
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
        vv_job_piece(&job->base, job->head.ptr + head_from, job->head.len - head_from);
    vv_job_piece(&job->base, data, len);
    job->has_data_piece |= len > 0;
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
    job->base.iov_count = 0;
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
        vv_debug("nbd", "client %llu: %s: %s", (unsigned long long)job->conn->base.number,
                 vv_nbd_request_to_text(&job->request, text, sizeof(text)), vv_err_text(err));
        job->conn->nbd->stats.errors++;
        encode_error(job, err);
    } else {
        vv_nbd_encode_simple_reply(&job->head, job->request.cookie, 0);
    }
    assert(!job->head.is_bad);
    vv_nbd_reply_piece(job, 0, NULL, 0);
    vv_nbd_reply_send(job);
}
