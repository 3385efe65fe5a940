/* The places where credentials are kept. Private to store. Each returns 0 with keys, -ENOENT when
 * the place is not configured, or why it has none, after logging it. All suspend. */
#ifndef VV_STORE_S3_PLACES_IMPL_H
#define VV_STORE_S3_PLACES_IMPL_H

#include "store/s3_credentials.h"

#define VV_S3_FILE_MAX (256u << 10) /* of a profile file */

MUST_CHECK int vv_s3_place_profile(const struct vv_s3_sources *sources, struct vv_s3_keys *out);
MUST_CHECK int vv_s3_place_web_identity(const struct vv_s3_sources *sources,
                                        struct vv_s3_keys *out);
MUST_CHECK int vv_s3_place_container(const struct vv_s3_sources *sources, struct vv_s3_keys *out);
MUST_CHECK int vv_s3_place_metadata(const struct vv_s3_sources *sources, struct vv_s3_keys *out);

/* A file's bytes as text, NUL-ended, the caller's. -EFBIG past `max`, -errno. */
MUST_CHECK int vv_s3_read_file(const char *path, size_t max, char **out_text);
/* The value of `key` in section `section` of an INI text as AWS tools write it (an indented line
 * belongs to the line above it and is skipped). -ENOENT, -EFBIG. */
MUST_CHECK int vv_s3_ini_find(const char *text, const char *section, const char *key, char *out,
                              size_t size);
/* "2026-11-28T01:02:03Z" as seconds; -EINVAL. */
MUST_CHECK int vv_s3_parse_time(const char *text, int64_t *out_s);
/* The JSON of the container and metadata endpoints. -VV_ERR_FORMAT. */
MUST_CHECK int vv_s3_parse_keys_json(const char *text, size_t len, struct vv_s3_keys *out);

#endif
