/* What the TCP doors (9P, NFS, NBD) share: listening, connections, and the way of requests and
 * answers through them. A protocol brings its codec, one function that reads requests, and what
 * serves them.
 *
 * A connection belongs to one fiber, which runs kind->serve: it reads requests and starts a fiber
 * for each. Whoever has an answer queues it; the first of them sends until nothing is queued, after
 * those that are ready to run have had their turn, so that the answers to what came at once leave
 * with one call. Answers leave in the order in which they are ready. When serve is over and the last
 * request is done, the fiber frees the connection.
 *
 * Buffers: what was read ahead belongs to the connection (vv_conn_ahead, valid until the next
 * vv_conn_fill or _take); a long payload is received straight into the protocol's memory. An
 * answer's pieces are sent from where they lie: they must not change until kind->done, which frees
 * them.
 *
 * Memory: all doors of a process draw on one struct vv_conn_memory, a quarter of which is for small
 * requests, so that they do not wait behind large ones. A request is charged before memory is
 * allocated for it (and, if it brings a payload, only when that has begun to come) until its answer
 * is sent; then its connection is read on. A connection may hold 1/VV_CONN_SHARE of a part, and one
 * request. Who neither sends what he announced nor takes what he asked for is cut off after
 * kind->recv_max_s or send_max_s for each VV_CONN_SLICE_BYTES, or after VV_CONN_PRESSED_S when
 * somebody waits for memory. Beside the charges a connection holds its struct, VV_CONN_FIRST_BYTES
 * and a fiber; a longer read-ahead is charged, and done without where there is no room.
 *
 * All calls: from a fiber, on one reactor. */
#ifndef VV_FRONT_CONN_CONN_H
#define VV_FRONT_CONN_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"
#include "cache/cache.h"
#include "front/tls/stream.h"
#include "rt/rt.h"

#define VV_CONN_FIRST_BYTES 4096u       /* read ahead of a connection */
#define VV_CONN_RECV_BYTES (64u << 10)  /* ... of one that fills that */
#define VV_CONN_SLICE_BYTES (256u << 10) /* received or sent between two looks at the clock */
#define VV_CONN_SMALL_BYTES (64u << 10) /* data of a small request */
#define VV_CONN_REQUEST_COST (16u << 10) /* charged for a request beside its data: its fiber */
#define VV_CONN_ANSWER_COST 512u /* ... for one that is answered but not sent */
#define VV_CONN_PAYLOAD_MIN (64u << 10) /* payloads from here on are received into memory that the volume takes over */
#define VV_CONN_PIECES 8 /* of a payload that are received in one go */
#define VV_CONN_BULK_REQUESTS 16 /* after a payload in pieces, others like it are expected */
#define VV_CONN_SHARE 2          /* a connection may hold this part of a budget, and one request */
#define VV_CONN_PRESSED_S 2      /* without a slice while others wait for memory */
#define VV_CONN_SEND_BATCH 64    /* answers sent in one go */
#define VV_CONN_SEND_IOV 256     /* pieces of these */
#define VV_CONN_MEMORY_DEFAULT (32u << 20)
#define VV_BUFFER_CLASSES 3

/* ---- memory ---- */

/* Bytes of a request or an answer. */
struct vv_buffer {
    struct vv_buffer *next;
    size_t size; /* at least what was asked for */
    unsigned class;
    uint8_t bytes[] __attribute__((aligned(64)));
};

struct vv_conn_memory {
    struct vv_budget small, large;
    struct vv_list conns; /* all connections, by memory_node */
    /* Buffers kept for reuse, for fresh memory is slow; they and what is charged stay within the limit. */
    struct vv_buffer *warm[VV_BUFFER_CLASSES];
    unsigned warm_count[VV_BUFFER_CLASSES];
    size_t warm_bytes;
};

/* `bytes` for the requests of all that use it; 0 = VV_CONN_MEMORY_DEFAULT. It must outlive them. */
void vv_conn_memory_init(struct vv_conn_memory *memory, uint64_t bytes);
void vv_conn_memory_done(struct vv_conn_memory *memory);
/* What is charged now. */
uint64_t vv_conn_memory_used(const struct vv_conn_memory *memory);
uint64_t vv_conn_memory_limit(const struct vv_conn_memory *memory);

/* Does not charge: who asks has charged. NULL when there is no memory. */
struct vv_buffer *vv_buffer_new(struct vv_conn_memory *memory, size_t size);
/* NULL is fine. */
void vv_buffer_free(struct vv_conn_memory *memory, struct vv_buffer *buffer);

/* ---- a door's connections ---- */

struct vv_conn;
struct vv_job;
struct vv_payload;

struct vv_conn_kind {
    const char *name;   /* of log lines and fibers: "nfs" */
    const char *speech; /* what a client that makes no sense does not speak: "ONC RPC" */
    size_t conn_bytes;  /* of the protocol's connection, which begins with struct vv_conn */
    unsigned connections_max;
    unsigned requests_max; /* of a connection at once, then it is not read */
    unsigned recv_max_s, send_max_s; /* for a slice */
    bool is_evicting; /* a connection too many takes the place of the one that is idle for longest; else it is closed */
    /* A new connection (zeroed behind its base): 0, or an error, which closes it (-ENOTCONN: its
     * client has gone already). Does not suspend. May be NULL. */
    int (*open)(struct vv_conn *conn);
    /* Read requests until the client says that it is done, or goes: 0. An error breaks the
     * connection; -EPROTO and -VV_ERR_FORMAT are counted and logged. Suspends. */
    int (*serve)(struct vv_conn *conn);
    /* serve is over: let requests that wait for something end. Does not suspend. May be NULL. */
    void (*stop)(struct vv_conn *conn);
    /* No request is under way any more: free what the connection has. Suspends. May be NULL. */
    void (*close)(struct vv_conn *conn);
    /* The answer has been sent, or can't be: free the job. Does not suspend. */
    void (*done)(struct vv_job *job);
};

struct vv_conn_stats {
    uint64_t connections_total, connections_refused, connections_evicted, connections_cut;
    uint64_t protocol_errors;
};

/* The connections of one door. */
struct vv_conns {
    const struct vv_conn_kind *kind;
    void *server; /* the protocol's */
    struct vv_conn_memory *memory;
    struct vv_conn_memory own_memory; /* used unless another is given */
    struct vv_list listeners;
    struct vv_list conns; /* least recently used first */
    unsigned count;
    struct vv_waitq ended; /* a connection, or an accepting fiber, has ended */
    bool is_closing;
    struct vv_conn_stats stats;
};

/* `memory` NULL: one of its own, of VV_CONN_MEMORY_DEFAULT. */
void vv_conns_init(struct vv_conns *conns, const struct vv_conn_kind *kind, void *server,
                   struct vv_conn_memory *memory);
/* Listen and begin to accept. *out_port (may be NULL): the TCP port, 0 for unix sockets. Errors of
 * vv_socket_listen; -ENOMEM. Suspends. */
MUST_CHECK int vv_conns_listen(struct vv_conns *conns, const char *address, unsigned *out_port);
/* Close the listeners and all connections, let requests under way end; return when no fiber of it runs any
 * more. Suspends. */
void vv_conns_close(struct vv_conns *conns);

/* ---- a connection ---- */

struct vv_conn {
    struct vv_list node; /* in conns->conns */
    struct vv_list memory_node;
    struct vv_conns *conns;
    struct vv_stream *stream;
    uint64_t number; /* for log lines */
    bool is_broken;  /* nothing more can be sent */
    unsigned request_count; /* not answered, or the answer not sent */
    size_t charged;         /* for these */
    struct vv_waitq room;   /* fewer requests are under way */
    struct vv_list outgoing; /* answered, to be sent, in this order */
    bool is_sending;
    /* When the slice began that is being received or sent; 0 = none is. */
    uint64_t recv_since_ns, send_since_ns;
    uint8_t *recv_bytes; /* what has come but was not looked at is */
    size_t recv_at;      /* from here */
    size_t recv_end;     /* to here */
    size_t recv_size;
    unsigned bulk_left; /* requests before which little is read ahead */
};

/* At least `len` bytes (at most VV_CONN_FIRST_BYTES) read ahead. Suspends. 1; 0 = the stream has
 * ended; -ETIMEDOUT, errors of vv_stream_recv. */
MUST_CHECK int vv_conn_fill(struct vv_conn *conn, size_t len, uint64_t deadline_ns);
/* The same for the first bytes of a request, which may be long in coming. The answers that are about
 * to be ready go first: they are what the client waits for. */
MUST_CHECK int vv_conn_next(struct vv_conn *conn, size_t len);
/* Exactly `len` bytes into out (NULL: thrown away), slice by slice, each in its time. As
 * vv_conn_fill. */
MUST_CHECK int vv_conn_take(struct vv_conn *conn, void *out, size_t len, uint64_t deadline_ns);
/* The same into all pieces of a payload. No more is read ahead of the next requests than their first bytes: it would have to be
 * copied. */
MUST_CHECK int vv_conn_take_payload(struct vv_conn *conn, const struct vv_payload *payload,
                                    uint64_t deadline_ns);
static inline size_t vv_conn_ahead_len(const struct vv_conn *conn)
{
    return conn->recv_end - conn->recv_at;
}
static inline const uint8_t *vv_conn_ahead(const struct vv_conn *conn)
{
    return conn->recv_bytes + conn->recv_at;
}
/* `len` of the bytes read ahead have been looked at. */
static inline void vv_conn_skip(struct vv_conn *conn, size_t len)
{
    conn->recv_at += len;
}
/* When a slice that begins now must be there. */
uint64_t vv_conn_deadline(const struct vv_conn *conn);
/* Give up on it: whoever waits for it gets an error. Does not suspend. */
void vv_conn_break(struct vv_conn *conn);
/* Wait until no more than `left` requests are under way. Suspends. */
void vv_conn_wait_idle(struct vv_conn *conn, unsigned left);

/* ---- requests ---- */

/* What a connection holds for a request; a protocol's job begins with it. */
struct vv_job {
    struct vv_list node; /* in conn->outgoing */
    struct vv_conn *conn;
    struct vv_budget *budget;
    size_t charge;
    /* The answer. */
    struct iovec *iov; /* few_iov, or more */
    unsigned iov_count;
    struct iovec few_iov[3];
};

/* A request of `bytes` beside its fiber begins: waits for the connection's and the doors' room.
 * Suspends. -VV_ERR_STOPPED: the connection is broken; then the job is the caller's as before. */
MUST_CHECK int vv_job_begin(struct vv_job *job, struct vv_conn *conn, size_t bytes);
/* It holds no more than this any longer. */
void vv_job_discharge(struct vv_job *job, size_t kept);
/* The answer has up to `count` pieces, more than few_iov holds (at most VV_CONN_SEND_IOV). -ENOMEM. */
MUST_CHECK int vv_job_room(struct vv_job *job, unsigned count);
/* A piece of the answer, in order. Length 0 is left out. */
void vv_job_piece(struct vv_job *job, const void *bytes, size_t len);
/* The answer is complete; the job, which ends with it, holds `kept` bytes until it is sent. Suspends. */
void vv_job_answer(struct vv_job *job, size_t kept);
/* It ends without an answer. Does not suspend. */
void vv_job_end(struct vv_job *job);

#endif
