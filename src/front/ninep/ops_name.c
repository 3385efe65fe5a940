/* Names: what makes, links, moves and removes entries. */
#include <sys/stat.h>

#include "front/ninep/ninep_impl.h"

/* A new inode in the directory `fid`: what symlink, mknod and mkdir have in common. */
static int make(struct vv_ninep_job *job, struct vv_ninep_reply *reply,
                int (*make_in)(const struct vv_ninep_request *, struct vv_fs *,
                               const struct vv_fs_call *, uint64_t, struct vv_attr *))
{
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *dir CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, request->fid, &dir));
    TRY(vv_ninep_check_name(request->name));
    struct vv_ninep_call call = vv_ninep_call_of(dir, request->gid);
    struct vv_attr attr;
    int err = make_in(request, job->conn->ninep->fs, &call.call, dir->inode, &attr);
    vv_ninep_call_end(&call);
    TRY(err);
    reply->qid = vv_ninep_qid_of(&attr);
    return 0;
}

static int make_symlink(const struct vv_ninep_request *request, struct vv_fs *fs,
                        const struct vv_fs_call *call, uint64_t parent, struct vv_attr *out_attr)
{
    if (request->newname.len == 0)
        return -ENOENT;
    if (request->newname.len > VV_SYMLINK_MAX)
        return -ENAMETOOLONG;
    return vv_fs_symlink(fs, call, parent, (const char *)request->name.ptr, request->name.len,
                         (const char *)request->newname.ptr, request->newname.len, out_attr);
}

static int make_node(const struct vv_ninep_request *request, struct vv_fs *fs,
                     const struct vv_fs_call *call, uint64_t parent, struct vv_attr *out_attr)
{
    struct vv_create create = {
        .mode = request->mode, .rdev_major = request->major, .rdev_minor = request->minor};
    if ((create.mode & S_IFMT) == 0)
        create.mode |= S_IFREG;
    return vv_fs_mknod(fs, call, parent, (const char *)request->name.ptr, request->name.len,
                       &create, out_attr);
}

static int make_dir(const struct vv_ninep_request *request, struct vv_fs *fs,
                    const struct vv_fs_call *call, uint64_t parent, struct vv_attr *out_attr)
{
    struct vv_create create = {.mode = (request->mode & 07777) | S_IFDIR};
    return vv_fs_mkdir(fs, call, parent, (const char *)request->name.ptr, request->name.len,
                       &create, out_attr);
}

int vv_ninep_symlink(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    return make(job, reply, make_symlink);
}

int vv_ninep_mknod(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    return make(job, reply, make_node);
}

int vv_ninep_mkdir(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    return make(job, reply, make_dir);
}

/* Tlink: `name` in the directory fid becomes a link to newfid. */
int vv_ninep_link(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *dir CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, request->fid, &dir));
    TRY(vv_ninep_fid_get_file(job->conn, request->newfid, &fid));
    TRY(vv_ninep_check_name(request->name));
    struct vv_ninep_call call = vv_ninep_call_of(dir, VV_NINEP_NONUNAME);
    struct vv_attr attr;
    int err = vv_fs_link(job->conn->ninep->fs, &call.call, fid->inode, dir->inode,
                         (const char *)request->name.ptr, request->name.len, &attr);
    vv_ninep_call_end(&call);
    return err;
}

/* Trename: the file fid moves into the directory newfid. */
int vv_ninep_rename(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_fs *fs = job->conn->ninep->fs;
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_ninep_fid *dir CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, request->fid, &fid));
    TRY(vv_ninep_fid_get_file(job->conn, request->newfid, &dir));
    TRY(vv_ninep_check_name(request->name));
    if (fid->parent == 0)
        return -EINVAL;
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    struct vv_attr attr;
    int err = vv_fs_lookup(fs, &call.call, fid->parent, fid->name, fid->name_len, &attr);
    if (err == 0 && attr.inode != fid->inode)
        err = -ENOENT; /* it has been moved already, or replaced */
    if (err == 0)
        err = vv_fs_rename(fs, &call.call, fid->parent, fid->name, fid->name_len, dir->inode,
                           (const char *)request->name.ptr, request->name.len, 0);
    vv_ninep_call_end(&call);
    TRY(err);
    if (vv_ninep_fid_set_name(fid, dir->inode, request->name) < 0)
        fid->parent = 0; /* not known any more by which name */
    return 0;
}

/* Trenameat: `name` in fid becomes `newname` in newfid. */
int vv_ninep_renameat(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *from CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_ninep_fid *to CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, request->fid, &from));
    TRY(vv_ninep_fid_get_file(job->conn, request->newfid, &to));
    TRY(vv_ninep_check_name(request->name));
    TRY(vv_ninep_check_name(request->newname));
    struct vv_ninep_call call = vv_ninep_call_of(from, VV_NINEP_NONUNAME);
    int err = vv_fs_rename(job->conn->ninep->fs, &call.call, from->inode,
                           (const char *)request->name.ptr, request->name.len, to->inode,
                           (const char *)request->newname.ptr, request->newname.len, 0);
    vv_ninep_call_end(&call);
    return err;
}

/* Tunlinkat */
int vv_ninep_unlinkat(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_fs *fs = job->conn->ninep->fs;
    const struct vv_ninep_request *request = &job->request;
    const char *name = (const char *)request->name.ptr;
    struct vv_ninep_fid *dir CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, request->fid, &dir));
    TRY(vv_ninep_check_name(request->name));
    if (request->flags & ~VV_NINEP_UNLINK_DIR)
        return -EINVAL;
    struct vv_ninep_call call = vv_ninep_call_of(dir, VV_NINEP_NONUNAME);
    int err;
    if (request->flags & VV_NINEP_UNLINK_DIR)
        err = vv_fs_rmdir(fs, &call.call, dir->inode, name, request->name.len);
    else
        err = vv_fs_unlink(fs, &call.call, dir->inode, name, request->name.len);
    vv_ninep_call_end(&call);
    return err;
}

/* Treadlink */
int vv_ninep_readlink(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    /* In the job's buffer: the reply is encoded when this function is over. */
    TRY(vv_ninep_job_data(job, VV_SYMLINK_MAX + 1));
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    ssize_t len = vv_fs_readlink(job->conn->ninep->fs, &call.call, fid->inode,
                                 (char *)job->data->bytes, VV_SYMLINK_MAX + 1);
    vv_ninep_call_end(&call);
    TRY(len);
    reply->name = (struct vv_bytes){job->data->bytes, (size_t)len};
    return 0;
}
