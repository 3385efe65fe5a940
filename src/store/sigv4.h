/* AWS Signature Version 4: signing requests, and checking those of others.
 *
 * Pure computation over borrowed text, for both sides: the s3 store signs with it, an S3 server
 * takes a request apart with vv_sigv4_parse_header or _query and compares with vv_sigv4_verify.
 * Paths and queries are given as they stand on the wire (percent-encoded); both sides bring them
 * into the canonical form by decoding and encoding again, so that it does not matter which of the
 * allowed characters a client chose to encode. What comes from outside is bounded: texts past
 * VV_SIGV4_TEXT_MAX and more than VV_SIGV4_ITEMS_MAX headers or parameters are -E2BIG.
 *
 * Any thread; nothing suspends; no state but what the caller holds.
 * Source: Amazon S3 API reference, "Authenticating requests (AWS Signature Version 4)". */
#ifndef VV_STORE_SIGV4_H
#define VV_STORE_SIGV4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"

#define VV_SIGV4_TEXT_MAX 16384 /* bytes of a path, of a query, or of a header's value */
#define VV_SIGV4_ITEMS_MAX 128  /* headers, or parameters, of a request */
#define VV_SIGV4_HEX_LEN 64     /* of a hash or signature, without the NUL */
#define VV_SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"

/* Where and when a signature holds. */
struct vv_sigv4_scope {
    char time[17];   /* YYYYMMDDTHHMMSSZ */
    char region[64]; /* "us-east-1" */
    char service[32];
    bool is_google; /* the same algorithm with Google's words: GOOG4-HMAC-SHA256, goog4_request */
};

struct vv_sigv4_header {
    const char *name; /* lower case */
    const char *value;
};

struct vv_sigv4_request {
    const char *method;
    const char *path;  /* from the slash, percent-encoded */
    const char *query; /* without "?"; "" when there is none */
    const struct vv_sigv4_header *headers; /* those to sign, in any order; two of one name: -EINVAL */
    size_t header_count;
    const char *payload_hash; /* lower-case hex, or one of the words such as VV_SIGV4_UNSIGNED */
};

/* The last signing key made, for a caller that signs much with one secret. Zero-initialise;
 * vv_sigv4_cache_done wipes it. */
struct vv_sigv4_cache {
    char date[9];
    char region[64];
    char service[32];
    bool is_google;
    uint8_t secret_hash[32];
    uint8_t key[32];
    bool is_set;
};
void vv_sigv4_cache_done(struct vv_sigv4_cache *cache);

/* Fill in the time of a scope. */
void vv_sigv4_time(time_t now, char out[17]);
/* Hex SHA-256 of the buffers. -ENOMEM. */
MUST_CHECK int vv_sigv4_hash(const struct iovec *iov, int count, char out[VV_SIGV4_HEX_LEN + 1]);
/* Append `text`, percent-encoded: all but A-Z a-z 0-9 - . _ ~ and, if is_path, "/". */
void vv_sigv4_encode(struct vv_writer *writer, const char *text, bool is_path);

/* Append the canonical request. A parameter X-Amz-Signature is left out. -E2BIG, -EINVAL (bad
 * percent-encoding, headers twice), -ENOMEM. */
MUST_CHECK int vv_sigv4_canonical(const struct vv_sigv4_request *request, struct vv_writer *out);
/* The key for a secret and a scope's day. `cache` may be NULL. -ENOMEM, -E2BIG. */
MUST_CHECK int vv_sigv4_key(struct vv_sigv4_cache *cache, const char *secret,
                            const struct vv_sigv4_scope *scope, uint8_t out_key[32]);
/* The signature of a request, in hex. As the two above. */
MUST_CHECK int vv_sigv4_sign(struct vv_sigv4_cache *cache, const char *secret,
                             const struct vv_sigv4_scope *scope,
                             const struct vv_sigv4_request *request,
                             char out[VV_SIGV4_HEX_LEN + 1]);
/* Append the value of an Authorization header. As above. */
MUST_CHECK int vv_sigv4_authorize(struct vv_sigv4_cache *cache, const char *access_key,
                                  const char *secret, const struct vv_sigv4_scope *scope,
                                  const struct vv_sigv4_request *request, struct vv_writer *out);

/* What a request says about its own signature; texts are copies. */
struct vv_sigv4_claim {
    char access_key[129];
    struct vv_sigv4_scope scope; /* of a header: time is only the day, then zeros; see x-amz-date */
    char signed_headers[1025];   /* lower case, ";" between */
    char signature[VV_SIGV4_HEX_LEN + 1];
    uint32_t expires_s; /* of a presigned URL, else 0 */
};
/* From an Authorization header's value and the value of x-amz-date. -EINVAL. */
MUST_CHECK int vv_sigv4_parse_header(const char *authorization, const char *amz_date,
                                     struct vv_sigv4_claim *out_claim);
/* From the query of a presigned URL. -EINVAL, -E2BIG, -ENOENT when it is not presigned. */
MUST_CHECK int vv_sigv4_parse_query(const char *query, struct vv_sigv4_claim *out_claim);
/* Whether `name` (lower case) is among the claim's signed headers. */
bool vv_sigv4_is_signed(const struct vv_sigv4_claim *claim, const char *name);
/* Does the claim's signature fit the request, whose headers are those that the claim names? Takes
 * the same time wherever the signatures differ. -EACCES when it does not; otherwise as sign. */
MUST_CHECK int vv_sigv4_verify(struct vv_sigv4_cache *cache, const char *secret,
                               const struct vv_sigv4_claim *claim,
                               const struct vv_sigv4_request *request);

#endif
