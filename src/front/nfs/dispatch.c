/* A request from its record to its reply. */
#include "base/log.h"
#include "front/nfs/nfs_impl.h"

#define PORTMAP_PROGRAM 100000u

static const struct vv_nfs_op ops[VV_NFS_PROCEDURES] = {
    [VV_NFS_GETATTR] = {vv_nfs_getattr, false, false, false},
    [VV_NFS_SETATTR] = {vv_nfs_setattr, true, true, true},
    [VV_NFS_LOOKUP] = {vv_nfs_lookup, false, false, false},
    [VV_NFS_ACCESS] = {vv_nfs_access, false, false, false},
    [VV_NFS_READLINK] = {vv_nfs_readlink, false, false, false},
    [VV_NFS_READ] = {vv_nfs_read, false, false, false},
    /* Repeated, a write that was delayed could undo a later one. */
    [VV_NFS_WRITE] = {vv_nfs_write, true, true, false},
    [VV_NFS_CREATE] = {vv_nfs_create, true, true, true},
    [VV_NFS_MKDIR] = {vv_nfs_mkdir, true, true, true},
    [VV_NFS_SYMLINK] = {vv_nfs_symlink, true, true, true},
    [VV_NFS_MKNOD] = {vv_nfs_mknod, true, true, true},
    [VV_NFS_REMOVE] = {vv_nfs_remove, true, true, true},
    [VV_NFS_RMDIR] = {vv_nfs_rmdir, true, true, true},
    [VV_NFS_RENAME] = {vv_nfs_rename, true, true, true},
    [VV_NFS_LINK] = {vv_nfs_link, true, true, true},
    [VV_NFS_READDIR] = {vv_nfs_readdir, false, false, false},
    [VV_NFS_READDIRPLUS] = {vv_nfs_readdirplus, false, false, false},
    [VV_NFS_FSSTAT] = {vv_nfs_fsstat, false, false, false},
    [VV_NFS_FSINFO] = {vv_nfs_fsinfo, false, false, false},
    [VV_NFS_PATHCONF] = {vv_nfs_pathconf, false, false, false},
    [VV_NFS_COMMIT] = {vv_nfs_commit, false, false, false},
};

const struct vv_nfs_op *vv_nfs_op_of(uint32_t procedure)
{
    return &ops[procedure];
}

/* ---- errors ---- */

uint32_t vv_nfs_status_of(int err)
{
    if (err >= 0)
        return (uint32_t)err;
    /* Another server has the volume now, or this one is going: the client is to ask again, and will
     * find it. */
    if (err == -VV_ERR_FENCED || err == -VV_ERR_STOPPED)
        return VV_NFS3ERR_JUKEBOX;
    switch (vv_err_errno(err)) {
    case EPERM: return VV_NFS3ERR_PERM;
    case ENOENT: return VV_NFS3ERR_NOENT;
    case ENXIO: return VV_NFS3ERR_NXIO;
    case EACCES: return VV_NFS3ERR_ACCES;
    case EBUSY: return VV_NFS3ERR_ACCES;
    case EEXIST: return VV_NFS3ERR_EXIST;
    case EXDEV: return VV_NFS3ERR_XDEV;
    case ENODEV: return VV_NFS3ERR_NODEV;
    case ENOTDIR: return VV_NFS3ERR_NOTDIR;
    case EISDIR: return VV_NFS3ERR_ISDIR;
    case EINVAL:
    case ELOOP: return VV_NFS3ERR_INVAL;
    case EFBIG: return VV_NFS3ERR_FBIG;
    case ENOSPC: return VV_NFS3ERR_NOSPC;
    case EROFS: return VV_NFS3ERR_ROFS;
    case EMLINK: return VV_NFS3ERR_MLINK;
    case ENAMETOOLONG: return VV_NFS3ERR_NAMETOOLONG;
    case ENOTEMPTY: return VV_NFS3ERR_NOTEMPTY;
    case EDQUOT: return VV_NFS3ERR_DQUOT;
    case ESTALE: return VV_NFS3ERR_STALE;
    case ECANCELED: return VV_NFS3ERR_NOT_SYNC;
    case EOPNOTSUPP: return VV_NFS3ERR_NOTSUPP;
    case EAGAIN:
    case ENOMEM: return VV_NFS3ERR_JUKEBOX;
    default: return VV_NFS3ERR_IO;
    }
}

/* ---- replies ---- */

void vv_nfs_refuse(struct vv_nfs_job *job)
{
    job->reply.xid = job->rpc.xid;
    job->data_len = 0;
    vv_writer_reset(&job->head);
    int err = vv_rpc_encode_reply(&job->head, &job->reply);
    if (err == 0)
        err = vv_rpc_finish(&job->head, 0, 0);
    if (err == 0)
        vv_nfs_job_answer(job);
    else
        vv_nfs_job_drop(job);
}

static int encode(struct vv_nfs_job *job)
{
    job->reply.xid = job->rpc.xid;
    TRY(vv_rpc_encode_reply(&job->head, &job->reply));
    TRY(vv_nfs_encode_results(&job->head, job->rpc.procedure, &job->results));
    return vv_rpc_finish(&job->head, 0, job->data_len);
}

/* ---- NFS ---- */

static int run_op(struct vv_nfs_job *job, const struct vv_nfs_op *op)
{
    uint64_t inode;
    int status = vv_nfs_inode_of(job->conn->nfs, &job->args.handle, &inode);
    if (status != 0)
        return status;
    TRY(vv_nfs_job_enter(job, inode));
    if (op->is_kept && vv_nfs_is_done_before(job))
        return vv_nfs_answer_again(job, inode);
    if (op->is_changing && (job->conn->nfs->is_read_only || job->export->is_read_only))
        return -EROFS;
    return op->serve(job, inode);
}

static void answer_results(struct vv_nfs_job *job, struct vv_nfs_reply *reply)
{
    int err = encode(job);
    if (err < 0) {
        job->results.status = VV_NFS3ERR_JUKEBOX; /* not to be kept */
        vv_writer_reset(&job->head);
    }
    vv_nfs_reply_finish(job, reply);
    if (err == 0) {
        vv_nfs_job_answer(job);
        return;
    }
    /* It may have been done: RPC's own error lets the client send it again. */
    job->reply.status = VV_RPC_SYSTEM_ERR;
    vv_nfs_refuse(job);
}

static void refuse(struct vv_nfs_job *job, enum vv_rpc_status status)
{
    job->reply.status = status;
    vv_nfs_refuse(job);
}

static void serve_nfs(struct vv_nfs_job *job)
{
    struct vv_nfs_stats *stats = &job->conn->nfs->stats;
    const struct vv_rpc_call *rpc = &job->rpc;
    struct vv_nfs_reply *reply = NULL;
    if (rpc->version != VV_NFS_VERSION) {
        job->reply.low = VV_NFS_VERSION;
        job->reply.high = VV_NFS_VERSION;
        refuse(job, VV_RPC_PROG_MISMATCH);
        return;
    }
    if (rpc->procedure >= VV_NFS_PROCEDURES) {
        refuse(job, VV_RPC_PROC_UNAVAIL);
        return;
    }
    size_t args_len;
    int decode_err = job->payload ? vv_nfs_decode_write(rpc->args, &job->args, &args_len)
                                  : vv_nfs_decode_args(rpc->procedure, rpc->args, &job->args);
    if (decode_err < 0) {
        refuse(job, VV_RPC_GARBAGE_ARGS);
        return;
    }
    const struct vv_nfs_op *op = vv_nfs_op_of(rpc->procedure);
    int err = op->is_remembered ? vv_nfs_reply_begin(job, &reply) : 0;
    stats->requests++;
    if (err == 1) {
        vv_nfs_job_answer(job);
        return;
    }
    if (err == -EAGAIN) {
        vv_nfs_job_drop(job);
        return;
    }
    if (err == 0 && op->serve)
        err = run_op(job, op);
    job->results.status = vv_nfs_status_of(err);
    stats->errors += job->results.status != VV_NFS3_OK;
    if (err < 0)
        vv_debug("nfs", "%s: %s", vv_nfs_procedure_name(rpc->procedure), vv_err_text(err));
    if (err != 0)
        job->data_len = 0;
    answer_results(job, reply);
}

void vv_nfs_serve(void *arg)
{
    struct vv_nfs_job *job = arg;
    switch (job->rpc.program) {
    case VV_NFS_PROGRAM: serve_nfs(job); return;
    case VV_NFS_MOUNT_PROGRAM: vv_nfs_serve_mount(job); return;
    case PORTMAP_PROGRAM: vv_nfs_serve_portmap(job); return;
    default: refuse(job, VV_RPC_PROG_UNAVAIL); return;
    }
}
