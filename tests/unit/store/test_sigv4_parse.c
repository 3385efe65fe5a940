#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/sigv4.h"
#include "tap.h"

#define SIGNATURE "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
#define TIME "20130524T000000Z"
#define HEADER(credential, headers, signature)                                                     \
    "AWS4-HMAC-SHA256 Credential=" credential ", SignedHeaders=" headers ", Signature=" signature
#define CREDENTIAL "KEY/20130524/us-east-1/s3/aws4_request"
#define QUERY(algorithm, credential, time, expires, signature)                                     \
    "list-type=2&X-Amz-Algorithm=" algorithm "&X-Amz-Credential=" credential                       \
    "&X-Amz-Date=" time "&X-Amz-Expires=" expires                                                  \
    "&X-Amz-SignedHeaders=host%3Brange&X-Amz-Signature=" signature
#define QUERY_CREDENTIAL "KEY%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"

static struct vv_sigv4_claim claim;

static int header(const char *text)
{
    return vv_sigv4_parse_header(text, TIME, &claim);
}

static int query(const char *text)
{
    return vv_sigv4_parse_query(text, &claim);
}

static void test_header(void)
{
    tap_is_int(header(HEADER("a/b/20130524/eu/s3/aws4_request", "host;x-amz-date", SIGNATURE)), 0,
               "a header");
    tap_is_str(claim.access_key, "a/b", "the key, slashes and all");
    tap_is_str(claim.scope.region, "eu", "the region");
    tap_is_str(claim.scope.service, "s3", "the service");
    tap_is_str(claim.scope.time, TIME, "the time is that of x-amz-date");
    tap_is_str(claim.signature, SIGNATURE, "the signature");
    tap_is_int(claim.expires_s, 0, "does not expire");
    tap_ok(vv_sigv4_is_signed(&claim, "host"), "host is signed");
    tap_ok(vv_sigv4_is_signed(&claim, "x-amz-date"), "x-amz-date is signed");
    tap_ok(!vv_sigv4_is_signed(&claim, "x-amz"), "a part of a name is not");
    tap_is_int(header("AWS4-HMAC-SHA256 Credential=" CREDENTIAL ",SignedHeaders=host,Signature="
                      SIGNATURE), 0, "without spaces");
    tap_is_int(vv_sigv4_parse_header(HEADER(CREDENTIAL, "host", SIGNATURE), "20130525T000000Z",
                                     &claim), -EINVAL, "another day");
    tap_is_int(vv_sigv4_parse_header(HEADER(CREDENTIAL, "host", SIGNATURE), "yesterday", &claim),
               -EINVAL, "no time");
    tap_is_int(header("AWS AKID:signature"), -EINVAL, "version 2");
    tap_is_int(header(""), -EINVAL, "nothing");
    tap_is_int(header("AWS4-HMAC-SHA256"), -EINVAL, "only the algorithm");
    tap_is_int(header(HEADER("20130524/us-east-1/s3/aws4_request", "host", SIGNATURE)), -EINVAL,
               "no access key");
    tap_is_int(header(HEADER("KEY/2013052/us-east-1/s3/aws4_request", "host", SIGNATURE)), -EINVAL,
               "a short day");
    tap_is_int(header(HEADER("KEY/20130524/us-east-1/s3/aws5_request", "host", SIGNATURE)),
               -EINVAL, "another ending");
    tap_is_int(header(HEADER(CREDENTIAL, "Host", SIGNATURE)), -EINVAL, "upper-case headers");
    tap_is_int(header(HEADER(CREDENTIAL, "host", "abc")), -EINVAL, "a short signature");
    tap_is_int(header(HEADER(CREDENTIAL, "host", SIGNATURE) "0"), -EINVAL, "a long signature");
    tap_is_int(header(HEADER(CREDENTIAL, "host", SIGNATURE) ", Other=1"), -EINVAL, "other words");
    static char text[VV_SIGV4_TEXT_MAX + 100];
    snprintf(text, sizeof(text), "AWS4-HMAC-SHA256 Credential=%0*d/20130524/r/s3/aws4_request", 200,
             1);
    tap_is_int(header(text), -EINVAL, "a long access key");
    memset(text, ' ', sizeof(text) - 1);
    memcpy(text, "AWS4-HMAC-SHA256", 16);
    tap_is_int(header(text), -EINVAL, "a header past the bound");
}

static void test_query(void)
{
    tap_is_int(query(QUERY("AWS4-HMAC-SHA256", QUERY_CREDENTIAL, TIME, "60", SIGNATURE)), 0,
               "a presigned query");
    tap_is_str(claim.access_key, "KEY", "the key");
    tap_is_str(claim.signed_headers, "host;range", "the headers");
    tap_is_int(claim.expires_s, 60, "expires");
    tap_is_int(query("list-type=2&prefix=a"), -ENOENT, "not presigned");
    tap_is_int(query(""), -ENOENT, "no query");
    tap_is_int(query(QUERY("AWS4-HMAC-SHA1", QUERY_CREDENTIAL, TIME, "60", SIGNATURE)), -EINVAL,
               "another algorithm");
    tap_is_int(query(QUERY("AWS4-HMAC-SHA256", "KEY", TIME, "60", SIGNATURE)), -EINVAL,
               "no credential");
    tap_is_int(query(QUERY("AWS4-HMAC-SHA256", QUERY_CREDENTIAL, TIME, "604801", SIGNATURE)),
               -EINVAL, "too long valid");
    tap_is_int(query(QUERY("AWS4-HMAC-SHA256", QUERY_CREDENTIAL, TIME, "-1", SIGNATURE)), -EINVAL,
               "valid for less than nothing");
    tap_is_int(query(QUERY("AWS4-HMAC-SHA256", QUERY_CREDENTIAL, "20130525T000000Z", "1",
                           SIGNATURE)), -EINVAL, "another day");
    tap_is_int(query("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=%2"), -EINVAL, "a cut escape");
    tap_is_int(query("X-Amz-Algorithm=AWS4-HMAC-SHA256"), -EINVAL, "only an algorithm");
    static char text[VV_SIGV4_TEXT_MAX + 2];
    memset(text, 'a', sizeof(text) - 1);
    tap_is_int(query(text), -E2BIG, "a query past the bound");
}

int main(void)
{
    test_header();
    test_query();
    return tap_done();
}
