/* Opened fids: open, create, read, write, directories, locks. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "front/ninep/ninep_impl.h"

/* Flags of the wire to those of this machine. Others mean nothing to a server: O_APPEND, since the
 * client places its writes, and may write cached pages of the same file through the same fid. */
static int open_flags_of(uint32_t wire)
{
    static const struct {
        uint32_t wire;
        int flag;
    } pairs[] = {{VV_NINEP_O_CREAT, O_CREAT},
                 {VV_NINEP_O_EXCL, O_EXCL},
                 {VV_NINEP_O_TRUNC, O_TRUNC},
                 {VV_NINEP_O_DIRECTORY, O_DIRECTORY},
                 {VV_NINEP_O_NOFOLLOW, O_NOFOLLOW}};
    int flags = (int)(wire & VV_NINEP_O_ACCMODE);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        flags |= wire & pairs[i].wire ? pairs[i].flag : 0;
    return flags;
}

static bool is_changing(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

/* Tlopen */
int vv_ninep_lopen(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep *ninep = job->conn->ninep;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    int flags = open_flags_of(job->request.flags) & ~(O_CREAT | O_EXCL);
    if (ninep->options.is_read_only && is_changing(flags))
        return -EROFS;
    if (fid->handle)
        return -EBUSY;
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    struct vv_handle *handle = NULL;
    struct vv_attr attr;
    int err = vv_fs_open_file(ninep->fs, &call.call, fid->inode, flags, &handle);
    vv_ninep_call_end(&call);
    TRY(err);
    err = vv_fs_getattr(ninep->fs, fid->inode, &attr);
    if (err == 0 && fid->handle)
        err = -EBUSY; /* opened twice at once */
    if (err < 0) {
        vv_fs_release(handle);
        return err;
    }
    fid->handle = handle;
    fid->is_sync = job->request.flags & (VV_NINEP_O_SYNC | VV_NINEP_O_DSYNC);
    reply->qid = vv_ninep_qid_of(&attr);
    reply->iounit = vv_ninep_io_max(job->conn);
    return 0;
}

/* Tlcreate: fid, a directory, becomes the new file, opened. */
int vv_ninep_lcreate(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep *ninep = job->conn->ninep;
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *dir CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, request->fid, &dir));
    TRY(vv_ninep_check_name(request->name));
    if (dir->handle)
        return -EBUSY;
    TRY(vv_ninep_fid_new(job->conn, dir->user, &fid));
    TRY(vv_ninep_fid_set_name(fid, dir->inode, request->name));
    struct vv_create create = {.mode = (request->mode & 07777) | S_IFREG};
    struct vv_ninep_call call = vv_ninep_call_of(dir, request->gid);
    struct vv_attr attr;
    int err = vv_fs_create(ninep->fs, &call.call, dir->inode, (const char *)request->name.ptr,
                           request->name.len, &create, open_flags_of(request->flags) | O_CREAT,
                           &attr, &fid->handle);
    vv_ninep_call_end(&call);
    TRY(err);
    fid->inode = attr.inode;
    fid->root = dir->root;
    fid->type = attr.mode & S_IFMT;
    fid->is_sync = request->flags & (VV_NINEP_O_SYNC | VV_NINEP_O_DSYNC);
    TRY(vv_ninep_fid_enter(fid, request->fid, dir));
    reply->qid = vv_ninep_qid_of(&attr);
    reply->iounit = vv_ninep_io_max(job->conn);
    return 0;
}

/* ---- reading and writing ---- */

static uint32_t clamp_count(const struct vv_ninep_job *job)
{
    uint32_t max = vv_ninep_io_max(job->conn);
    return job->request.count < max ? job->request.count : max;
}

static int read_xattr(struct vv_ninep_job *job, const struct vv_ninep_fid *fid,
                      struct vv_ninep_reply *reply)
{
    uint64_t offset = job->request.offset;
    size_t left = offset < fid->xattr_size ? fid->xattr_size - (size_t)offset : 0;
    size_t len = clamp_count(job) < left ? clamp_count(job) : left;
    TRY(vv_ninep_job_data(job, len));
    if (len > 0)
        memcpy(job->data->bytes, fid->xattr + offset, len);
    reply->data.len = len;
    return 0;
}

/* As vv_fs_read into job->data, but much of it stays where it is. */
static ssize_t read_view(struct vv_ninep_job *job, const struct vv_fs_call *call,
                         const struct vv_ninep_fid *fid, uint32_t count)
{
    TRY(vv_job_room(&job->base, VV_VIEW_PIECES_MAX + 1));
    job->view = vv_zalloc(sizeof(*job->view));
    if (!job->view)
        return -ENOMEM;
    return vv_fs_read_view(job->conn->ninep->fs, call, fid->inode, fid->handle, job->data->bytes,
                           count, job->request.offset, job->view);
}

/* Tread */
int vv_ninep_read(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep *ninep = job->conn->ninep;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get(job->conn, job->request.fid, &fid));
    if (fid->kind == VV_NINEP_FID_XATTR_READ)
        return read_xattr(job, fid, reply);
    if (!fid->handle)
        return -EBADF;
    if (S_ISDIR(fid->type))
        return -EISDIR;
    uint32_t count = clamp_count(job);
    TRY(vv_ninep_job_data(job, count));
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    ssize_t len = count >= VV_NINEP_VIEW_BYTES
                      ? read_view(job, &call.call, fid, count)
                      : vv_fs_read(ninep->fs, &call.call, fid->inode, fid->handle,
                                   job->data->bytes, count, job->request.offset);
    vv_ninep_call_end(&call);
    TRY(len);
    ninep->stats.read_bytes += (uint64_t)len;
    reply->data.len = (size_t)len;
    return 0;
}

static int write_xattr(struct vv_ninep_job *job, struct vv_ninep_fid *fid,
                       struct vv_ninep_reply *reply)
{
    const struct vv_ninep_request *request = &job->request;
    if (request->offset != fid->xattr_len || request->data.len > fid->xattr_size - fid->xattr_len)
        return -EINVAL; /* in order, and as much as announced */
    if (job->payload)
        vv_payload_copy(job->payload, 0, fid->xattr + fid->xattr_len, request->data.len);
    else if (request->data.len > 0)
        memcpy(fid->xattr + fid->xattr_len, request->data.ptr, request->data.len);
    fid->xattr_len += request->data.len;
    reply->count = (uint32_t)request->data.len;
    return 0;
}

/* Twrite */
int vv_ninep_write(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep *ninep = job->conn->ninep;
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get(job->conn, request->fid, &fid));
    if (fid->kind == VV_NINEP_FID_XATTR_WRITE)
        return write_xattr(job, fid, reply);
    if (!fid->handle)
        return -EBADF;
    unsigned flags = fid->user->uid != 0 ? VV_WRITE_KILL_PRIV : 0;
    flags |= fid->is_sync ? VV_WRITE_SYNC : 0;
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    ssize_t len = job->payload
                      ? vv_fs_write_payload(ninep->fs, &call.call, fid->inode, fid->handle,
                                            job->payload, request->offset, flags)
                      : vv_fs_write(ninep->fs, &call.call, fid->inode, fid->handle,
                                    request->data.ptr, request->data.len, request->offset, flags);
    vv_ninep_call_end(&call);
    TRY(len);
    ninep->stats.write_bytes += (uint64_t)len;
    reply->count = (uint32_t)len;
    return 0;
}

/* Tfsync. datasync is no cheaper: a commit holds both. */
int vv_ninep_fsync(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    return vv_fs_sync(job->conn->ninep->fs, fid->inode);
}

/* ---- directories ---- */

struct listing {
    struct vv_writer writer;
    bool has_more; /* an entry did not fit */
};

static int visit(void *arg, const struct vv_dirent *entry)
{
    struct listing *listing = arg;
    uint8_t qid_type = VV_NINEP_QID_FILE;
    if (S_ISDIR(entry->type))
        qid_type = VV_NINEP_QID_DIR;
    else if (S_ISLNK(entry->type))
        qid_type = VV_NINEP_QID_SYMLINK;
    struct vv_ninep_qid qid = {.type = qid_type, .path = entry->inode};
    struct vv_bytes name = {(const uint8_t *)entry->name, entry->name_len};
    uint8_t type = (uint8_t)((entry->type & S_IFMT) >> 12); /* as d_type */
    listing->has_more = !vv_ninep_encode_dirent(&listing->writer, &qid, entry->cookie, type, name);
    return !listing->has_more;
}

/* Treaddir: entries behind `offset`, a cookie that stays valid for ever. */
int vv_ninep_readdir(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    if (!fid->handle)
        return -EBADF;
    if (!S_ISDIR(fid->type))
        return -ENOTDIR;
    uint32_t count = clamp_count(job);
    TRY(vv_ninep_job_data(job, count));
    struct listing listing = {.writer = vv_writer_of(job->data->bytes, count)};
    TRY(vv_fs_readdir(job->conn->ninep->fs, fid->inode, job->request.offset, visit, &listing));
    reply->data.len = listing.writer.len;
    /* An empty answer would mean the end. */
    return listing.has_more && listing.writer.len == 0 ? -EINVAL : 0;
}

/* ---- locks ---- */

/* Who locks: a process of a host. The host's name is what the client says it is. */
static uint64_t owner_of(const struct vv_ninep_lock *lock)
{
    return vv_xxh3(lock->client_id.ptr, lock->client_id.len, lock->proc_id);
}

static int lock_of(const struct vv_ninep_fid *fid, const struct vv_ninep_lock *wire,
                   struct vv_lock *out_lock)
{
    static const uint32_t types[] = {[VV_NINEP_LOCK_RDLCK] = F_RDLCK,
                                     [VV_NINEP_LOCK_WRLCK] = F_WRLCK,
                                     [VV_NINEP_LOCK_UNLCK] = F_UNLCK};
    if (wire->type > VV_NINEP_LOCK_UNLCK)
        return -EINVAL;
    uint64_t end = UINT64_MAX;
    if (wire->length > 0 && __builtin_add_overflow(wire->start, wire->length - 1, &end))
        end = UINT64_MAX;
    *out_lock = (struct vv_lock){
        .start = wire->start,
        .end = end,
        .type = types[wire->type],
        .pid = wire->proc_id,
        .client = fid->conn->client,
        .owner = owner_of(wire),
    };
    return 0;
}

/* Remember who locks through this fid, for its clunk. */
static int note_owner(struct vv_ninep_fid *fid, uint64_t owner)
{
    for (size_t i = 0; i < fid->lock_owner_count; i++)
        if (fid->lock_owners[i] == owner)
            return 0;
    if (fid->lock_owner_count >= VV_NINEP_FID_LOCK_OWNERS_MAX)
        return -ENOLCK;
    size_t count = fid->lock_owner_count + 1;
    uint64_t *owners = vv_realloc(fid->lock_owners, count * sizeof(*owners));
    if (!owners)
        return -ENOLCK;
    owners[count - 1] = owner;
    fid->lock_owners = owners;
    fid->lock_owner_count = count;
    return 0;
}

/* Take or drop the lock; with the flag of the request, when it can be had. -EAGAIN, -EINTR. */
static int set_lock(struct vv_ninep_job *job, const struct vv_fs_call *call, uint64_t inode,
                    const struct vv_lock *lock)
{
    struct vv_ninep_conn *conn = job->conn;
    struct vv_ninep *ninep = conn->ninep;
    bool is_waiting = (job->request.lock.flags & VV_NINEP_LOCK_FLAG_BLOCK) &&
                      conn->lock_waiters < VV_NINEP_LOCK_WAITERS_MAX &&
                      ninep->lock_waiters < ninep->lock_waiters_max;
    conn->lock_waiters += is_waiting;
    ninep->lock_waiters += is_waiting;
    if (is_waiting) /* not to keep out the request that it waits for */
        vv_job_discharge(&job->base, 0);
    int err = vv_fs_setlk(conn->ninep->fs, call, inode, lock, is_waiting, &job->is_cancelled);
    conn->lock_waiters -= is_waiting;
    ninep->lock_waiters -= is_waiting;
    return err;
}

/* Tlock */
int vv_ninep_lock(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_lock lock;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    if (!fid->handle)
        return -EBADF;
    TRY(lock_of(fid, &job->request.lock, &lock));
    if (lock.type != F_UNLCK)
        TRY(note_owner(fid, lock.owner));
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    int err = set_lock(job, &call.call, fid->inode, &lock);
    /* The fid may have been clunked meanwhile, and would have taken the lock with it. */
    if (err == 0 && !fid->is_known)
        vv_fs_unlock_owner(job->conn->ninep->fs, &call.call, fid->inode, lock.client, lock.owner,
                           false);
    vv_ninep_call_end(&call);
    if (err < 0 && err != -EAGAIN)
        return err;
    reply->status = err == 0 ? VV_NINEP_LOCK_SUCCESS : VV_NINEP_LOCK_BLOCKED;
    return 0;
}

/* Tgetlock. Of a lock in the way, the client's name is not known any more: none is told. */
int vv_ninep_getlock(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_lock lock;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    TRY(lock_of(fid, &job->request.lock, &lock));
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    int err = vv_fs_getlk(job->conn->ninep->fs, &call.call, fid->inode, &lock);
    vv_ninep_call_end(&call);
    TRY(err);
    reply->lock = job->request.lock;
    if (lock.type == F_UNLCK) {
        reply->lock.type = VV_NINEP_LOCK_UNLCK;
        return 0;
    }
    reply->lock = (struct vv_ninep_lock){
        .type = lock.type == F_RDLCK ? VV_NINEP_LOCK_RDLCK : VV_NINEP_LOCK_WRLCK,
        .start = lock.start,
        .length = lock.end == UINT64_MAX ? 0 : lock.end - lock.start + 1,
        .proc_id = lock.pid,
    };
    return 0;
}
