/* Places that are asked over HTTP: STS, a container's endpoint, the instance's metadata. */
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"
#include "store/s3_impl.h"
#include "store/s3_places_impl.h"

#define TOKEN_FILE_MAX (16u << 10)
#define PLACE_TEXT_MAX (64u << 10)
#define METADATA_DEFAULT "http://169.254.169.254"
#define CONTAINER_HOST "http://169.254.170.2"
#define METADATA_PATH "/latest/meta-data/iam/security-credentials/"
#define NEAR_TIMEOUT_MS 2000 /* on this machine or the host's link */
#define FAR_TIMEOUT_MS 15000

/* ---- texts ---- */

int vv_s3_parse_time(const char *text, int64_t *out_s)
{
    static const char pattern[] = "0000-00-00T00:00:00";
    int values[6] = {0};
    int index = 0;
    for (size_t i = 0; pattern[i]; i++) {
        bool is_digit = text[i] >= '0' && text[i] <= '9';
        if (pattern[i] == '0' ? !is_digit : text[i] != pattern[i])
            return -EINVAL;
        if (is_digit)
            values[index] = values[index] * 10 + (text[i] - '0');
        else
            index++;
    }
    struct tm tm = {.tm_year = values[0] - 1900, .tm_mon = values[1] - 1, .tm_mday = values[2],
                    .tm_hour = values[3], .tm_min = values[4], .tm_sec = values[5]};
    *out_s = timegm(&tm);
    return *out_s > 0 ? 0 : -EINVAL;
}

static int take_string(const json_t *object, const char *name, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text && vv_copy_text(out, size, text) == 0 ? 0 : -VV_ERR_FORMAT;
}

static int take_keys(const json_t *object, struct vv_s3_keys *keys)
{
    char expiration[64] = "";
    TRY(take_string(object, "AccessKeyId", keys->access_key, sizeof(keys->access_key)));
    TRY(take_string(object, "SecretAccessKey", keys->secret, sizeof(keys->secret)));
    if (json_object_get(object, "Token"))
        TRY(take_string(object, "Token", keys->token, sizeof(keys->token)));
    if (json_object_get(object, "Expiration")) {
        TRY(take_string(object, "Expiration", expiration, sizeof(expiration)));
        if (vv_s3_parse_time(expiration, &keys->expires_s) < 0)
            return -VV_ERR_FORMAT;
    }
    return keys->access_key[0] && keys->secret[0] ? 0 : -VV_ERR_FORMAT;
}

int vv_s3_parse_keys_json(const char *text, size_t len, struct vv_s3_keys *out)
{
    struct vv_s3_keys keys = {0};
    json_t *object = json_loadb(text, len, 0, NULL);
    int err = json_is_object(object) ? take_keys(object, &keys) : -VV_ERR_FORMAT;
    json_decref(object);
    if (err == 0)
        *out = keys;
    vv_s3_keys_done(&keys);
    return err;
}

/* ---- asking ---- */

/* One exchange with a client made for it: this happens a few times a day. `what` is for the log. */
static int ask(const struct vv_s3_sources *sources, const char *what, uint64_t timeout_ms,
               struct vv_http_request *request)
{
    struct vv_http *http;
    bool is_near = timeout_ms == NEAR_TIMEOUT_MS;
    struct vv_http_options options = {.connections = 1, .timeout_ms = timeout_ms,
                                      .connect_timeout_ms = timeout_ms / 2, .is_direct = is_near,
                                      .ca_file = sources->ca_file};
    request->text_max = PLACE_TEXT_MAX;
    TRY(vv_http_open(&options, &http));
    int err = vv_http_perform(http, request);
    vv_http_close(http);
    unsigned status = err == 0 ? request->answer.status : 0;
    if (err == 0 && status >= 200 && status < 300)
        return 0;
    if (err == 0) {
        struct vv_s3_message message;
        vv_s3_parse_error(request->answer.text, request->answer.text_len, &message);
        vv_warn("store", "%s answers %u %s %s", what, status, message.code, message.text);
        err = status >= 500 || status == 429 ? -EAGAIN : -EACCES;
    } else {
        vv_debug("store", "%s: %s (%s)", what, vv_err_text(err), request->error);
    }
    vv_http_request_done(request);
    return err;
}

/* ---- STS ---- */

static int parse_sts(const char *text, size_t len, struct vv_s3_keys *out)
{
    struct vv_s3_keys keys = {0};
    char expiration[64];
    int err = vv_s3_xml_find(text, len, "AccessKeyId", keys.access_key, sizeof(keys.access_key));
    if (err == 0)
        err = vv_s3_xml_find(text, len, "SecretAccessKey", keys.secret, sizeof(keys.secret));
    if (err == 0)
        err = vv_s3_xml_find(text, len, "SessionToken", keys.token, sizeof(keys.token));
    if (err == 0)
        err = vv_s3_xml_find(text, len, "Expiration", expiration, sizeof(expiration));
    if (err == 0)
        err = vv_s3_parse_time(expiration, &keys.expires_s);
    if (err == 0)
        *out = keys;
    vv_s3_keys_done(&keys);
    return err == 0 || err == -ENOMEM ? err : -VV_ERR_FORMAT;
}

static void add_field(struct vv_writer *form, const char *name, const char *value)
{
    vv_writer_bytes(form, "&", form->len > 0);
    vv_writer_bytes(form, name, strlen(name));
    vv_writer_bytes(form, "=", 1);
    vv_sigv4_encode(form, value, false);
}

static int assume_role(const struct vv_s3_sources *sources, const char *token,
                       struct vv_s3_keys *out)
{
    char url[512];
    const char *region = sources->region ? sources->region : "us-east-1";
    struct vv_writer form CLEANUP(vv_writer_done) = vv_writer_new();
    if (sources->sts_endpoint)
        vv_format(url, sizeof(url), "%s/", sources->sts_endpoint);
    else
        vv_format(url, sizeof(url), "https://sts.%s.amazonaws.com/", region);
    add_field(&form, "Action", "AssumeRoleWithWebIdentity");
    add_field(&form, "Version", "2011-06-15");
    add_field(&form, "RoleArn", sources->role_arn);
    add_field(&form, "RoleSessionName",
              sources->role_session_name ? sources->role_session_name : "varve");
    add_field(&form, "WebIdentityToken", token);
    TRY(vv_writer_check(&form));
    struct iovec body = {form.ptr, form.len};
    struct vv_http_request request = {
        .method = "POST", .url = url, .body = &body, .body_count = 1, .header_count = 1,
        .headers = {"Content-Type: application/x-www-form-urlencoded"}};
    TRY(ask(sources, "STS", FAR_TIMEOUT_MS, &request));
    int err = parse_sts(request.answer.text, request.answer.text_len, out);
    vv_http_request_done(&request);
    return err;
}

int vv_s3_place_web_identity(const struct vv_s3_sources *sources, struct vv_s3_keys *out)
{
    char *token;
    if (!sources->web_identity_token_file || !sources->role_arn)
        return -ENOENT;
    int err = vv_s3_read_file(sources->web_identity_token_file, TOKEN_FILE_MAX, &token);
    if (err < 0) {
        vv_warn("store", "web identity token %s: %s", sources->web_identity_token_file,
                vv_err_text(err));
        return err == -ENOENT ? -ENOKEY : err;
    }
    token[strcspn(token, " \r\n")] = 0;
    err = assume_role(sources, token, out);
    vv_free(token);
    return err;
}

/* ---- containers ---- */

/* Keys may be asked for over plain HTTP only from this machine and the agents' own addresses. */
static bool is_trusted(const char *url)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "[::1]", "169.254.170.2",
                                        "169.254.170.23", "[fd00:ec2::23]"};
    if (strncmp(url, "https://", 8) == 0)
        return true;
    if (strncmp(url, "http://", 7) != 0)
        return false;
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        size_t len = strlen(hosts[i]);
        if (strncmp(url + 7, hosts[i], len) == 0 && strchr(":/", url[7 + len]))
            return true;
    }
    return false;
}

static int container_header(const struct vv_s3_sources *sources, char *out, size_t size)
{
    char *token = NULL;
    out[0] = 0;
    if (sources->container_token_file)
        TRY(vv_s3_read_file(sources->container_token_file, TOKEN_FILE_MAX, &token));
    const char *text = token ? token : sources->container_token;
    if (text)
        vv_format(out, size, "Authorization: %.*s", (int)strcspn(text, "\r\n"), text);
    vv_free(token);
    return 0;
}

int vv_s3_place_container(const struct vv_s3_sources *sources, struct vv_s3_keys *out)
{
    char url[1024];
    char header[4096];
    if (sources->container_relative_uri)
        vv_format(url, sizeof(url), "%s%s", CONTAINER_HOST, sources->container_relative_uri);
    else if (sources->container_full_uri)
        vv_format(url, sizeof(url), "%s", sources->container_full_uri);
    else
        return -ENOENT;
    if (!is_trusted(url)) {
        vv_warn("store", "container credentials: %s is neither https nor of this machine", url);
        return -EACCES;
    }
    TRY(container_header(sources, header, sizeof(header)));
    struct vv_http_request request = {.method = "GET", .url = url, .headers = {header},
                                      .header_count = header[0] ? 1 : 0};
    TRY(ask(sources, "the container's credentials endpoint", NEAR_TIMEOUT_MS, &request));
    int err = vv_s3_parse_keys_json(request.answer.text, request.answer.text_len, out);
    vv_http_request_done(&request);
    return err;
}

/* ---- instance metadata ---- */

/* GET a path with the session's token; the answer's first line, or all of it. */
static int get_metadata(const struct vv_s3_sources *sources, const char *token, const char *path,
                        struct vv_http_request *request)
{
    char url[1024];
    char header[512];
    const char *base = sources->metadata_endpoint ? sources->metadata_endpoint : METADATA_DEFAULT;
    vv_format(url, sizeof(url), "%s%s", base, path);
    vv_format(header, sizeof(header), "X-aws-ec2-metadata-token: %s", token);
    *request = (struct vv_http_request){.method = "GET", .url = url, .headers = {header},
                                        .header_count = 1};
    return ask(sources, "the metadata service", NEAR_TIMEOUT_MS, request);
}

static int get_token(const struct vv_s3_sources *sources, char *out, size_t size)
{
    char url[1024];
    const char *base = sources->metadata_endpoint ? sources->metadata_endpoint : METADATA_DEFAULT;
    vv_format(url, sizeof(url), "%s/latest/api/token", base);
    struct vv_http_request request = {
        .method = "PUT", .url = url, .header_count = 1,
        .headers = {"X-aws-ec2-metadata-token-ttl-seconds: 300"}};
    TRY(ask(sources, "the metadata service", NEAR_TIMEOUT_MS, &request));
    int err = vv_copy_text(out, size, request.answer.text);
    out[strcspn(out, "\r\n")] = 0;
    vv_http_request_done(&request);
    return err < 0 ? -VV_ERR_FORMAT : 0;
}

static int get_role(const struct vv_s3_sources *sources, const char *token, char *out, size_t size)
{
    struct vv_http_request request;
    TRY(get_metadata(sources, token, METADATA_PATH, &request));
    int err = vv_copy_text(out, size, request.answer.text);
    out[strcspn(out, "\r\n")] = 0;
    vv_http_request_done(&request);
    if (err == 0 && (out[0] == 0 || strpbrk(out, " /?#")))
        err = -VV_ERR_FORMAT;
    return err < 0 ? -VV_ERR_FORMAT : 0;
}

int vv_s3_place_metadata(const struct vv_s3_sources *sources, struct vv_s3_keys *out)
{
    char token[400];
    char role[128];
    char path[256];
    struct vv_http_request request;
    if (sources->is_metadata_disabled)
        return -ENOENT;
    /* Outside a cloud nobody answers: then this place is simply not there. */
    int err = get_token(sources, token, sizeof(token));
    if (err == -ETIMEDOUT || err == -ECONNREFUSED || err == -EHOSTUNREACH || err == -EIO)
        return -ENOENT;
    TRY(err);
    TRY(get_role(sources, token, role, sizeof(role)));
    vv_format(path, sizeof(path), METADATA_PATH "%s", role);
    TRY(get_metadata(sources, token, path, &request));
    err = vv_s3_parse_keys_json(request.answer.text, request.answer.text_len, out);
    vv_http_request_done(&request);
    return err;
}
