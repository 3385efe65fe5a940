/* An S3 server in the test's own process, on loopback: it keeps its objects in a mem store, checks
 * the signature of each request, and can be told to answer the next requests with a script. */
#ifndef TEST_STORE_FAKE_S3_H
#define TEST_STORE_FAKE_S3_H

#include "contract.h"
#include "store/s3.h"
#include "store/sigv4.h"

#define FAKE_ACCESS "AKEXAMPLE"
#define FAKE_SECRET "secret/with+signs"
#define FAKE_BUCKET "bucket"
#define FAKE_SCRIPT_MAX 16
#define FAKE_HEAD_MAX 16384

/* What happens to a request instead of, or besides, its ordinary treatment. */
struct fake_step {
    const char *answer; /* sent as it is; "": the connection is closed; NULL: ordinary */
    bool is_done_first; /* the request takes effect before that */
};

struct fake_s3 {
    struct vv_socket *listener;
    struct vv_store_backend *backend;
    struct vv_store *objects;
    struct fake_step script[FAKE_SCRIPT_MAX];
    size_t script_len, script_at;
    char head[FAKE_HEAD_MAX]; /* of the last request */
    char endpoint[64];
    const char *wanted_token; /* requests with another are refused; NULL: none is looked for */
    unsigned requests, connections, bad_signatures;
    unsigned fibers;
    struct vv_waitq ended;
    struct vv_socket *open[64];
};

struct fake_connection {
    struct fake_s3 *fake;
    struct vv_socket *socket;
    char head[FAKE_HEAD_MAX];
    size_t head_len; /* bytes of head and what was read behind it */
    uint8_t *body;
    size_t body_len;
};

static inline bool fake_send(struct vv_socket *socket, const void *bytes, size_t len)
{
    struct iovec iov = {(void *)bytes, len};
    return vv_socket_send(socket, &iov, 1, vv_rt_now_ns() + 10 * VV_NS_PER_S) == 0;
}

/* The value of a header in `head`, copied; "" when it is not there. */
static inline const char *fake_header(const char *head, const char *name, char *out, size_t size)
{
    out[0] = 0;
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, strlen(name)) != 0 || line[2 + strlen(name)] != ':')
            continue;
        const char *value = line + 2 + strlen(name) + 1;
        value += strspn(value, " ");
        snprintf(out, size, "%.*s", (int)strcspn(value, "\r\n"), value);
        break;
    }
    return out;
}

/* Read one request; false at the end of the connection. */
static inline bool fake_read(struct fake_connection *c)
{
    char text[64];
    char *end;
    c->head[c->head_len] = 0;
    while (!(end = strstr(c->head, "\r\n\r\n"))) {
        ssize_t got = vv_socket_recv(c->socket, c->head + c->head_len,
                                     sizeof(c->head) - 1 - c->head_len, VV_NEVER);
        if (got <= 0)
            return false;
        c->head_len += (size_t)got;
        c->head[c->head_len] = 0;
    }
    size_t head_bytes = (size_t)(end + 4 - c->head);
    size_t behind = c->head_len - head_bytes;
    end[2] = 0;
    c->body_len = strtoul(fake_header(c->head, "content-length", text, sizeof(text)), NULL, 10);
    c->body = malloc(c->body_len + 1);
    if (behind > c->body_len || !c->body)
        return false;
    memcpy(c->body, end + 4, behind);
    for (size_t have = behind; have < c->body_len;) {
        ssize_t got = vv_socket_recv(c->socket, c->body + have, c->body_len - have, VV_NEVER);
        if (got <= 0)
            return false;
        have += (size_t)got;
    }
    c->head_len = 0;
    return true;
}

/* ---- signatures ---- */

static inline bool fake_is_signed(const struct fake_connection *c, const char *path,
                                  const char *query, const char *method)
{
    static char values[16][4096];
    static char authorization[4096];
    struct vv_sigv4_header headers[16];
    struct vv_sigv4_claim claim;
    char date[32];
    char hash[80];
    char names[1025];
    size_t count = 0;
    fake_header(c->head, "authorization", authorization, sizeof(authorization));
    bool is_google = strncmp(authorization, "GOOG4", 5) == 0;
    fake_header(c->head, is_google ? "x-goog-date" : "x-amz-date", date, sizeof(date));
    fake_header(c->head, is_google ? "x-goog-content-sha256" : "x-amz-content-sha256", hash,
                sizeof(hash));
    if (is_google && strstr(c->head, "x-amz-"))
        return false; /* not both kinds in one request */
    if (vv_sigv4_parse_header(authorization, date, &claim) < 0)
        return false;
    snprintf(names, sizeof(names), "%s", claim.signed_headers);
    for (char *name = strtok(names, ";"); name && count < 16; name = strtok(NULL, ";"), count++)
        headers[count] = (struct vv_sigv4_header){
            name, fake_header(c->head, name, values[count], sizeof(values[count]))};
    struct vv_sigv4_request request = {method, path, query, headers, count, hash};
    if (strcmp(hash, VV_SIGV4_UNSIGNED) != 0) {
        char real[VV_SIGV4_HEX_LEN + 1];
        struct iovec iov = {c->body, c->body_len};
        if (vv_sigv4_hash(&iov, 1, real) < 0 || strcmp(real, hash) != 0)
            return false;
    }
    return strcmp(claim.access_key, FAKE_ACCESS) == 0 && vv_sigv4_is_signed(&claim, "host") &&
           vv_sigv4_verify(NULL, FAKE_SECRET, &claim, &request) == 0;
}

/* ---- ordinary treatment ---- */

static inline void fake_answer(struct fake_connection *c, const char *status, const char *headers,
                               const void *body, size_t len, bool is_head)
{
    char text[1024];
    int n = snprintf(text, sizeof(text), "HTTP/1.1 %s\r\n%s%sContent-Length: %zu\r\n\r\n", status,
                     headers, headers[0] ? "\r\n" : "", len);
    if (fake_send(c->socket, text, (size_t)n) && len > 0 && !is_head)
        (void)!fake_send(c->socket, body, len);
}

static inline void fake_error(struct fake_connection *c, const char *status, const char *code)
{
    char body[256];
    int n = snprintf(body, sizeof(body), "<Error><Code>%s</Code><Message>no</Message></Error>",
                     code);
    fake_answer(c, status, "Content-Type: application/xml", body, (size_t)n, false);
}

static inline void fake_get(struct fake_connection *c, const char *name)
{
    char range[64];
    char content_range[128];
    unsigned long long first = 0;
    unsigned long long last = 0;
    uint8_t *bytes;
    size_t size;
    if (vv_store_get_all(c->fake->objects, name, VV_STORE_OBJECT_MAX, &bytes, &size) < 0) {
        fake_error(c, "404 Not Found", "NoSuchKey");
        return;
    }
    fake_header(c->head, "range", range, sizeof(range));
    if (sscanf(range, "bytes=%llu-%llu", &first, &last) != 2) {
        fake_answer(c, "200 OK", "", bytes, size, false);
    } else if (first >= size) {
        fake_error(c, "416 Range Not Satisfiable", "InvalidRange");
    } else {
        last = last < size ? last : size - 1;
        snprintf(content_range, sizeof(content_range), "Content-Range: bytes %llu-%llu/%zu", first,
                 last, size);
        fake_answer(c, "206 Partial Content", content_range, bytes + first, last - first + 1,
                    false);
    }
    vv_free(bytes);
}

static inline void fake_put(struct fake_connection *c, const char *name)
{
    char text[64];
    struct iovec iov = {c->body, c->body_len};
    bool is_absent = strcmp(fake_header(c->head, "if-none-match", text, sizeof(text)), "*") == 0;
    fake_header(c->head, "x-goog-if-generation-match", text, sizeof(text));
    if (!is_absent && strcmp(text, "0") != 0) {
        fake_error(c, "400 Bad Request", "InvalidRequest");
        return;
    }
    int err = vv_store_put(c->fake->objects, name, &iov, 1);
    if (err == 0)
        fake_answer(c, "200 OK", "ETag: \"etag\"", "", 0, false);
    else
        fake_error(c, "412 Precondition Failed", "PreconditionFailed");
}

/* A parameter of the query, percent-decoded. */
static inline const char *fake_parameter(const char *query, const char *name, char *out,
                                         size_t size)
{
    size_t len = 0;
    out[0] = 0;
    for (const char *at = query; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL) {
        if (strncmp(at, name, strlen(name)) != 0 || at[strlen(name)] != '=')
            continue;
        for (at += strlen(name) + 1; *at && *at != '&' && len + 1 < size; at++) {
            unsigned code = (unsigned char)*at;
            if (*at == '%' && sscanf(at + 1, "%2x", &code) == 1)
                at += 2;
            out[len++] = (char)code;
        }
        break;
    }
    out[len] = 0;
    return out;
}

/* Pages have at most three keys, so that tokens are needed; foreign keys are among them. */
static inline void fake_list(struct fake_connection *c, const char *query)
{
    static struct vv_store_entry entries[4];
    char prefix[512];
    char after[512];
    char text[64];
    static char body[8192];
    fake_parameter(query, "prefix", prefix, sizeof(prefix));
    fake_parameter(query, "start-after", after, sizeof(after));
    if (strstr(query, "continuation-token="))
        fake_parameter(query, "continuation-token", after, sizeof(after));
    size_t max = strtoul(fake_parameter(query, "max-keys", text, sizeof(text)), NULL, 10);
    if (max > 3)
        max = 3;
    ssize_t count = vv_store_list(c->fake->objects, prefix, after, entries, max + 1);
    bool is_more = count > (ssize_t)max;
    int n = snprintf(body, sizeof(body), "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http:"
                                         "//s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>");
    for (ssize_t i = 0; i < count && i < (ssize_t)max; i++)
        n += snprintf(body + n, sizeof(body) - (size_t)n,
                      "<Contents><Key>%s</Key><Size>%llu</Size><Owner><ID>x</ID></Owner>"
                      "</Contents>", entries[i].name, (unsigned long long)entries[i].size);
    n += snprintf(body + n, sizeof(body) - (size_t)n, "<IsTruncated>%s</IsTruncated>",
                  is_more ? "true" : "false");
    if (is_more)
        n += snprintf(body + n, sizeof(body) - (size_t)n,
                      "<NextContinuationToken>%s</NextContinuationToken>", entries[max - 1].name);
    n += snprintf(body + n, sizeof(body) - (size_t)n, "</ListBucketResult>");
    fake_answer(c, "200 OK", "Content-Type: application/xml", body, (size_t)n, false);
}

static inline void fake_treat(struct fake_connection *c, const char *method, const char *path,
                              const char *query)
{
    static const char root[] = "/" FAKE_BUCKET;
    uint64_t size;
    if (strncmp(path, root, strlen(root)) != 0) {
        fake_error(c, "404 Not Found", "NoSuchBucket");
        return;
    }
    const char *name = path + strlen(root) + (path[strlen(root)] == '/');
    if (name[0] == 0 && strcmp(method, "GET") == 0) {
        fake_list(c, query);
    } else if (strcmp(method, "GET") == 0) {
        fake_get(c, name);
    } else if (strcmp(method, "PUT") == 0) {
        fake_put(c, name);
    } else if (strcmp(method, "DELETE") == 0) {
        (void)!vv_store_remove(c->fake->objects, name);
        fake_answer(c, "204 No Content", "", "", 0, true);
    } else if (vv_store_size(c->fake->objects, name, &size) == 0) {
        fake_answer(c, "200 OK", "", "", (size_t)size, true);
    } else {
        fake_answer(c, "404 Not Found", "", "", 0, true);
    }
}

/* One request; false when the connection is over. */
static inline bool fake_step_of(struct fake_connection *c)
{
    struct fake_s3 *fake = c->fake;
    struct fake_step step = {0};
    char method[16];
    char target[4096];
    char token[1024];
    if (sscanf(c->head, "%15s %4095s", method, target) != 2)
        return false;
    fake->requests++;
    snprintf(fake->head, sizeof(fake->head), "%s", c->head);
    char *query = strchr(target, '?');
    if (query)
        *query++ = 0;
    if (fake->script_at < fake->script_len)
        step = fake->script[fake->script_at++];
    if (!fake_is_signed(c, target, query ? query : "", method)) {
        fake->bad_signatures++;
        fake_error(c, "403 Forbidden", "SignatureDoesNotMatch");
        return true;
    }
    fake_header(c->head, "x-amz-security-token", token, sizeof(token));
    if (fake->wanted_token && strcmp(token, fake->wanted_token) != 0) {
        fake_error(c, "400 Bad Request", "ExpiredToken");
        return true;
    }
    if (step.answer && step.is_done_first && strcmp(method, "PUT") == 0) {
        struct iovec iov = {c->body, c->body_len};
        (void)!vv_store_put(fake->objects, target + strlen("/" FAKE_BUCKET "/"), &iov, 1);
    }
    if (step.answer && step.answer[0] == 0)
        return false;
    if (step.answer)
        return fake_send(c->socket, step.answer, strlen(step.answer)) &&
               !strstr(step.answer, "Connection: close");
    fake_treat(c, method, target, query ? query : "");
    return true;
}

static inline void fake_serve(void *arg)
{
    struct fake_connection *c = arg;
    struct fake_s3 *fake = c->fake;
    bool is_going_on = true;
    while (is_going_on && fake_read(c)) {
        is_going_on = fake_step_of(c);
        free(c->body);
        c->body = NULL;
    }
    free(c->body);
    for (size_t i = 0; i < 64; i++) {
        if (fake->open[i] == c->socket)
            fake->open[i] = NULL;
    }
    vv_socket_close(c->socket);
    free(c);
    fake->fibers--;
    vv_waitq_wake_all(&fake->ended);
}

static inline void fake_accept(void *arg)
{
    struct fake_s3 *fake = arg;
    struct vv_socket *socket;
    int err;
    while ((err = vv_socket_accept(fake->listener, &socket)) == 0 || err == -ENOMEM) {
        if (err < 0)
            continue;
        struct fake_connection *c = calloc(1, sizeof(*c));
        size_t slot = 0;
        while (slot < 63 && fake->open[slot])
            slot++;
        if (!c || vv_fiber_start(fake_serve, c, "fake s3 connection") < 0) {
            vv_socket_close(socket);
            free(c);
            continue;
        }
        c->fake = fake;
        c->socket = socket;
        fake->connections++;
        fake->fibers++;
        fake->open[slot] = socket;
    }
    fake->fibers--;
    vv_waitq_wake_all(&fake->ended);
}

static inline bool fake_start(struct fake_s3 *fake)
{
    memset(fake, 0, sizeof(*fake));
    vv_waitq_init(&fake->ended);
    if (vv_store_backend_new(&fake->backend) < 0 ||
        vv_store_mem_open(fake->backend, &fake->objects) < 0 ||
        vv_socket_listen("127.0.0.1:0", &fake->listener) < 0)
        return false;
    snprintf(fake->endpoint, sizeof(fake->endpoint), "http://127.0.0.1:%u",
             vv_socket_port(fake->listener));
    fake->fibers = 1;
    return vv_fiber_start(fake_accept, fake, "fake s3") == 0;
}

/* The stores that use it are closed. */
static inline void fake_stop(struct fake_s3 *fake)
{
    vv_socket_shutdown(fake->listener);
    for (size_t i = 0; i < 64; i++) {
        if (fake->open[i])
            vv_socket_shutdown(fake->open[i]);
    }
    while (fake->fibers > 0)
        vv_waitq_wait(&fake->ended, VV_NEVER);
    vv_socket_close(fake->listener);
    vv_store_close(fake->objects);
    vv_store_backend_free(fake->backend);
}

static inline void fake_script(struct fake_s3 *fake, const struct fake_step *steps, size_t count)
{
    if (count > 0)
        memcpy(fake->script, steps, count * sizeof(*steps));
    fake->script_len = count;
    fake->script_at = 0;
}

static inline struct vv_s3_options fake_options(const struct fake_s3 *fake, const char *prefix)
{
    return (struct vv_s3_options){.bucket = FAKE_BUCKET, .prefix = prefix,
                                  .endpoint = fake->endpoint, .region = "eu-test-1",
                                  .timeout_ms = 1000};
}

static inline int fake_open(const struct vv_s3_options *options, struct vv_store **out_store)
{
    struct vv_s3_sources sources = {.access_key = FAKE_ACCESS, .secret = FAKE_SECRET,
                                    .is_metadata_disabled = true};
    struct vv_s3_credentials *credentials;
    TRY(vv_s3_credentials_new(&sources, &credentials));
    return vv_store_s3_open(options, credentials, out_store);
}

#endif
