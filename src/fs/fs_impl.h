/* Private to fs: the state of a mounted file system and what its files share.
 *
 * Each call of fs.h that touches records is one struct (arguments and results) and one function run
 * by vv_volume_run. Such a function may be run several times: it sets its results anew each time,
 * reads whatever does not depend on something missing, returns when vv_op_is_missing(), then
 * checks, then stages. State in RAM (open counts, locks) is changed by it at its end only, and
 * undone if the operation fails. */
#ifndef VV_FS_FS_IMPL_H
#define VV_FS_FS_IMPL_H

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "rt/rt.h"

#define VV_RECLAIM_BATCH_MAX 128 /* attributes deleted by one operation of the reclaimer */
#define VV_DEPTH_MAX 65536       /* directories on a way to the root; more is a damaged volume */
#define VV_LOCKS_MAX 262144      /* locks and waiting requests; more are -ENOLCK */
#define VV_FLAGS_KEPT                                                                              \
    (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL | FS_SYNC_FL | FS_DIRSYNC_FL)

struct vv_fs {
    struct vv_volume *volume;
    enum vv_atime atime;
    struct vv_list watches;
    struct vv_map opens; /* struct vv_open_inode */
    /* The reclaimer: a fiber that frees inodes without links and handles. */
    struct vv_list reclaims;
    struct vv_waitq reclaim_wake;
    struct vv_waitq reclaim_ended;
    bool is_scanning_orphans; /* look through all orphan records: at opening, or when queueing
                                 failed */
    bool is_closing;
    bool is_reclaimer_running;
    /* Locks (lock.c). */
    struct vv_map lock_files;
    struct vv_list lock_waiters; /* all waiting requests, oldest first */
    size_t lock_count;
    /* Replies (reply.c). */
    struct vv_replies *replies; /* of earlier servers; NULL = not read, or no longer needed */
    bool has_replies;           /* they have been read: reply_next is known */
    uint64_t reply_next;
    struct vv_fs_reply late_reply; /* VV_PLANT_LATE_REPLY */
};

/* ---- open inodes (handle.c) ---- */

struct vv_open_inode {
    struct vv_map_node node;
    struct vv_list in_reclaims; /* queued for the reclaimer */
    uint64_t inode;
    uint32_t handle_count;  /* handles handed out */
    uint32_t pending_count; /* handles of calls under way */
    bool is_orphan;         /* perhaps: the orphan record decides */
    bool is_linkable;       /* made by O_TMPFILE, without O_EXCL */
};

struct vv_handle {
    struct vv_fs *fs;
    struct vv_open_inode *open;  /* NULL = not bound */
    struct vv_open_inode *spare; /* memory for binding to an inode that nobody has open */
    int flags;
    bool is_established;
};

/* A handle not bound to an inode. -ENOMEM. */
MUST_CHECK int vv_handle_new(struct vv_fs *fs, int flags, struct vv_handle **out_handle);
/* Bind to an inode: it is kept until unbound. Cannot fail. Undoes an earlier binding first. */
void vv_handle_bind(struct vv_handle *handle, uint64_t inode);
void vv_handle_unbind(struct vv_handle *handle);
/* The call has succeeded: the handle is the caller's. */
void vv_handle_establish(struct vv_handle *handle);
/* For calls that may take the name of a directory: an unbound handle, or NULL when it is not wanted (-ENOMEM); in the
 * operation, bind it to the directory, which from then on is open to others, too: an operation may suspend between taking
 * effect and returning; and, when the call has succeeded, hand it out if it is bound. */
MUST_CHECK int vv_removed_dir_new(struct vv_fs *fs, const struct vv_fs_call *call,
                                  struct vv_handle **out_handle);
void vv_removed_dir_bind(struct vv_handle *handle, uint64_t inode);
void vv_removed_dir_give(const struct vv_fs_call *call, struct vv_handle **handle);
/* For CLEANUP: releases a handle that was not handed out. */
void vv_handle_release_ptr(struct vv_handle **handle);
struct vv_open_inode *vv_open_find(const struct vv_fs *fs, uint64_t inode);
/* Somebody has it open, or is about to. */
bool vv_open_is_used(const struct vv_fs *fs, uint64_t inode);

/* ---- reclaim.c ---- */

MUST_CHECK int vv_reclaim_start(struct vv_fs *fs);
void vv_reclaim_stop(struct vv_fs *fs);
/* The inode has lost its last link, and its records are still there. */
void vv_reclaim_queue(struct vv_fs *fs, uint64_t inode);
void vv_reclaim_push(struct vv_fs *fs, struct vv_open_inode *open);

/* ---- records (fs.c) ---- */

/* 0, -VV_ERR_MISS, -ESTALE (no such inode, or one without links that nobody has open). */
MUST_CHECK int vv_inode_load(struct vv_fs *fs, struct vv_op *op, uint64_t inode,
                             struct vv_inode *out_inode);
MUST_CHECK int vv_inode_save(struct vv_op *op, const struct vv_inode *inode);
/* As save, but a sync of the inode need not wait for it (atime). */
MUST_CHECK int vv_inode_put(struct vv_op *op, const struct vv_inode *inode);
/* Count an entry in or out of its directory, with its times; new ones get a cookie. -VV_ERR_CORRUPT
 * (the directory's counts cannot be right), -EMLINK. */
MUST_CHECK int vv_dir_add(struct vv_inode *dir, bool is_subdir, uint64_t *out_cookie);
MUST_CHECK int vv_dir_remove(struct vv_inode *dir, bool is_subdir);
/* 1, 0 = there is none, -VV_ERR_MISS. */
MUST_CHECK int vv_entry_load(struct vv_op *op, uint64_t directory, const char *name,
                             size_t name_len, struct vv_entry *out_entry);
/* Both records of an entry. */
MUST_CHECK int vv_entry_save(struct vv_op *op, uint64_t directory, const struct vv_entry *entry,
                             const char *name, size_t name_len);
MUST_CHECK int vv_entry_erase(struct vv_op *op, uint64_t directory, const struct vv_entry *entry,
                              const char *name, size_t name_len);
MUST_CHECK int vv_key_put(struct vv_op *op, const struct vv_fs_key *key, const void *bytes,
                          size_t len);

#define VV_NOW_MTIME 1u
#define VV_NOW_CTIME 2u
#define VV_NOW_ATIME 4u
/* Set times to now and count a change. */
void vv_inode_touch(struct vv_inode *inode, unsigned which);
/* Is it to be said that it was read? `handle` may be NULL. And saying so, as well as can be.
 * Suspends. */
bool vv_atime_is_due(const struct vv_fs *fs, const struct vv_inode *inode,
                     const struct vv_handle *handle);
void vv_atime_update(struct vv_fs *fs, uint64_t inode);
/* What a caller sees. 0 or -VV_ERR_MISS. */
MUST_CHECK int vv_inode_attr(struct vv_op *op, const struct vv_inode *inode,
                             struct vv_attr *out_attr);
/* A new inode for `call` in `dir`: numbers, times, owner and group, mode without setgid where it is
 * not allowed, inherited flags. `mode` has the umask applied. */
void vv_inode_new(struct vv_op *op, const struct vv_fs_call *call, const struct vv_inode *dir,
                  uint32_t mode, struct vv_inode *out_inode);
/* Waits for what a directory or file with FS_SYNC_FL or FS_DIRSYNC_FL wants durable. Suspends. */
MUST_CHECK int vv_fs_sync_if(struct vv_fs *fs, const struct vv_inode *inode);

/* ---- permissions (perm.c) ---- */

/* May the caller do `want` (R_OK | W_OK | X_OK)? 0, -EACCES, -EPERM (immutable), -VV_ERR_MISS.
 * Honours cred.is_checked, except for immutable. */
MUST_CHECK int vv_permit(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *inode,
                         uint32_t want);
/* As vv_permit, whether checked already or not. */
MUST_CHECK int vv_permit_always(struct vv_op *op, const struct vv_cred *cred,
                                const struct vv_inode *inode, uint32_t want);
/* For calls without a handle: the owner may, and what may be executed may be read (as NFS servers
 * do). */
MUST_CHECK int vv_permit_io(struct vv_op *op, const struct vv_cred *cred,
                            const struct vv_inode *inode, uint32_t want);
bool vv_cred_is_root(const struct vv_cred *cred);
/* Without the kernel's word for it, only uid 0 keeps setuid and setgid when changing content. */
bool vv_cred_is_killing_ids(const struct vv_cred *cred, bool is_told);
/* May give this group's setgid bit: member, uid 0, or checked. */
bool vv_cred_may_setgid(const struct vv_cred *cred, uint32_t gid);
/* Owns it, is uid 0, or has been checked. */
bool vv_cred_is_owner(const struct vv_cred *cred, const struct vv_inode *inode);
/* May add entries: -ENOENT (removed directory), else vv_permit of W_OK | X_OK. */
MUST_CHECK int vv_permit_create(struct vv_op *op, const struct vv_cred *cred,
                                const struct vv_inode *dir);
/* May remove the entry of `child`, which has to be a directory or must not be one:
 * -EACCES, -EPERM, -ENOTDIR, -EISDIR, -EBUSY (the root). */
MUST_CHECK int vv_permit_delete(struct vv_op *op, const struct vv_cred *cred,
                                const struct vv_inode *dir, const struct vv_inode *child,
                                bool is_wanting_dir);
/* Remove what a change of the content or the owner takes away (not of directories): capabilities
 * always, setuid and setgid if `is_killing_ids`. Stages the removal of the capability attribute. */
MUST_CHECK int vv_kill_priv(struct vv_op *op, struct vv_inode *inode, bool is_killing_ids);

/* ---- places: a name in a directory (name.c) ---- */

struct vv_place {
    uint64_t parent; /* in */
    const char *name;
    size_t name_len;
    struct vv_inode dir; /* out */
    struct vv_entry entry;
    struct vv_inode child;
    bool is_found;
    int dir_err;  /* the directory: -ESTALE, -ENOTDIR, -EACCES (search) */
    int name_err; /* the name or what it leads to: -ENAMETOOLONG, -EINVAL, damage */
};
/* Read all that can be read; is to be followed by vv_op_is_missing. */
void vv_place_read(struct vv_fs *fs, struct vv_op *op, const struct vv_fs_call *call,
                   struct vv_place *place);
bool vv_name_is(const struct vv_place *place, const char *name);
/* "." or ".." */
bool vv_name_is_dots(const char *name, size_t name_len);

/* Where the child's record says it hangs moves from one entry to another; (0, 0) = none. Stages
 * link records, not the inode. */
MUST_CHECK int vv_link_move(struct vv_op *op, struct vv_inode *child, uint64_t from_parent,
                            uint64_t from_cookie, uint64_t to_parent, uint64_t to_cookie);
/* Take one link (a directory: all) from `child`, whose entry is gone, and stage the consequences.
 * *out_is_orphan: the inode needs the reclaimer once the operation is done (and nobody has it
 * open). */
MUST_CHECK int vv_link_drop(struct vv_fs *fs, struct vv_op *op, struct vv_inode *child,
                            uint64_t parent, uint64_t cookie, bool *out_is_orphan);

/* ---- open(2), for create as well (handle.c) ---- */

MUST_CHECK int vv_open_permit(struct vv_op *op, const struct vv_cred *cred,
                              const struct vv_inode *inode, int flags);
/* O_TRUNC: stages everything. */
MUST_CHECK int vv_open_truncate(struct vv_op *op, const struct vv_cred *cred,
                                struct vv_inode *inode);

/* ---- file data (parts.c) ---- */

/* Memory that what is staged points to until the operation is applied. */
struct vv_file_buf {
    uint8_t parts[VV_PARTS_BUF_BYTES]; /* the new part list, encoded */
    uint8_t in_line[VV_INLINE_MAX];    /* the new inline bytes, or the old ones on their way out */
};

/* Give up all data of a file: its size becomes 0. */
MUST_CHECK int vv_file_drop_data(struct vv_op *op, struct vv_inode *inode);
/* Set the size; what lies behind a smaller one is gone. */
MUST_CHECK int vv_file_resize(struct vv_op *op, struct vv_inode *inode, uint64_t size,
                              struct vv_file_buf *buf);
/* The file's parts; one with only inline bytes gets a data id first, with these bytes in it, except
 * for those in [skip_from, skip_to). */
MUST_CHECK int vv_file_parts(struct vv_op *op, struct vv_inode *inode, uint64_t skip_from,
                             uint64_t skip_to, struct vv_file_buf *buf, struct vv_parts *out_parts);
/* The inline bytes go to a data id. is_aside: into space that the caller sets aside. */
MUST_CHECK int vv_file_move_inline(struct vv_op *op, struct vv_inode *inode, bool is_aside,
                                   struct vv_file_buf *buf);
/* Let the inode have this part list. -VV_ERR_LIMIT (more than VV_PARTS_MAX), -EFBIG. */
MUST_CHECK int vv_file_set_parts(struct vv_inode *inode, const struct vv_parts *parts,
                                 struct vv_file_buf *buf);
/* Take out parts [from, to) of the list, and give up their bytes. */
MUST_CHECK int vv_parts_remove(struct vv_op *op, uint64_t inode, struct vv_parts *parts,
                               size_t from, size_t to);
/* Where `offset` of the file lies, and how many of `len` bytes from there are one stretch. */
struct vv_piece {
    uint64_t data_id, start, len;
};
struct vv_piece vv_parts_at(const struct vv_parts *parts, uint64_t offset, uint64_t len);
/* Bytes [from, to) become zeros. */
MUST_CHECK int vv_parts_clear(struct vv_op *op, uint64_t inode, const struct vv_parts *parts,
                              uint64_t from, uint64_t to);
/* Resolve bytes for reading; goes on after misses. */
MUST_CHECK int vv_parts_read(struct vv_op *op, const struct vv_parts *parts, uint64_t offset,
                             uint64_t len, struct vv_read **read);
/* Cut a part in two if need be so that one begins at `offset`; its index. */
size_t vv_parts_split(struct vv_parts *parts, uint64_t offset);
void vv_parts_insert(struct vv_parts *parts, size_t at, struct vv_part part);
/* Join neighbours that are one stretch. */
void vv_parts_join(struct vv_parts *parts);
/* Replace some neighbouring parts by one with a copy of their bytes. -EFBIG (none are small
 * enough), -EAGAIN (the file changes all the time). Suspends. */
MUST_CHECK int vv_file_join_parts(struct vv_fs *fs, uint64_t inode);

/* ---- xattr.c ---- */

/* Read an attribute's value: 1, 0, -VV_ERR_MISS. */
MUST_CHECK int vv_xattr_load(struct vv_op *op, uint64_t inode, const char *name,
                             struct vv_bytes *out_value);
/* Stage a change of an attribute, with the counts and bits in `inode`. `had` = it was there. */
MUST_CHECK int vv_xattr_store(struct vv_op *op, struct vv_inode *inode, const char *name,
                              struct vv_bytes value, bool had);
MUST_CHECK int vv_xattr_erase(struct vv_op *op, struct vv_inode *inode, const char *name);
/* Stage the removal of all attributes if their names are known without looking; true when none is
 * left. */
MUST_CHECK int vv_xattr_erase_known(struct vv_op *op, struct vv_inode *inode);

/* ---- reply.c ---- */

/* Stage the call's reply, if it has one: `inode` was made or changed. */
MUST_CHECK int vv_reply_stage(struct vv_fs *fs, struct vv_op *op, const struct vv_fs_call *call,
                              uint64_t inode);
void vv_replies_done(struct vv_fs *fs);

/* ---- watch.c ---- */

void vv_notify_inode(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                     uint64_t offset, uint64_t len);
void vv_notify_entry(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                     const char *name, size_t name_len);
/* Suspends until the other doors have let go of what they were told about. */
void vv_notify_wait(struct vv_fs *fs, const struct vv_fs_call *call);

/* ---- lock.c ---- */

MUST_CHECK int vv_locks_init(struct vv_fs *fs);
void vv_locks_done(struct vv_fs *fs);

#endif
