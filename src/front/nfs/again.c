/* Requests that were done by a server that has ended before it could say so: answered, not done.
 *
 * The reply's record (struct vv_fs_reply) says that the request was done, and to which inode. The
 * answer is made of that and of what is there now: OK, the handle, the attributes as they are. What
 * they were before is not told: the client is to look at what it has cached. */
#include <string.h>

#include "base/hash.h"
#include "front/nfs/nfs_impl.h"

/* The client's address and name, the xid and the checksum of the request. */
static void id_of(const struct vv_nfs_job *job, uint8_t out_id[VV_REPLY_ID_BYTES])
{
    const struct vv_bytes machine = job->rpc.machine;
    uint64_t name = vv_xxh3(machine.ptr ? (const char *)machine.ptr : "", machine.len, 0);
    vv_store_be64(out_id, vv_xxh3(job->conn->address, sizeof(job->conn->address), name));
    vv_store_be64(out_id + 8, vv_nfs_checksum_of(job));
    vv_store_u32(out_id + 16, job->rpc.xid);
}

bool vv_nfs_is_done_before(struct vv_nfs_job *job)
{
    struct vv_fs_reply found;
    job->kept = (struct vv_fs_reply){.door = VV_REPLY_NFS3, .kind = (uint8_t)job->rpc.procedure};
    id_of(job, job->kept.id);
    job->call.reply = &job->kept;
    if (!vv_fs_reply_find(job->conn->nfs->fs, VV_REPLY_NFS3, job->kept.id, &found) ||
        found.kind != job->kept.kind)
        return false;
    job->kept = found;
    return true;
}

static void put_after(struct vv_nfs_job *job, uint64_t inode, struct vv_nfs_wcc *wcc)
{
    const struct vv_nfs_watch watch = {.inode = inode};
    vv_nfs_watch_end(job, &watch, 0, wcc);
}

/* What was made may be gone by now; its handle tells what it was. */
static void put_made(struct vv_nfs_job *job)
{
    job->results.has_handle = true;
    vv_nfs_handle_of(job->conn->nfs, job->kept.inode, &job->results.handle);
    vv_nfs_post_attr(job, job->kept.inode);
}

int vv_nfs_answer_again(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs *nfs = job->conn->nfs;
    struct vv_nfs_results *results = &job->results;
    uint64_t second = inode;
    nfs->stats.recovered++;
    if (job->kept.kind == VV_NFS_LINK || job->kept.kind == VV_NFS_RENAME) {
        int status = vv_nfs_inode_of(nfs, &job->args.to_handle, &second);
        if (status != 0)
            return status;
    }
    switch (job->kept.kind) {
    case VV_NFS_CREATE:
    case VV_NFS_MKDIR:
    case VV_NFS_SYMLINK:
    case VV_NFS_MKNOD:
        put_made(job);
        break;
    case VV_NFS_RENAME:
        put_after(job, second, &results->to_wcc);
        break;
    case VV_NFS_LINK:
        vv_nfs_post_attr(job, inode);
        put_after(job, second, &results->wcc);
        return vv_nfs_settle(job, 0);
    default:
        break; /* SETATTR, REMOVE, RMDIR */
    }
    put_after(job, inode, &results->wcc);
    return vv_nfs_settle(job, 0); /* it is durable, but for who took over what was not */
}
