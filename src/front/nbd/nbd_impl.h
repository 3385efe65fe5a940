/* Private to front/nbd: the server, its exports, connections and requests.
 *
 * A connection belongs to the fiber that reads it (conn.c), which negotiates (negotiate.c) and then
 * reads requests (transmit.c); it frees the connection when the last request is done. A request is
 * served (serve.c) in a fiber of its own, which queues its reply and sends what is queued unless
 * somebody is sending already (reply.c). */
#ifndef VV_FRONT_NBD_NBD_IMPL_H
#define VV_FRONT_NBD_NBD_IMPL_H

#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "cache/cache.h"
#include "front/nbd/codec.h"
#include "front/nbd/device.h"
#include "front/nbd/nbd.h"
#include "front/tls/stream.h"
#include "rt/rt.h"

#define VV_NBD_RECV_BYTES (64u << 10)  /* read ahead of a connection */
#define VV_NBD_SLICE_BYTES (256u << 10) /* received or sent between two looks at the clock */
#define VV_NBD_SMALL_BYTES (64u << 10) /* data of a small request */
#define VV_NBD_REQUEST_COST (16u << 10) /* charged for a request beside its data: its fiber */
#define VV_NBD_REPLY_COST 512u /* ... for one that is answered but not sent */
#define VV_NBD_CONN_SHARE 4    /* a connection may hold this part of a budget, and one request */
#define VV_NBD_CLASSES 3         /* sizes of buffers that are kept for reuse */
#define VV_NBD_WARM_JOBS_MAX 256 /* requests whose memory is kept for the next ones */
#define VV_NBD_SEND_BATCH 64           /* replies sent in one go */
#define VV_NBD_SEND_IOV 256            /* pieces of these */
#define VV_NBD_CHUNKS_MAX 64           /* of one reply to a READ */
#define VV_NBD_HOLE_BYTES 4096u        /* zeros from this length on are sent as a hole */
#define VV_NBD_CONTEXT_ID 1u           /* of base:allocation */
#define VV_NBD_PREFERRED_BYTES 4096u
#define VV_NBD_HEAD_BYTES 64u /* of a reply: what fits without another allocation */

struct vv_nbd_job;

struct vv_nbd {
    struct vv_fs *fs;
    struct vv_nbd_options options;
    uint32_t payload_max;
    struct vv_budget small, large; /* who asks for little does not wait behind who asks for much */
    struct vv_fs_watch watch;
    struct vv_list listeners;
    struct vv_list conns;
    struct vv_map exports; /* struct vv_nbd_export by inode */
    struct vv_waitq ended; /* a connection, or an accepting fiber, has ended */
    bool is_closing;
    struct {
        struct vv_nbd_buffer *first;
        unsigned count;
    } warm[VV_NBD_CLASSES]; /* buffers for reuse */
    struct vv_nbd_job *warm_jobs;
    unsigned warm_job_count;
    struct vv_nbd_stats stats;
};

struct vv_nbd_listener {
    struct vv_list node;
    struct vv_nbd *nbd;
    struct vv_socket *socket;
    bool is_accepting;
};

/* ---- buffers (buffer.c) ---- */

/* Data of a request or reply. */
struct vv_nbd_buffer {
    struct vv_nbd_buffer *next;
    unsigned class;
    uint8_t bytes[] __attribute__((aligned(16)));
};
struct vv_nbd_buffer *vv_nbd_buffer_new(struct vv_nbd *nbd, size_t size);
void vv_nbd_buffer_free(struct vv_nbd *nbd, struct vv_nbd_buffer *buffer);
/* A job of zeros. */
struct vv_nbd_job *vv_nbd_job_take(struct vv_nbd *nbd);
void vv_nbd_job_give(struct vv_nbd *nbd, struct vv_nbd_job *job);
/* Free what is kept. */
void vv_nbd_buffers_done(struct vv_nbd *nbd);

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
    struct vv_list node; /* in nbd->conns */
    struct vv_nbd *nbd;
    struct vv_stream *stream;
    uint64_t number; /* for log lines */
    bool is_broken;  /* nothing more can be sent */

    /* negotiation */
    uint64_t deadline_ns; /* while it lasts */
    bool has_no_zeroes, has_structured, is_context_set;
    uint64_t context_inode; /* the export for which base:allocation was chosen */
    struct vv_writer answers;

    /* transmission */
    struct vv_nbd_export *export;
    bool has_allocation; /* BLOCK_STATUS is allowed */
    unsigned request_count; /* not answered, or the answer not sent */
    size_t charged;         /* to the budgets, for these */
    struct vv_waitq room;   /* the reader waits for fewer requests */
    struct vv_list outgoing; /* answered, to be sent, in this order */
    bool is_sending;

    /* When the piece began that is being received or sent; 0 = none is. */
    uint64_t recv_since_ns, send_since_ns;

    uint8_t *recv_bytes; /* VV_NBD_RECV_BYTES; what has come but was not looked at is */
    size_t recv_at;      /* from here */
    size_t recv_end;     /* to here */
};

/* Serve a new connection in a fiber of its own; it owns the socket from now on, whatever is
 * returned. */
MUST_CHECK int vv_nbd_conn_start(struct vv_nbd *nbd, struct vv_socket *socket);
/* At least `len` bytes (at most VV_NBD_RECV_BYTES) in the read-ahead. 1, 0 = the stream has ended. */
MUST_CHECK int vv_nbd_fill(struct vv_nbd_conn *conn, size_t len, uint64_t deadline_ns);
/* Exactly `len` bytes into out (NULL: thrown away). 1, 0 = the stream has ended; -ETIMEDOUT also
 * when they come too slowly (VV_NBD_STALL_MAX_S). */
MUST_CHECK int vv_nbd_take(struct vv_nbd_conn *conn, uint8_t *out, size_t len);
/* Give up on it: whoever waits for it gets an error. Does not suspend. */
void vv_nbd_conn_break(struct vv_nbd_conn *conn);

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
    struct vv_list node; /* in conn->outgoing */
    struct vv_nbd_job *next_warm; /* of those that wait for reuse */
    struct vv_nbd_conn *conn;
    struct vv_nbd_request request;
    struct vv_nbd_buffer *data; /* of a WRITE; of what was read */
    size_t charge;
    struct vv_budget *budget;
    /* The reply: `head` holds what is not data; the pieces point into head and data. */
    struct vv_writer head;
    uint8_t head_bytes[VV_NBD_HEAD_BYTES];
    struct iovec *iov;
    struct iovec few_iov[3];
    unsigned iov_count;
    bool has_data_piece; /* some of `data` is sent */
};

/* Read requests until the client says that it is done, or goes. As vv_nbd_negotiate. */
MUST_CHECK int vv_nbd_transmit(struct vv_nbd_conn *conn);
/* The fiber of a request: `arg` is the job. */
void vv_nbd_serve(void *arg);
/* Answer with nothing but this result. May suspend. */
void vv_nbd_answer(struct vv_nbd_job *job, int err);
void vv_nbd_job_free(struct vv_nbd_job *job);
/* It holds no more than this any longer. */
void vv_nbd_job_discharge(struct vv_nbd_job *job, size_t kept);
/* A piece of the reply: what was written to `head` since the piece before, then `len` bytes of data.
 * In order; vv_nbd_reply_begin says how many at most. */
MUST_CHECK int vv_nbd_reply_begin(struct vv_nbd_job *job, unsigned chunk_count);
void vv_nbd_reply_piece(struct vv_nbd_job *job, size_t head_from, const uint8_t *data, size_t len);
/* The reply is complete. May suspend. */
void vv_nbd_reply_send(struct vv_nbd_job *job);
/* The one place where an error becomes NBD's. */
uint32_t vv_nbd_error_of(int err);

#endif
