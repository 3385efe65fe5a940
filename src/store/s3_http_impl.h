/* An HTTP client: libcurl on a thread of its own. Private to store.
 *
 * A fiber fills in a request, calls vv_http_perform, and is suspended until the answer is there;
 * meanwhile the request and the buffers that it names belong to the client's thread. The thread
 * runs up to `connections` transfers at a time over connections that it keeps; others wait, small
 * ones before large ones. It sleeps without a timer when nothing is under way.
 *
 * What a server sends is bounded: header lines by VV_HTTP_HEADER_BYTES_MAX together, a body by the
 * request's buffer or text_max. Redirects are not followed, and only http and https are spoken. */
#ifndef VV_STORE_S3_HTTP_IMPL_H
#define VV_STORE_S3_HTTP_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"
#include "rt/rt.h"

#define VV_HTTP_CONNECTIONS_MAX 256
#define VV_HTTP_HEADERS_MAX 40                 /* lines of a request */
#define VV_HTTP_HEADER_BYTES_MAX (64u << 10)   /* of an answer */
#define VV_HTTP_TEXT_MAX (8u << 20)            /* of a body that is not given a buffer */
#define VV_HTTP_SMALL_BYTES (256u << 10)       /* requests up to this overtake larger ones */
#define VV_HTTP_RATE_MIN (64u << 10)           /* bytes/s below which a transfer may time out */
#define VV_HTTP_UNKNOWN UINT64_MAX

struct vv_http;

struct vv_http_options {
    const char *ca_file; /* PEM; NULL: the system's */
    unsigned connections;
    uint64_t timeout_ms;         /* without a byte in either direction; at least a second */
    uint64_t connect_timeout_ms; /* to connect, TLS included */
    bool is_direct;              /* no proxy, whatever the environment says */
};

/* What the server said. */
struct vv_http_answer {
    unsigned status;       /* 0: nothing was understood */
    uint64_t length;       /* Content-Length, VV_HTTP_UNKNOWN */
    bool has_range;        /* Content-Range was there and made sense: */
    uint64_t range_first;  /* ... the first byte, */
    uint64_t range_last;   /* ... the last, */
    uint64_t range_total;  /* ... and of how many, VV_HTTP_UNKNOWN */
    uint64_t retry_after_s; /* 0: not said */
    int64_t date_s;         /* the server's clock; 0: not said */
    char region[64];        /* x-amz-bucket-region */
    char request_id[96];
    size_t sunk;       /* bytes in the request's buffer */
    bool is_overlong;  /* there were more; they were not read */
    char *text;        /* the body of other answers, NUL-ended; never NULL */
    size_t text_len;
};

struct vv_http_request {
    const char *method; /* GET, HEAD, PUT, POST, DELETE */
    const char *url;
    const char *headers[VV_HTTP_HEADERS_MAX]; /* "Name: value" */
    size_t header_count;
    const struct iovec *body; /* of PUT and POST */
    int body_count;
    uint8_t *sink; /* for the body of an answer 200 or 206; NULL: it is text */
    size_t sink_len;
    size_t text_max; /* 0: VV_HTTP_TEXT_MAX */

    struct vv_http_answer answer;
    bool is_sent;    /* the server may have had all of the request, perhaps of an earlier try */
    char error[256]; /* what went wrong, for a log line */

    /* the client's own */
    struct vv_list node;
    struct vv_http *http;
    struct vv_reactor *reactor;
    struct vv_post post;
    struct vv_waitq done;
    bool is_done;
    int result;
    void *easy;
    void *lines;
    uint64_t body_bytes;
    int body_index;
    size_t body_skip;
    uint64_t body_sent;
    size_t header_bytes;
    size_t text_room;
    bool is_refused; /* the answer broke a bound: -EFBIG, or no memory: -ENOMEM */
    int refusal;
};

/* -ENOMEM, -EAGAIN (no thread). */
MUST_CHECK int vv_http_open(const struct vv_http_options *options, struct vv_http **out_http);
/* No request may be under way. NULL is fine. */
void vv_http_close(struct vv_http *http);
/* Suspends. 0: there is an answer, whatever its status. -ETIMEDOUT, -ECONNREFUSED and -EHOSTUNREACH
 * (no connection was made), -EPROTO (TLS, or no HTTP), -EFBIG (an answer past its bound), -EIO
 * (anything else), -ENOMEM. */
MUST_CHECK int vv_http_perform(struct vv_http *http, struct vv_http_request *request);
/* Free the answer's text. */
void vv_http_request_done(struct vv_http_request *request);
/* Connections made so far. */
uint64_t vv_http_connects(const struct vv_http *http);

/* Take one header line of an answer. Lines that make no sense change nothing. */
void vv_http_parse_header(struct vv_http_answer *answer, const char *line, size_t len);

#endif
