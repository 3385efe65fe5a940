/* Private to front/nbd: the server, its exports, connections and requests.
 *
 * front/conn has the life of a connection, its memory and its sending. Its fiber negotiates
 * (negotiate.c) and then reads requests (transmit.c); a request is served (serve.c) in a fiber of
 * its own, which puts its reply together (reply.c). */
#ifndef VV_FRONT_NBD_NBD_IMPL_H
#define VV_FRONT_NBD_NBD_IMPL_H

#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "front/conn/conn.h"
#include "front/nbd/codec.h"
#include "front/nbd/device.h"
#include "front/nbd/nbd.h"
#include "front/tls/stream.h"
#include "rt/rt.h"

#define VV_NBD_CHUNKS_MAX 64           /* of one reply to a READ */
#define VV_NBD_HOLE_BYTES 4096u        /* zeros from this length on are sent as a hole */
#define VV_NBD_CONTEXT_ID 1u           /* of base:allocation */
#define VV_NBD_PREFERRED_BYTES 4096u
#define VV_NBD_VIEW_MIN (64u << 10) /* reads from here on are sent from the cache, ... */
#define VV_NBD_VIEW_MAX (4u << 20)  /* ... up to here: one operation's */
#define VV_NBD_HEAD_BYTES 64u /* of a reply: what fits without another allocation */

struct vv_nbd {
    struct vv_fs *fs;
    struct vv_nbd_options options;
    uint32_t payload_max;
    struct vv_conns conns;
    struct vv_fs_watch watch;
    struct vv_map exports; /* struct vv_nbd_export by inode */
    struct vv_nbd_stats stats;
};

/* ---- exports (export.c) ---- */

/* A device in use: one for all its connections. */
struct vv_nbd_export {
    struct vv_map_node node;
    struct vv_nbd *nbd;
    uint64_t inode;
    unsigned refs;
    struct vv_handle *handle;
    uint64_t size;
    uint64_t change_count; /* of the file, by other doors */
    uint64_t size_count;   /* ... when `size` was asked for: they differ = ask again */
    bool is_read_only;
    size_t name_len;
    char name[VV_NAME_MAX];
};

/* The export of this name, with a reference. -ENOENT, -EINVAL, -ENOMEM, ... Suspends. */
MUST_CHECK int vv_nbd_export_open(struct vv_nbd *nbd, struct vv_bytes name,
                                  struct vv_nbd_export **out_export);
/* NULL is fine. */
void vv_nbd_export_unref(struct vv_nbd_export *export);
/* For CLEANUP. */
void vv_nbd_export_unref_ptr(struct vv_nbd_export **export);
/* The size now. Suspends only after another door's change. */
MUST_CHECK int vv_nbd_export_size(struct vv_nbd_export *export, uint64_t *out_size);
/* What clients are told. */
uint16_t vv_nbd_export_flags(const struct vv_nbd_export *export, bool has_structured);
/* For vv_fs_watch: `arg` is the server. */
void vv_nbd_on_inode(void *arg, uint64_t inode, uint64_t offset, uint64_t len);

/* ---- connections (conn.c) ---- */

struct vv_nbd_conn {
    struct vv_conn base;
    struct vv_nbd *nbd;

    /* negotiation */
    uint64_t deadline_ns; /* while it lasts */
    bool has_no_zeroes, has_structured, is_context_set;
    uint64_t context_inode; /* the export for which base:allocation was chosen */
    struct vv_writer answers;

    /* transmission */
    struct vv_nbd_export *export;
    bool has_allocation; /* BLOCK_STATUS is allowed */
};

extern const struct vv_conn_kind vv_nbd_conn_kind;

/* Negotiate. 1: conn->export is set, transmission begins. 0: the client has gone, in good order or
 * not. -EPROTO and other errors end the connection. */
MUST_CHECK int vv_nbd_negotiate(struct vv_nbd_conn *conn);
/* The options whose answers take more than a line (options.c); the answers are in conn->answers. */
MUST_CHECK int vv_nbd_answer_list(struct vv_nbd_conn *conn);
MUST_CHECK int vv_nbd_answer_info(struct vv_nbd_conn *conn, uint32_t option,
                                  const struct vv_nbd_option_data *data, bool *out_is_going);
MUST_CHECK int vv_nbd_answer_context(struct vv_nbd_conn *conn, uint32_t option,
                                     const struct vv_nbd_option_data *data);
/* Send what stands in conn->answers. */
MUST_CHECK int vv_nbd_send_answers(struct vv_nbd_conn *conn);

/* ---- requests (transmit.c, reply.c, serve.c) ---- */

struct vv_nbd_job {
    struct vv_job base;
    struct vv_nbd_conn *conn;
    struct vv_nbd_request request;
    struct vv_buffer *data; /* of a WRITE; of what was read */
    struct vv_payload *payload; /* of a WRITE, instead */
    /* The reply: `head` holds what is not data; the pieces point into head and data. */
    struct vv_writer head;
    uint8_t head_bytes[VV_NBD_HEAD_BYTES];
    bool has_data_piece; /* some of `data`, or of `view`, is sent */
    struct vv_view *view; /* pins what is sent from the cache; NULL = nothing is */
};

/* Read requests until the client says that it is done, or goes. As vv_nbd_negotiate. */
MUST_CHECK int vv_nbd_transmit(struct vv_nbd_conn *conn);
/* The fiber of a request: `arg` is the job. */
void vv_nbd_serve(void *arg);
/* Answer with nothing but this result. May suspend. */
void vv_nbd_answer(struct vv_nbd_job *job, int err);
/* For vv_conn_kind. */
void vv_nbd_job_done(struct vv_job *job);
/* A buffer for what is read. -ENOMEM. */
MUST_CHECK int vv_nbd_job_data(struct vv_nbd_job *job, size_t size);
/* A piece of the reply: what was written to `head` since the piece before, then `len` bytes of data.
 * In order; vv_nbd_reply_begin says how many at most. */
MUST_CHECK int vv_nbd_reply_begin(struct vv_nbd_job *job, unsigned chunk_count);
void vv_nbd_reply_piece(struct vv_nbd_job *job, size_t head_from, const uint8_t *data, size_t len);
/* The reply is complete. May suspend. */
void vv_nbd_reply_send(struct vv_nbd_job *job);
/* The one place where an error becomes NBD's. */
uint32_t vv_nbd_error_of(int err);

#endif
