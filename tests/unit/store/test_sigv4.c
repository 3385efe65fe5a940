/* The examples of the Amazon S3 API reference ("Signature calculations") and of the AWS general
 * reference (deriving a key), and what is not in them. */
#include "store/sigv4.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "tap.h"

#define ACCESS "AKIAIOSFODNN7EXAMPLE"
#define SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define HOST {"host", "examplebucket.s3.amazonaws.com"}
#define DATE {"x-amz-date", "20130524T000000Z"}
#define COUNT(array) (sizeof(array) / sizeof(array[0]))

static const struct vv_sigv4_scope scope = {"20130524T000000Z", "us-east-1", "s3", false};

static void check_signature(const char *name, const struct vv_sigv4_request *request,
                            const char *wanted)
{
    char got[VV_SIGV4_HEX_LEN + 1] = "";
    tap_is_int(vv_sigv4_sign(NULL, SECRET, &scope, request, got), 0, "%s: signs", name);
    tap_is_str(got, wanted, "%s: as in the example", name);
}

static void test_examples(void)
{
    const struct vv_sigv4_header get[] = {
        DATE, {"range", "bytes=0-9"}, {"x-amz-content-sha256", EMPTY_HASH}, HOST};
    const struct vv_sigv4_request get_object = {"GET", "/test.txt", "", get, COUNT(get),
                                                EMPTY_HASH};
    check_signature("GET object", &get_object,
                    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    char hash[VV_SIGV4_HEX_LEN + 1];
    struct iovec body[] = {{(void *)"Welcome ", 8}, {(void *)"to Amazon S3.", 13}};
    tap_is_int(vv_sigv4_hash(body, 2, hash), 0, "a payload is hashed");
    const struct vv_sigv4_header put[] = {HOST,
                                          DATE,
                                          {"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                          {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
                                          {"x-amz-content-sha256", hash}};
    const struct vv_sigv4_request put_object = {"PUT", "/test$file.text", "", put, COUNT(put),
                                                hash};
    check_signature("PUT object", &put_object,
                    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    const struct vv_sigv4_header plain[] = {HOST, DATE, {"x-amz-content-sha256", EMPTY_HASH}};
    struct vv_sigv4_request lifecycle = {"GET", "/", "lifecycle", plain, COUNT(plain), EMPTY_HASH};
    check_signature("GET bucket lifecycle", &lifecycle,
                    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    lifecycle.query = "prefix=J&max-keys=2";
    check_signature("GET bucket, list", &lifecycle,
                    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
    const struct vv_sigv4_header host[] = {HOST};
    const struct vv_sigv4_request presigned = {
        "GET", "/test.txt",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" ACCESS
        "%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=anything",
        host, 1, VV_SIGV4_UNSIGNED};
    check_signature("presigned GET", &presigned,
                    "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
}

static void test_key(void)
{
    const struct vv_sigv4_scope iam = {"20120215T000000Z", "us-east-1", "iam", false};
    const char *secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    struct vv_sigv4_cache cache = {0};
    uint8_t key[32];
    char hex[65];
    for (int round = 0; round < 2; round++) {
        tap_is_int(vv_sigv4_key(&cache, secret, &iam, key), 0, "a key, round %d", round);
        vv_hex(key, sizeof(key), hex);
        tap_is_str(hex, "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d",
                   "the key of the example");
    }
    uint8_t other[32];
    const struct vv_sigv4_scope next_day = {"20120216T000000Z", "us-east-1", "iam", false};
    tap_is_int(vv_sigv4_key(&cache, secret, &next_day, other), 0, "another day");
    tap_ok(memcmp(key, other, 32) != 0, "has another key");
    tap_is_int(vv_sigv4_key(&cache, "another secret", &next_day, key), 0, "another secret");
    tap_ok(memcmp(key, other, 32) != 0, "has another key");
    vv_sigv4_cache_done(&cache);
    tap_ok(!cache.is_set, "the cache is wiped");
    char long_secret[600];
    memset(long_secret, 'x', sizeof(long_secret) - 1);
    long_secret[sizeof(long_secret) - 1] = 0;
    tap_is_int(vv_sigv4_key(NULL, long_secret, &iam, key), -E2BIG, "a secret past the bound");
}

static void check_canonical(const struct vv_sigv4_request *request, const char *wanted)
{
    struct vv_writer out = vv_writer_new();
    tap_is_int(vv_sigv4_canonical(request, &out), 0, "canonical");
    vv_writer_u8(&out, 0);
    tap_is_str((const char *)out.ptr, wanted, "the canonical request");
    vv_writer_done(&out);
}

static void test_canonical(void)
{
    const struct vv_sigv4_header headers[] = {{"x-b", "  two   words\tand more "}, {"host", "h"}};
    const struct vv_sigv4_request request = {
        "PUT", "/a%2fb/%7Ec+d e", "b=2&a-b=1&a=z&&a=%41&empty&plus=1+1%2B", headers, 2, "HASH"};
    check_canonical(&request, "PUT\n/a/b/~c%2Bd%20e\n"
                              "a=A&a=z&a-b=1&b=2&empty=&plus=1%201%2B\n"
                              "host:h\nx-b:two words and more\n\nhost;x-b\nHASH");
    const struct vv_sigv4_request empty = {"GET", "/", "", NULL, 0, "HASH"};
    check_canonical(&empty, "GET\n/\n\n\n\nHASH");
}

static int canonical_error(const struct vv_sigv4_request *request)
{
    struct vv_writer out = vv_writer_new();
    int err = vv_sigv4_canonical(request, &out);
    vv_writer_done(&out);
    return err;
}

static void test_bounds(void)
{
    static char text[VV_SIGV4_TEXT_MAX + 2];
    struct vv_sigv4_header headers[VV_SIGV4_ITEMS_MAX + 1];
    struct vv_sigv4_request request = {"GET", "/%4", "", headers, 0, "HASH"};
    tap_is_int(canonical_error(&request), -EINVAL, "a cut percent sign");
    request.path = "/%zz";
    tap_is_int(canonical_error(&request), -EINVAL, "no hex behind a percent sign");
    memset(text, 'a', sizeof(text) - 1);
    request.path = text;
    tap_is_int(canonical_error(&request), -E2BIG, "a path past the bound");
    request.path = "/";
    request.query = text;
    tap_is_int(canonical_error(&request), -E2BIG, "a query past the bound");
    for (size_t i = 0; i + 1 < sizeof(text); i++)
        text[i] = i % 2 ? '&' : 'a';
    text[2 * (VV_SIGV4_ITEMS_MAX + 1)] = 0;
    tap_is_int(canonical_error(&request), -E2BIG, "too many parameters");
    request.query = "";
    for (size_t i = 0; i < COUNT(headers); i++)
        headers[i] = (struct vv_sigv4_header){"a", "b"};
    request.header_count = COUNT(headers);
    tap_is_int(canonical_error(&request), -E2BIG, "too many headers");
    request.header_count = 2;
    tap_is_int(canonical_error(&request), -EINVAL, "a header twice");
}

static void test_authorize(void)
{
    const struct vv_sigv4_header headers[] = {HOST, DATE, {"x-amz-content-sha256", EMPTY_HASH}};
    struct vv_sigv4_request request = {"GET", "/", "lifecycle", headers, 3, EMPTY_HASH};
    struct vv_sigv4_claim claim;
    struct vv_writer out = vv_writer_new();
    tap_is_int(vv_sigv4_authorize(NULL, ACCESS, SECRET, &scope, &request, &out), 0, "a header");
    vv_writer_u8(&out, 0);
    const char *text = (const char *)out.ptr;
    tap_is_str(text,
               "AWS4-HMAC-SHA256 Credential=" ACCESS "/20130524/us-east-1/s3/aws4_request, "
               "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
               "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
               "the header's value");
    tap_is_int(vv_sigv4_parse_header(text, scope.time, &claim), 0, "is understood");
    tap_is_int(vv_sigv4_verify(NULL, SECRET, &claim, &request), 0, "and verified");
    tap_is_int(vv_sigv4_verify(NULL, "guess", &claim, &request), -EACCES, "another secret");
    request.query = "lifecycle=x";
    tap_is_int(vv_sigv4_verify(NULL, SECRET, &claim, &request), -EACCES, "another request");
    vv_writer_done(&out);
}

/* Each allocation of ours fails once; nothing leaks (the sanitizer looks) and the error is told. */
static void test_no_memory(void)
{
    const struct vv_sigv4_header headers[] = {HOST, DATE};
    const struct vv_sigv4_request request = {"GET", "/", "a=b", headers, 2, EMPTY_HASH};
    int err = -ENOMEM;
    int n = 0;
    for (; err < 0 && n < 100; n++) {
        struct vv_writer out = vv_writer_new();
        vv_alloc_fail_at(n, false);
        err = vv_sigv4_authorize(NULL, ACCESS, SECRET, &scope, &request, &out);
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        if (err != (has_failed ? -ENOMEM : 0))
            tap_is_int(err, -ENOMEM, "allocation %d fails", n);
        vv_writer_done(&out);
    }
    tap_ok(n > 2 && err == 0, "allocations failed one by one (%d)", n);
}

int main(void)
{
    char time[17];
    vv_sigv4_time(1369353600, time);
    tap_is_str(time, "20130524T000000Z", "a time as text");
    test_examples();
    test_key();
    test_canonical();
    test_bounds();
    test_authorize();
    test_no_memory();
    return tap_done();
}
