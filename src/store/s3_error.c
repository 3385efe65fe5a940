#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "store/s3_impl.h"

/* Codes of the S3 API reference ("Error responses"), and some that other servers use. */
static const struct {
    const char *code;
    int err;
} codes[] = {
    {"NoSuchKey", -ENOENT},
    {"NoSuchBucket", -VV_ERR_NO_BUCKET},
    {"PreconditionFailed", -EEXIST},
    {"SlowDown", -EAGAIN},
    {"SlowDownWrite", -EAGAIN},
    {"SlowDownRead", -EAGAIN},
    {"TooManyRequests", -EAGAIN},
    {"RequestLimitExceeded", -EAGAIN},
    {"ThrottlingException", -EAGAIN},
    {"RequestTimeout", -EAGAIN}, /* 400: the server did not get the body in time */
    {"BadDigest", -EIO},         /* the body was damaged on its way */
    {"XAmzContentChecksumMismatch", -EIO},
    {"XAmzContentSHA256Mismatch", -EIO},
    {"IncompleteBody", -EIO},
    {"EntityTooLarge", -EFBIG},
    {"QuotaExceeded", -ENOSPC},
    {"XMinioStorageFull", -ENOSPC},
    {"XMinioAdminBucketQuotaExceeded", -ENOSPC},
    {"InvalidRange", -ERANGE},
    {"InvalidObjectState", -EACCES}, /* archived */
    {"NotImplemented", -EOPNOTSUPP},
    {"MethodNotAllowed", -EOPNOTSUPP},
};

/* What stays unknown after the server had a put: it may have failed behind its effect. */
static int passing(enum vv_s3_kind kind, int err)
{
    return kind == VV_S3_PUT ? -VV_ERR_UNKNOWN : err;
}

static int error_of_status(enum vv_s3_kind kind, unsigned status)
{
    switch (status) {
    case 401:
    case 403: return -EACCES;
    /* A HEAD's answer has no body; elsewhere a 404 that does not say NoSuchKey is not about the
     * object: whoever sent it may not even be the store. */
    case 404: return kind == VV_S3_HEAD || kind == VV_S3_DELETE ? -ENOENT : passing(kind, -EIO);
    case 405:
    case 501: return -EOPNOTSUPP;
    case 408: return passing(kind, -ETIMEDOUT);
    case 409: return passing(kind, -EAGAIN);
    case 412: return -EEXIST;
    case 413: return -EFBIG;
    case 416: return -ERANGE;
    case 429: return -EAGAIN;
    case 507: return -ENOSPC;
    default: break;
    }
    if (status >= 500)
        return passing(kind, -EIO);
    /* 2xx that a request of this kind has no use for; 3xx: another region or endpoint; 4xx. */
    return status < 300 ? passing(kind, -EIO) : -EINVAL;
}

int vv_s3_error_of_answer(enum vv_s3_kind kind, unsigned status, const char *code)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (strcmp(codes[i].code, code) == 0)
            return codes[i].err;
    }
    return error_of_status(kind, status);
}

int vv_s3_error_of_transport(enum vv_s3_kind kind, int err, bool is_sent)
{
    if (err == -ENOMEM && !is_sent)
        return err;
    if (kind == VV_S3_PUT && is_sent)
        return -VV_ERR_UNKNOWN;
    switch (err) {
    case -ETIMEDOUT: return -ETIMEDOUT;
    case -ENOMEM:
    case -EPROTO: return err;
    /* An answer past its bound makes no sense; no connection comes back. */
    case -EFBIG: return -EIO;
    default: return -EIO;
    }
}

bool vv_s3_is_expired(unsigned status, const char *code)
{
    return status >= 400 && status < 500 &&
           (strcmp(code, "ExpiredToken") == 0 || strcmp(code, "ExpiredTokenException") == 0 ||
            strcmp(code, "TokenRefreshRequired") == 0 || strcmp(code, "InvalidToken") == 0);
}

const char *vv_s3_kind_name(enum vv_s3_kind kind)
{
    static const char *const names[] = {"PUT", "GET", "HEAD", "LIST", "DELETE"};
    return names[kind];
}
