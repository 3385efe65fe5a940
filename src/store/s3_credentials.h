/* Who a request is from: the usual places where credentials for S3 are kept, in the usual order.
 *
 *   1. given by the caller (a file named on the command line)
 *   2. the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *      (not when a profile was named by the caller)
 *   3. web identity: AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, exchanged with STS
 *   4. the profile in ~/.aws/credentials, then in ~/.aws/config (keys, or role_arn with
 *      web_identity_token_file)
 *   5. a container's endpoint: AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI
 *   6. the instance's metadata service, version 2
 *
 * The first that is configured is used, and asked again five minutes before what it gave expires;
 * while that fails, the old ones are used until they have expired. Everything suspends. One fiber
 * at a time asks; others wait for it. Secrets are wiped when freed. Owned by one reactor. */
#ifndef VV_STORE_S3_CREDENTIALS_H
#define VV_STORE_S3_CREDENTIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VV_S3_ACCESS_KEY_MAX 128
#define VV_S3_SECRET_MAX 256
#define VV_S3_TOKEN_MAX 8192

/* One set of keys. */
struct vv_s3_keys {
    char access_key[VV_S3_ACCESS_KEY_MAX + 1];
    char secret[VV_S3_SECRET_MAX + 1];
    char token[VV_S3_TOKEN_MAX + 1]; /* "" when there is none */
    int64_t expires_s;               /* wall-clock seconds; 0: never */
};

/* Where to look. Texts may be NULL; they are copied. Names are those of the environment. */
struct vv_s3_sources {
    const char *access_key, *secret, *token; /* given by the caller */
    const char *env_access_key, *env_secret, *env_token;
    const char *profile; /* NULL: "default" */
    bool is_profile_given;
    const char *credentials_file, *config_file;
    const char *web_identity_token_file, *role_arn, *role_session_name;
    const char *sts_endpoint; /* NULL: that of the region */
    const char *region;
    const char *container_full_uri, *container_relative_uri;
    const char *container_token, *container_token_file;
    const char *metadata_endpoint; /* NULL: http://169.254.169.254 */
    bool is_metadata_disabled;
    const char *ca_file;
};

/* What a profile says besides keys; "" when it does not. */
struct vv_s3_profile {
    char region[64];
    char endpoint[512];
};

struct vv_s3_credentials;
/* Copies the sources; asks nobody. -ENOMEM. */
MUST_CHECK int vv_s3_credentials_new(const struct vv_s3_sources *sources,
                                     struct vv_s3_credentials **out_credentials);
void vv_s3_credentials_free(struct vv_s3_credentials *credentials);
/* The keys to use now, copied. `is_refused`: the server did not take those that were given last
 * time, look again. -ENOKEY when no place has any, -EACCES when the place refused, else why it
 * could not be asked; each is logged. Suspends. */
MUST_CHECK int vv_s3_credentials_get(struct vv_s3_credentials *credentials, bool is_refused,
                                     struct vv_s3_keys *out_keys);
/* Where the keys came from ("environment", ...); NULL before the first. */
const char *vv_s3_credentials_place(const struct vv_s3_credentials *credentials);
/* Region and endpoint of the sources' profile. A missing file or profile is no error unless the
 * profile was named by the caller: -ENOENT. Suspends. */
MUST_CHECK int vv_s3_profile_read(const struct vv_s3_sources *sources,
                                  struct vv_s3_profile *out_profile);
/* Wipe keys. */
void vv_s3_keys_done(struct vv_s3_keys *keys);

#endif
