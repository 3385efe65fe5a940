/* Private to front/fuse: the state of a mount and of a request.
 *
 * A request is served by one function (struct vv_fuse_op). It either replies with one of the
 * vv_fuse_reply_* functions and returns 0, or returns an error, which becomes the reply. */
#ifndef VV_FRONT_FUSE_FUSE_IMPL_H
#define VV_FRONT_FUSE_FUSE_IMPL_H

#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "front/fuse/codec.h"
#include "front/fuse/device.h"
#include "front/fuse/fuse.h"
#include "front/fuse/notify.h"
#include "fs/fs.h"
#include "rt/rt.h"

#define VV_FUSE_SMALL_BYTES 4608 /* requests up to this size are copied off the receive buffer */
#define VV_FUSE_BUFFER_BYTES (VV_FUSE_IO_BYTES_MAX + 8192)
/* Large buffers: this part of the memory, within bounds; who needs one more waits. */
#define VV_FUSE_BUFFERS_SHARE 16
#define VV_FUSE_BUFFERS_MIN 4
#define VV_FUSE_BUFFERS_MAX 64
#define VV_FUSE_BUFFERS_WARM_MAX 4     /* kept when nobody needs them */
#define VV_FUSE_KNOWN_SLOTS (1u << 17) /* a power of two */
#define VV_FUSE_TOLD_SLOTS (1u << 14)  /* likewise */
#define VV_FUSE_READ_SLOTS (1u << 14)  /* likewise */
/* After a buffered read of an inode, so many direct writes to it are followed by an invalidation. The
 * kernel may have that many of a process under way. */
#define VV_FUSE_CHECKED_WRITES 1024
#define VV_FUSE_IDLE_FIBERS_MAX 32     /* more end */
#define VV_FUSE_YIELD_REQUESTS 8       /* served in a row before other fibers get their turn */

/* While large WRITEs come, requests are received into payloads, whose memory the volume takes over; not otherwise, for the kernel takes
 * longer over a list of pieces. */
#define VV_FUSE_BULK_BYTES (64 << 10) /* a large WRITE */
#define VV_FUSE_BULK_REQUESTS 16      /* others in a row after which none is expected */
#define VV_FUSE_PAYLOAD_PIECES 32     /* of a payload for VV_FUSE_IO_BYTES_MAX */

struct vv_fuse_buffer {
    struct vv_fuse_buffer *next; /* when it is free */
    uint8_t *bytes;              /* VV_FUSE_BUFFER_BYTES, page-aligned; or */
    struct vv_payload *payload;  /* ... of VV_FUSE_IO_BYTES_MAX */
};

struct vv_fuse_told {
    uint64_t inode;
    uint64_t parent;
};

struct vv_fuse {
    struct vv_fs *fs;
    struct vv_fuse_options options; /* strings are not kept */
    struct vv_fuse_device device;
    struct vv_fuse_notifier notifier;
    struct vv_fs_watch watch;

    bool is_gone; /* the kernel has let go, or the connection is to end */
    uint64_t flags; /* agreed on at INIT */
    bool is_receiving;
    bool has_successor; /* a fiber is about to run that will receive if nobody does */
    unsigned fibers;
    unsigned served_in_row;
    unsigned cached_writes;   /* pages that the kernel writes back: requests under way, */
    uint64_t cached_write_ns; /* and when the last of them was answered */
    struct vv_waitq idle; /* fibers that wait for their turn to receive */
    unsigned idle_count;
    struct vv_waitq ended; /* a fiber has ended */

    struct vv_fuse_buffer *free_buffers[2]; /* of bytes; with payloads */
    unsigned buffer_count; /* free or used, of both kinds */
    unsigned buffer_max;
    unsigned free_buffer_count;
    unsigned bulk_left; /* requests to be received into payloads, unless a large WRITE is among them */
    struct vv_waitq buffer_waiters;

    struct vv_list opens;        /* struct vv_fuse_open */
    struct vv_map removed;       /* struct vv_fuse_removed */
    struct vv_list lock_waiters; /* struct lock_wait in ops_lock.c */
    /* How often the kernel has been told of inodes, by hash: what it can't know needs no
     * invalidation. Wrong only towards "known". */
    uint64_t *known;
    /* By hash of an inode: with which directory's entry the kernel was last told of it. */
    struct vv_fuse_told *told;
    /* By hash of an inode: how many direct writes to it may still meet pages that were read before
     * them (ops_file.c). */
    uint16_t *checked_writes;
    uint64_t change_count; /* changes by other doors */
    struct vv_fuse_stats stats;
};

/* What a file handle of the kernel stands for. */
struct vv_fuse_open {
    struct vv_list node;
    struct vv_handle *handle; /* NULL until it is opened */
};

/* A directory that has lost its name while the kernel knew it: a process may be in it, and asks for its attributes and
 * its entries as it did before. Kept until the kernel forgets it. */
struct vv_fuse_removed {
    struct vv_map_node node; /* by inode */
    struct vv_handle *handle;
};

struct vv_fuse_request {
    struct vv_fuse *fuse;
    struct vv_fuse_message message;
    struct vv_fs_call call;
    uint64_t change_count;         /* when it was received */
    struct vv_fuse_buffer *buffer; /* the request's bytes, when they are not in `small`, */
    uint8_t *joined;               /* or here */
    bool is_in_payload; /* a WRITE's data: the buffer's */
    uint8_t small[VV_FUSE_SMALL_BYTES];
};

struct vv_fuse_op {
    int (*serve)(struct vv_fuse_request *request);
    bool is_changing; /* refused on a read-only mount */
};
/* By opcode; NULL functions are -ENOSYS. */
const struct vv_fuse_op *vv_fuse_op_of(uint32_t opcode);

/* ---- fuse.c ---- */

/* Let the kernel write back what programs have mapped and changed; wait until that has come here, within bounds.
 * Suspends. */
void vv_fuse_write_back(struct vv_fuse *fuse);

/* ---- buffer.c ---- */

void vv_fuse_buffers_init(struct vv_fuse *fuse);
/* Those that are free. */
void vv_fuse_buffers_free(struct vv_fuse *fuse);
/* The large buffers. take suspends until one is free; NULL when there is no memory. */
struct vv_fuse_buffer *vv_fuse_buffer_take(struct vv_fuse *fuse);
/* One with a payload, ready to be received into. NULL when there is none now, or no memory: a buffer of bytes will do. Does not suspend. */
struct vv_fuse_buffer *vv_fuse_payload_take(struct vv_fuse *fuse);
/* No large WRITE is expected any more: free the payloads that nobody uses. */
void vv_fuse_payloads_drop(struct vv_fuse *fuse);
void vv_fuse_buffer_give(struct vv_fuse *fuse, struct vv_fuse_buffer *buffer);

/* ---- session.c ---- */

/* The name of every fiber that serves requests, of whichever mount: it tells them apart. */
extern const char vv_fuse_fiber_name[];

/* Count references of the kernel to an inode. */
void vv_fuse_known_add(struct vv_fuse *fuse, uint64_t inode, int64_t count);
/* The kernel is about to be told of an inode by an entry of `parent`: one reference. */
void vv_fuse_known_tell(struct vv_fuse *fuse, uint64_t inode, uint64_t parent);
/* 0 = not known any more. */
uint64_t vv_fuse_told_parent(const struct vv_fuse *fuse, uint64_t inode);
bool vv_fuse_is_known(const struct vv_fuse *fuse, uint64_t inode);
/* The kernel has forgotten an inode, `count` references of it. It may have put that off until after it was told of the inode
 * again; a removed directory is then gone early. */
void vv_fuse_forget_inode(struct vv_fuse *fuse, uint64_t inode, uint64_t count);
/* Memory for a directory that a request is about to remove; and what came of it: kept if there is one, freed if not. */
MUST_CHECK int vv_fuse_removed_new(struct vv_fuse_request *request, struct vv_fuse_removed **out_removed);
void vv_fuse_removed_keep(struct vv_fuse_request *request, struct vv_fuse_removed *removed);
/* Serve in fibers until the kernel lets go. */
MUST_CHECK int vv_fuse_session_start(struct vv_fuse *fuse);
void vv_fuse_session_free(struct vv_fuse *fuse);
/* Start a fiber that counts as one of the mount's, for requests that may wait for ever. */
MUST_CHECK int vv_fuse_fiber_start(struct vv_fuse *fuse, void (*fn)(void *), void *arg,
                                   const char *name);
void vv_fuse_fiber_ended(struct vv_fuse *fuse);

/* ---- reply.c ---- */

/* The one place where an error becomes the kernel's. */
int vv_fuse_error_of(int err);
/* -ENOENT (nobody waits for it) and -ENODEV (gone) are not errors of the request; they are returned
 * for those who have to take back what they handed out. */
int vv_fuse_reply_iov(struct vv_fuse *fuse, uint64_t unique, int err, struct iovec *iov, int count);
int vv_fuse_reply(struct vv_fuse_request *request, const void *bytes, size_t len);
/* For requests that answer with nothing. */
int vv_fuse_reply_ok(struct vv_fuse_request *request);
void vv_fuse_reply_error(struct vv_fuse *fuse, const struct fuse_in_header *header, int err);
int vv_fuse_reply_attr(struct vv_fuse_request *request, const struct vv_attr *attr);
/* The attributes after this request has changed them. The kernel takes them as they are, even when
 * they were invalidated on the way to it, so it must not keep them: it asks when it needs them. */
int vv_fuse_reply_changed(struct vv_fuse_request *request, const struct vv_attr *attr);
/* An entry that the kernel may keep; and with a file opened through it. `open` is released if
 * nobody waits. */
int vv_fuse_reply_entry(struct vv_fuse_request *request, const struct vv_attr *attr);
int vv_fuse_reply_create(struct vv_fuse_request *request, const struct vv_attr *attr,
                         struct vv_fuse_open *open);
int vv_fuse_reply_open(struct vv_fuse_request *request, struct vv_fuse_open *open, bool is_dir);
void vv_fuse_fill_entry(const struct vv_attr *attr, uint64_t timeout_s,
                        struct fuse_entry_out *out_entry);
/* How long the kernel may keep what this request is told. */
uint64_t vv_fuse_timeout_s(struct vv_fuse_request *request);
/* ... the attributes, if it may keep names for timeout_s. */
uint64_t vv_fuse_attr_timeout_s(const struct vv_attr *attr, uint64_t timeout_s);

/* ---- request.c: taking requests apart ---- */

/* The fixed struct of the opcode; what an older kernel does not send is zero. False when cut off.
 */
bool vv_fuse_take(struct vv_fuse_request *request, void *out, size_t len);
/* A name that an entry can have: -ENAMETOOLONG, -EINVAL (cut off, empty). */
MUST_CHECK int vv_fuse_take_entry(struct vv_fuse_request *request, struct vv_bytes *out_name);
/* Let the caller's groups count in request->call: from the request's extension or from /proc.
 * `out_groups` (to be freed with vv_free) may stay NULL. */
void vv_fuse_add_groups(struct vv_fuse_request *request, uint32_t **out_groups);
/* A caller who is not named in the request is looked up in /proc, for operations in which root may
 * do more. Who is not found there is nobody. */
void vv_fuse_learn_caller(struct vv_fuse_request *request);

/* Made before anything is opened or made, which cannot be taken back when there is no memory for this. Its handle is
 * then filled in. */
MUST_CHECK int vv_fuse_open_new(struct vv_fuse *fuse, struct vv_fuse_open **out_open);
void vv_fuse_open_free(struct vv_fuse_open *open);
/* The kernel's file handle; NULL for none. */
struct vv_fuse_open *vv_fuse_open_of(uint64_t fh);
struct vv_handle *vv_fuse_handle_of(uint64_t fh);

/* ---- the operations ---- */

int vv_fuse_init(struct vv_fuse_request *request); /* init.c */

int vv_fuse_lookup(struct vv_fuse_request *request); /* ops_name.c */
int vv_fuse_forget(struct vv_fuse_request *request);
int vv_fuse_batch_forget(struct vv_fuse_request *request);
int vv_fuse_readlink(struct vv_fuse_request *request);
int vv_fuse_symlink(struct vv_fuse_request *request);
int vv_fuse_mknod(struct vv_fuse_request *request);
int vv_fuse_mkdir(struct vv_fuse_request *request);
int vv_fuse_unlink(struct vv_fuse_request *request);
int vv_fuse_rmdir(struct vv_fuse_request *request);
int vv_fuse_rename(struct vv_fuse_request *request);
int vv_fuse_rename2(struct vv_fuse_request *request);
int vv_fuse_link(struct vv_fuse_request *request);
int vv_fuse_create(struct vv_fuse_request *request);
int vv_fuse_tmpfile(struct vv_fuse_request *request);

int vv_fuse_getattr(struct vv_fuse_request *request); /* ops_inode.c */
int vv_fuse_setattr(struct vv_fuse_request *request);
int vv_fuse_statx(struct vv_fuse_request *request);
int vv_fuse_statfs(struct vv_fuse_request *request);
int vv_fuse_access(struct vv_fuse_request *request);
int vv_fuse_getxattr(struct vv_fuse_request *request);
int vv_fuse_setxattr(struct vv_fuse_request *request);
int vv_fuse_listxattr(struct vv_fuse_request *request);
int vv_fuse_removexattr(struct vv_fuse_request *request);

int vv_fuse_ioctl(struct vv_fuse_request *request); /* ops_ioctl.c */

int vv_fuse_open(struct vv_fuse_request *request); /* ops_file.c */
int vv_fuse_release(struct vv_fuse_request *request);
int vv_fuse_flush(struct vv_fuse_request *request);
int vv_fuse_fsync(struct vv_fuse_request *request);
int vv_fuse_syncfs(struct vv_fuse_request *request);
int vv_fuse_read(struct vv_fuse_request *request);
int vv_fuse_write(struct vv_fuse_request *request);
int vv_fuse_fallocate(struct vv_fuse_request *request);
int vv_fuse_lseek(struct vv_fuse_request *request);
int vv_fuse_copy_file_range(struct vv_fuse_request *request);

int vv_fuse_opendir(struct vv_fuse_request *request); /* ops_dir.c */
int vv_fuse_releasedir(struct vv_fuse_request *request);
int vv_fuse_readdir(struct vv_fuse_request *request);

int vv_fuse_getlk(struct vv_fuse_request *request); /* ops_lock.c */
int vv_fuse_setlk(struct vv_fuse_request *request);
int vv_fuse_setlkw(struct vv_fuse_request *request);
int vv_fuse_interrupt(struct vv_fuse_request *request);
void vv_fuse_lock_cancel_all(struct vv_fuse *fuse);

#endif
