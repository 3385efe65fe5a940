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

/* One piece of what was read: data, or zeros. */
struct run {
    size_t from, len;
    bool is_hole;
};

/* Cuts what was read into runs. Zeros are looked for in whole units, at most VV_NBD_CHUNKS_MAX of
 * them, so that there are no more runs than that. */
static unsigned find_runs(const uint8_t *bytes, size_t len, bool is_one, struct run *out)
{
    unsigned count = 0;
    size_t unit = VV_NBD_HOLE_BYTES;
    while (unit * VV_NBD_CHUNKS_MAX < len)
        unit *= 2;
    if (is_one)
        unit = SIZE_MAX;
    for (size_t at = 0; at < len;) {
        size_t part = len - at < unit ? len - at : unit;
        bool is_hole = !is_one && part >= VV_NBD_HOLE_BYTES && is_zero(bytes + at, part);
        if (count > 0 && out[count - 1].is_hole == is_hole)
            out[count - 1].len += part;
        else
            out[count++] = (struct run){at, part, is_hole};
        at += part;
    }
    return count;
}

static int reply_chunks(struct vv_nbd_job *job)
{
    const struct vv_nbd_request *request = &job->request;
    const uint8_t *bytes = job->data->bytes;
    struct run runs[VV_NBD_CHUNKS_MAX];
    bool is_one = request->flags & VV_NBD_CMD_FLAG_DF;
    unsigned count = find_runs(bytes, request->len, is_one, runs);
    size_t done = 0; /* of the head */
    TRY(vv_nbd_reply_begin(job, count));
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = i + 1 == count ? VV_NBD_CHUNK_DONE : 0;
        uint64_t offset = request->offset + runs[i].from;
        uint32_t len = (uint32_t)runs[i].len;
        if (runs[i].is_hole) {
            vv_nbd_encode_offset_hole(&job->head, request->cookie, flags, offset, len);
            len = 0;
        } else {
            vv_nbd_encode_offset_data(&job->head, request->cookie, flags, offset, len);
        }
        if (len == 0 && i + 1 < count)
            continue; /* the next chunk's head goes out with this one */
        vv_nbd_reply_piece(job, done, bytes + runs[i].from, len);
        done = job->head.len;
    }
    assert(!job->head.is_bad);
    return 0;
}

static int reply_data(struct vv_nbd_job *job)
{
    if (job->conn->has_structured)
        return reply_chunks(job);
    TRY(vv_nbd_reply_begin(job, 1));
    vv_nbd_encode_simple_reply(&job->head, job->request.cookie, 0);
    vv_nbd_reply_piece(job, 0, job->data->bytes, job->request.len);
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

static int serve_read(struct vv_nbd_job *job)
{
    const struct vv_nbd_request *request = &job->request;
    TRY(vv_nbd_job_data(job, request->len));
    TRY(read_exactly(job, job->data->bytes, request->len, request->offset));
    TRY(reply_data(job));
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
