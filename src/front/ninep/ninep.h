/* The 9P door: 9P2000.L over TCP or a unix socket (Linux v9fs, QEMU, diod's clients).
 *
 * One fiber reads each connection and starts a fiber for each request; replies leave in the order
 * in which they are ready. Closing a connection drops its fids, handles and locks. What comes in is
 * hostile until decoded: a message that makes no sense is answered with Rlerror, or ends its
 * connection when the stream can't be trusted any more; other connections never notice.
 *
 * Who a request comes from: Tattach names a uid (n_uname) for everything under its fid, so v9fs
 * works with access=user and access=client. Groups come from the host's user database. TCP clients
 * and privileged peers of a unix socket are believed; other peers of a unix socket can only attach
 * as themselves.
 *
 * What 9P cannot express here: appends are placed by the client (O_APPEND of Tlopen is not used).
 * A blocking lock is answered when it is granted, or its Tlock is flushed; only where too many wait
 * is it answered "blocked", for the client to ask again.
 *
 * Memory: front/conn/conn.h. Limits: below; at each one, reading stops or the request fails as said. All calls: from a fiber,
 * on one reactor. */
#ifndef VV_FRONT_NINEP_NINEP_H
#define VV_FRONT_NINEP_NINEP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "front/conn/conn.h"
#include "fs/fs.h"

#define VV_NINEP_CONNECTIONS_MAX 1024   /* more are closed at once */
#define VV_NINEP_REQUESTS_MAX 256       /* of a connection at once, then it is not read */
#define VV_NINEP_FIDS_MAX (256u << 10)  /* of a connection, then EMFILE */
#define VV_NINEP_FID_LOCK_OWNERS_MAX 64 /* who lock through one fid, then ENOLCK */
#define VV_NINEP_LOCK_WAITERS_MAX 64    /* of a connection at once, then "blocked" */
#define VV_NINEP_RECV_MAX_S 120         /* for 256 KiB of a message to come */
#define VV_NINEP_SEND_MAX_S 300         /* a client that takes nothing for so long is cut off */

struct vv_ninep_options {
    const char *address; /* as vv_socket_listen */
    unsigned door;       /* see vv_fs_watch */
    uint32_t msize_max;  /* bytes of a message; 0 = VV_NINEP_MSIZE_MAX (codec.h) */
    bool is_read_only;   /* changes are -EROFS */
    struct vv_conn_memory *memory; /* for requests and replies, borrowed; NULL = one of its own */
};

struct vv_ninep;

/* Listen and begin to serve. Errors of vv_socket_listen; -ENOMEM. */
MUST_CHECK int vv_ninep_listen(struct vv_fs *fs, const struct vv_ninep_options *options,
                               struct vv_ninep **out_ninep);
/* Close the listener and all connections; return when no fiber of it runs any more. Suspends. NULL
 * is fine. */
void vv_ninep_close(struct vv_ninep *ninep);
/* The TCP port listened on (0 for unix sockets). */
unsigned vv_ninep_port(const struct vv_ninep *ninep);

struct vv_ninep_stats {
    uint64_t requests, errors; /* answered; of those, with Rlerror */
    uint64_t read_bytes, write_bytes;
    uint64_t connections_total, connections_refused, protocol_errors;
    unsigned connections, fids;
};
void vv_ninep_stats(const struct vv_ninep *ninep, struct vv_ninep_stats *out_stats);

#endif
