/* What the parts of the s3 store share. Private to store. */
#ifndef VV_STORE_S3_IMPL_H
#define VV_STORE_S3_IMPL_H

#include "base/bytes.h"
#include "store/s3.h"
#include "store/s3_http_impl.h"
#include "store/sigv4.h"

#define VV_S3_LIST_BYTES_MAX (4u << 20) /* of one page */
#define VV_S3_PAGES_MAX 10000           /* of one list call: foreign keys may fill pages */

/* ---- what a server says (s3_xml.c) ---- */

struct vv_s3_message {
    char code[64]; /* "NoSuchKey"; "" when there was none */
    char text[256];
    char region[64];
};
/* Read an <Error> document; anything else gives empty texts. */
void vv_s3_parse_error(const char *text, size_t len, struct vv_s3_message *out_message);

struct vv_s3_key {
    char *name; /* the whole key */
    uint64_t size;
};
struct vv_s3_page {
    struct vv_s3_key keys[VV_STORE_LIST_MAX];
    size_t count;
    bool is_truncated;
    char *token; /* of the next page; NULL when there is none */
};
/* Read a ListBucketResult. -VV_ERR_FORMAT (no such document, a DOCTYPE, more than VV_STORE_LIST_MAX
 * keys), -ENOMEM. *out_page is zeroed or valid; vv_s3_page_done in any case. */
MUST_CHECK int vv_s3_parse_page(const char *text, size_t len, struct vv_s3_page *out_page);
void vv_s3_page_done(struct vv_s3_page *page);

/* The text of the first element called `name` anywhere in a document. -ENOENT, -EFBIG,
 * -VV_ERR_FORMAT, -ENOMEM. */
MUST_CHECK int vv_s3_xml_find(const char *text, size_t len, const char *name, char *out,
                              size_t size);

/* ---- what it means (s3_error.c) ---- */

enum vv_s3_kind { VV_S3_PUT, VV_S3_GET, VV_S3_HEAD, VV_S3_LIST, VV_S3_DELETE };
/* The error for an answer other than 2xx; is_sent as in vv_http_request. */
int vv_s3_error_of_answer(enum vv_s3_kind kind, unsigned status, const char *code);
/* The error for a request without an answer. */
int vv_s3_error_of_transport(enum vv_s3_kind kind, int err, bool is_sent);
/* Is this how a server says that the keys have expired? */
bool vv_s3_is_expired(unsigned status, const char *code);
const char *vv_s3_kind_name(enum vv_s3_kind kind);

/* ---- requests (s3_request.c) ---- */

struct vv_s3 {
    struct vv_store store;
    struct vv_http *http;
    struct vv_s3_credentials *credentials;
    char *bucket;
    char *prefix;
    char *region;
    char *storage_class;
    char *headers[VV_S3_HEADERS_MAX];
    size_t header_count;
    char *base; /* scheme://host[:port] of requests */
    char *host; /* what the Host header says */
    char *root; /* "" or "/bucket": what stands before the key in the path */
    enum vv_s3_checksum checksum;
    bool is_google; /* the dialect */
    bool is_signing_payload;
    struct vv_sigv4_cache cache;
    int64_t clock_ahead_s;   /* how far the server's clock is ahead of ours */
    uint64_t slow_until_ns;  /* the server asked to be left alone until then */
    char logged_code[64];    /* the failure logged last */
    uint64_t logged_ns;
};

/* One request to the bucket. */
struct vv_s3_request {
    enum vv_s3_kind kind;
    const char *name;  /* of an object; NULL: the bucket itself */
    const char *query; /* percent-encoded, without "?" */
    const char *range; /* value of the header; NULL: none */
    const struct iovec *body;
    int body_count;
    uint8_t *sink;
    size_t sink_len;
    struct vv_http_request http; /* answer; vv_http_request_done is the caller's */
};

/* Send it, and again when the server wants other credentials or another time. Suspends. 0 when the
 * answer is 2xx; else the error, which was logged if a person should know. */
MUST_CHECK int vv_s3_perform(struct vv_s3 *s3, struct vv_s3_request *request);

/* Split an endpoint and make base, host and root of it. -EINVAL, -ENOMEM. */
MUST_CHECK int vv_s3_set_endpoint(struct vv_s3 *s3, const char *endpoint, bool is_virtual_hosted);

#endif
