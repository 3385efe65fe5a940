/* s3:// URLs: bucket, prefix, endpoint, region, credentials. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "cmd/cmd.h"
#include "rt/rt.h"
#include "store/s3.h"

#define ACCESS_FILE_MAX (VV_S3_ACCESS_KEY_MAX + VV_S3_SECRET_MAX + VV_S3_TOKEN_MAX + 8)

static int complain(const char *what, const char *why)
{
    fprintf(stderr, "varve: %s: %s\n", what, why);
    return -EINVAL;
}

static int parse_url(const char *url, struct vv_place *place)
{
    const char *bucket = url + strlen("s3://");
    size_t bucket_len = strcspn(bucket, "/");
    if (bucket_len == 0 || bucket_len >= sizeof place->bucket)
        return complain(url, "not s3://BUCKET or s3://BUCKET/PREFIX");
    memcpy(place->bucket, bucket, bucket_len);
    place->bucket[bucket_len] = 0;
    const char *prefix = bucket + bucket_len + (bucket[bucket_len] == '/');
    size_t len = strlen(prefix);
    while (len > 0 && prefix[len - 1] == '/')
        len--;
    if (len >= sizeof place->prefix)
        return complain(url, "the prefix is too long");
    memcpy(place->prefix, prefix, len);
    place->prefix[len] = 0;
    return 0;
}

/* ~/.aws/NAME, unless the environment names a file. */
static const char *aws_file(const char *given, const char *name, char *out, size_t size)
{
    const char *home = vv_environment("HOME");
    if (given != NULL || home == NULL)
        return given;
    vv_format(out, size, "%s/.aws/%s", home, name);
    return out;
}

/* The sources with the files where AWS's tools keep them. */
struct sources {
    struct vv_s3_sources s3;
    char credentials_file[4096];
    char config_file[4096];
};

static void find_sources(const struct vv_options *options, struct sources *out)
{
    vv_environment_s3(options, &out->s3);
    out->s3.credentials_file = aws_file(out->s3.credentials_file, "credentials",
                                        out->credentials_file, sizeof out->credentials_file);
    out->s3.config_file = aws_file(out->s3.config_file, "config", out->config_file,
                                   sizeof out->config_file);
}

static const char *first(const char *a, const char *b, const char *c, const char *d)
{
    if (a != NULL)
        return a;
    if (b != NULL)
        return b;
    return c != NULL ? c : d;
}

/* The options, then the environment, then the profile, then AWS. */
static int choose_endpoint(const struct vv_options *options, const struct vv_s3_profile *profile,
                           struct vv_place *place)
{
    char aws[128];
    const char *region = first(options->s3.region, vv_environment("AWS_REGION"),
                               vv_environment("AWS_DEFAULT_REGION"),
                               profile->region[0] ? profile->region : "us-east-1");
    if (vv_copy_text(place->region, sizeof place->region, region) < 0)
        return complain(region, "not a region");
    vv_format(aws, sizeof aws, "https://s3.%s.amazonaws.com", place->region);
    const char *endpoint = first(options->s3.endpoint, vv_environment("AWS_ENDPOINT_URL_S3"),
                                 vv_environment("AWS_ENDPOINT_URL"),
                                 profile->endpoint[0] ? profile->endpoint : NULL);
    /* A certificate for *.HOST does not hold for a bucket with a dot. */
    place->is_virtual_hosted = endpoint == NULL && strchr(place->bucket, '.') == NULL;
    if (options->s3.is_virtual_hosted || options->s3.is_path_style)
        place->is_virtual_hosted = options->s3.is_virtual_hosted;
    if (endpoint == NULL)
        endpoint = aws;
    size_t len = strlen(endpoint);
    while (len > 0 && endpoint[len - 1] == '/')
        len--;
    bool is_web = strncmp(endpoint, "http://", 7) == 0 || strncmp(endpoint, "https://", 8) == 0;
    if (!is_web || len >= sizeof place->endpoint)
        return complain(endpoint, "an endpoint looks like https://HOST:PORT");
    memcpy(place->endpoint, endpoint, len);
    place->endpoint[len] = 0;
    return 0;
}

int vv_place_parse_s3(const char *url, const struct vv_options *options, struct vv_place *out_place)
{
    struct sources sources;
    struct vv_s3_profile profile = {0};
    TRY(parse_url(url, out_place));
    find_sources(options, &sources);
    int err = vv_s3_profile_read(&sources.s3, &profile);
    if (err == -ENOENT)
        return complain(options->s3.profile, "there is no such profile");
    if (err < 0)
        return complain("the AWS profile", vv_err_text(err));
    return choose_endpoint(options, &profile, out_place);
}

/* ACCESS_KEY:SECRET[:TOKEN]; the texts point into `text`. */
static int read_access_file(const char *path, char *text, size_t size,
                            struct vv_s3_sources *sources)
{
    int len = vv_read_text(path, text, size);
    if (len < 0)
        return complain(path, vv_err_text(len));
    text[strcspn(text, "\r\n")] = 0;
    char *secret = strchr(text, ':');
    if (secret == NULL || secret == text || secret[1] == 0)
        return complain(path, "not ACCESS_KEY:SECRET");
    *secret++ = 0;
    char *token = strchr(secret, ':');
    if (token != NULL)
        *token++ = 0;
    sources->access_key = text;
    sources->secret = secret;
    sources->token = token;
    return 0;
}

/* The host whose dialect is Google's, with any bucket in front of it. */
static bool is_google(const char *endpoint)
{
    static const char host[] = "storage.googleapis.com";
    const char *at = strstr(endpoint, "://");
    size_t len = at != NULL ? strcspn(at + 3, ":/") : 0;
    if (len < strlen(host))
        return false;
    const char *tail = at + 3 + len - strlen(host);
    return strncmp(tail, host, strlen(host)) == 0 && (tail == at + 3 || tail[-1] == '.');
}

static int open_store(const struct vv_place *place, const struct vv_options *options,
                      const struct vv_s3_sources *sources, struct vv_store **out_store)
{
    const struct vv_s3_words *words = &options->s3;
    struct vv_s3_credentials *credentials;
    struct vv_s3_options s3 = {
        .bucket = place->bucket,
        .prefix = place->prefix,
        .endpoint = place->endpoint,
        .region = place->region,
        .is_virtual_hosted = place->is_virtual_hosted,
        .ca_file = sources->ca_file,
        .storage_class = words->storage_class,
        .header_count = words->header_count,
        .dialect = is_google(place->endpoint) ? VV_S3_DIALECT_GOOGLE : VV_S3_DIALECT_AWS,
        .checksum = words->checksum,
        .is_signing_payload = words->is_signing_payload,
        .timeout_ms = words->timeout_s * 1000,
    };
    for (unsigned i = 0; i < words->header_count; i++)
        s3.headers[i] = words->headers[i];
    TRY(vv_s3_credentials_new(sources, &credentials));
    return vv_store_s3_open(&s3, credentials, out_store);
}

int vv_place_open_s3(const struct vv_place *place, const struct vv_options *options,
                     struct vv_store **out_store)
{
    struct sources sources;
    char access[ACCESS_FILE_MAX] = "";
    find_sources(options, &sources);
    sources.s3.region = place->region;
    int err = 0;
    if (options->s3.access_key_file != NULL)
        err = read_access_file(options->s3.access_key_file, access, sizeof access, &sources.s3);
    if (err == 0) {
        err = open_store(place, options, &sources.s3, out_store);
        if (err == -EINVAL)
            complain(options->url, "bucket, prefix, endpoint or a header makes no sense");
        else if (err < 0)
            vv_fail(options->url, err);
    }
    sodium_memzero(access, sizeof access);
    return err;
}
