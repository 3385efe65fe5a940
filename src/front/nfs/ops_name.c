/* Names: what looks up, makes, links, moves and removes entries. */
#include <string.h>
#include <sys/stat.h>

#include "front/nfs/nfs_impl.h"

#define MODE_DEFAULT 0644u
#define MODE_EXCLUSIVE 0600u /* until the client sets it */

static const char *text_of(struct vv_bytes bytes)
{
    return bytes.ptr ? (const char *)bytes.ptr : "";
}

/* ".." does not lead out of the export. */
int vv_nfs_lookup(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs *nfs = job->conn->nfs;
    struct vv_nfs_results *results = &job->results;
    struct vv_bytes name = job->args.name;
    struct vv_attr attr;
    if (inode == job->root && name.len == 2 && memcmp(name.ptr, "..", 2) == 0)
        name.len = 1;
    int err = vv_fs_lookup(nfs->fs, &job->call, inode, text_of(name), name.len, &attr);
    vv_nfs_post_attr(job, inode);
    results->has_dir_attr = results->has_attr;
    results->dir_attr = results->attr;
    TRY(err);
    results->has_attr = true;
    vv_nfs_fattr_of(nfs, &attr, &results->attr);
    vv_nfs_handle_of(nfs, attr.inode, &results->handle);
    return 0;
}

/* ---- making ---- */

static void put_made(struct vv_nfs_job *job, const struct vv_attr *attr)
{
    struct vv_nfs_results *results = &job->results;
    results->has_handle = true;
    vv_nfs_handle_of(job->conn->nfs, attr->inode, &results->handle);
    results->has_attr = true;
    vv_nfs_fattr_of(job->conn->nfs, attr, &results->attr);
}

/* What CREATE, MKDIR and MKNOD have in common: `make` makes the entry, in one operation with its
 * attributes. */
static int make(struct vv_nfs_job *job, uint64_t dir,
                int (*make_in)(struct vv_nfs_job *, uint64_t, struct vv_create *, struct vv_attr *))
{
    struct vv_nfs_watch watch;
    struct vv_attr set;
    struct vv_attr attr;
    const struct vv_nfs_sattr *sattr = &job->args.sattr;
    struct vv_create create = {.mode = sattr->has_mode ? sattr->mode & 07777 : MODE_DEFAULT,
                               .set = &set};
    create.set_mask = vv_nfs_set_of(sattr, &set);
    vv_nfs_watch_begin(job, dir, &watch);
    int err = make_in(job, dir, &create, &attr);
    vv_nfs_watch_end(job, &watch, err == 0, &job->results.wcc);
    if (err != 0)
        return err;
    put_made(job, &attr);
    return vv_nfs_settle(job, dir);
}

/* UNCHECKED of a file that is there: only its size is set. */
static int take_existing(struct vv_nfs_job *job, uint64_t dir, struct vv_attr *out_attr)
{
    struct vv_nfs *nfs = job->conn->nfs;
    struct vv_bytes name = job->args.name;
    struct vv_attr set;
    struct vv_attr before;
    TRY(vv_fs_lookup(nfs->fs, &job->call, dir, text_of(name), name.len, out_attr));
    if (!S_ISREG(out_attr->mode))
        return -EEXIST;
    if (!(vv_nfs_set_of(&job->args.sattr, &set) & VV_SET_SIZE))
        return 0;
    TRY(vv_fs_setattr_guarded(nfs->fs, &job->call, out_attr->inode, &set, VV_SET_SIZE, NULL,
                              &before, out_attr));
    return vv_nfs_settle(job, out_attr->inode);
}

static int make_file(struct vv_nfs_job *job, uint64_t dir, struct vv_create *create,
                     struct vv_attr *out_attr)
{
    struct vv_fs *fs = job->conn->nfs->fs;
    const struct vv_nfs_args *args = &job->args;
    create->mode |= S_IFREG;
    if (args->how == VV_NFS_EXCLUSIVE) {
        uint64_t verifier = vv_load_be64(args->verifier);
        create->mode = S_IFREG | MODE_EXCLUSIVE;
        create->verifier = verifier == 0 ? UINT64_MAX : verifier;
    }
    int err = -EEXIST;
    for (int i = 0; i < VV_NFS_RETRIES_MAX && err == -EEXIST; i++) {
        err = vv_fs_mknod(fs, &job->call, dir, text_of(args->name), args->name.len, create,
                          out_attr);
        if (err != -EEXIST || args->how != VV_NFS_UNCHECKED)
            return err;
        err = take_existing(job, dir, out_attr);
        if (err != -ENOENT)
            return err;
        err = -EEXIST; /* removed just now */
    }
    return -EAGAIN;
}

int vv_nfs_create(struct vv_nfs_job *job, uint64_t inode)
{
    return make(job, inode, make_file);
}

static int make_dir(struct vv_nfs_job *job, uint64_t dir, struct vv_create *create,
                    struct vv_attr *out_attr)
{
    struct vv_bytes name = job->args.name;
    if (!job->args.sattr.has_mode)
        create->mode = 0755;
    create->mode |= S_IFDIR;
    return vv_fs_mkdir(job->conn->nfs->fs, &job->call, dir, text_of(name), name.len, create,
                       out_attr);
}

int vv_nfs_mkdir(struct vv_nfs_job *job, uint64_t inode)
{
    return make(job, inode, make_dir);
}

static int make_node(struct vv_nfs_job *job, uint64_t dir, struct vv_create *create,
                     struct vv_attr *out_attr)
{
    struct vv_bytes name = job->args.name;
    switch (job->args.how) {
    case VV_NF3CHR: create->mode |= S_IFCHR; break;
    case VV_NF3BLK: create->mode |= S_IFBLK; break;
    case VV_NF3SOCK: create->mode |= S_IFSOCK; break;
    case VV_NF3FIFO: create->mode |= S_IFIFO; break;
    default: return VV_NFS3ERR_BADTYPE;
    }
    create->rdev_major = job->args.major;
    create->rdev_minor = job->args.minor;
    return vv_fs_mknod(job->conn->nfs->fs, &job->call, dir, text_of(name), name.len, create,
                       out_attr);
}

int vv_nfs_mknod(struct vv_nfs_job *job, uint64_t inode)
{
    return make(job, inode, make_node);
}

int vv_nfs_symlink(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs *nfs = job->conn->nfs;
    const struct vv_nfs_args *args = &job->args;
    struct vv_nfs_watch watch;
    struct vv_attr set;
    struct vv_attr attr;
    struct vv_create create = {.set = &set}; /* a symlink has no mode */
    create.set_mask = vv_nfs_set_of(&args->sattr, &set);
    vv_nfs_watch_begin(job, inode, &watch);
    int err = vv_fs_symlink_set(nfs->fs, &job->call, inode, text_of(args->name), args->name.len,
                                args->data, &create, &attr);
    vv_nfs_watch_end(job, &watch, err == 0, &job->results.wcc);
    TRY(err);
    put_made(job, &attr);
    return vv_nfs_settle(job, inode);
}

/* ---- removing ---- */

static int remove_name(struct vv_nfs_job *job, uint64_t dir,
                       int (*remove_in)(struct vv_fs *, const struct vv_fs_call *, uint64_t,
                                        const char *, size_t))
{
    struct vv_nfs_watch watch;
    struct vv_bytes name = job->args.name;
    vv_nfs_watch_begin(job, dir, &watch);
    int err = remove_in(job->conn->nfs->fs, &job->call, dir, text_of(name), name.len);
    vv_nfs_watch_end(job, &watch, err == 0, &job->results.wcc);
    TRY(err);
    return vv_nfs_settle(job, dir);
}

int vv_nfs_remove(struct vv_nfs_job *job, uint64_t inode)
{
    return remove_name(job, inode, vv_fs_unlink);
}

int vv_nfs_rmdir(struct vv_nfs_job *job, uint64_t inode)
{
    return remove_name(job, inode, vv_fs_rmdir);
}

/* ---- linking and moving ---- */

/* The second handle of a request: it must be in the same export as the first. */
static int second_inode(struct vv_nfs_job *job, uint64_t *out_inode)
{
    const struct vv_nfs_export *export;
    uint64_t root;
    int status = vv_nfs_inode_of(job->conn->nfs, &job->args.to_handle, out_inode);
    if (status != 0)
        return status;
    TRY(vv_nfs_export_of(job->conn, *out_inode, &export, &root));
    return export == job->export ? 0 : -EXDEV;
}

int vv_nfs_rename(struct vv_nfs_job *job, uint64_t inode)
{
    const struct vv_nfs_args *args = &job->args;
    struct vv_nfs_watch from;
    struct vv_nfs_watch to;
    uint64_t to_inode;
    int err = second_inode(job, &to_inode);
    if (err != 0)
        return err;
    vv_nfs_watch_begin(job, inode, &from);
    vv_nfs_watch_begin(job, to_inode, &to);
    err = vv_fs_rename(job->conn->nfs->fs, &job->call, inode, text_of(args->name), args->name.len,
                       to_inode, text_of(args->to_name), args->to_name.len, 0);
    /* Out of one directory and into another; in one, both. Replacing something is one more, and
     * then nothing is said of before. */
    unsigned changes = err < 0 ? 0 : inode == to_inode ? 2 : 1;
    vv_nfs_watch_end(job, &from, changes, &job->results.wcc);
    vv_nfs_watch_end(job, &to, changes, &job->results.to_wcc);
    TRY(err);
    TRY(vv_nfs_settle(job, inode));
    return vv_nfs_settle(job, to_inode);
}

int vv_nfs_link(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_bytes name = job->args.name;
    struct vv_nfs_watch watch;
    struct vv_attr attr;
    uint64_t dir;
    int err = second_inode(job, &dir);
    if (err != 0)
        return err;
    vv_nfs_watch_begin(job, dir, &watch);
    err = vv_fs_link(job->conn->nfs->fs, &job->call, inode, dir, text_of(name), name.len, &attr);
    vv_nfs_watch_end(job, &watch, err == 0, &job->results.wcc);
    vv_nfs_post_attr(job, inode);
    TRY(err);
    return vv_nfs_settle(job, dir);
}
