/* The s3 store against a server in this process: the contract, what requests look like, and what
 * each kind of answer means. */
#include "fake_s3.h"

#include "base/log.h"

static void test_contract(struct fake_s3 *fake)
{
    static const char *const prefixes[] = {"", "some/prefix"};
    for (size_t i = 0; i < 2; i++) {
        struct vv_s3_options options = fake_options(fake, prefixes[i]);
        struct vv_store *store;
        char text[256];
        options.is_signing_payload = i == 1;
        options.checksum = i == 0 ? VV_S3_CHECKSUM_CRC32C : VV_S3_CHECKSUM_MD5;
        if (!tap_ok(fake_open(&options, &store) == 0, "a store at \"%s\"", prefixes[i]))
            continue;
        if (i == 0)
            check_contract(store); /* the longest names: the server's own have that bound, too */
        check_objects(store);
        check_lists(store);
        tap_ok(race_is_fair(store), "of several puts at once, one succeeds");
        tap_is_int(vv_store_probe(store, text, sizeof(text)), 0, "the probe passes");
        tap_is_int(put_text(fake->objects, "some/foreign/key", "x"), 0, "a foreign object");
        tap_is_str(list_text(store, "", "", 10), i == 0 ? "some/foreign/key" : "",
                   "is outside of the prefix");
        tap_is_int(vv_store_remove(fake->objects, "some/foreign/key"), 0, "removed");
        vv_store_close(store);
    }
    tap_is_int(fake->bad_signatures, 0, "all requests were signed well");
    tap_ok(fake->connections < 64, "connections are used again: %u for %u requests",
           fake->connections, fake->requests);
}

static void check_header(struct fake_s3 *fake, const char *name, const char *wanted)
{
    char value[512];
    tap_is_str(fake_header(fake->head, name, value, sizeof(value)), wanted, "%s", name);
}

static void test_headers(struct fake_s3 *fake)
{
    struct vv_s3_options options = fake_options(fake, "p");
    struct vv_store *store;
    char buf[8];
    options.storage_class = "STANDARD_IA";
    options.headers[0] = "X-Amz-Request-Payer: requester";
    options.headers[1] = "X-Other: a b";
    options.header_count = 2;
    if (!tap_ok(fake_open(&options, &store) == 0, "a store with headers"))
        return;
    tap_is_int(put_text(store, "a", "123456789"), 0, "put");
    tap_ok(strncmp(fake->head, "PUT /bucket/p/a HTTP/1.1\r\n", 26) == 0, "the request line");
    check_header(fake, "if-none-match", "*");
    check_header(fake, "x-amz-storage-class", "STANDARD_IA");
    check_header(fake, "x-amz-request-payer", "requester");
    check_header(fake, "x-other", "a b");
    check_header(fake, "x-amz-checksum-crc32c", "4waSgw=="); /* RFC 3720: e3069283 */
    check_header(fake, "content-length", "9");
    check_header(fake, "expect", "");
    check_header(fake, "x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    tap_is_int(vv_store_get(store, "a", buf, 3, 2), 3, "get");
    check_header(fake, "range", "bytes=2-4");
    check_header(fake, "x-amz-storage-class", "");
    check_header(fake, "if-none-match", "");
    tap_is_int(vv_store_remove(store, "a"), 0, "remove");
    tap_is_int(fake->bad_signatures, 0, "all requests were signed well");
    vv_store_close(store);
}

/* Google's words for the same. */
static void test_google(struct fake_s3 *fake)
{
    struct vv_s3_options options = fake_options(fake, "p");
    struct vv_store *store;
    char text[256];
    options.dialect = VV_S3_DIALECT_GOOGLE;
    options.storage_class = "NEARLINE";
    if (!tap_ok(fake_open(&options, &store) == 0, "a store of the other dialect"))
        return;
    tap_is_int(put_text(store, "a", "123456789"), 0, "put");
    check_header(fake, "x-goog-if-generation-match", "0");
    check_header(fake, "x-goog-hash", "crc32c=4waSgw==");
    check_header(fake, "x-goog-storage-class", "NEARLINE");
    check_header(fake, "if-none-match", "");
    tap_ok(strstr(fake->head, "x-amz-") == NULL, "no word of AWS");
    tap_is_int(put_text(store, "a", "other"), -EEXIST, "put-if-absent");
    tap_is_int(vv_store_remove(store, "a"), 0, "remove");
    tap_is_int(vv_store_probe(store, text, sizeof(text)), 0, "the probe passes");
    tap_is_int(fake->bad_signatures, 0, "all requests were signed well");
    vv_store_close(store);
}

static void test_options(struct fake_s3 *fake)
{
    static const char *const endpoints[] = {"ftp://host", "http://", "http://host/path",
                                            "http://user@host", "host", "http://a b"};
    static const char *const prefixes[] = {"/a", "a/", "a//b", "a/../b", "a?b", "a b"};
    struct vv_store *store;
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        struct vv_s3_options options = fake_options(fake, "");
        options.endpoint = endpoints[i];
        tap_is_int(fake_open(&options, &store), -EINVAL, "endpoint %s", endpoints[i]);
    }
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        struct vv_s3_options options = fake_options(fake, prefixes[i]);
        tap_is_int(fake_open(&options, &store), -EINVAL, "prefix %s", prefixes[i]);
    }
    struct vv_s3_options options = fake_options(fake, "");
    options.headers[0] = "a: b\r\nInjected: c";
    options.header_count = 1;
    tap_is_int(fake_open(&options, &store), -EINVAL, "a header of two lines");
    options.headers[0] = "no colon";
    tap_is_int(fake_open(&options, &store), -EINVAL, "a header without a value");
    options = fake_options(fake, "");
    options.bucket = "a/b";
    tap_is_int(fake_open(&options, &store), -EINVAL, "a bucket with a slash");
}

#define XML(status, code)                                                                          \
    "HTTP/1.1 " status "\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"            \
    "<Error><Code>" code "</Code><Message>m</Message></Error>"

/* What an answer means to a put, a get and a list. */
static void test_answers(struct fake_s3 *fake, struct vv_store *store)
{
    static const struct {
        const char *what, *answer;
        int put, get, list;
    } cases[] = {
        {"412", XML("412 Precondition Failed", "PreconditionFailed"), -EEXIST, -EEXIST, -EEXIST},
        {"409", XML("409 Conflict", "ConditionalRequestConflict"), -VV_ERR_UNKNOWN, -EAGAIN,
         -EAGAIN},
        {"500", XML("500 Internal Error", "InternalError"), -VV_ERR_UNKNOWN, -EIO, -EIO},
        {"502 without a text", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
         -VV_ERR_UNKNOWN, -EIO, -EIO},
        {"503", XML("503 Slow Down", "SlowDown"), -EAGAIN, -EAGAIN, -EAGAIN},
        {"503 of a proxy", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", -VV_ERR_UNKNOWN, -EIO,
         -EIO},
        {"429", "HTTP/1.1 429 Busy\r\nContent-Length: 0\r\n\r\n", -EAGAIN, -EAGAIN, -EAGAIN},
        {"403", XML("403 Forbidden", "AccessDenied"), -EACCES, -EACCES, -EACCES},
        {"no bucket", XML("404 Not Found", "NoSuchBucket"), -VV_ERR_NO_BUCKET, -VV_ERR_NO_BUCKET,
         -VV_ERR_NO_BUCKET},
        {"no key", XML("404 Not Found", "NoSuchKey"), -ENOENT, -ENOENT, -ENOENT},
        {"404 of somebody else", "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
         -VV_ERR_UNKNOWN, -EIO, -EIO},
        {"a damaged body", XML("400 Bad Request", "BadDigest"), -EIO, -EIO, -EIO},
        {"a body that came too late", XML("400 Bad Request", "RequestTimeout"), -EAGAIN, -EAGAIN,
         -EAGAIN},
        {"507", "HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n", -ENOSPC, -ENOSPC, -ENOSPC},
        {"301", XML("301 Moved", "PermanentRedirect"), -EINVAL, -EINVAL, -EINVAL},
        {"501", XML("501 Not Implemented", "NotImplemented"), -EOPNOTSUPP, -EOPNOTSUPP,
         -EOPNOTSUPP},
        {"closed without an answer", "", -VV_ERR_UNKNOWN, -EIO, -EIO},
        {"no HTTP", "SSH-2.0-OpenSSH\r\n\r\nConnection: close", -VV_ERR_UNKNOWN, -EPROTO,
         -EPROTO},
        {"a bomb", XML("400 Bad", "<!DOCTYPE x [<!ENTITY a \"aa\">]>&a;"), -EINVAL, -EINVAL,
         -EINVAL},
    };
    char buf[8];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fake_step steps[4] = {{cases[i].answer, false}, {cases[i].answer, false},
                                     {cases[i].answer, false}};
        fake_script(fake, steps, 1);
        tap_is_str(vv_err_name(put_text(store, "x", "1")), vv_err_name(cases[i].put), "%s: put",
                   cases[i].what);
        /* A connection that was used before is tried twice. */
        fake_script(fake, steps, cases[i].answer[0] ? 1 : 3);
        tap_is_str(vv_err_name((int)vv_store_get(store, "x", buf, 8, 0)),
                   vv_err_name(cases[i].get), "%s: get", cases[i].what);
        fake_script(fake, steps, cases[i].answer[0] ? 1 : 3);
        tap_is_str(list_text(store, "", "", 5), vv_err_name(cases[i].list), "%s: list",
                   cases[i].what);
    }
    fake_script(fake, NULL, 0);
    tap_is_int(vv_store_remove(store, "x"), 0, "removed");
}

/* Bodies that are not what was asked for are never taken for it. */
static void test_bodies(struct fake_s3 *fake, struct vv_store *store)
{
    static const struct {
        const char *what, *answer;
        ssize_t wanted;
    } cases[] = {
        {"as it should be",
         "HTTP/1.1 206 P\r\nContent-Range: bytes 2-5/9\r\nContent-Length: 4\r\n\r\nabcd", 4},
        {"another place",
         "HTTP/1.1 206 P\r\nContent-Range: bytes 3-6/9\r\nContent-Length: 4\r\n\r\nabcd", -EIO},
        {"no place", "HTTP/1.1 206 P\r\nContent-Length: 4\r\n\r\nabcd", -EIO},
        {"a place that makes no sense",
         "HTTP/1.1 206 P\r\nContent-Range: bytes 5-2/9\r\nContent-Length: 4\r\n\r\nabcd", -EIO},
        {"short, not at the end",
         "HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/9\r\nContent-Length: 3\r\n\r\nabc", -EIO},
        {"short, at the end",
         "HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/5\r\nContent-Length: 3\r\n\r\nabc", 3},
        {"long", "HTTP/1.1 206 P\r\nContent-Range: bytes 2-6/9\r\nContent-Length: 5\r\n\r\nabcde",
         -EIO},
        {"cut off", "HTTP/1.1 206 P\r\nContent-Range: bytes 2-5/9\r\nContent-Length: 4\r\n"
                    "Connection: close\r\n\r\nab", -ETIMEDOUT},
        {"the range was ignored", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n0123abcd9", -EIO},
        {"status 204", "HTTP/1.1 204 No\r\n\r\n", -EIO},
    };
    char buf[4];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fake_step step = {cases[i].answer, false};
        fake_script(fake, &step, 1);
        ssize_t got = vv_store_get(store, "x", buf, sizeof(buf), 2);
        bool is_cut = cases[i].wanted == -ETIMEDOUT && got == -EIO;
        if (!is_cut)
            tap_is_int(got, cases[i].wanted, "a body: %s", cases[i].what);
        if (got > 0)
            tap_is_bytes(buf, "abcd", (size_t)got, "its bytes");
    }
    struct fake_step whole = {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcdefghi", false};
    fake_script(fake, &whole, 1);
    tap_is_int(vv_store_get(store, "x", buf, 4, 0), 4, "all of it, when it begins as asked for");
    tap_is_bytes(buf, "abcd", 4, "its bytes");
}

static void test_lists(struct fake_s3 *fake, struct vv_store *store)
{
#define LIST(text)                                                                                 \
    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListBucketResult>" text "</ListBucketResult>"
#define KEY(name) "<Contents><Key>p/" name "</Key><Size>1</Size></Contents>"
    static const struct {
        const char *what, *answer, *wanted;
    } cases[] = {
        {"two", LIST(KEY("a") KEY("b")), "a b"},
        {"names that are none", LIST(KEY("A") KEY("a") KEY("a//b") KEY("tmp/x") KEY("z")), "a z"},
        {"out of order", LIST(KEY("b") KEY("a")), "FORMAT"},
        {"twice", LIST(KEY("a") KEY("a")), "FORMAT"},
        {"from elsewhere", LIST("<Contents><Key>q/a</Key><Size>1</Size></Contents>"), "FORMAT"},
        {"more than asked for", LIST(KEY("a") KEY("b") KEY("c") KEY("d") KEY("e") KEY("f")),
         "FORMAT"},
        {"no size", LIST("<Contents><Key>p/a</Key><Size>x</Size></Contents>"), "FORMAT"},
        {"no key", LIST("<Contents><Size>1</Size></Contents>"), "FORMAT"},
        {"more, but not where", LIST(KEY("a") "<IsTruncated>true</IsTruncated>"), "FORMAT"},
        {"another document", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html></html>", "FORMAT"},
        {"half a document", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListBucketResult>",
         "FORMAT"},
        {"nothing", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "FORMAT"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fake_step step = {cases[i].answer, false};
        fake_script(fake, &step, 1);
        tap_is_str(list_text(store, "", "", 5), cases[i].wanted, "a list: %s", cases[i].what);
    }
    /* A server that hands out pages of foreign keys for ever is given up with an error. */
    struct fake_step again = {
        LIST("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
        false};
    struct fake_step steps[FAKE_SCRIPT_MAX];
    for (size_t i = 0; i < FAKE_SCRIPT_MAX; i++)
        steps[i] = again;
    fake_script(fake, steps, FAKE_SCRIPT_MAX);
    tap_is_str(list_text(store, "", "", 5), "", "empty pages are followed");
    tap_is_int((int64_t)fake->script_at, FAKE_SCRIPT_MAX, "to the last");
}

/* A put whose answer is lost took effect; sent again, it finds its own object. */
static void test_lost_answers(struct fake_s3 *fake, struct vv_store *store)
{
    struct fake_step lost[2] = {{"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", true}};
    fake_script(fake, lost, 1);
    tap_is_int(put_text(store, "lost", "1"), -VV_ERR_UNKNOWN, "500 behind the effect");
    tap_is_int(put_text(store, "lost", "1"), -EEXIST, "sent again");
    tap_ok(holds_text(store, "lost", "1"), "it is there");
    tap_is_int(vv_store_remove(store, "lost"), 0, "removed");
    struct fake_step late = {"HTTP/1.1 200 OK\r\n", true}; /* an answer that never ends */
    uint64_t from_ns = vv_rt_now_ns();
    fake_script(fake, &late, 1);
    tap_is_int(put_text(store, "late", "1"), -VV_ERR_UNKNOWN, "an answer that never ends");
    tap_ok(vv_rt_now_ns() - from_ns < 3 * VV_NS_PER_S, "is waited for no longer than the deadline");
    tap_is_int(put_text(store, "late", "1"), -EEXIST, "sent again");
    tap_is_int(vv_store_remove(store, "late"), 0, "removed");
}

static void test_large(struct vv_store *store)
{
    size_t len = 5 << 20;
    uint8_t *bytes = malloc(len);
    uint8_t *back = calloc(1, len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 31 + (i >> 12));
    struct iovec iov[3] = {{bytes, 1}, {bytes + 1, 3 << 20}, {bytes + 1 + (3 << 20), len - 1 - (3 << 20)}};
    tap_is_int(vv_store_put(store, "large", iov, 3), 0, "put of 5 MiB in three parts");
    tap_is_int(vv_store_get(store, "large", back, len, 0), (int64_t)len, "get");
    tap_ok(memcmp(bytes, back, len) == 0, "the same bytes");
    tap_is_int(vv_store_remove(store, "large"), 0, "removed");
    free(bytes);
    free(back);
}

/* The n-th allocation fails, the server's own included: an error, or the right result, and no leak. */
static void test_no_memory(struct fake_s3 *fake)
{
    struct vv_s3_options options = fake_options(fake, "p");
    bool is_done = false;
    int n = 0;
    for (; !is_done && n < 400; n++) {
        struct vv_store *store;
        struct vv_store_entry entry;
        uint8_t *bytes = NULL;
        size_t len = 0;
        vv_alloc_fail_at(n, false);
        int err = fake_open(&options, &store);
        if (err == 0) {
            int put = put_text(store, "memory", "1");
            ssize_t listed = put == 0 ? vv_store_list(store, "", "", &entry, 1) : 1;
            int got = put == 0 ? vv_store_get_all(store, "memory", 100, &bytes, &len) : put;
            is_done = put == 0 && listed == 1 && got == 0 && !vv_alloc_failed();
            if (got == 0 && (len != 1 || bytes[0] != '1'))
                tap_ok(false, "allocation %d: a wrong result", n);
            vv_free(bytes);
            vv_store_close(store);
        }
        vv_alloc_fail_at(-1, false);
        (void)!vv_store_remove(fake->objects, "p/memory");
    }
    tap_ok(is_done && n > 20, "allocations failed one by one (%d)", n);
}

static void test_skew(struct fake_s3 *fake, struct vv_store *store)
{
    struct fake_step step = {
        "HTTP/1.1 403 Forbidden\r\nDate: Fri, 01 Jan 2100 00:00:00 GMT\r\nConnection: close\r\n\r\n"
        "<Error><Code>RequestTimeTooSkewed</Code></Error>", false};
    char buf[1];
    fake_script(fake, &step, 1);
    tap_is_int(vv_store_get(store, "x", buf, 1, 0), -EACCES, "a clock that can't be is not taken");
    char text[256];
    char date[64];
    time_t ahead = vv_rt_wall().tv_sec + 3600;
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime(&ahead));
    snprintf(text, sizeof(text), "HTTP/1.1 403 Forbidden\r\nDate: %s\r\nConnection: close\r\n\r\n"
             "<Error><Code>RequestTimeTooSkewed</Code></Error>", date);
    struct fake_step hour = {text, false};
    fake_script(fake, &hour, 1);
    tap_is_int(vv_store_get(store, "x", buf, 1, 0), -ENOENT, "a clock an hour ahead is taken");
    char wanted[17];
    char got[32];
    vv_sigv4_time(ahead, wanted);
    fake_header(fake->head, "x-amz-date", got, sizeof(got));
    tap_ok(strncmp(wanted, got, 11) == 0, "and signed with: %s, %s", wanted, got);
}

static void s3_main(void *arg)
{
    struct fake_s3 *fake = calloc(1, sizeof(*fake));
    struct vv_store *store;
    if (!tap_ok(fake_start(fake), "a server on loopback"))
        return;
    test_contract(fake);
    test_headers(fake);
    test_google(fake);
    test_options(fake);
    struct vv_s3_options options = fake_options(fake, "p");
    if (tap_ok(fake_open(&options, &store) == 0, "a store")) {
        test_answers(fake, store);
        test_bodies(fake, store);
        test_lists(fake, store);
        test_lost_answers(fake, store);
        test_large(store);
        test_skew(fake, store);
        vv_store_close(store);
    }
    test_no_memory(fake);
    options.endpoint = "http://127.0.0.1:1";
    if (tap_ok(fake_open(&options, &store) == 0, "a store where nobody listens")) {
        tap_is_int(put_text(store, "a", "1"), -EIO, "a put did not take effect");
        vv_store_close(store);
    }
    fake_stop(fake);
    free(fake);
}

static void forget_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(void)
{
    vv_alloc_track(true);
    vv_log_set_sink(forget_line, NULL);
    run_real(s3_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
