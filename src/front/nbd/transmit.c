/* The transmission phase: reading requests. */
#include "front/nbd/nbd_impl.h"

/* ---- jobs ---- */

static int job_new(struct vv_nbd_conn *conn, const struct vv_nbd_request *request, size_t data_len,
                   struct vv_nbd_job **out_job)
{
    struct vv_nbd_job *job = vv_zalloc(sizeof(*job));
    if (!job)
        return -ENOMEM;
    int err = vv_job_begin(&job->base, &conn->base, data_len);
    if (err < 0) {
        vv_free(job);
        return err;
    }
    job->conn = conn;
    job->request = *request;
    job->head = vv_writer_of(job->head_bytes, sizeof(job->head_bytes));
    *out_job = job;
    return 0;
}

int vv_nbd_job_data(struct vv_nbd_job *job, size_t size)
{
    job->data = vv_buffer_new(job->conn->base.conns->memory, size);
    return job->data ? 0 : -ENOMEM;
}

/* ---- requests ---- */

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

/* The data of a WRITE, or what there is in its place if the request can't be served (`check`). As vv_conn_take. */
static int take_data(struct vv_nbd_job *job, int *check)
{
    struct vv_conn *base = &job->conn->base;
    const struct vv_nbd_request *request = &job->request;
    bool is_long = request->len >= VV_CONN_PAYLOAD_MIN && request->len <= VV_PAYLOAD_BYTES_MAX;
    if (*check == 0 && is_long)
        *check = vv_fs_payload_new(job->conn->nbd->fs, request->offset, request->len, &job->payload);
    else if (*check == 0)
        *check = vv_nbd_job_data(job, request->len);
    if (job->payload)
        return vv_conn_take_payload(base, job->payload, VV_NEVER);
    return vv_conn_take(base, job->data ? job->data->bytes : NULL, request->len, VV_NEVER);
}

/* 1; 0 = the stream has ended. An error ends the connection: the stream, or the memory, can't be
 * trusted. `check` is what is wrong with the request already. */
static int accept_request(struct vv_nbd_conn *conn, const struct vv_nbd_request *request, int check)
{
    struct vv_nbd_job *job;
    bool is_write = request->command == VV_NBD_CMD_WRITE;
    size_t data = check == 0 ? data_bytes(request) : 0;
    if (is_write) {
        /* Who announces much and sends nothing holds no memory. */
        size_t first = request->len < VV_CONN_FIRST_BYTES ? request->len : VV_CONN_FIRST_BYTES;
        int filled = vv_conn_fill(&conn->base, first, vv_conn_deadline(&conn->base));
        if (filled <= 0)
            return filled;
    }
    TRY(job_new(conn, request, data, &job));
    int taken = is_write ? take_data(job, &check) : 1;
    if (taken <= 0) {
        vv_job_end(&job->base);
        return taken;
    }
    if (check == 0 && vv_fiber_start(vv_nbd_serve, job, "nbd request") < 0)
        check = -ENOMEM;
    if (check < 0)
        vv_nbd_answer(job, check);
    return 1;
}

/* The next request's head may be long in coming; once it has begun, it comes. */
static int read_one(struct vv_nbd_conn *conn)
{
    struct vv_conn *base = &conn->base;
    int filled = vv_conn_next(base, VV_NBD_MAGIC_BYTES);
    if (filled > 0 && !vv_nbd_is_request(vv_conn_ahead(base)))
        return -VV_ERR_FORMAT;
    if (filled > 0 && vv_conn_ahead_len(base) < VV_NBD_REQUEST_BYTES)
        filled = vv_conn_fill(base, VV_NBD_REQUEST_BYTES, vv_conn_deadline(base));
    if (filled <= 0)
        return filled;
    struct vv_nbd_request request;
    TRY(vv_nbd_decode_request(vv_conn_ahead(base), &request));
    vv_conn_skip(base, VV_NBD_REQUEST_BYTES);
    if (request.command == VV_NBD_CMD_DISC)
        return 0;
    return accept_request(conn, &request, check_request(conn, &request));
}

int vv_nbd_transmit(struct vv_nbd_conn *conn)
{
    int result = 1;
    while (result > 0 && !conn->base.is_broken)
        result = read_one(conn);
    return result > 0 ? 0 : result;
}
