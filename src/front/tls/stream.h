/* A byte stream to a client: a socket, or TLS over one.
 *
 * Owns the socket. TLS is OpenSSL's, fed through memory buffers, so that only fibers wait and no
 * thread does; the handshake's arithmetic runs on a worker, sealing and opening records on the
 * reactor, which others get in between (VV_STREAM_SLICE_BYTES at a time). One fiber receives and one
 * sends at a time; they may be two. TLS 1.2 and newer, no renegotiation, no compression. All calls:
 * from a fiber, on one reactor. */
#ifndef VV_FRONT_TLS_STREAM_H
#define VV_FRONT_TLS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "rt/rt.h"

#define VV_STREAM_SLICE_BYTES (64u << 10) /* sealed or opened in one go */
#define VV_TLS_PSK_MAX 1024               /* keys of a PSK file */
#define VV_TLS_PSK_IDENTITY_MAX 127       /* bytes of an identity */
#define VV_TLS_PSK_KEY_MAX 64             /* bytes of a key */

/* ---- what a server proves itself with ---- */

struct vv_tls_options {
    const char *cert_file; /* PEM, the server's certificate first; NULL = PSK only */
    const char *key_file;  /* PEM; NULL = in cert_file */
    const char *ca_file;   /* PEM: clients must have a certificate of one of these; NULL = any */
    const char *psk_file;  /* lines "identity:hex of the key", as psktool writes; NULL = none */
};

struct vv_tls;

/* Reads the files (suspends). -EINVAL: they make no sense, or nothing was given; -errno. What is
 * wrong has been logged. */
MUST_CHECK int vv_tls_new(const struct vv_tls_options *options, struct vv_tls **out_tls);
/* No stream may use it any more. NULL is fine. */
void vv_tls_free(struct vv_tls *tls);

/* ---- streams ---- */

struct vv_stream;

/* Takes the socket over, whatever is returned. -ENOMEM. */
MUST_CHECK int vv_stream_new(struct vv_socket *socket, struct vv_stream **out_stream);
/* The server's side of the handshake; everything after it is sealed. Nobody else may use the stream
 * meanwhile. Suspends. -EPROTO (also: the client's certificate or key is not one of ours),
 * -ETIMEDOUT, -ENOMEM, errors of the socket; then the stream is good for nothing but closing. */
MUST_CHECK int vv_stream_start_tls(struct vv_stream *stream, struct vv_tls *tls,
                                   uint64_t deadline_ns);
bool vv_stream_is_tls(const struct vv_stream *stream);
/* At least 1 byte, 0 at the end of the stream. Suspends. -EPROTO: a record that makes no sense, or
 * TLS cut off without its closing record. Else as vv_socket_recv. */
MUST_CHECK ssize_t vv_stream_recv(struct vv_stream *stream, void *buf, size_t len,
                                  uint64_t deadline_ns);
/* The same into several pieces, one after another. */
MUST_CHECK ssize_t vv_stream_recv_iov(struct vv_stream *stream, struct iovec *iov, int count,
                                      uint64_t deadline_ns);
/* All of it or an error. `iov` is changed. Suspends. Errors as vv_socket_send, -EPROTO, -ENOMEM. */
MUST_CHECK int vv_stream_send(struct vv_stream *stream, struct iovec *iov, int count,
                              uint64_t deadline_ns);
/* As vv_socket_shutdown. */
void vv_stream_shutdown(struct vv_stream *stream);
/* Says goodbye, if TLS, as far as that goes without waiting long. Suspends. NULL is fine. */
void vv_stream_close(struct vv_stream *stream);
struct vv_socket *vv_stream_socket(const struct vv_stream *stream);

#endif
