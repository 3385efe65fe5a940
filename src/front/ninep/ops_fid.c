/* Fids: attach, walk, clunk, remove, flush. */
#include <string.h>
#include <sys/stat.h>

#include "front/ninep/ninep_impl.h"

struct vv_ninep_qid vv_ninep_qid_of(const struct vv_attr *attr)
{
    uint8_t type = VV_NINEP_QID_FILE;
    if (S_ISDIR(attr->mode))
        type = VV_NINEP_QID_DIR;
    else if (S_ISLNK(attr->mode))
        type = VV_NINEP_QID_SYMLINK;
    return (struct vv_ninep_qid){
        .type = type, .version = (uint32_t)attr->change, .path = attr->inode};
}

int vv_ninep_check_name(struct vv_bytes name)
{
    if (name.len == 0 || memchr(name.ptr, '/', name.len))
        return -EINVAL;
    return name.len > VV_NAME_MAX ? -ENAMETOOLONG : 0;
}

static bool is_dotdot(struct vv_bytes name)
{
    return name.len == 2 && name.ptr[0] == '.' && name.ptr[1] == '.';
}

/* Tauth: none is needed, which is what clients take this error for. */
int vv_ninep_auth(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    return -EOPNOTSUPP;
}

/* ---- attach ---- */

/* Go down `path` from the root of the volume. */
static int resolve(struct vv_ninep_fid *fid, struct vv_bytes path, struct vv_attr *out_attr)
{
    struct vv_fs *fs = fid->conn->ninep->fs;
    TRY(vv_fs_getattr(fs, VV_ROOT_INODE, out_attr));
    size_t at = 0;
    while (at < path.len) {
        const uint8_t *start = path.ptr + at;
        const uint8_t *slash = memchr(start, '/', path.len - at);
        size_t len = slash ? (size_t)(slash - start) : path.len - at;
        at += len + 1;
        if (len == 0)
            continue;
        struct vv_bytes name = {start, len};
        TRY(is_dotdot(name) ? -EINVAL : vv_ninep_check_name(name));
        struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
        int err = vv_fs_lookup(fs, &call.call, out_attr->inode, (const char *)start, len, out_attr);
        vv_ninep_call_end(&call);
        TRY(err);
    }
    return 0;
}

static int attach_user(struct vv_ninep_job *job, struct vv_ninep_user *user,
                       struct vv_ninep_reply *reply)
{
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_attr attr;
    TRY(vv_ninep_fid_new(job->conn, user, &fid));
    TRY(resolve(fid, request->newname, &attr));
    fid->inode = attr.inode;
    fid->root = attr.inode;
    fid->type = attr.mode & S_IFMT;
    TRY(vv_ninep_fid_enter(fid, request->fid, NULL));
    reply->qid = vv_ninep_qid_of(&attr);
    return 0;
}

/* Tattach: fid becomes the directory aname, for the user n_uname. */
int vv_ninep_attach(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_conn *conn = job->conn;
    const struct vv_ninep_request *request = &job->request;
    uint32_t uid = request->n_uname;
    if (request->newfid != VV_NINEP_NOFID)
        return -EOPNOTSUPP; /* authentication */
    if (conn->is_restricted && uid != VV_NINEP_NONUNAME && uid != conn->peer_uid)
        return -EPERM;
    if (conn->is_restricted)
        uid = conn->peer_uid;
    struct vv_ninep_user *user;
    TRY(vv_ninep_user_get(conn->ninep, uid, request->name, &user));
    int err = attach_user(job, user, reply);
    vv_ninep_user_unref(conn->ninep, user);
    return err;
}

/* ---- walk ---- */

/* One step of a walk, which *fid stands for. */
static int step(struct vv_ninep_fid *fid, struct vv_bytes name, struct vv_attr *out_attr)
{
    struct vv_fs *fs = fid->conn->ninep->fs;
    TRY(vv_ninep_check_name(name));
    if (!S_ISDIR(fid->type))
        return -ENOTDIR;
    uint64_t parent = fid->inode;
    if (is_dotdot(name) && parent == fid->root) {
        TRY(vv_fs_getattr(fs, parent, out_attr));
    } else {
        struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
        int err = vv_fs_lookup(fs, &call.call, parent, (const char *)name.ptr, name.len, out_attr);
        vv_ninep_call_end(&call);
        TRY(err);
    }
    TRY(vv_ninep_fid_set_name(fid, is_dotdot(name) ? 0 : parent, name));
    fid->inode = out_attr->inode;
    fid->type = out_attr->mode & S_IFMT;
    return 0;
}

/* Twalk: newfid becomes what the names lead to from fid; if they don't lead to the end, the qids
 * tell how far they do, and newfid stays as it was. */
int vv_ninep_walk(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_conn *conn = job->conn;
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *from CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(conn, request->fid, &from));
    if (request->newfid == request->fid && from->handle)
        return -EBUSY; /* an open fid stays what it is */
    TRY(vv_ninep_fid_new(conn, from->user, &fid));
    fid->inode = from->inode;
    fid->root = from->root;
    fid->type = from->type;
    if (from->name)
        TRY(vv_ninep_fid_set_name(fid, from->parent,
                                  (struct vv_bytes){(uint8_t *)from->name, from->name_len}));
    for (uint16_t i = 0; i < request->name_count; i++) {
        struct vv_attr attr;
        int err = step(fid, request->names[i], &attr);
        if (err < 0)
            return i == 0 ? err : 0;
        reply->qids[reply->qid_count++] = vv_ninep_qid_of(&attr);
    }
    return vv_ninep_fid_enter(fid, request->newfid, from);
}

/* ---- clunk, remove, flush ---- */

/* Tclunk: the fid is gone whatever is answered; a written xattr is stored now. */
int vv_ninep_clunk(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get(job->conn, job->request.fid, &fid));
    vv_ninep_fid_drop(fid);
    return fid->kind == VV_NINEP_FID_XATTR_WRITE ? vv_ninep_xattr_commit(fid) : 0;
}

/* Remove the entry by which the fid was reached, if it still is that inode's. */
static int remove_entry(struct vv_ninep_fid *fid, const struct vv_fs_call *call)
{
    struct vv_fs *fs = fid->conn->ninep->fs;
    struct vv_attr attr;
    if (fid->kind != VV_NINEP_FID_FILE || fid->parent == 0)
        return -EINVAL;
    TRY(vv_fs_lookup(fs, call, fid->parent, fid->name, fid->name_len, &attr));
    if (attr.inode != fid->inode)
        return -ENOENT;
    if (S_ISDIR(attr.mode))
        return vv_fs_rmdir(fs, call, fid->parent, fid->name, fid->name_len);
    return vv_fs_unlink(fs, call, fid->parent, fid->name, fid->name_len);
}

/* Tremove: as clunk, and the file is removed. */
int vv_ninep_remove(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get(job->conn, job->request.fid, &fid));
    vv_ninep_fid_drop(fid);
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    int err = remove_entry(fid, &call.call);
    vv_ninep_call_end(&call);
    return err;
}

/* Tflush: answered when the request with oldtag has been. Only a wait for a lock is cut short: no
 * other request waits for anything but the store. */
int vv_ninep_flush(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    if (job->request.oldtag == job->request.tag)
        return 0;
    struct vv_ninep_job *flushed = vv_ninep_job_find(job->conn, job->request.oldtag);
    if (flushed) {
        vv_ninep_job_cancel(flushed);
        vv_waitq_wait(&flushed->answered, VV_NEVER);
    }
    return 0;
}
