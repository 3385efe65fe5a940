/* MOUNT: from a path to a handle. And the few questions of a portmapper (RFC 1833, version 2) that
 * clients ask before they mount. No list of mounts is kept: nothing would be right in it. */
#include <netinet/in.h>
#include <string.h>

#include "base/log.h"
#include "front/nfs/nfs_impl.h"
#include "front/nfs/xdr.h"

#define PORTMAP_PROGRAM 100000u
#define PORTMAP_VERSION 2u
enum { PORTMAP_NULL = 0, PORTMAP_GETPORT = 3, PORTMAP_DUMP = 4 };

/* Answer with what `put` appends, or as RPC says. */
static void answer(struct vv_nfs_job *job, enum vv_rpc_status status,
                   void (*put)(struct vv_nfs_job *job, struct vv_xdr *xdr))
{
    job->reply.status = status;
    job->reply.xid = job->rpc.xid;
    struct vv_xdr xdr = vv_xdr_encoder(&job->head);
    int err = vv_rpc_encode_reply(&job->head, &job->reply);
    if (err == 0 && status == VV_RPC_SUCCESS && put)
        put(job, &xdr);
    if (err == 0)
        err = vv_rpc_finish(&job->head, 0, 0);
    if (err == 0)
        vv_nfs_job_answer(job);
    else
        vv_nfs_job_drop(job);
}

static void mismatch(struct vv_nfs_job *job, uint32_t low, uint32_t high)
{
    job->reply.low = low;
    job->reply.high = high;
    answer(job, VV_RPC_PROG_MISMATCH, NULL);
}

static void put_u32(struct vv_xdr *xdr, uint32_t value)
{
    vv_xdr_u32(xdr, &value);
}

static void put_text(struct vv_xdr *xdr, const char *text)
{
    struct vv_bytes bytes = {(const uint8_t *)text, strlen(text)};
    vv_xdr_bytes(xdr, &bytes, VV_NFS_MOUNT_PATH_MAX);
}

/* ---- MOUNT ---- */

/* The exports' directories as they are now: one may have been renamed, or made again. */
static void resolve_again(struct vv_nfs *nfs)
{
    for (unsigned i = 0; i < nfs->export_count; i++) {
        const char *path = nfs->exports[i].path;
        uint64_t inode;
        if (vv_nfs_path_resolve(nfs, (struct vv_bytes){(const uint8_t *)path, strlen(path)},
                                &inode) == 0)
            nfs->roots[i] = inode;
    }
}

static int mnt(struct vv_nfs_job *job, struct vv_bytes path)
{
    struct vv_nfs *nfs = job->conn->nfs;
    const struct vv_nfs_export *export;
    uint64_t inode;
    uint64_t root;
    resolve_again(nfs);
    int err = vv_nfs_path_resolve(nfs, path, &inode);
    if (err == 0)
        err = vv_nfs_export_of(job->conn, inode, &export, &root);
    /* Who may use nothing is not told what there is. */
    bool is_stranger = true;
    for (unsigned i = 0; i < nfs->export_count; i++)
        is_stranger &= !vv_nfs_export_admits(&nfs->exports[i], job->conn);
    if (err == -ESTALE || err == -EPERM || is_stranger)
        return -EACCES;
    TRY(err);
    vv_nfs_handle_of(nfs, inode, &job->results.handle);
    return 0;
}

static void put_mnt(struct vv_nfs_job *job, struct vv_xdr *xdr)
{
    struct vv_nfs_handle *handle = &job->results.handle;
    put_u32(xdr, job->results.status);
    if (job->results.status != VV_NFS3_OK)
        return;
    if (job->rpc.version != VV_NFS_MOUNT_VERSION) {
        vv_xdr_fixed(xdr, handle->bytes, VV_NFS_HANDLE_V1_BYTES);
        return;
    }
    struct vv_bytes bytes = {handle->bytes, handle->len};
    vv_xdr_bytes(xdr, &bytes, VV_NFS_HANDLE_MAX);
    put_u32(xdr, 1);
    put_u32(xdr, VV_RPC_AUTH_SYS);
}

static void put_exports(struct vv_nfs_job *job, struct vv_xdr *xdr)
{
    const struct vv_nfs *nfs = job->conn->nfs;
    for (unsigned i = 0; i < nfs->export_count; i++) {
        put_u32(xdr, 1);
        put_text(xdr, nfs->exports[i].path);
        put_u32(xdr, 1);
        put_text(xdr, nfs->exports[i].client);
        put_u32(xdr, 0);
    }
    put_u32(xdr, 0);
}

static void put_nothing(struct vv_nfs_job *job, struct vv_xdr *xdr)
{
    put_u32(xdr, 0);
}

void vv_nfs_serve_mount(struct vv_nfs_job *job)
{
    const struct vv_rpc_call *rpc = &job->rpc;
    struct vv_bytes path;
    if (rpc->version != VV_NFS_MOUNT_VERSION && rpc->version != VV_NFS_MOUNT_VERSION_OLD) {
        mismatch(job, VV_NFS_MOUNT_VERSION_OLD, VV_NFS_MOUNT_VERSION);
        return;
    }
    int err = vv_nfs_decode_mount_args(rpc->procedure, rpc->args, &path);
    if (err < 0) {
        answer(job, err == -EOPNOTSUPP ? VV_RPC_PROC_UNAVAIL : VV_RPC_GARBAGE_ARGS, NULL);
        return;
    }
    switch (rpc->procedure) {
    case VV_NFS_MOUNT_MNT:
        err = mnt(job, path);
        if (err < 0)
            vv_debug("nfs", "MNT: %s", vv_err_text(err));
        job->results.status = vv_nfs_status_of(err);
        answer(job, VV_RPC_SUCCESS, put_mnt);
        return;
    case VV_NFS_MOUNT_DUMP: answer(job, VV_RPC_SUCCESS, put_nothing); return;
    case VV_NFS_MOUNT_EXPORT: answer(job, VV_RPC_SUCCESS, put_exports); return;
    default: answer(job, VV_RPC_SUCCESS, NULL); return;
    }
}

/* ---- the portmapper's questions ---- */

static const struct {
    uint32_t program, version;
} served[] = {
    {PORTMAP_PROGRAM, PORTMAP_VERSION},
    {VV_NFS_PROGRAM, VV_NFS_VERSION},
    {VV_NFS_MOUNT_PROGRAM, VV_NFS_MOUNT_VERSION_OLD},
    {VV_NFS_MOUNT_PROGRAM, VV_NFS_MOUNT_VERSION},
};
#define SERVED_COUNT (sizeof(served) / sizeof(served[0]))

static void put_port(struct vv_nfs_job *job, struct vv_xdr *xdr)
{
    uint32_t words[4]; /* program, version, protocol, port (not used) */
    uint32_t port = 0;
    struct vv_cursor cursor = vv_cursor_of(job->rpc.args.ptr, job->rpc.args.len);
    for (int i = 0; i < 4; i++)
        words[i] = vv_cursor_be32(&cursor);
    for (size_t i = 0; i < SERVED_COUNT; i++)
        if (words[0] == served[i].program && words[1] == served[i].version &&
            words[2] == IPPROTO_TCP)
            port = vv_nfs_port(job->conn->nfs);
    put_u32(xdr, port);
}

static void put_programs(struct vv_nfs_job *job, struct vv_xdr *xdr)
{
    for (size_t i = 0; i < SERVED_COUNT; i++) {
        put_u32(xdr, 1);
        put_u32(xdr, served[i].program);
        put_u32(xdr, served[i].version);
        put_u32(xdr, IPPROTO_TCP);
        put_u32(xdr, vv_nfs_port(job->conn->nfs));
    }
    put_u32(xdr, 0);
}

void vv_nfs_serve_portmap(struct vv_nfs_job *job)
{
    const struct vv_rpc_call *rpc = &job->rpc;
    if (rpc->version != PORTMAP_VERSION) {
        mismatch(job, PORTMAP_VERSION, PORTMAP_VERSION);
        return;
    }
    switch (rpc->procedure) {
    case PORTMAP_NULL: answer(job, VV_RPC_SUCCESS, NULL); return;
    case PORTMAP_GETPORT:
        answer(job, rpc->args.len == 16 ? VV_RPC_SUCCESS : VV_RPC_GARBAGE_ARGS, put_port);
        return;
    case PORTMAP_DUMP: answer(job, VV_RPC_SUCCESS, put_programs); return;
    default: answer(job, VV_RPC_PROC_UNAVAIL, NULL); return;
    }
}
