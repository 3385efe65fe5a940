/* Private to front/ninep: the server, its connections, requests, fids and users.
 *
 * front/conn has the life of a connection, its memory and its sending; its fiber reads messages
 * (conn.c). A request is served by one function (struct vv_ninep_op): it fills in the reply and returns
 * 0, or returns an error, which becomes Rlerror. A fid may be dropped from the table while requests
 * use it: they hold references. */
#ifndef VV_FRONT_NINEP_NINEP_IMPL_H
#define VV_FRONT_NINEP_NINEP_IMPL_H

#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "front/conn/conn.h"
#include "front/ninep/codec.h"
#include "front/ninep/ninep.h"
#include "fs/fs.h"
#include "rt/rt.h"

#define VV_NINEP_MSIZE_FIRST 8192u       /* until Tversion */
#define VV_NINEP_VIEW_BYTES (64u << 10)  /* reads from here on are sent from the cache */
#define VV_NINEP_USERS_MAX 4096          /* remembered; those in use are never forgotten */
#define VV_NINEP_GROUPS_MAX_AGE_S 60     /* then a user's groups are looked up again */
#define VV_NINEP_GROUPS_MAX 1024         /* of a user; more are cut */
#define VV_NINEP_NOBODY 65534u           /* uid and gid of whom the host does not know */
#define VV_NINEP_TAG_WORDS (65536 / 64)

struct vv_ninep {
    struct vv_fs *fs;
    struct vv_ninep_options options;
    struct vv_conns conns;
    unsigned port;
    unsigned lock_waiters, lock_waiters_max; /* requests that wait for a lock: their memory is not charged */
    struct vv_map users; /* struct vv_ninep_user by uid */
    struct vv_waitq user_loaded;
    struct vv_ninep_stats stats;
};

/* ---- users (user.c) ---- */

struct vv_ninep_groups {
    unsigned refs;
    uint32_t gid; /* primary */
    uint32_t count;
    uint32_t list[];
};
struct vv_ninep_user {
    struct vv_map_node node;
    uint32_t uid;
    unsigned refs;                  /* fids */
    struct vv_ninep_groups *groups; /* NULL until loaded */
    uint64_t loaded_ns;
    bool is_loading;
};

/* The user, with groups, referenced. `uname` serves when uid is VV_NINEP_NONUNAME. Suspends.
 * -ENOMEM. */
MUST_CHECK int vv_ninep_user_get(struct vv_ninep *ninep, uint32_t uid, struct vv_bytes uname,
                                 struct vv_ninep_user **out_user);
void vv_ninep_user_ref(struct vv_ninep_user *user);
void vv_ninep_user_unref(struct vv_ninep *ninep, struct vv_ninep_user *user);
void vv_ninep_users_done(struct vv_ninep *ninep);
void vv_ninep_groups_unref(struct vv_ninep_groups *groups);

/* ---- connections (conn.c) ---- */

struct vv_ninep_conn {
    struct vv_conn base;
    struct vv_ninep *ninep;
    uint64_t client;    /* for locks */
    bool is_restricted; /* an ordinary user at the other end of a unix socket */
    uid_t peer_uid;
    gid_t peer_gid;
    uint32_t msize;
    bool has_version;
    struct vv_map fids;
    struct vv_list requests; /* not answered yet */
    unsigned lock_waiters;   /* of these, that wait for a lock */
    uint64_t tags[VV_NINEP_TAG_WORDS];
};

extern const struct vv_conn_kind vv_ninep_conn_kind;

struct vv_ninep_job {
    struct vv_job base;
    struct vv_list node; /* in conn->requests */
    struct vv_ninep_conn *conn;
    struct vv_buffer *message;
    struct vv_payload *payload; /* the data of a long Twrite, in place of the message */
    struct vv_buffer *data; /* of the reply, behind `head`; NULL = none */
    size_t data_len;
    struct vv_view *view;   /* where the data is instead; NULL = in `data` */
    struct vv_writer head;
    struct vv_waitq answered; /* Tflush waits here */
    bool is_cancelled;        /* a wait for a lock is to end */
    struct vv_ninep_request request;
};

/* The job with this tag that has not been answered; NULL. */
struct vv_ninep_job *vv_ninep_job_find(struct vv_ninep_conn *conn, uint16_t tag);
/* End its wait, if it waits for a lock: -EINTR. */
void vv_ninep_job_cancel(struct vv_ninep_job *job);
/* A buffer for the reply's data. -ENOMEM. */
MUST_CHECK int vv_ninep_job_data(struct vv_ninep_job *job, size_t size);
/* The one place where an error becomes 9P's. */
uint32_t vv_ninep_error_of(int err);
/* The largest count of a read or write in this connection. */
uint32_t vv_ninep_io_max(const struct vv_ninep_conn *conn);

/* ---- fids (fid.c) ---- */

enum vv_ninep_fid_kind { VV_NINEP_FID_FILE, VV_NINEP_FID_XATTR_READ, VV_NINEP_FID_XATTR_WRITE };

struct vv_ninep_fid {
    struct vv_map_node node;
    struct vv_ninep_conn *conn;
    uint32_t fid;
    unsigned refs;
    bool is_known; /* in the table */
    enum vv_ninep_fid_kind kind;
    struct vv_ninep_user *user;
    uint64_t inode;
    uint64_t root;   /* where the attach began: ".." does not lead out of it */
    uint32_t type;   /* S_IFMT bits */
    uint64_t parent; /* how it was reached, for Tremove and Trename; 0 = not by a name */
    char *name;
    size_t name_len;
    /* opened */
    struct vv_handle *handle;
    bool is_sync;          /* O_SYNC or O_DSYNC */
    uint64_t *lock_owners; /* who has locked through it */
    size_t lock_owner_count;
    /* xattr fids */
    char *xattr_name; /* of a write */
    uint8_t *xattr;
    size_t xattr_size; /* of a read: the value's; of a write: announced */
    size_t xattr_len;  /* written so far */
    uint32_t xattr_flags;
};

/* The fid with a reference. -EBADF. */
MUST_CHECK int vv_ninep_fid_get(struct vv_ninep_conn *conn, uint32_t number,
                                struct vv_ninep_fid **out_fid);
/* The same, and it is a file or directory (not an xattr). -EBADF. */
MUST_CHECK int vv_ninep_fid_get_file(struct vv_ninep_conn *conn, uint32_t number,
                                     struct vv_ninep_fid **out_fid);
/* A fid with one reference, in no table. `user` is referenced. -ENOMEM, -EMFILE. */
MUST_CHECK int vv_ninep_fid_new(struct vv_ninep_conn *conn, struct vv_ninep_user *user,
                                struct vv_ninep_fid **out_fid);
/* Enter it as `number`. -EBADF when that is taken by another than `replaced` (which may be NULL).
 */
MUST_CHECK int vv_ninep_fid_enter(struct vv_ninep_fid *fid, uint32_t number,
                                  struct vv_ninep_fid *replaced);
/* Take it out of the table; locks taken through it end. Its handle ends with the last reference. */
void vv_ninep_fid_drop(struct vv_ninep_fid *fid);
void vv_ninep_fid_drop_all(struct vv_ninep_conn *conn);
void vv_ninep_fid_unref(struct vv_ninep_fid *fid);
/* For CLEANUP. */
void vv_ninep_fid_unref_ptr(struct vv_ninep_fid **fid);
/* How it was reached. -ENOMEM. */
MUST_CHECK int vv_ninep_fid_set_name(struct vv_ninep_fid *fid, uint64_t parent,
                                     struct vv_bytes name);

/* Credentials of a call: vv_ninep_call_end when it is over. `gid` is the group that a new inode is
 * to get, or VV_NINEP_NONUNAME. */
struct vv_ninep_call {
    struct vv_fs_call call;
    struct vv_ninep_groups *groups;
};
struct vv_ninep_call vv_ninep_call_of(const struct vv_ninep_fid *fid, uint32_t gid);
void vv_ninep_call_end(struct vv_ninep_call *call);

/* ---- operations ---- */

struct vv_ninep_op {
    int (*serve)(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
    bool is_changing; /* refused on a read-only server */
};
/* By type; serve is NULL for what is not served in a fiber of its own. */
const struct vv_ninep_op *vv_ninep_op_of(uint8_t type);

struct vv_ninep_qid vv_ninep_qid_of(const struct vv_attr *attr);

int vv_ninep_attach(struct vv_ninep_job *job, struct vv_ninep_reply *reply); /* ops_fid.c */
int vv_ninep_walk(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_clunk(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_remove(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_flush(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_auth(struct vv_ninep_job *job, struct vv_ninep_reply *reply);

int vv_ninep_lopen(struct vv_ninep_job *job, struct vv_ninep_reply *reply); /* ops_file.c */
int vv_ninep_lcreate(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_read(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_write(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_fsync(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_readdir(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_lock(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_getlock(struct vv_ninep_job *job, struct vv_ninep_reply *reply);

int vv_ninep_symlink(struct vv_ninep_job *job, struct vv_ninep_reply *reply); /* ops_name.c */
int vv_ninep_mknod(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_mkdir(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_link(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_rename(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_renameat(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_unlinkat(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_readlink(struct vv_ninep_job *job, struct vv_ninep_reply *reply);

int vv_ninep_getattr(struct vv_ninep_job *job, struct vv_ninep_reply *reply); /* ops_attr.c */
int vv_ninep_setattr(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_statfs(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_xattrwalk(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
int vv_ninep_xattrcreate(struct vv_ninep_job *job, struct vv_ninep_reply *reply);
/* Store what was written to an xattr fid. */
MUST_CHECK int vv_ninep_xattr_commit(struct vv_ninep_fid *fid);

/* A name that an entry can have: -ENAMETOOLONG, -EINVAL. */
MUST_CHECK int vv_ninep_check_name(struct vv_bytes name);

#endif
