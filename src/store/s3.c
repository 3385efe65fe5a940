#include "store/s3.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/text.h"
#include "store/s3_impl.h"
#include "store/store_impl.h"

#define CONNECT_TIMEOUT_MS 10000
#define PARSE_OFFLOAD_BYTES 8192u
#define LIST_QUERY_BYTES 4096

static struct vv_s3 *s3_of(struct vv_store *store)
{
    return vv_container_of(store, struct vv_s3, store);
}

/* ---- put, get, size, remove ---- */

static int s3_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct vv_s3_request request = {
        .kind = VV_S3_PUT, .name = name, .body = iov, .body_count = count};
    int err = vv_s3_perform(s3_of(store), &request);
    vv_http_request_done(&request.http);
    return err;
}

static int s3_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    struct vv_s3_request request = {.kind = VV_S3_HEAD, .name = name};
    int err = vv_s3_perform(s3_of(store), &request);
    if (err == 0 && request.http.answer.length > VV_STORE_OBJECT_MAX)
        err = -EIO;
    if (err == 0)
        *out_size = request.http.answer.length;
    vv_http_request_done(&request.http);
    return err;
}

/* The bytes of a GET are those that were asked for, as far as the answer tells. */
static ssize_t check_got(const struct vv_http_answer *answer, size_t len, uint64_t offset)
{
    size_t got = answer->sunk;
    if (answer->status == 200) {
        /* The whole object: the range was ignored. Fine when it begins with what was wanted. */
        bool is_whole = answer->is_overlong || answer->length == VV_HTTP_UNKNOWN ||
                        answer->length == got;
        return offset == 0 && is_whole ? (ssize_t)got : -EIO;
    }
    if (answer->status != 206 || !answer->has_range || answer->is_overlong)
        return -EIO;
    if (answer->range_first != offset || answer->range_last - offset + 1 != got)
        return -EIO;
    /* Short only at the end. */
    bool is_end = answer->range_total == VV_HTTP_UNKNOWN || offset + got == answer->range_total;
    return got == len || is_end ? (ssize_t)got : -EIO;
}

static ssize_t s3_get(struct vv_store *store, const char *name, void *buf, size_t len,
                      uint64_t offset)
{
    char range[64];
    if (len == 0) {
        uint64_t size;
        return s3_size(store, name, &size);
    }
    vv_format(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)offset,
              (unsigned long long)(offset + len - 1));
    struct vv_s3_request request = {
        .kind = VV_S3_GET, .name = name, .range = range, .sink = buf, .sink_len = len};
    ssize_t got = vv_s3_perform(s3_of(store), &request);
    if (got == 0)
        got = check_got(&request.http.answer, len, offset);
    else if (got == -ERANGE)
        got = 0; /* there is nothing at or behind the offset */
    vv_http_request_done(&request.http);
    return got;
}

static int s3_remove(struct vv_store *store, const char *name)
{
    struct vv_s3_request request = {.kind = VV_S3_DELETE, .name = name};
    int err = vv_s3_perform(s3_of(store), &request);
    vv_http_request_done(&request.http);
    return err == -ENOENT ? 0 : err;
}

/* ---- list ---- */

/* Where a list call stands. */
struct listing {
    struct vv_s3 *s3;
    const char *prefix;
    const char *after; /* of the last name taken */
    struct vv_store_entry *entries;
    size_t count, max;
    char last[VV_STORE_NAME_MAX + 1];
    struct vv_s3_page page;
    const struct vv_http_answer *answer;
    int err;
};

static void add_key(struct vv_writer *query, const char *name, const struct vv_s3 *s3,
                    const char *value)
{
    vv_writer_bytes(query, name, strlen(name));
    if (s3->prefix[0]) {
        vv_sigv4_encode(query, s3->prefix, false);
        vv_writer_bytes(query, "%2F", 3);
    }
    vv_sigv4_encode(query, value, false);
}

static int make_query(const struct listing *listing, const char *token, struct vv_writer *query)
{
    char text[64];
    size_t left = listing->max - listing->count;
    vv_format(text, sizeof(text), "list-type=2&max-keys=%zu", left);
    vv_writer_bytes(query, text, strlen(text));
    if (listing->s3->prefix[0] || listing->prefix[0])
        add_key(query, "&prefix=", listing->s3, listing->prefix);
    if (token) {
        static const char name[] = "&continuation-token=";
        vv_writer_bytes(query, name, strlen(name));
        vv_sigv4_encode(query, token, false);
    } else if (listing->after[0]) {
        add_key(query, "&start-after=", listing->s3, listing->after);
    }
    vv_writer_u8(query, 0);
    return vv_writer_check(query);
}

/* Take the keys of a page that are object names; others are not the store's. */
static int take_page(struct listing *listing)
{
    size_t skip = strlen(listing->s3->prefix) + (listing->s3->prefix[0] != 0);
    for (size_t i = 0; i < listing->page.count; i++) {
        const struct vv_s3_key *key = &listing->page.keys[i];
        bool is_below = skip == 0 || (strlen(key->name) >= skip && key->name[skip - 1] == '/' &&
                                      strncmp(key->name, listing->s3->prefix, skip - 1) == 0);
        if (!is_below)
            return -VV_ERR_FORMAT;
        const char *name = key->name + skip;
        if (!vv_store_name_is_valid(name))
            continue;
        if (strncmp(name, listing->prefix, strlen(listing->prefix)) != 0 ||
            strcmp(name, listing->after) <= 0 || key->size > VV_STORE_OBJECT_MAX ||
            listing->count == listing->max)
            return -VV_ERR_FORMAT;
        struct vv_store_entry *entry = &listing->entries[listing->count++];
        (void)vv_copy_text(entry->name, sizeof(entry->name), name);
        entry->size = key->size;
        listing->after = entry->name;
    }
    return 0;
}

static void parse_page(void *arg)
{
    struct listing *listing = arg;
    listing->err = vv_s3_parse_page(listing->answer->text, listing->answer->text_len,
                                    &listing->page);
    if (listing->err == 0)
        listing->err = take_page(listing);
}

/* One page. 1: there are more. */
static int list_page(struct listing *listing, char **token)
{
    struct vv_writer query CLEANUP(vv_writer_done) = vv_writer_new();
    TRY(make_query(listing, *token, &query));
    struct vv_s3_request request = {.kind = VV_S3_LIST, .query = (const char *)query.ptr};
    int err = vv_s3_perform(listing->s3, &request);
    if (err == 0) {
        listing->answer = &request.http.answer;
        if (listing->answer->text_len > PARSE_OFFLOAD_BYTES)
            vv_rt_offload(parse_page, listing);
        else
            parse_page(listing);
        err = listing->err;
    }
    vv_http_request_done(&request.http);
    vv_free(*token);
    *token = NULL;
    if (err == 0 && listing->page.is_truncated && listing->count < listing->max) {
        *token = listing->page.token;
        listing->page.token = NULL;
        /* A page that says "more" without saying where can't be followed. */
        err = *token ? 1 : -VV_ERR_FORMAT;
    }
    vv_s3_page_done(&listing->page);
    return err;
}

static ssize_t s3_list(struct vv_store *store, const char *prefix, const char *after,
                       struct vv_store_entry *out_entries, size_t max)
{
    struct listing *listing CLEANUP(vv_free_ptr) = vv_zalloc(sizeof(*listing));
    char *token CLEANUP(vv_free_ptr) = NULL;
    if (!listing)
        return -ENOMEM;
    *listing = (struct listing){.s3 = s3_of(store), .prefix = prefix, .after = after,
                                .entries = out_entries, .max = max};
    int more = 1;
    for (int pages = 0; more == 1; pages++) {
        if (pages == VV_S3_PAGES_MAX)
            return -VV_ERR_LIMIT;
        more = list_page(listing, &token);
        TRY(more);
    }
    return (ssize_t)listing->count;
}

/* ---- beginning and end ---- */

static void s3_close(struct vv_store *store)
{
    struct vv_s3 *s3 = s3_of(store);
    vv_http_close(s3->http);
    vv_s3_credentials_free(s3->credentials);
    vv_sigv4_cache_done(&s3->cache);
    vv_free(s3->bucket);
    vv_free(s3->prefix);
    vv_free(s3->region);
    vv_free(s3->storage_class);
    for (size_t i = 0; i < s3->header_count; i++)
        vv_free(s3->headers[i]);
    vv_free(s3->base);
    vv_free(s3->host);
    vv_free(s3->root);
    vv_free(s3);
}

static const struct vv_store_ops s3_ops = {
    .type = "s3",
    .put = s3_put,
    .get = s3_get,
    .size = s3_size,
    .list = s3_list,
    .remove = s3_remove,
    .close = s3_close,
};

/* Letters, digits and some marks, none of which XML or a URL changes. */
static bool is_plain(const char *text, const char *marks, size_t max)
{
    for (size_t i = 0; text[i]; i++) {
        char c = text[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (i == max || (!is_alnum && !strchr(marks, c)))
            return false;
    }
    return true;
}

/* "Name: value", printable, a name of token characters. */
static bool is_header(const char *line)
{
    size_t name_len = strcspn(line, ":");
    if (name_len == 0 || name_len > 100 || line[name_len] == 0 || strlen(line) > 1024)
        return false;
    for (size_t i = 0; line[i]; i++) {
        unsigned char c = (unsigned char)line[i];
        bool is_token = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (i < name_len ? !is_token : c < ' ' || c >= 0x7f)
            return false;
    }
    return true;
}

static bool is_prefix(const char *prefix)
{
    size_t len = strlen(prefix);
    if (len == 0)
        return true;
    return is_plain(prefix, "/-_.=+@", VV_S3_PREFIX_MAX) && prefix[0] != '/' &&
           prefix[len - 1] != '/' && !strstr(prefix, "//") && !strstr(prefix, "..");
}

static int check_options(const struct vv_s3_options *options)
{
    bool is_good = options->bucket[0] && is_plain(options->bucket, "-._", 255) &&
                   is_prefix(options->prefix) && is_plain(options->region, "-_", 63) &&
                   options->header_count <= VV_S3_HEADERS_MAX;
    for (size_t i = 0; is_good && i < options->header_count; i++)
        is_good = is_header(options->headers[i]);
    if (is_good && options->storage_class)
        is_good = is_plain(options->storage_class, "-_", 63);
    return is_good ? 0 : -EINVAL;
}

static int copy_options(struct vv_s3 *s3, const struct vv_s3_options *options)
{
    s3->bucket = vv_strdup(options->bucket);
    s3->prefix = vv_strdup(options->prefix);
    s3->region = vv_strdup(options->region);
    s3->storage_class = options->storage_class ? vv_strdup(options->storage_class) : NULL;
    s3->checksum = options->checksum;
    s3->is_google = options->dialect == VV_S3_DIALECT_GOOGLE;
    s3->is_signing_payload = options->is_signing_payload;
    if (!s3->bucket || !s3->prefix || !s3->region || (options->storage_class && !s3->storage_class))
        return -ENOMEM;
    for (size_t i = 0; i < options->header_count; i++) {
        s3->headers[i] = vv_strdup(options->headers[i]);
        if (!s3->headers[i])
            return -ENOMEM;
        s3->header_count++;
    }
    return vv_s3_set_endpoint(s3, options->endpoint, options->is_virtual_hosted);
}

int vv_store_s3_open(const struct vv_s3_options *options, struct vv_s3_credentials *credentials,
                     struct vv_store **out_store)
{
    struct vv_s3 *s3 = vv_zalloc(sizeof(*s3));
    if (!s3) {
        vv_s3_credentials_free(credentials);
        return -ENOMEM;
    }
    s3->store.ops = &s3_ops;
    s3->credentials = credentials;
    struct vv_http_options http = {
        .ca_file = options->ca_file,
        .connections = options->connections ? options->connections : VV_S3_CONNECTIONS_DEFAULT,
        .timeout_ms = options->timeout_ms ? options->timeout_ms : VV_S3_TIMEOUT_DEFAULT_MS,
        .connect_timeout_ms = CONNECT_TIMEOUT_MS};
    if (http.connect_timeout_ms > http.timeout_ms)
        http.connect_timeout_ms = http.timeout_ms;
    int err = check_options(options);
    if (err == 0)
        err = copy_options(s3, options);
    if (err == 0)
        err = vv_http_open(&http, &s3->http);
    if (err < 0)
        s3_close(&s3->store);
    else
        *out_store = &s3->store;
    return err;
}
