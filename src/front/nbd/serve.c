/* Serving a request: mapping it to calls of fs. */
#include <assert.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "front/nbd/nbd_impl.h"

static struct vv_fs_call call_of(const struct vv_nbd_job *job)
{
    return (struct vv_fs_call){.cred = {.uid = 0}, .door = job->conn->nbd->options.door};
}

/* ---- READ ---- */

static bool is_zero(const uint8_t *bytes, size_t len)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

/* A stretch of what was read, in one piece of memory: data, or zeros. */
struct run {
    const uint8_t *bytes;
    size_t len;
    bool is_hole;
};
#define RUNS_MAX (VV_NBD_CHUNKS_MAX + VV_VIEW_PIECES_MAX)

/* Cuts a piece of what was read into runs. */
static unsigned cut_piece(const struct iovec *piece, size_t unit, struct run *out)
{
    const uint8_t *bytes = piece->iov_base;
    unsigned count = 0;
    for (size_t at = 0; at < piece->iov_len;) {
        size_t part = piece->iov_len - at < unit ? piece->iov_len - at : unit;
        bool is_hole =
            unit < SIZE_MAX && part >= VV_NBD_HOLE_BYTES && is_zero(bytes + at, part);
        if (count > 0 && out[count - 1].is_hole == is_hole)
            out[count - 1].len += part;
        else
            out[count++] = (struct run){bytes + at, part, is_hole};
        at += part;
    }
    return count;
}

/* Cuts what was read into runs. Zeros are looked for in whole units of a piece, of which there are at most
 * VV_NBD_CHUNKS_MAX and one for each piece, so that there are no more runs than that. */
static unsigned find_runs(const struct vv_nbd_job *job, const struct iovec *pieces,
                          unsigned piece_count, struct run *out)
{
    size_t unit = VV_NBD_HOLE_BYTES;
    unsigned count = 0;
    while (unit * VV_NBD_CHUNKS_MAX < job->request.len)
        unit *= 2;
    if (!job->conn->has_structured || (job->request.flags & VV_NBD_CMD_FLAG_DF))
        unit = SIZE_MAX;
    for (unsigned i = 0; i < piece_count; i++)
        count += cut_piece(&pieces[i], unit, out + count);
    return count;
}

/* Runs of one kind that follow each other go out as one chunk; how many, and how long it is. */
static unsigned join_runs(const struct run *runs, unsigned count, size_t *out_len)
{
    unsigned joined = 0;
    *out_len = 0;
    while (joined < count && runs[joined].is_hole == runs[0].is_hole)
        *out_len += runs[joined++].len;
    return joined;
}

static int reply_chunks(struct vv_nbd_job *job, const struct run *runs, unsigned count)
{
    const struct vv_nbd_request *request = &job->request;
    uint64_t offset = request->offset;
    size_t done = 0; /* of the head */
    TRY(vv_nbd_reply_begin(job, count));
    for (unsigned i = 0; i < count;) {
        size_t len;
        unsigned next = i + join_runs(runs + i, count - i, &len);
        uint16_t flags = next == count ? VV_NBD_CHUNK_DONE : 0;
        if (runs[i].is_hole)
            vv_nbd_encode_offset_hole(&job->head, request->cookie, flags, offset, (uint32_t)len);
        else
            vv_nbd_encode_offset_data(&job->head, request->cookie, flags, offset, (uint32_t)len);
        offset += len;
        for (; i < next; i++) {
            if (runs[i].is_hole)
                continue; /* the next chunk's head goes out with this one */
            vv_nbd_reply_piece(job, done, runs[i].bytes, runs[i].len);
            done = job->head.len;
        }
    }
    if (done < job->head.len)
        vv_nbd_reply_piece(job, done, NULL, 0);
    assert(!job->head.is_bad);
    return 0;
}

static int reply_data(struct vv_nbd_job *job, const struct iovec *pieces, unsigned piece_count)
{
    struct run runs[RUNS_MAX];
    unsigned count = find_runs(job, pieces, piece_count, runs);
    if (job->conn->has_structured)
        return reply_chunks(job, runs, count);
    TRY(vv_nbd_reply_begin(job, count));
    vv_nbd_encode_simple_reply(&job->head, job->request.cookie, 0);
    for (unsigned i = 0; i < count; i++)
        vv_nbd_reply_piece(job, i == 0 ? 0 : job->head.len, runs[i].bytes, runs[i].len);
    return 0;
}

/* Exactly these bytes: the file may have become shorter meanwhile. */
static int read_exactly(struct vv_nbd_job *job, uint8_t *out, size_t len, uint64_t offset)
{
    struct vv_fs_call call = call_of(job);
    const struct vv_nbd_export *export = job->conn->export;
    ssize_t got =
        vv_fs_read(job->conn->nbd->fs, &call, export->inode, export->handle, out, len, offset);
    TRY(got);
    return (size_t)got == len ? 0 : -EINVAL;
}

/* The same by job->view: much of it stays where it is. */
static int read_view(struct vv_nbd_job *job)
{
    job->view = vv_zalloc(sizeof(*job->view));
    if (!job->view)
        return -ENOMEM;
    struct vv_fs_call call = call_of(job);
    const struct vv_nbd_request *request = &job->request;
    const struct vv_nbd_export *export = job->conn->export;
    ssize_t got = vv_fs_read_view(job->conn->nbd->fs, &call, export->inode, export->handle,
                                  job->data->bytes, request->len, request->offset, job->view);
    TRY(got);
    if ((size_t)got != request->len)
        return -EINVAL;
    return reply_data(job, job->view->pieces, job->view->count);
}

static int serve_read(struct vv_nbd_job *job)
{
    const struct vv_nbd_request *request = &job->request;
    TRY(vv_nbd_job_data(job, request->len));
    if (request->len >= VV_NBD_VIEW_MIN && request->len <= VV_NBD_VIEW_MAX) {
        TRY(read_view(job));
    } else {
        struct iovec piece = {job->data->bytes, request->len};
        TRY(read_exactly(job, job->data->bytes, request->len, request->offset));
        TRY(reply_data(job, &piece, 1));
    }
    job->conn->nbd->stats.read_bytes += request->len;
    return 1;
}

/* Reading is what brings it into the cache. */
static int serve_cache(struct vv_nbd_job *job)
{
    const struct vv_nbd_request *request = &job->request;
    size_t piece = request->len < VV_NBD_PAYLOAD_MIN ? request->len : VV_NBD_PAYLOAD_MIN;
    TRY(vv_nbd_job_data(job, piece));
    for (size_t done = 0; done < request->len; done += piece) {
        if (job->conn->base.is_broken)
            return -VV_ERR_STOPPED;
        size_t len = request->len - done < piece ? request->len - done : piece;
        TRY(read_exactly(job, job->data->bytes, len, request->offset + done));
    }
    return 0;
}

/* ---- WRITE, WRITE_ZEROES, TRIM, FLUSH ---- */

static int serve_write(struct vv_nbd_job *job)
{
    struct vv_fs_call call = call_of(job);
    const struct vv_nbd_request *request = &job->request;
    const struct vv_nbd_export *export = job->conn->export;
    unsigned flags = request->flags & VV_NBD_CMD_FLAG_FUA ? VV_WRITE_SYNC : 0;
    size_t done = 0;
    if (job->payload) { /* is written wholly or not at all */
        ssize_t written =
            vv_fs_write_payload(job->conn->nbd->fs, &call, export->inode, export->handle,
                                job->payload, request->offset, flags);
        TRY(written);
        done = request->len;
    }
    while (done < request->len) {
        ssize_t written = vv_fs_write(job->conn->nbd->fs, &call, export->inode, export->handle,
                                      job->data->bytes + done, request->len - done,
                                      request->offset + done, flags);
        TRY(written);
        done += (size_t)written;
    }
    job->conn->nbd->stats.write_bytes += request->len;
    return 0;
}

static int sync_device(struct vv_nbd_job *job)
{
    return vv_fs_sync(job->conn->nbd->fs, job->conn->export->inode);
}

/* One tombstone, so FAST_ZERO always holds. NO_HOLE cannot reserve space in a log; what it can is
 * to fail now when there would be none. */
static int serve_zeroes(struct vv_nbd_job *job)
{
    struct vv_fs_call call = call_of(job);
    const struct vv_nbd_request *request = &job->request;
    const struct vv_nbd_export *export = job->conn->export;
    bool is_keeping = request->command == VV_NBD_CMD_WRITE_ZEROES &&
                      (request->flags & VV_NBD_CMD_FLAG_NO_HOLE);
    int mode = FALLOC_FL_KEEP_SIZE | (is_keeping ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
    TRY(vv_fs_fallocate(job->conn->nbd->fs, &call, export->inode, export->handle, mode,
                        request->offset, request->len));
    return request->flags & VV_NBD_CMD_FLAG_FUA ? sync_device(job) : 0;
}

/* ---- BLOCK_STATUS ---- */

/* The stretch that begins at `offset`, data or hole, up to `end`. */
static int find_stretch(struct vv_nbd_job *job, uint64_t offset, uint64_t end, uint64_t *out_end,
                        uint32_t *out_state)
{
    struct vv_fs *fs = job->conn->nbd->fs;
    uint64_t inode = job->conn->export->inode;
    uint64_t found = end;
    int err = vv_fs_seek(fs, inode, offset, SEEK_DATA, &found);
    bool is_data = err == 0 && found == offset;
    if (is_data)
        err = vv_fs_seek(fs, inode, offset, SEEK_HOLE, &found);
    if (err == -ENXIO) {
        found = end;
        err = 0;
    }
    TRY(err);
    *out_state = is_data ? 0 : VV_NBD_STATE_HOLE | VV_NBD_STATE_ZERO;
    *out_end = found < end ? found : end;
    return 0;
}

static int serve_block_status(struct vv_nbd_job *job)
{
    const struct vv_nbd_request *request = &job->request;
    unsigned count_max = request->flags & VV_NBD_CMD_FLAG_REQ_ONE ? 1 : VV_NBD_EXTENTS_MAX;
    uint64_t offset = request->offset;
    uint64_t end = request->offset + request->len;
    unsigned count = 0;
    TRY(vv_nbd_job_data(job, (size_t)count_max * 8));
    struct vv_writer writer = vv_writer_of(job->data->bytes, (size_t)count_max * 8);
    while (offset < end && count < count_max && !job->conn->base.is_broken) {
        uint64_t stretch_end;
        uint32_t state;
        TRY(find_stretch(job, offset, end, &stretch_end, &state));
        vv_writer_be32(&writer, (uint32_t)(stretch_end - offset));
        vv_writer_be32(&writer, state);
        offset = stretch_end;
        count++;
    }
    TRY(vv_writer_check(&writer));
    TRY(vv_nbd_reply_begin(job, 1));
    vv_nbd_encode_chunk(&job->head, request->cookie, VV_NBD_CHUNK_DONE, VV_NBD_CHUNK_BLOCK_STATUS,
                        4 + (uint32_t)writer.len);
    vv_writer_be32(&job->head, VV_NBD_CONTEXT_ID);
    vv_nbd_reply_piece(job, 0, job->data->bytes, writer.len);
    return 1;
}

/* ---- all of them ---- */

static bool is_changing(uint16_t command)
{
    return command == VV_NBD_CMD_WRITE || command == VV_NBD_CMD_WRITE_ZEROES ||
           command == VV_NBD_CMD_TRIM;
}

/* It lies within the device as it is now. */
static int check_range(struct vv_nbd_job *job)
{
    const struct vv_nbd_request *request = &job->request;
    uint64_t size;
    if (job->conn->base.conns->is_closing)
        return -VV_ERR_STOPPED;
    if (is_changing(request->command) && job->conn->export->is_read_only)
        return -EPERM;
    TRY(vv_nbd_export_size(job->conn->export, &size));
    if (request->offset <= size && request->len <= size - request->offset)
        return 0;
    bool is_filling =
        request->command == VV_NBD_CMD_WRITE || request->command == VV_NBD_CMD_WRITE_ZEROES;
    return is_filling ? -ENOSPC : -EINVAL;
}

static int serve(struct vv_nbd_job *job)
{
    TRY(check_range(job));
    switch (job->request.command) {
    case VV_NBD_CMD_READ:
        return serve_read(job);
    case VV_NBD_CMD_WRITE:
        return serve_write(job);
    case VV_NBD_CMD_FLUSH:
        return sync_device(job);
    case VV_NBD_CMD_TRIM:
    case VV_NBD_CMD_WRITE_ZEROES:
        return serve_zeroes(job);
    case VV_NBD_CMD_CACHE:
        return serve_cache(job);
    case VV_NBD_CMD_BLOCK_STATUS:
        return serve_block_status(job);
    default:
        return -EINVAL;
    }
}

void vv_nbd_serve(void *arg)
{
    struct vv_nbd_job *job = arg;
    int result = serve(job);
    if (result > 0)
        vv_nbd_reply_send(job);
    else
        vv_nbd_answer(job, result);
}
