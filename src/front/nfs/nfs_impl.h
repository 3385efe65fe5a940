/* Private to front/nfs: the server, its connections, requests, exports and remembered replies.
 *
 * front/conn has the life of a connection, its memory and its sending; its fiber reads records
 * (conn.c). A request is a job in a fiber of its own (dispatch.c): its procedure fills in the results
 * and returns 0, an error (below 0), or a status of NFS (above 0). */
#ifndef VV_FRONT_NFS_NFS_IMPL_H
#define VV_FRONT_NFS_NFS_IMPL_H

#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "front/conn/conn.h"
#include "front/nfs/codec.h"
#include "front/nfs/nfs.h"
#include "front/nfs/rpc.h"
#include "fs/fs.h"
#include "rt/rt.h"

#define VV_NFS_RECORD_MAX (VV_NFS_IO_MAX + (16u << 10)) /* bytes of a record */
#define VV_NFS_VIEW_BYTES (64u << 10)                /* reads from here on are sent from the cache */
#define VV_NFS_HANDLE_BYTES 32u                      /* volume id, be64 inode, be64 generation */
#define VV_NFS_GENERATION 1u                         /* inode numbers are never used again */
#define VV_NFS_CHECKSUM_BYTES 512u                   /* of a request that tell it from others */
#define VV_NFS_RETRIES_MAX 8                         /* of what others change meanwhile */

struct vv_nfs {
    struct vv_fs *fs;
    unsigned door;
    bool is_read_only;
    struct vv_nfs_export *exports;
    uint64_t *roots; /* inode of each export's directory */
    unsigned export_count;
    struct vv_conns conns;
    unsigned port;
    char rpcbind[108]; /* registered there; "" = not */
    uint8_t verifier[VV_NFS_VERIFIER_BYTES];        /* of writes */
    uint8_t cookie_verifier[VV_NFS_VERIFIER_BYTES]; /* of directories; never changes */
    uint64_t fsid;
    struct vv_map replies; /* struct vv_nfs_reply */
    struct vv_list reply_order; /* finished ones, oldest first */
    struct vv_nfs_stats stats;
};

/* ---- connections (conn.c) ---- */

struct vv_nfs_conn {
    struct vv_conn base;
    struct vv_nfs *nfs;
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d; loopback for unix sockets */
    bool is_privileged;  /* its port is below 1024, or what a unix socket has instead */
};

extern const struct vv_conn_kind vv_nfs_conn_kind;

struct vv_nfs_job {
    struct vv_job base;
    struct vv_nfs_conn *conn;
    struct vv_buffer *record;
    size_t record_len;
    struct vv_payload *payload; /* the data of a long WRITE, behind the record; NULL = in it */
    struct vv_buffer *data; /* of the reply, behind `head`; NULL = none */
    size_t data_len;        /* with padding */
    struct vv_view *view;   /* where the data is instead, but for the padding; NULL = in `data` */
    struct vv_writer head;
    struct vv_rpc_call rpc;
    struct vv_rpc_reply reply;
    struct vv_nfs_args args;
    struct vv_nfs_results results;
    /* who asks, for which export: set by vv_nfs_job_enter */
    const struct vv_nfs_export *export;
    uint64_t root; /* inode of the export's directory */
    struct vv_fs_call call;
    struct vv_fs_reply kept; /* what call.reply points to, if anything */
    uint32_t groups[VV_RPC_GIDS_MAX];
};

/* Queue the job's reply, which stands in head and data; the job is gone. Suspends. */
void vv_nfs_job_answer(struct vv_nfs_job *job);
/* The job gets no reply; it is gone. */
void vv_nfs_job_drop(struct vv_nfs_job *job);
/* A buffer for the reply's data. -ENOMEM. */
MUST_CHECK int vv_nfs_job_data(struct vv_nfs_job *job, size_t size);

/* ---- requests (dispatch.c) ---- */

/* The fiber of a job whose record was decoded as a call. */
void vv_nfs_serve(void *job);
/* Encode what RPC says instead of results, and answer. */
void vv_nfs_refuse(struct vv_nfs_job *job);
/* The one place where an error becomes NFS's (a status above 0 passes). */
uint32_t vv_nfs_status_of(int err);

/* ---- MOUNT and the portmapper's questions (mount.c) ---- */

/* Decode arguments, do it, append results to job->head. job->reply says how it went. */
void vv_nfs_serve_mount(struct vv_nfs_job *job);
void vv_nfs_serve_portmap(struct vv_nfs_job *job);

/* ---- registration (register.c) ---- */

MUST_CHECK int vv_nfs_register(struct vv_nfs *nfs, const char *address);
void vv_nfs_unregister(struct vv_nfs *nfs);

/* ---- exports (export.c) ---- */

bool vv_nfs_export_admits(const struct vv_nfs_export *export, const struct vv_nfs_conn *conn);
/* The export that `inode` is in and the client may use: the deepest. -ESTALE (none), -EPERM (the
 * client's port is not privileged). Suspends. */
MUST_CHECK int vv_nfs_export_of(struct vv_nfs_conn *conn, uint64_t inode,
                                const struct vv_nfs_export **out_export, uint64_t *out_root);
/* Look the directory of a path up, as uid 0, without following symlinks: -ENOENT, -ENOTDIR. */
MUST_CHECK int vv_nfs_path_resolve(struct vv_nfs *nfs, struct vv_bytes path, uint64_t *out_inode);
/* The export of the job's first handle, and the credentials there. Errors as vv_nfs_export_of. */
MUST_CHECK int vv_nfs_job_enter(struct vv_nfs_job *job, uint64_t inode);

/* ---- handles and attributes (attr.c) ---- */

void vv_nfs_handle_of(const struct vv_nfs *nfs, uint64_t inode, struct vv_nfs_handle *out_handle);
/* The inode; a status of NFS: BADHANDLE, STALE. */
MUST_CHECK int vv_nfs_inode_of(const struct vv_nfs *nfs, const struct vv_nfs_handle *handle,
                               uint64_t *out_inode);
void vv_nfs_fattr_of(const struct vv_nfs *nfs, const struct vv_attr *attr,
                     struct vv_nfs_fattr *out_fattr);
/* The attributes to set, and the mask for them (without the mode's, which the caller knows). */
uint32_t vv_nfs_set_of(const struct vv_nfs_sattr *sattr, struct vv_attr *out_set);

/* Weak cache consistency: look at an inode before an operation and right behind it. */
struct vv_nfs_watch {
    uint64_t inode;
    int err; /* why `before` is not known; 0 */
    struct vv_attr before;
};
void vv_nfs_watch_begin(struct vv_nfs_job *job, uint64_t inode, struct vv_nfs_watch *watch);
/* `changes`: how often the operation has changed the inode. What it was before is told only if
 * nobody else has changed it meanwhile. */
void vv_nfs_watch_end(struct vv_nfs_job *job, const struct vv_nfs_watch *watch, unsigned changes,
                      struct vv_nfs_wcc *out_wcc);
/* Attributes of the inode for the results, if they can be had; why not: -ESTALE, ... */
int vv_nfs_post_attr(struct vv_nfs_job *job, uint64_t inode);
/* An operation that NFS wants durable has been done: wait until it is, unless the export is async.
 */
MUST_CHECK int vv_nfs_settle(struct vv_nfs_job *job, uint64_t inode);

/* ---- replies remembered (replies.c) ---- */

struct vv_nfs_reply {
    struct vv_map_node node;
    struct vv_list order;
    uint32_t xid;
    uint8_t address[16];
    uint64_t checksum;
    bool is_done;
    bool is_forgotten; /* no longer in the map */
    unsigned refs;     /* who waits for it */
    struct vv_waitq done;
    uint8_t *bytes; /* the whole reply; NULL = it could not be kept */
    size_t len;
};
/* Of the first bytes of the record, and its length. */
uint64_t vv_nfs_checksum_of(const struct vv_nfs_job *job);
/* 0: *out_reply is new, and the caller is to finish it; -ENOMEM. 1: it came before, the reply
 * stands in job->head (suspends until it is there). -EAGAIN: it did, but there is no reply to keep. */
MUST_CHECK int vv_nfs_reply_begin(struct vv_nfs_job *job, struct vv_nfs_reply **out_reply);
/* The reply stands in job->head. NULL reply is fine. */
void vv_nfs_reply_finish(struct vv_nfs_job *job, struct vv_nfs_reply *reply);
void vv_nfs_replies_done(struct vv_nfs *nfs);

/* ---- replies in the volume (again.c) ---- */

/* An earlier server has done the job: true, and job->kept says what it did. Else the job's changes
 * will be kept: its call carries the reply. The job has been entered. */
bool vv_nfs_is_done_before(struct vv_nfs_job *job);
/* Results for what was done before, from what is there now. Suspends. */
MUST_CHECK int vv_nfs_answer_again(struct vv_nfs_job *job, uint64_t inode);

/* ---- procedures ---- */

struct vv_nfs_op {
    int (*serve)(struct vv_nfs_job *job, uint64_t inode);
    bool is_changing;   /* refused where all is read-only */
    bool is_remembered; /* not idempotent: see replies.c */
    bool is_kept;       /* nor when the server has started anew: see again.c */
};
const struct vv_nfs_op *vv_nfs_op_of(uint32_t procedure);

int vv_nfs_getattr(struct vv_nfs_job *job, uint64_t inode); /* ops_attr.c */
int vv_nfs_setattr(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_access(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_fsstat(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_fsinfo(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_pathconf(struct vv_nfs_job *job, uint64_t inode);

int vv_nfs_read(struct vv_nfs_job *job, uint64_t inode); /* ops_file.c */
int vv_nfs_write(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_commit(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_readlink(struct vv_nfs_job *job, uint64_t inode);

int vv_nfs_lookup(struct vv_nfs_job *job, uint64_t inode); /* ops_name.c */
int vv_nfs_create(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_mkdir(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_symlink(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_mknod(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_remove(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_rmdir(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_rename(struct vv_nfs_job *job, uint64_t inode);
int vv_nfs_link(struct vv_nfs_job *job, uint64_t inode);

int vv_nfs_readdir(struct vv_nfs_job *job, uint64_t inode); /* ops_dir.c */
int vv_nfs_readdirplus(struct vv_nfs_job *job, uint64_t inode);

#endif
