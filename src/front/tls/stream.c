/* Streams: sockets, and TLS between two memory buffers over sockets. */
#include "front/tls/stream.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "front/tls/tls_impl.h"

#define RECV_BYTES (32u << 10)    /* sealed bytes taken from the socket at once */
#define GOODBYE_MAX_NS VV_NS_PER_S /* for the closing record */

struct vv_stream {
    struct vv_socket *socket;
    SSL *ssl;        /* NULL = plain */
    BIO *in, *out;   /* sealed bytes: received, and to be sent; `ssl` owns them */
    uint8_t *sealed; /* RECV_BYTES */
    bool is_flushing;
    struct vv_waitq flushed;
};

int vv_stream_new(struct vv_socket *socket, struct vv_stream **out_stream)
{
    struct vv_stream *stream = vv_zalloc(sizeof(*stream));
    if (!stream) {
        vv_socket_close(socket);
        return -ENOMEM;
    }
    stream->socket = socket;
    vv_waitq_init(&stream->flushed);
    *out_stream = stream;
    return 0;
}

bool vv_stream_is_tls(const struct vv_stream *stream)
{
    return stream->ssl != NULL;
}

struct vv_socket *vv_stream_socket(const struct vv_stream *stream)
{
    return stream->socket;
}

void vv_stream_shutdown(struct vv_stream *stream)
{
    vv_socket_shutdown(stream->socket);
}

/* ---- TLS ---- */

/* Send all sealed bytes there are. Receiving may have some, too, so two fibers may be here. */
static int flush(struct vv_stream *stream, uint64_t deadline_ns)
{
    int err = 0;
    while (stream->is_flushing && err == 0)
        err = vv_waitq_wait(&stream->flushed, deadline_ns);
    TRY(err);
    stream->is_flushing = true;
    uint8_t *bytes;
    long len;
    while (err == 0 && (len = BIO_get_mem_data(stream->out, &bytes)) > 0) {
        /* While this is sent, more may be sealed, which may move the bytes: take them out. */
        uint8_t *copy = vv_alloc((size_t)len);
        if (!copy) {
            err = -ENOMEM;
            break;
        }
        int taken = BIO_read(stream->out, copy, (int)len);
        assert(taken == len);
        struct iovec iov = {copy, (size_t)len};
        err = vv_socket_send(stream->socket, &iov, 1, deadline_ns);
        vv_free(copy);
    }
    stream->is_flushing = false;
    vv_waitq_wake_one(&stream->flushed);
    return err;
}

static bool has_output(const struct vv_stream *stream)
{
    return BIO_ctrl_pending(stream->out) > 0;
}

/* More sealed bytes from the socket: how many, 0 at the end. */
static ssize_t feed(struct vv_stream *stream, uint64_t deadline_ns)
{
    ssize_t got = vv_socket_recv(stream->socket, stream->sealed, RECV_BYTES, deadline_ns);
    if (got > 0 && BIO_write(stream->in, stream->sealed, (int)got) != got)
        return -ENOMEM;
    return got;
}

struct step {
    SSL *ssl;
    int result;
    int error;
    char text[256];
};

/* On a worker: nobody else touches the stream meanwhile. */
static void handshake_step(void *arg)
{
    struct step *step = arg;
    ERR_clear_error();
    step->result = SSL_do_handshake(step->ssl);
    step->error = SSL_get_error(step->ssl, step->result);
    if (step->result != 1 && step->error != SSL_ERROR_WANT_READ)
        vv_tls_error_text(step->text, sizeof(step->text));
}

static int shake_hands(struct vv_stream *stream, uint64_t deadline_ns)
{
    for (;;) {
        struct step step = {.ssl = stream->ssl};
        vv_rt_offload(handshake_step, &step);
        /* An alert tells the client why. */
        int err = has_output(stream) ? flush(stream, deadline_ns) : 0;
        if (step.result == 1 && err == 0)
            return 0;
        TRY(err);
        if (step.error != SSL_ERROR_WANT_READ) {
            vv_debug("tls", "handshake: %s", step.text);
            return -EPROTO;
        }
        ssize_t got = feed(stream, deadline_ns);
        TRY(got);
        if (got == 0)
            return -EPROTO;
    }
}

int vv_stream_start_tls(struct vv_stream *stream, struct vv_tls *tls, uint64_t deadline_ns)
{
    assert(!stream->ssl);
    stream->sealed = vv_alloc(RECV_BYTES);
    stream->in = BIO_new(BIO_s_mem());
    stream->out = BIO_new(BIO_s_mem());
    SSL *ssl = SSL_new(tls->context);
    if (!stream->sealed || !stream->in || !stream->out || !ssl) {
        BIO_free(stream->in);
        BIO_free(stream->out);
        SSL_free(ssl);
        return -ENOMEM;
    }
    /* "No bytes" is "not yet", not "the end". */
    BIO_set_mem_eof_return(stream->in, -1);
    SSL_set_bio(ssl, stream->in, stream->out);
    SSL_set_accept_state(ssl);
    stream->ssl = ssl;
    return shake_hands(stream, deadline_ns);
}

static int protocol_error(const char *what)
{
    char text[256];
    vv_tls_error_text(text, sizeof(text));
    vv_debug("tls", "%s: %s", what, text);
    return -EPROTO;
}

static ssize_t recv_tls(struct vv_stream *stream, void *buf, size_t len, uint64_t deadline_ns)
{
    for (;;) {
        size_t got = 0;
        ERR_clear_error();
        int result = SSL_read_ex(stream->ssl, buf, len < INT32_MAX ? len : INT32_MAX, &got);
        if (result == 1)
            return (ssize_t)got;
        int error = SSL_get_error(stream->ssl, result);
        if (error == SSL_ERROR_ZERO_RETURN)
            return 0;
        if (error != SSL_ERROR_WANT_READ)
            return protocol_error("receiving");
        if (has_output(stream))
            TRY(flush(stream, deadline_ns)); /* an answer to a change of keys */
        ssize_t fed = feed(stream, deadline_ns);
        TRY(fed);
        if (fed == 0)
            return -EPROTO; /* cut off: perhaps not by the client */
    }
}

ssize_t vv_stream_recv(struct vv_stream *stream, void *buf, size_t len, uint64_t deadline_ns)
{
    if (!stream->ssl)
        return vv_socket_recv(stream->socket, buf, len, deadline_ns);
    return recv_tls(stream, buf, len, deadline_ns);
}

ssize_t vv_stream_recv_iov(struct vv_stream *stream, struct iovec *iov, int count,
                           uint64_t deadline_ns)
{
    if (!stream->ssl)
        return vv_socket_recv_iov(stream->socket, iov, count, deadline_ns);
    return recv_tls(stream, iov->iov_base, iov->iov_len, deadline_ns);
}

static int send_tls(struct vv_stream *stream, const struct iovec *iov, int count,
                    uint64_t deadline_ns)
{
    size_t sealed = 0;
    for (int i = 0; i < count; i++) {
        const uint8_t *bytes = iov[i].iov_base;
        size_t left = iov[i].iov_len;
        while (left > 0) {
            size_t len = left < VV_STREAM_SLICE_BYTES ? left : VV_STREAM_SLICE_BYTES;
            size_t written = 0;
            ERR_clear_error();
            if (SSL_write_ex(stream->ssl, bytes, len, &written) != 1 || written != len)
                return protocol_error("sending");
            bytes += len;
            left -= len;
            sealed += len;
            if (sealed >= VV_STREAM_SLICE_BYTES) {
                sealed = 0;
                TRY(flush(stream, deadline_ns));
                vv_fiber_yield();
            }
        }
    }
    return flush(stream, deadline_ns);
}

int vv_stream_send(struct vv_stream *stream, struct iovec *iov, int count, uint64_t deadline_ns)
{
    if (!stream->ssl)
        return vv_socket_send(stream->socket, iov, count, deadline_ns);
    return send_tls(stream, iov, count, deadline_ns);
}

void vv_stream_close(struct vv_stream *stream)
{
    if (!stream)
        return;
    if (stream->ssl) {
        ERR_clear_error();
        if (SSL_is_init_finished(stream->ssl) && SSL_shutdown(stream->ssl) >= 0 &&
            flush(stream, vv_rt_now_ns() + GOODBYE_MAX_NS) < 0)
            vv_debug("tls", "a client went without a goodbye");
        ERR_clear_error();
    }
    SSL_free(stream->ssl);
    vv_free(stream->sealed);
    vv_socket_close(stream->socket);
    vv_free(stream);
}
