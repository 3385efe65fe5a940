/* One request to a bucket: its headers, its signature, and what its answer means. */
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "store/s3_impl.h"
#include "store/store_impl.h"

#define TRIES_MAX 3             /* other credentials, another time */
#define SKEW_MAX_S (7 * 86400)  /* a server's clock further away than this is not believed */
#define LOG_AGAIN_NS (60 * VV_NS_PER_S)
#define OFFLOAD_BYTES (128u << 10) /* a body up to this is summed in place */
#define PATH_MAX_BYTES (3 * (VV_S3_PREFIX_MAX + VV_STORE_NAME_MAX) + 128)

/* ---- the endpoint ---- */

/* Host and port as the Host header has them: without the scheme's own port. */
static int normal_host(const char *host, bool is_tls, char *out, size_t size)
{
    size_t len = strcspn(host, "/?#");
    const char *port = is_tls ? ":443" : ":80";
    if (len == 0 || len >= size || host[len + strspn(host + len, "/")] != 0)
        return -EINVAL;
    for (size_t i = 0; i < len; i++) {
        if (host[i] <= ' ' || host[i] == '@' || host[i] == '%' || host[i] == 0x7f)
            return -EINVAL;
    }
    memcpy(out, host, len);
    out[len] = 0;
    if (len > strlen(port) && strcmp(out + len - strlen(port), port) == 0)
        out[len - strlen(port)] = 0;
    return 0;
}

int vv_s3_set_endpoint(struct vv_s3 *s3, const char *endpoint, bool is_virtual_hosted)
{
    char host[512];
    char text[1024];
    bool is_tls = strncmp(endpoint, "https://", 8) == 0;
    if (!is_tls && strncmp(endpoint, "http://", 7) != 0)
        return -EINVAL;
    TRY(normal_host(endpoint + (is_tls ? 8 : 7), is_tls, host, sizeof(host)));
    vv_format(text, sizeof(text), "%s%s%s", is_virtual_hosted ? s3->bucket : "",
              is_virtual_hosted ? "." : "", host);
    s3->host = vv_strdup(text);
    vv_format(text, sizeof(text), "%s://%s", is_tls ? "https" : "http", s3->host ? s3->host : "");
    s3->base = vv_strdup(text);
    vv_format(text, sizeof(text), "%s%s", is_virtual_hosted ? "" : "/",
              is_virtual_hosted ? "" : s3->bucket);
    s3->root = vv_strdup(text);
    return s3->host && s3->base && s3->root ? 0 : -ENOMEM;
}

/* ---- sums of the body ---- */

struct sums {
    const struct vv_s3 *s3;
    const struct vv_s3_request *request;
    char checksum[40];                /* base64, perhaps behind its kind; "" when there is none */
    char payload[VV_SIGV4_HEX_LEN + 1]; /* what is signed for the body */
    int err;
};

static void base64(const uint8_t *bytes, int len, char *out)
{
    EVP_EncodeBlock((unsigned char *)out, bytes, len);
}

static int sum_md5(const struct vv_s3_request *request, char *out)
{
    uint8_t md5[16];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool is_good = context && EVP_DigestInit_ex(context, EVP_md5(), NULL) == 1;
    for (int i = 0; i < request->body_count && is_good; i++)
        is_good = EVP_DigestUpdate(context, request->body[i].iov_base,
                                   request->body[i].iov_len) == 1;
    is_good = is_good && EVP_DigestFinal_ex(context, md5, NULL) == 1;
    EVP_MD_CTX_free(context);
    if (is_good)
        base64(md5, sizeof(md5), out);
    return is_good ? 0 : -ENOMEM;
}

/* Google wants "crc32c=" before it. */
static void sum_crc32c(const struct vv_s3_request *request, bool is_google, char *out)
{
    uint32_t crc = 0;
    static const char kind[] = "crc32c=";
    if (is_google)
        memcpy(out, kind, strlen(kind));
    for (int i = 0; i < request->body_count; i++)
        crc = vv_crc32c(crc, request->body[i].iov_base, request->body[i].iov_len);
    uint8_t bytes[4] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8),
                        (uint8_t)crc};
    base64(bytes, sizeof(bytes), out + (is_google ? strlen(kind) : 0));
}

static void make_sums(void *arg)
{
    struct sums *sums = arg;
    const struct vv_s3_request *request = sums->request;
    bool is_put = request->kind == VV_S3_PUT;
    if (sums->s3->is_signing_payload)
        sums->err = vv_sigv4_hash(request->body, request->body_count, sums->payload);
    else
        (void)vv_copy_text(sums->payload, sizeof(sums->payload), VV_SIGV4_UNSIGNED);
    if (is_put && sums->s3->checksum == VV_S3_CHECKSUM_CRC32C)
        sum_crc32c(request, sums->s3->is_google, sums->checksum);
    if (is_put && sums->s3->checksum == VV_S3_CHECKSUM_MD5 && sums->err == 0)
        sums->err = sum_md5(request, sums->checksum);
}

static int sum_body(const struct vv_s3 *s3, const struct vv_s3_request *request,
                    struct sums *out_sums)
{
    memset(out_sums, 0, sizeof(*out_sums));
    out_sums->s3 = s3;
    out_sums->request = request;
    if (vv_store_iov_bytes(request->body, request->body_count) > OFFLOAD_BYTES)
        vv_rt_offload(make_sums, out_sums);
    else
        make_sums(out_sums);
    return out_sums->err;
}

/* ---- headers ---- */

/* Header lines as one text, "name: value" and NUL each; the lines point into it. */
struct headers {
    struct vv_sigv4_header list[VV_HTTP_HEADERS_MAX];
    size_t count;
    size_t signed_count; /* the first so many are signed */
};

static void add(struct headers *headers, const char *name, const char *value)
{
    headers->list[headers->count++] = (struct vv_sigv4_header){name, value};
}

static const char *method_of(enum vv_s3_kind kind)
{
    return kind == VV_S3_LIST ? "GET" : vv_s3_kind_name(kind);
}

/* Names that the dialects have each in a word of its own, in the order of enum word. */
enum word { PAYLOAD, DATE, TOKEN, CLASS, CRC, ABSENT, WORD_COUNT };
static const char *const words[2][WORD_COUNT] = {
    {"x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "x-amz-storage-class",
     "x-amz-checksum-crc32c", "if-none-match"},
    {"x-goog-content-sha256", "x-goog-date", "x-goog-security-token", "x-goog-storage-class",
     "x-goog-hash", "x-goog-if-generation-match"},
};

static const char *extension_prefix(const struct vv_s3 *s3)
{
    return s3->is_google ? "x-goog-" : "x-amz-";
}

/* Those that are signed first: S3 wants host and x-amz-*, and proxies may change others. */
static void choose_headers(const struct vv_s3 *s3, const struct vv_s3_request *request,
                           const struct sums *sums, const struct vv_s3_keys *keys,
                           const char *time, struct headers *headers)
{
    bool is_put = request->kind == VV_S3_PUT;
    const char *const *name = words[s3->is_google];
    add(headers, "host", s3->host);
    add(headers, name[PAYLOAD], sums->payload);
    add(headers, name[DATE], time);
    if (keys->token[0])
        add(headers, name[TOKEN], keys->token);
    if (is_put && s3->storage_class)
        add(headers, name[CLASS], s3->storage_class);
    if (sums->checksum[0])
        add(headers, s3->checksum == VV_S3_CHECKSUM_MD5 ? "content-md5" : name[CRC],
            sums->checksum);
    if (is_put && s3->is_google)
        add(headers, name[ABSENT], "0");
    headers->signed_count = headers->count;
    if (is_put && !s3->is_google)
        add(headers, name[ABSENT], "*");
    if (is_put)
        add(headers, "content-type", "application/octet-stream");
    if (request->range)
        add(headers, "range", request->range);
}

/* Custom headers: those that S3 wants signed are. "x-amz-a: b" stands in s3->headers. */
static int add_custom(const struct vv_s3 *s3, struct headers *headers, struct vv_writer *text)
{
    for (size_t i = 0; i < s3->header_count; i++) {
        size_t name_len = strcspn(s3->headers[i], ":");
        const char *value = s3->headers[i] + name_len + 1;
        char *name = (char *)text->ptr + text->len;
        vv_writer_bytes(text, s3->headers[i], name_len);
        vv_writer_u8(text, 0);
        TRY(vv_writer_check(text));
        for (size_t k = 0; k < name_len; k++)
            name[k] = (char)(name[k] >= 'A' && name[k] <= 'Z' ? name[k] + 32 : name[k]);
        add(headers, name, value + strspn(value, " "));
        if (strncmp(name, extension_prefix(s3), strlen(extension_prefix(s3))) == 0) {
            /* Signed ones stand first. */
            struct vv_sigv4_header last = headers->list[headers->count - 1];
            headers->list[headers->count - 1] = headers->list[headers->signed_count];
            headers->list[headers->signed_count++] = last;
        }
    }
    return 0;
}

static int write_path(const struct vv_s3 *s3, const struct vv_s3_request *request,
                      struct vv_writer *path)
{
    vv_sigv4_encode(path, s3->root, true);
    vv_writer_bytes(path, "/", s3->root[0] == 0 || request->name ? 1 : 0);
    if (request->name && s3->prefix[0]) {
        vv_sigv4_encode(path, s3->prefix, true);
        vv_writer_bytes(path, "/", 1);
    }
    if (request->name)
        vv_sigv4_encode(path, request->name, true);
    vv_writer_u8(path, 0);
    return vv_writer_check(path);
}

/* ---- one try ---- */

/* What a try needs until its answer is there. */
struct attempt {
    struct vv_s3_keys keys;
    char path[PATH_MAX_BYTES];
    char custom[VV_S3_HEADERS_MAX * 128];
    struct vv_writer lines;
    struct vv_writer url;
    struct headers headers;
};

static int add_lines(struct attempt *attempt, struct vv_http_request *http)
{
    size_t starts[VV_HTTP_HEADERS_MAX];
    struct vv_writer *lines = &attempt->lines;
    for (size_t i = 0; i < attempt->headers.count; i++) {
        const struct vv_sigv4_header *header = &attempt->headers.list[i];
        starts[i] = lines->len;
        vv_writer_bytes(lines, header->name, strlen(header->name));
        vv_writer_bytes(lines, ": ", 2);
        vv_writer_bytes(lines, header->value, strlen(header->value) + 1);
    }
    TRY(vv_writer_check(lines));
    for (size_t i = 0; i < attempt->headers.count; i++)
        http->headers[http->header_count++] = (const char *)lines->ptr + starts[i];
    return 0;
}

/* Sign; the Authorization line stands first in attempt->lines. */
static int sign(struct vv_s3 *s3, const struct vv_s3_request *request, struct attempt *attempt,
                const struct vv_sigv4_scope *scope, const char *payload)
{
    static const char name[] = "authorization: ";
    struct vv_sigv4_request signing = {
        .method = method_of(request->kind),
        .path = attempt->path,
        .query = request->query ? request->query : "",
        .headers = attempt->headers.list,
        .header_count = attempt->headers.signed_count,
        .payload_hash = payload,
    };
    vv_writer_bytes(&attempt->lines, name, strlen(name));
    TRY(vv_sigv4_authorize(&s3->cache, attempt->keys.access_key, attempt->keys.secret, scope,
                           &signing, &attempt->lines));
    vv_writer_u8(&attempt->lines, 0);
    return vv_writer_check(&attempt->lines);
}

static int prepare(struct vv_s3 *s3, struct vv_s3_request *request, struct attempt *attempt,
                   const struct sums *sums)
{
    struct vv_sigv4_scope scope = {.service = "s3", .is_google = s3->is_google};
    struct vv_http_request *http = &request->http;
    struct vv_writer path = vv_writer_of(attempt->path, sizeof(attempt->path));
    struct vv_writer custom = vv_writer_of(attempt->custom, sizeof(attempt->custom));
    TRY(write_path(s3, request, &path));
    vv_sigv4_time((time_t)(vv_rt_wall().tv_sec + s3->clock_ahead_s), scope.time);
    (void)vv_copy_text(scope.region, sizeof(scope.region), s3->region);
    if (s3->is_google)
        (void)vv_copy_text(scope.service, sizeof(scope.service), "storage");
    choose_headers(s3, request, sums, &attempt->keys, scope.time, &attempt->headers);
    TRY(add_custom(s3, &attempt->headers, &custom));
    TRY(sign(s3, request, attempt, &scope, sums->payload));
    memset(http, 0, sizeof(*http));
    TRY(add_lines(attempt, http));
    http->headers[http->header_count++] = (const char *)attempt->lines.ptr;
    vv_writer_bytes(&attempt->url, s3->base, strlen(s3->base));
    vv_writer_bytes(&attempt->url, attempt->path, strlen(attempt->path));
    vv_writer_bytes(&attempt->url, "?", request->query ? 1 : 0);
    if (request->query)
        vv_writer_bytes(&attempt->url, request->query, strlen(request->query));
    vv_writer_u8(&attempt->url, 0);
    TRY(vv_writer_check(&attempt->url));
    http->method = method_of(request->kind);
    http->url = (const char *)attempt->url.ptr;
    http->body = request->body;
    http->body_count = request->body_count;
    http->sink = request->sink;
    http->sink_len = request->sink_len;
    http->text_max = VV_S3_LIST_BYTES_MAX;
    return 0;
}

static void attempt_done(struct attempt *attempt)
{
    vv_writer_done(&attempt->lines);
    vv_writer_done(&attempt->url);
    vv_s3_keys_done(&attempt->keys);
    vv_free(attempt);
}

/* A server that throttles says for how long; everybody keeps to it. */
static void wait_while_slow(const struct vv_s3 *s3)
{
    uint64_t now_ns = vv_rt_now_ns();
    if (s3->slow_until_ns > now_ns)
        vv_rt_sleep_ns(s3->slow_until_ns - now_ns + vv_rt_random_u64() % (50 * VV_NS_PER_MS));
}

static int try_once(struct vv_s3 *s3, struct vv_s3_request *request, const struct sums *sums,
                    bool is_refused)
{
    struct attempt *attempt = vv_zalloc(sizeof(*attempt));
    if (!attempt)
        return -ENOMEM;
    attempt->lines = vv_writer_new();
    attempt->url = vv_writer_new();
    wait_while_slow(s3);
    int err = vv_s3_credentials_get(s3->credentials, is_refused, &attempt->keys);
    if (err == 0)
        err = prepare(s3, request, attempt, sums);
    if (err == 0) {
        err = vv_http_perform(s3->http, &request->http);
        if (err < 0) {
            request->http.answer.status = 0;
            err = vv_s3_error_of_transport(request->kind, err, request->http.is_sent);
        }
    }
    attempt_done(attempt);
    return err;
}

/* ---- answers ---- */

/* Log a failure that a person should know, each kind of failure once in a while. */
static void log_failure(struct vv_s3 *s3, const struct vv_s3_request *request,
                        const struct vv_s3_message *message, int err)
{
    char code[64];
    const struct vv_http_request *http = &request->http;
    uint64_t now_ns = vv_rt_now_ns();
    vv_format(code, sizeof(code), "%s%u%s", message->code, http->answer.status,
              http->answer.status == 0 ? vv_err_name(err) : "");
    if (strcmp(code, s3->logged_code) == 0 && now_ns < s3->logged_ns + LOG_AGAIN_NS)
        return;
    memcpy(s3->logged_code, code, sizeof(code));
    s3->logged_ns = now_ns;
    /* What passes is tried again; what does not needs a person, --quiet or not. */
    bool is_passing = err == -VV_ERR_UNKNOWN || err == -EAGAIN || err == -EIO || err == -ETIMEDOUT;
    enum vv_log_level level = is_passing ? VV_LOG_WARN : VV_LOG_ERROR;
    if (http->answer.status == 0)
        vv_log(level, "store", "%s %s/%s: %s (%s)", vv_s3_kind_name(request->kind), s3->bucket,
                request->name ? request->name : "", vv_err_text(err), http->error);
    else
        vv_log(level, "store", "%s %s/%s: %s: the server says %u %s: %s",
               vv_s3_kind_name(request->kind), s3->bucket, request->name ? request->name : "", vv_err_text(err),
                http->answer.status, message->code, message->text);
    if (err == -VV_ERR_NO_BUCKET)
        vv_error("store", "bucket %s does not exist at %s: create it first", s3->bucket, s3->base);
    const char *region = message->region[0] ? message->region : http->answer.region;
    if (region[0] && strcmp(region, s3->region) != 0)
        vv_error("store", "bucket %s is in region %s, not %s: use --region %s", s3->bucket, region,
                s3->region, region);
}

/* Answers of every day: somebody else was first, or it is not there. */
static bool is_ordinary(const struct vv_s3_request *request, int err)
{
    return (err == -EEXIST && request->kind == VV_S3_PUT) ||
           (err == -ENOENT && request->kind != VV_S3_LIST && request->kind != VV_S3_PUT) ||
           (err == -ERANGE && request->kind == VV_S3_GET);
}

static void keep_retry_after(struct vv_s3 *s3, const struct vv_http_answer *answer)
{
    bool is_throttled = answer->status == 429 || answer->status == 503;
    if (!is_throttled || answer->retry_after_s == 0)
        return;
    uint64_t seconds = answer->retry_after_s < 60 ? answer->retry_after_s : 60;
    s3->slow_until_ns = vv_rt_now_ns() + seconds * VV_NS_PER_S;
}

/* Our clock is wrong, or the server's: sign with its time from now on. */
static bool take_server_time(struct vv_s3 *s3, const struct vv_http_answer *answer,
                             const struct vv_s3_message *message)
{
    if (strcmp(message->code, "RequestTimeTooSkewed") != 0 || answer->date_s == 0)
        return false;
    int64_t ahead_s = answer->date_s - vv_rt_wall().tv_sec;
    int64_t change_s = ahead_s - s3->clock_ahead_s;
    if (ahead_s > SKEW_MAX_S || ahead_s < -SKEW_MAX_S || (change_s > -60 && change_s < 60))
        return false;
    vv_warn("store", "the clock of %s is %lld s ahead of ours: signing with its time", s3->host,
            (long long)ahead_s);
    s3->clock_ahead_s = ahead_s;
    return true;
}

int vv_s3_perform(struct vv_s3 *s3, struct vv_s3_request *request)
{
    struct sums sums;
    struct vv_s3_message message = {0};
    bool is_refused = false;
    TRY(sum_body(s3, request, &sums));
    for (int tries = 1;; tries++) {
        int err = try_once(s3, request, &sums, is_refused);
        const struct vv_http_answer *answer = &request->http.answer;
        if (err == 0 && answer->status >= 200 && answer->status < 300)
            return 0;
        if (err == 0) {
            vv_s3_parse_error(answer->text, answer->text_len, &message);
            err = vv_s3_error_of_answer(request->kind, answer->status, message.code);
            keep_retry_after(s3, answer);
            is_refused = vv_s3_is_expired(answer->status, message.code);
            bool is_again = is_refused || take_server_time(s3, answer, &message);
            if (is_again && tries < TRIES_MAX) {
                vv_http_request_done(&request->http);
                continue;
            }
        }
        if (!is_ordinary(request, err))
            log_failure(s3, request, &message, err);
        return err;
    }
}
