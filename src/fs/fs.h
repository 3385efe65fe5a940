/* POSIX semantics over a volume: inodes, directories, file data, xattrs, ACLs, locks, permissions.
 * Every door (FUSE, 9P, NFS, ...) maps its requests to these calls and nothing else.
 *
 * An inode that is gone is -ESTALE: one that never was, or has lost its last link and its last
 * handle. Inode numbers are never reused; the root is VV_ROOT_INODE, and the generation is
 * constant. All calls may suspend unless noted, take credentials, and return 0 or an error whose
 * errno class is what Linux's own file systems return in that case. An operation is wholly applied
 * or not at all. Names are 1 to 255 bytes of anything but '/' and NUL; "." and ".." are resolved in
 * lookup and refused (EINVAL, EEXIST, ENOTEMPTY as Linux does) elsewhere. One reactor. */
#ifndef VV_FS_FS_H
#define VV_FS_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"
#include "volume/volume.h"

#define VV_NAME_MAX 255
#define VV_SYMLINK_MAX 4095
#define VV_LINKS_MAX 65000
#define VV_XATTR_VALUE_MAX 65536
#define VV_XATTR_NAME_MAX 255
#define VV_XATTR_LIST_MAX 65536
#define VV_FILE_BYTES_MAX (1ull << 61)
#define VV_PARTS_MAX 128     /* parts of a file (collapse and insert range make them) */
#define VV_BLOCK_BYTES 4096u /* st_blksize unit; fallocate collapse/insert granularity */
#define VV_CRED_GROUPS_MAX 65536

/* Who asks. Groups are borrowed for the call. */
struct vv_cred {
    uint32_t uid;
    uint32_t gid;
    const uint32_t *groups;
    uint32_t group_count;
    /* The caller (the kernel under default_permissions) has checked access already: skip the
     * permission checks, but not the rules that change modes (setgid from the directory, killpriv),
     * nor immutable and append-only flags. Groups need not be given then: whether the caller may
     * have a setgid bit is taken to be checked too. */
    bool is_checked;
    /* uid 0 without capabilities is not a thing here: uid 0 is privileged. */
};

struct vv_attr {
    uint64_t inode;
    uint32_t mode; /* type and permissions, as st_mode */
    uint32_t nlink;
    uint32_t uid, gid;
    uint32_t rdev_major, rdev_minor;
    uint64_t size;
    uint64_t blocks; /* of 512 bytes */
    bool is_settling; /* ... which will be fewer soon, without a change of the inode: what is written over or freed still
                       * counts. Out only */
    struct timespec atime, mtime, ctime, btime;
    uint32_t flags; /* FS_*_FL of FS_IOC_GETFLAGS */
    uint64_t generation;
    uint64_t change; /* grows with every change of the inode (NFS change attribute, ETags) */
};

struct vv_fs;

/* Makes the root directory if the volume is new (0755, owned by uid 0), reclaims orphans of the
 * last run in the background. Suspends. */
MUST_CHECK int vv_fs_open(struct vv_volume *volume, struct vv_fs **out_fs);
/* As vv_fs_open; the root directory of a new volume belongs to these. */
MUST_CHECK int vv_fs_open_as(struct vv_volume *volume, uint32_t uid, uint32_t gid,
                             struct vv_fs **out_fs);
/* No handle may be open and nobody in any call. Does not close the volume. NULL is allowed. Waits
 * for what is being reclaimed: suspends. */
void vv_fs_close(struct vv_fs *fs);
struct vv_volume *vv_fs_volume(struct vv_fs *fs);

/* When reading something sets its access time: when that says less than the times of change do or
 * is a day old (relatime, the default), never, or each time. Never with FS_NOATIME_FL or O_NOATIME.
 * What a client reads from its own cache is not seen. For all doors, from now on. */
enum vv_atime { VV_ATIME_RELATIVE, VV_ATIME_NEVER, VV_ATIME_STRICT };
void vv_fs_set_atime(struct vv_fs *fs, enum vv_atime atime);

/* ---- other doors' caches ----
 * Called when an operation that came through a door other than `door` changed something that kernel
 * caches may hold; must not suspend. `done` is to be called (from any later moment on the reactor)
 * when the door's cached state is gone: the operation's reply is held back until then. */
struct vv_fs_watch {
    struct vv_list node;
    unsigned door; /* which door this is: a small number, unique in the process */
    /* attributes and data of `inode` changed: [offset, offset+len) of data, len 0 = attributes only
     */
    void (*on_inode)(void *arg, uint64_t inode, uint64_t offset, uint64_t len);
    /* the entry `name` of `parent` now means something else, or nothing */
    void (*on_entry)(void *arg, uint64_t parent, const char *name, size_t name_len);
    /* suspends until what was notified so far is done */
    void (*wait)(void *arg);
    void *arg;
};
void vv_fs_watch_add(struct vv_fs *fs, struct vv_fs_watch *watch);
void vv_fs_watch_remove(struct vv_fs *fs, struct vv_fs_watch *watch);

/* ---- what was answered ----
 * A client that has heard no answer asks again, perhaps a server that has started anew since. What is
 * not harmless to do twice is then to be answered, not done. So a call may carry a reply: a record
 * that is written in the same step as what the call changes, and so is there after a crash if and only
 * if the change is. vv_fs_mknod, _mkdir, _symlink, _link, _unlink, _rmdir, _rename and
 * _setattr_guarded write it; not when they fail, and not when there is nothing to change (then
 * doing it again changes nothing either).
 *
 * The last VV_REPLIES_MAX are kept, in the volume, where they take 43 bytes each and no more room
 * with time. Those that earlier servers left are in memory for VV_REPLIES_KEEP_S: by then a client has
 * come back, and numbers of requests that it may use again are no danger. What this server answers
 * itself, its doors remember. */

#define VV_REPLIES_MAX 2048
#define VV_REPLIES_KEEP_S 1800
#define VV_REPLY_ID_BYTES 20
#define VV_REPLY_NFS3 1 /* doors that use them */
struct vv_fs_reply {
    uint8_t id[VV_REPLY_ID_BYTES]; /* who asked, and what: the door's own, enough to tell it from
                                      all others */
    uint8_t door;                  /* VV_REPLY_* */
    uint8_t kind;                  /* the door's own */
    uint64_t inode;                /* in the record: what was made or changed; set by the call */
};

struct vv_handle;
/* A door's view: every call names the door it came through (for watches and locks). */
struct vv_fs_call {
    struct vv_cred cred;
    unsigned door;
    const struct vv_fs_reply *reply; /* to be kept; NULL = none. Needs vv_fs_replies_open */
    /* Where a directory that loses its name (vv_fs_rmdir, _rename) is handed out, open as by O_PATH: somebody may be in it.
     * Left alone when there is none. NULL = not wanted. */
    struct vv_handle **removed_dir;
};

/* Read what earlier servers left; once is enough. Suspends. -ENOMEM, errors of reading. */
MUST_CHECK int vv_fs_replies_open(struct vv_fs *fs);
/* Did an earlier server do this? True with the record. Does not suspend. */
bool vv_fs_reply_find(struct vv_fs *fs, unsigned door, const uint8_t id[VV_REPLY_ID_BYTES],
                      struct vv_fs_reply *out_reply);
/* Records that are there, of earlier servers; for tests and statistics. */
unsigned vv_fs_reply_count(const struct vv_fs *fs);

/* ---- names ---- */

/* For a caller who was checked the parent is not looked at unless the name is "." or "..": a name is then not found
 * (-ENOENT) in what is no directory, or not there, as in a directory that has been removed. */
MUST_CHECK int vv_fs_lookup(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                            const char *name, size_t name_len, struct vv_attr *out_attr);
MUST_CHECK int vv_fs_getattr(struct vv_fs *fs, uint64_t inode, struct vv_attr *out_attr);
/* Up to `count` inodes at once, in one or two fetches; per-inode results in out_errors. */
MUST_CHECK int vv_fs_getattrs(struct vv_fs *fs, const uint64_t *inodes, size_t count,
                              struct vv_attr *out_attrs, int *out_errors);

#define VV_SET_MODE 0x01u
#define VV_SET_UID 0x02u
#define VV_SET_GID 0x04u
#define VV_SET_SIZE 0x08u
#define VV_SET_ATIME 0x10u
#define VV_SET_MTIME 0x20u
#define VV_SET_ATIME_NOW 0x40u
#define VV_SET_MTIME_NOW 0x80u
#define VV_SET_CTIME 0x100u     /* only doors that own ctime (FUSE writeback) */
#define VV_SET_KILL_PRIV 0x200u /* clear setuid/setgid/capability as a write would */
struct vv_file;
/* `set` holds the values of the bits in `mask`. `handle` (may be NULL): truncation through an open
 * file needs no permission on the inode. */
MUST_CHECK int vv_fs_setattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                             struct vv_handle *handle, const struct vv_attr *set, uint32_t mask,
                             struct vv_attr *out_attr);
/* The same for doors without handles (NFS): the owner may always set the size. With `guard`, nothing
 * is done unless it is the inode's ctime: -ECANCELED. *out_before: as it was, in the same instant. */
MUST_CHECK int vv_fs_setattr_guarded(struct vv_fs *fs, const struct vv_fs_call *call,
                                     uint64_t inode, const struct vv_attr *set, uint32_t mask,
                                     const struct timespec *guard, struct vv_attr *out_before,
                                     struct vv_attr *out_attr);
/* access(2): mask of R_OK, W_OK, X_OK. Always checks. */
MUST_CHECK int vv_fs_access(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                            int mask);

/* New inodes. `mode` has type and permissions. `umask` is taken from it, unless the directory has a
 * default ACL, which then stands in for it. A door whose client has applied the umask passes 0.
 * mknod makes regular files, FIFOs, sockets and devices. */
struct vv_create {
    uint32_t mode;
    uint32_t umask;
    uint32_t rdev_major, rdev_minor;
    /* NFS sets these with the creation, in one operation: times, owner, size. `set_mask` has
     * VV_SET_UID, _GID, _SIZE, _ATIME, _MTIME; -EPERM as setattr would say. */
    const struct vv_attr *set;
    uint32_t set_mask;
    /* mknod of a regular file only. Not 0: kept with the file until its attributes are set; while
     * it is, the same call again finds the file instead of -EEXIST (NFS's exclusive create). */
    uint64_t verifier;
};
MUST_CHECK int vv_fs_mknod(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                           const char *name, size_t name_len, const struct vv_create *create,
                           struct vv_attr *out_attr);
MUST_CHECK int vv_fs_mkdir(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                           const char *name, size_t name_len, const struct vv_create *create,
                           struct vv_attr *out_attr);
MUST_CHECK int vv_fs_symlink(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                             const char *name, size_t name_len, const char *target,
                             size_t target_len, struct vv_attr *out_attr);
/* The same, and in the same operation what `create` has to set (its mode is not looked at). */
MUST_CHECK int vv_fs_symlink_set(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                                 const char *name, size_t name_len, struct vv_bytes target,
                                 const struct vv_create *create, struct vv_attr *out_attr);
MUST_CHECK int vv_fs_link(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                          uint64_t parent, const char *name, size_t name_len,
                          struct vv_attr *out_attr);
MUST_CHECK int vv_fs_unlink(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                            const char *name, size_t name_len);
MUST_CHECK int vv_fs_rmdir(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                           const char *name, size_t name_len);
/* flags: RENAME_NOREPLACE, RENAME_WHITEOUT, both, or RENAME_EXCHANGE (linux/fs.h values); others
 * -EINVAL. */
MUST_CHECK int vv_fs_rename(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t from_parent,
                            const char *from_name, size_t from_len, uint64_t to_parent,
                            const char *to_name, size_t to_len, unsigned flags);
/* The target into buf (not NUL-ended), cut to `size`; its length. -EINVAL (not a symlink). */
MUST_CHECK ssize_t vv_fs_readlink(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                                  char *buf, size_t size);
/* A path of the inode, from the root, for log lines; "?" parts where unknown. */
MUST_CHECK int vv_fs_path(struct vv_fs *fs, uint64_t inode, char *buf, size_t size);

/* Which of the directories `roots` is the nearest above `inode`, or is it: its index, or -ENOENT
 * (below none, or without a link). A file with several links is where its first one is. */
MUST_CHECK int vv_fs_nearest(struct vv_fs *fs, uint64_t inode, const uint64_t *roots, size_t count,
                             size_t *out_index);

/* ---- directories ---- */

struct vv_dirent {
    uint64_t inode;
    uint64_t cookie; /* pass as `after` to go on behind this entry */
    uint32_t type;   /* S_IFMT bits */
    uint16_t name_len;
    char name[VV_NAME_MAX + 1];
};
/* Entries with cookies above `after` (0 = from the start), cookie order, stable for ever. "." and
 * ".." have the cookies 1 and 2 and are included. visit() returning 0 ends the walk (that entry was
 * not taken); must not suspend. Permission is checked at opendir (vv_fs_open_file on a directory).
 */
MUST_CHECK int vv_fs_readdir(struct vv_fs *fs, uint64_t inode, uint64_t after,
                             int (*visit)(void *arg, const struct vv_dirent *entry), void *arg);

/* ---- files ---- */

/* An open file or directory: keeps an unlinked inode alive, owns locks. */
struct vv_handle;
/* flags: O_ACCMODE, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOATIME, O_SYNC, O_DSYNC; O_PATH: only keeps
 * the inode alive, whatever its type and permissions. Symlinks: -ELOOP. O_APPEND does not move
 * writes: VV_WRITE_APPEND does. */
MUST_CHECK int vv_fs_open_file(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                               int flags, struct vv_handle **out_handle);
/* As open(2) with O_CREAT (and O_EXCL, O_TRUNC in flags). */
MUST_CHECK int vv_fs_create(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                            const char *name, size_t name_len, const struct vv_create *create,
                            int flags, struct vv_attr *out_attr, struct vv_handle **out_handle);
/* O_TMPFILE: an inode without a name. Unless flags have O_EXCL, vv_fs_link can give it one. */
MUST_CHECK int vv_fs_tmpfile(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                             const struct vv_create *create, int flags, struct vv_attr *out_attr,
                             struct vv_handle **out_handle);
/* Does not suspend: what must be freed is freed in the background. */
void vv_fs_release(struct vv_handle *handle);
uint64_t vv_handle_inode(const struct vv_handle *handle);
int vv_handle_flags(const struct vv_handle *handle);

/* Reading and writing check the handle's access mode (-EBADF). Doors without handles (NFS) pass
 * NULL and the call's credentials are checked instead; the owner then may always, and what may be
 * executed may be read, as NFS servers do. Writes up to VV_OP_DATA_MAX - VV_EXTENT_BYTES are
 * atomic, longer ones are split: fewer bytes than asked for are written when a later part fails. */
MUST_CHECK ssize_t vv_fs_read(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                              struct vv_handle *handle, void *buf, size_t len, uint64_t offset);
/* As vv_fs_read of up to VV_OP_DATA_MAX bytes, but bytes that are in the cache stay there: *out_view says where they are until
 * vv_view_done; `buf` holds the others. On an error nothing is to be done. */
MUST_CHECK ssize_t vv_fs_read_view(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                                   struct vv_handle *handle, void *buf, size_t len, uint64_t offset,
                                   struct vv_view *out_view);
#define VV_WRITE_APPEND 0x1u    /* at the end, whatever `offset` */
#define VV_WRITE_SYNC 0x2u      /* O_SYNC, O_DSYNC: durable on return */
#define VV_WRITE_KILL_PRIV 0x4u /* clear setuid/setgid and capabilities */
MUST_CHECK ssize_t vv_fs_write(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                               struct vv_handle *handle, const void *buf, size_t len,
                               uint64_t offset, unsigned flags);
/* A payload for a write of `len` bytes at `offset`, and the write of what is in it: as vv_fs_write, but bytes need not be copied
 * (volume/volume.h). What was handed over is gone from it whatever is returned. */
MUST_CHECK int vv_fs_payload_new(struct vv_fs *fs, uint64_t offset, size_t len,
                                 struct vv_payload **out_payload);
MUST_CHECK ssize_t vv_fs_write_payload(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                                       struct vv_handle *handle, struct vv_payload *payload,
                                       uint64_t offset, unsigned flags);
/* mode: FALLOC_FL_* (linux/falloc.h). */
MUST_CHECK int vv_fs_fallocate(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                               struct vv_handle *handle, int mode, uint64_t offset, uint64_t len);
/* whence: SEEK_DATA or SEEK_HOLE. -ENXIO. */
MUST_CHECK int vv_fs_seek(struct vv_fs *fs, uint64_t inode, uint64_t offset, int whence,
                          uint64_t *out_offset);
/* Copy bytes between files (server side); may copy less. */
MUST_CHECK ssize_t vv_fs_copy_range(struct vv_fs *fs, const struct vv_fs_call *call,
                                    uint64_t from_inode, uint64_t from_offset, uint64_t to_inode,
                                    uint64_t to_offset, size_t len);
/* inode 0 = the whole file system. */
MUST_CHECK int vv_fs_sync(struct vv_fs *fs, uint64_t inode);
/* As vv_volume_shut_down: everything fails from now on, through every door. Does not suspend. */
void vv_fs_shut_down(struct vv_fs *fs);

/* What people call the volume: at most VV_LABEL_MAX bytes, ended by NUL; "": nothing. Whoever sets it must be allowed to (the
 * door checks); it is durable on return. -EINVAL (too long), -EROFS, errors of vv_volume_run and vv_volume_sync. */
#define VV_LABEL_MAX 255
MUST_CHECK int vv_fs_label(struct vv_volume *volume, char out[VV_LABEL_MAX + 1]);
MUST_CHECK int vv_fs_set_label(struct vv_volume *volume, const char *text);

struct vv_statfs {
    uint64_t block_bytes, blocks, blocks_free, files, files_free;
    uint64_t fsid;
    uint32_t name_max;
};
MUST_CHECK int vv_fs_statfs(struct vv_fs *fs, struct vv_statfs *out_statfs);

/* FS_IOC_GETFLAGS / SETFLAGS: FS_IMMUTABLE_FL, FS_APPEND_FL (enforced), FS_NODUMP_FL,
 * FS_NOATIME_FL, FS_SYNC_FL, FS_DIRSYNC_FL are kept; others -EOPNOTSUPP. */
MUST_CHECK int vv_fs_set_flags(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                               uint32_t flags);

/* ---- xattrs ---- */

/* Value into buf; its length; size 0 asks for the length. -ENODATA, -ERANGE, -EOPNOTSUPP (unknown
 * prefix), -EPERM as Linux. system.posix_acl_access and _default are kept as POSIX ACLs and
 * enforced. */
MUST_CHECK ssize_t vv_fs_getxattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                                  const char *name, void *buf, size_t size);
/* flags: XATTR_CREATE, XATTR_REPLACE, and VV_XATTR_KILL_SGID: the caller, checked by the door, may
 * not keep the setgid bit when an access ACL changes the mode. */
#define VV_XATTR_KILL_SGID 0x10000
MUST_CHECK int vv_fs_setxattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                              const char *name, const void *value, size_t len, int flags);
MUST_CHECK int vv_fs_removexattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                                 const char *name);
/* Names, each ended by NUL. size 0 asks for the length. trusted.* only for uid 0. */
MUST_CHECK ssize_t vv_fs_listxattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                                   char *buf, size_t size);

/* ---- locks ---- */

/* A lock owner is what the door says it is: (door, client, owner). Byte-range locks of one owner on
 * one inode never conflict with each other. flock locks cover the file and are a kind of their own.
 */
struct vv_lock {
    uint64_t start, end; /* inclusive; end UINT64_MAX = to the end */
    uint32_t type;       /* F_RDLCK, F_WRLCK, F_UNLCK */
    uint32_t pid;        /* for F_GETLK */
    uint64_t client;     /* connection or mount */
    uint64_t owner;
    uint64_t opened; /* the door's name for the open file that it was set through; 0 = none */
    bool is_flock;
};
/* is_waiting: suspends until granted; *cancel (may be NULL) becoming true and vv_fs_lock_poke end
 * it with -EINTR. -EAGAIN, -EDEADLK, -ENOLCK. */
MUST_CHECK int vv_fs_setlk(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                           const struct vv_lock *lock, bool is_waiting, const bool *cancel);
/* The first conflicting lock into *lock, or type F_UNLCK. Does not suspend. */
MUST_CHECK int vv_fs_getlk(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                           struct vv_lock *lock);
/* Look at the cancel flags of the waiters again. Does not suspend. */
void vv_fs_lock_poke(struct vv_fs *fs);
/* Drop all locks of an owner on an inode (close), or of a whole client (inode 0; connection lost).
 */
void vv_fs_unlock_owner(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                        uint64_t client, uint64_t owner, bool is_flock);
/* Drop the byte-range locks of a client that were last set through an open file, whoever owns them:
 * its last user has gone. (The locks of processes are dropped by then, at their own closes; those of
 * open file descriptions are not.) */
void vv_fs_unlock_opened(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                         uint64_t client, uint64_t opened);
void vv_fs_unlock_client(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t client);

#endif
