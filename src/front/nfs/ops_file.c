/* The bytes of files, and what makes them durable. */
#include <string.h>

#include "front/nfs/nfs_impl.h"
#include "front/nfs/xdr.h"

/* As vv_fs_read into job->data, but much of it stays where it is. */
static ssize_t read_view(struct vv_nfs_job *job, uint64_t inode, size_t count, uint64_t offset)
{
    TRY(vv_job_room(&job->base, VV_VIEW_PIECES_MAX + 2));
    job->view = vv_zalloc(sizeof(*job->view));
    if (!job->view)
        return -ENOMEM;
    return vv_fs_read_view(job->conn->nfs->fs, &job->call, inode, NULL, job->data->bytes, count,
                           offset, job->view);
}

/* The data is sent from where it is, behind the rest of the reply. */
int vv_nfs_read(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs *nfs = job->conn->nfs;
    struct vv_nfs_results *results = &job->results;
    uint64_t offset = job->args.offset;
    size_t count = job->args.count < VV_NFS_IO_MAX ? job->args.count : VV_NFS_IO_MAX;
    TRY(vv_nfs_job_data(job, count + 4));
    ssize_t len = count >= VV_NFS_VIEW_BYTES
                      ? read_view(job, inode, count, offset)
                      : vv_fs_read(nfs->fs, &job->call, inode, NULL, job->data->bytes, count, offset);
    vv_nfs_post_attr(job, inode);
    TRY(len);
    size_t padding = vv_xdr_padding((size_t)len);
    memset(job->data->bytes + len, 0, padding);
    job->data_len = (size_t)len + padding;
    results->data.len = (size_t)len;
    results->count = (uint32_t)len;
    results->is_eof = results->has_attr && offset + (uint64_t)len >= results->attr.size;
    nfs->stats.read_bytes += (uint64_t)len;
    return 0;
}

/* UNSTABLE: visible now, durable with COMMIT. The others wait, and say what was asked for: a sync
 * here covers data and metadata alike. */
int vv_nfs_write(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs *nfs = job->conn->nfs;
    const struct vv_nfs_args *args = &job->args;
    struct vv_nfs_results *results = &job->results;
    struct vv_nfs_watch watch;
    vv_nfs_watch_begin(job, inode, &watch);
    unsigned flags = job->call.cred.uid != 0 ? VV_WRITE_KILL_PRIV : 0;
    ssize_t len = job->payload ? vv_fs_write_payload(nfs->fs, &job->call, inode, NULL, job->payload,
                                                     args->offset, flags)
                               : vv_fs_write(nfs->fs, &job->call, inode, NULL, args->data.ptr,
                                             args->data.len, args->offset, flags);
    vv_nfs_watch_end(job, &watch, len > 0, &results->wcc);
    TRY(len);
    nfs->stats.write_bytes += (uint64_t)len;
    if (args->how != VV_NFS_UNSTABLE)
        TRY(vv_fs_sync(nfs->fs, inode));
    results->count = (uint32_t)len;
    results->committed = args->how;
    memcpy(results->verifier, nfs->verifier, sizeof(results->verifier));
    return 0;
}

int vv_nfs_commit(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs *nfs = job->conn->nfs;
    struct vv_nfs_results *results = &job->results;
    struct vv_nfs_watch watch;
    vv_nfs_watch_begin(job, inode, &watch);
    TRY(watch.err);
    int err = vv_fs_sync(nfs->fs, inode);
    vv_nfs_watch_end(job, &watch, 0, &results->wcc);
    TRY(err);
    memcpy(results->verifier, nfs->verifier, sizeof(results->verifier));
    return 0;
}

int vv_nfs_readlink(struct vv_nfs_job *job, uint64_t inode)
{
    /* In the job's buffer: the reply is encoded when this function is over. */
    TRY(vv_nfs_job_data(job, VV_SYMLINK_MAX + 1));
    ssize_t len = vv_fs_readlink(job->conn->nfs->fs, &job->call, inode, (char *)job->data->bytes,
                                 VV_SYMLINK_MAX + 1);
    vv_nfs_post_attr(job, inode);
    TRY(len);
    job->results.data = (struct vv_bytes){job->data->bytes, (size_t)len};
    return 0;
}
