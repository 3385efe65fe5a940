/* Directories. Cookies are the volume's: stable for ever, so that a listing goes on where it was
 * after anything, a restart included; their verifier never changes. */
#include <string.h>
#include <unistd.h>

#include "front/nfs/nfs_impl.h"

#define LISTING_MAX (256u << 10) /* bytes of one answer */
#define ENTRIES_MAX 2048         /* of READDIRPLUS */
/* What stands around the entries: status, attributes, verifier, the end, eof. */
#define AROUND_BYTES (4 + 4 + VV_NFS_FATTR_BYTES + VV_NFS_VERIFIER_BYTES + 4 + 4)

struct found {
    uint64_t inode, cookie;
    size_t name_at;
    uint16_t name_len;
};

struct listing {
    struct vv_nfs_job *job;
    bool is_plus;
    bool is_full; /* an entry did not fit */
    size_t room, dir_room;
    size_t count;
    struct vv_writer names;
    struct found *found; /* ENTRIES_MAX of them; READDIRPLUS only */
    struct vv_writer out;
};

/* ".." of the export's directory is itself. */
static uint64_t inode_of(const struct listing *listing, const struct vv_dirent *entry)
{
    uint64_t dir;
    bool is_parent = entry->name_len == 2 && memcmp(entry->name, "..", 2) == 0;
    if (is_parent && vv_nfs_inode_of(listing->job->conn->nfs, &listing->job->args.handle, &dir) == 0 &&
        dir == listing->job->root)
        return dir;
    return entry->inode;
}

static bool take(size_t *room, size_t bytes)
{
    if (bytes > *room)
        return false;
    *room -= bytes;
    return true;
}

static int visit(void *arg, const struct vv_dirent *dirent)
{
    struct listing *listing = arg;
    struct vv_nfs_entry entry = {
        .fileid = inode_of(listing, dirent),
        .cookie = dirent->cookie,
        .name = {(const uint8_t *)dirent->name, dirent->name_len},
        .has_attr = true,
        .has_handle = true,
        .handle = {.len = VV_NFS_HANDLE_BYTES},
    };
    size_t dir_bytes = vv_nfs_entry_bytes(&entry, false);
    size_t bytes = vv_nfs_entry_bytes(&entry, listing->is_plus);
    if ((listing->is_plus && listing->count == ENTRIES_MAX) ||
        !take(&listing->dir_room, dir_bytes) || !take(&listing->room, bytes)) {
        listing->is_full = true;
        return 0;
    }
    if (!listing->is_plus) {
        int err = vv_nfs_encode_entry(&listing->out, &entry, false);
        listing->count++;
        return err < 0 ? err : 1;
    }
    listing->found[listing->count++] = (struct found){.inode = entry.fileid,
                                                      .cookie = dirent->cookie,
                                                      .name_at = listing->names.len,
                                                      .name_len = dirent->name_len};
    vv_writer_bytes(&listing->names, dirent->name, dirent->name_len);
    int err = vv_writer_check(&listing->names);
    return err < 0 ? err : 1;
}

/* READDIRPLUS: attributes of all of them, in a fetch or two. One that is gone has none. */
static int encode_plus(struct listing *listing)
{
    struct vv_nfs *nfs = listing->job->conn->nfs;
    CLEANUP(vv_free_ptr) uint64_t *inodes = vv_calloc(listing->count + 1, sizeof(*inodes));
    CLEANUP(vv_free_ptr) struct vv_attr *attrs = vv_calloc(listing->count + 1, sizeof(*attrs));
    CLEANUP(vv_free_ptr) int *errors = vv_calloc(listing->count + 1, sizeof(*errors));
    if (!inodes || !attrs || !errors)
        return -ENOMEM;
    for (size_t i = 0; i < listing->count; i++)
        inodes[i] = listing->found[i].inode;
    TRY(vv_fs_getattrs(nfs->fs, inodes, listing->count, attrs, errors));
    for (size_t i = 0; i < listing->count; i++) {
        const struct found *found = &listing->found[i];
        struct vv_nfs_entry entry = {.fileid = found->inode,
                                     .cookie = found->cookie,
                                     .name = {listing->names.ptr + found->name_at, found->name_len},
                                     .has_attr = errors[i] == 0,
                                     .has_handle = errors[i] == 0};
        if (errors[i] == 0) {
            vv_nfs_fattr_of(nfs, &attrs[i], &entry.attr);
            vv_nfs_handle_of(nfs, found->inode, &entry.handle);
        }
        TRY(vv_nfs_encode_entry(&listing->out, &entry, true));
    }
    return 0;
}

static int check_cookie(const struct vv_nfs_job *job)
{
    static const uint8_t none[VV_NFS_VERIFIER_BYTES];
    const uint8_t *verifier = job->args.verifier;
    if (job->args.offset == 0 || memcmp(verifier, none, sizeof(none)) == 0 ||
        memcmp(verifier, job->conn->nfs->cookie_verifier, sizeof(none)) == 0)
        return 0;
    return VV_NFS3ERR_BAD_COOKIE;
}

static int list(struct vv_nfs_job *job, uint64_t inode, struct listing *listing)
{
    struct vv_nfs *nfs = job->conn->nfs;
    struct vv_nfs_results *results = &job->results;
    size_t size = job->args.count < LISTING_MAX ? job->args.count : LISTING_MAX;
    if (size <= AROUND_BYTES)
        return VV_NFS3ERR_TOOSMALL;
    listing->room = size - AROUND_BYTES;
    listing->dir_room = listing->is_plus ? job->args.dir_count : SIZE_MAX;
    TRY(vv_fs_access(nfs->fs, &job->call, inode, R_OK));
    TRY(vv_nfs_job_data(job, size));
    listing->out = vv_writer_of(job->data->bytes, size);
    TRY(vv_fs_readdir(nfs->fs, inode, job->args.offset, visit, listing));
    if (listing->is_full && listing->count == 0)
        return VV_NFS3ERR_TOOSMALL;
    if (listing->is_plus)
        TRY(encode_plus(listing));
    vv_nfs_post_attr(job, inode);
    results->data = (struct vv_bytes){listing->out.ptr, listing->out.len};
    results->is_eof = !listing->is_full;
    memcpy(results->verifier, nfs->cookie_verifier, sizeof(results->verifier));
    return 0;
}

int vv_nfs_readdir(struct vv_nfs_job *job, uint64_t inode)
{
    struct listing listing = {.job = job};
    int status = check_cookie(job);
    return status != 0 ? status : list(job, inode, &listing);
}

int vv_nfs_readdirplus(struct vv_nfs_job *job, uint64_t inode)
{
    struct listing listing = {.job = job, .is_plus = true, .names = vv_writer_new()};
    int err = check_cookie(job);
    if (err != 0)
        return err;
    listing.found = vv_calloc(ENTRIES_MAX, sizeof(*listing.found));
    err = listing.found ? list(job, inode, &listing) : -ENOMEM;
    vv_free(listing.found);
    vv_writer_done(&listing.names);
    return err;
}
