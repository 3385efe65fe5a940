/* Attributes, access, space and limits. */
#include <unistd.h>

#include "front/nfs/nfs_impl.h"

#define DTPREF (64u << 10)
#define IO_MULTIPLE 4096u

int vv_nfs_getattr(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_attr attr;
    TRY(vv_fs_getattr(job->conn->nfs->fs, inode, &attr));
    vv_nfs_fattr_of(job->conn->nfs, &attr, &job->results.attr);
    return 0;
}

static void put_before(const struct vv_nfs *nfs, const struct vv_attr *before,
                       struct vv_nfs_wcc *wcc)
{
    struct vv_nfs_fattr fattr;
    vv_nfs_fattr_of(nfs, before, &fattr);
    wcc->has_before = true;
    wcc->size = fattr.size;
    wcc->mtime = fattr.mtime;
    wcc->ctime = fattr.ctime;
}

int vv_nfs_setattr(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs *nfs = job->conn->nfs;
    const struct vv_nfs_args *args = &job->args;
    struct vv_nfs_wcc *wcc = &job->results.wcc;
    struct vv_attr set;
    struct vv_attr before;
    struct vv_attr attr;
    struct timespec guard = {.tv_sec = args->guard.sec, .tv_nsec = (long)args->guard.nsec};
    uint32_t mask = vv_nfs_set_of(&args->sattr, &set);
    mask |= args->sattr.has_mode ? VV_SET_MODE : 0;
    /* Setting an owner, a mode or times twice is as good as once. */
    if (!args->has_guard && !(mask & VV_SET_SIZE))
        job->call.reply = NULL;
    int err = vv_fs_setattr_guarded(nfs->fs, &job->call, inode, &set, mask,
                                    args->has_guard ? &guard : NULL, &before, &attr);
    if (err < 0) {
        vv_nfs_post_attr(job, inode);
        wcc->has_after = job->results.has_attr;
        wcc->after = job->results.attr;
        return err;
    }
    put_before(nfs, &before, wcc);
    wcc->has_after = true;
    vv_nfs_fattr_of(nfs, &attr, &wcc->after);
    return mask == 0 ? 0 : vv_nfs_settle(job, inode);
}

/* Which of the bits of ACCESS need which of access(2)'s. */
static const struct {
    uint32_t bit;
    int mask;
    bool is_of_dir, is_of_file, is_changing;
} rights[] = {
    {VV_NFS_ACCESS_READ, R_OK, true, true, false},
    {VV_NFS_ACCESS_LOOKUP, X_OK, true, false, false},
    {VV_NFS_ACCESS_MODIFY, W_OK, true, true, true},
    {VV_NFS_ACCESS_EXTEND, W_OK, true, true, true},
    {VV_NFS_ACCESS_DELETE, W_OK, true, false, true},
    {VV_NFS_ACCESS_EXECUTE, X_OK, false, true, false},
};

int vv_nfs_access(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs *nfs = job->conn->nfs;
    int denied[8];
    for (int mask = 0; mask < 8; mask++)
        denied[mask] = 1; /* not asked yet */
    TRY(vv_nfs_post_attr(job, inode));
    bool is_dir = job->results.attr.type == VV_NF3DIR;
    for (size_t i = 0; i < sizeof(rights) / sizeof(rights[0]); i++) {
        int *err = &denied[rights[i].mask];
        if (!(job->args.access & rights[i].bit) ||
            !(is_dir ? rights[i].is_of_dir : rights[i].is_of_file) ||
            (rights[i].is_changing && (nfs->is_read_only || job->export->is_read_only)))
            continue;
        if (*err == 1)
            *err = vv_fs_access(nfs->fs, &job->call, inode, rights[i].mask);
        if (*err == 0)
            job->results.access |= rights[i].bit;
        else if (*err != -EACCES && *err != -EPERM)
            return *err;
    }
    return 0;
}

int vv_nfs_fsstat(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs_results *results = &job->results;
    struct vv_statfs statfs;
    TRY(vv_nfs_post_attr(job, inode));
    TRY(vv_fs_statfs(job->conn->nfs->fs, &statfs));
    results->space[0] = statfs.blocks * statfs.block_bytes;
    results->space[1] = statfs.blocks_free * statfs.block_bytes;
    results->space[2] = results->space[1];
    results->space[3] = statfs.files;
    results->space[4] = statfs.files_free;
    results->space[5] = statfs.files_free;
    return 0;
}

int vv_nfs_fsinfo(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs_results *results = &job->results;
    TRY(vv_nfs_post_attr(job, inode));
    for (int i = 0; i < 6; i++) /* most, preferred and multiple, of reads and writes */
        results->io[i] = i % 3 == 2 ? IO_MULTIPLE : VV_NFS_IO_MAX;
    results->io[6] = DTPREF;
    results->max_file_size = VV_FILE_BYTES_MAX;
    results->time_delta = (struct vv_nfs_time){0, 1};
    results->properties = VV_NFS_FSF_LINK | VV_NFS_FSF_SYMLINK | VV_NFS_FSF_HOMOGENEOUS |
                          VV_NFS_FSF_CANSETTIME;
    return 0;
}

int vv_nfs_pathconf(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_nfs_results *results = &job->results;
    TRY(vv_nfs_post_attr(job, inode));
    results->link_max = VV_LINKS_MAX;
    results->name_max = VV_NAME_MAX;
    results->is_no_trunc = true;
    results->is_chown_restricted = true;
    results->is_case_preserving = true;
    return 0;
}
