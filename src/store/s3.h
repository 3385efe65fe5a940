/* The s3 store: objects in a bucket of any server that speaks the S3 protocol.
 *
 * put is a PUT with `If-None-Match: *`, get a GET with a range, size a HEAD, list ListObjectsV2.
 * The object `name` of the store is the key PREFIX/name. Requests are signed here (sigv4.h) and
 * sent by a thread of the store's own (s3_http_impl.h), up to `connections` at a time.
 *
 * What a failure means for a put (PROTOCOL rule 1): 412 = -EEXIST; 409, a time-out, a broken
 * connection or a 5xx once the server may have had the whole request = -VV_ERR_UNKNOWN; anything
 * else = it did not take effect. Throttling (429, SlowDown) is -EAGAIN and other passing failures
 * are -EIO or -ETIMEDOUT, for the retry wrapper; a server's Retry-After is kept by all requests.
 * 403 is -EACCES, a missing bucket -VV_ERR_NO_BUCKET, a full one -ENOSPC. What a server says about
 * a failure is logged, each kind of failure once a minute at most. Real runtime only. */
#ifndef VV_STORE_S3_H
#define VV_STORE_S3_H

#include "store/s3_credentials.h"
#include "store/store.h"

#define VV_S3_HEADERS_MAX 16
#define VV_S3_PREFIX_MAX 512
#define VV_S3_CONNECTIONS_DEFAULT 64
#define VV_S3_TIMEOUT_DEFAULT_MS 30000

/* Google Cloud Storage speaks S3 but for its conditions, and takes those only beside words of its own:
 * x-goog-if-generation-match, x-goog-date, GOOG4-HMAC-SHA256, ... */
enum vv_s3_dialect { VV_S3_DIALECT_AWS, VV_S3_DIALECT_GOOGLE };

enum vv_s3_checksum {
    VV_S3_CHECKSUM_CRC32C, /* x-amz-checksum-crc32c */
    VV_S3_CHECKSUM_MD5,    /* Content-MD5, for servers that want it */
    VV_S3_CHECKSUM_NONE,
};

struct vv_s3_options {
    const char *bucket;
    const char *prefix;   /* "": names are keys; no slash at its ends */
    const char *endpoint; /* http[s]://HOST[:PORT] */
    const char *region;
    bool is_virtual_hosted; /* BUCKET.HOST instead of HOST/BUCKET */
    const char *ca_file;    /* NULL: the system's certificates */
    const char *storage_class; /* of new objects; NULL: the bucket's default */
    const char *headers[VV_S3_HEADERS_MAX]; /* "Name: value", sent with each request */
    size_t header_count;
    enum vv_s3_dialect dialect;
    enum vv_s3_checksum checksum;
    bool is_signing_payload; /* for servers that refuse UNSIGNED-PAYLOAD */
    uint64_t timeout_ms;     /* without a byte; 0: VV_S3_TIMEOUT_DEFAULT_MS */
    unsigned connections;    /* 0: VV_S3_CONNECTIONS_DEFAULT */
};

/* Open a bucket; makes no request. Takes over `credentials`, also on failure. Texts are copied.
 * -EINVAL (bucket, prefix, endpoint or a header make no sense), -ENOMEM. */
MUST_CHECK int vv_store_s3_open(const struct vv_s3_options *options,
                                struct vv_s3_credentials *credentials, struct vv_store **out_store);

#endif
