/* The NBD door: files below /.nbd/ of the tree as block devices (Linux nbd, QEMU, libnbd).
 *
 * Each regular file in the directory /.nbd is an export of its name; its size is the device's. The
 * file may be made, resized and removed through any door, or by the functions of device.h. A file
 * that nobody may write (mode & 0222 = 0) is a read-only export. The empty name is the only device,
 * when there is just one.
 *
 * One fiber reads each connection and starts a fiber for each request; replies leave in the order
 * in which they are ready. A write is one operation of the volume (VV_NBD_ATOMIC_BYTES; longer ones
 * are several), visible to every door when it is answered; FLUSH and FUA return when a commit that
 * holds it, and everything before it on whichever connection, is durable. TRIM and WRITE_ZEROES
 * write one tombstone, whatever their length.
 *
 * Who may connect may use every device: the listener's address and TLS decide who that is. What
 * comes in is hostile until decoded: what makes no sense is answered with an error, or ends its
 * connection when the stream can't be trusted any more; other connections never notice.
 *
 * Memory: front/conn/conn.h.
 *
 * What NBD cannot express here: docs/contract.md. Limits: below; at each one, reading stops or the
 * request fails as said. All calls: from a fiber, on one reactor. */
#ifndef VV_FRONT_NBD_NBD_H
#define VV_FRONT_NBD_NBD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "front/conn/conn.h"
#include "front/tls/stream.h"
#include "fs/fs.h"

#define VV_NBD_CONNECTIONS_MAX 1024      /* more are closed at once */
#define VV_NBD_REQUESTS_MAX 256          /* of a connection at once, then it is not read */
#define VV_NBD_PAYLOAD_MAX (32u << 20)   /* bytes of a READ or WRITE, if memory allows: then EINVAL */
#define VV_NBD_PAYLOAD_MIN (1u << 20)    /* ... and at least, whatever the memory */
#define VV_NBD_OPTION_BYTES_MAX (64u << 10) /* data of an option: longer ones are ERR_TOO_BIG */
#define VV_NBD_OPTION_SKIP_MAX (1u << 20)   /* ... and beyond this the connection is closed */
#define VV_NBD_OPTIONS_MAX 1024          /* of a connection, then it is closed */
#define VV_NBD_EXTENTS_MAX 1024          /* descriptors of one BLOCK_STATUS; the client asks on */
#define VV_NBD_NEGOTIATION_MAX_S 30      /* from connecting to transmission */
#define VV_NBD_STALL_MAX_S 120           /* for 256 KiB of a request or of replies to get through */

struct vv_nbd_options {
    unsigned door; /* see vv_fs_watch */
    bool is_read_only;
    struct vv_conn_memory *memory; /* for requests and replies, borrowed; NULL = one of its own */
    struct vv_tls *tls;    /* borrowed; NULL = no TLS */
    bool is_tls_required;
};

struct vv_nbd;

/* -ENOMEM. */
MUST_CHECK int vv_nbd_new(struct vv_fs *fs, const struct vv_nbd_options *options,
                          struct vv_nbd **out_nbd);
/* Listen on one more address and begin to serve. *out_port (may be NULL): the TCP port, 0 for unix
 * sockets. Errors of vv_socket_listen; -ENOMEM. */
MUST_CHECK int vv_nbd_listen(struct vv_nbd *nbd, const char *address, unsigned *out_port);
/* Close the listeners and all connections, let requests under way end; return when no fiber of it
 * runs any more. Suspends. NULL is fine. */
void vv_nbd_close(struct vv_nbd *nbd);
/* How many connections use the device that is this inode. */
unsigned vv_nbd_users(const struct vv_nbd *nbd, uint64_t inode);

struct vv_nbd_stats {
    uint64_t requests, errors; /* answered; of those, with an error */
    uint64_t read_bytes, write_bytes;
    uint64_t connections_total, connections_refused, connections_cut, protocol_errors;
    unsigned connections;
    uint64_t memory_bytes; /* of the budget, now */
};
void vv_nbd_stats(const struct vv_nbd *nbd, struct vv_nbd_stats *out_stats);

#endif
