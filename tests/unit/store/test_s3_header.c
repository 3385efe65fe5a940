#include <stdio.h>
#include <string.h>

#include "store/s3_http_impl.h"
#include "tap.h"

static struct vv_http_answer answer;

static void line(const char *text)
{
    vv_http_parse_header(&answer, text, strlen(text));
}

int main(void)
{
    answer.length = VV_HTTP_UNKNOWN;
    line("HTTP/1.1 100 Continue\r\n");
    line("HTTP/1.1 206 Partial Content\r\n");
    tap_is_int(answer.status, 206, "the last status counts");
    line("CONTENT-LENGTH:  42 \r\n");
    tap_is_int((int64_t)answer.length, 42, "a length");
    line("Content-Length: -1\r\n");
    line("Content-Length: 99999999999999999999999\r\n");
    line("Content-Length: 4x\r\n");
    tap_is_int((int64_t)answer.length, 42, "lengths that make no sense change nothing");
    line("Content-Range: bytes 10-19/100\r\n");
    tap_ok(answer.has_range, "a range");
    tap_is_int((int64_t)answer.range_first, 10, "its first byte");
    tap_is_int((int64_t)answer.range_last, 19, "its last byte");
    tap_is_int((int64_t)answer.range_total, 100, "of how many");
    static const char *const wrong[] = {"", "bytes", "bytes 1-", "bytes 5-4/10", "bytes 1-10/10",
                                        "bytes */10", "items 1-2/10", "bytes a-b/c"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char text[64];
        answer.has_range = false;
        snprintf(text, sizeof(text), "content-range: %s\r\n", wrong[i]);
        line(text);
        tap_ok(!answer.has_range, "range \"%s\" makes no sense", wrong[i]);
    }
    line("content-range: bytes 0-0/*\r\n");
    tap_ok(answer.has_range && answer.range_total == VV_HTTP_UNKNOWN, "a range of who knows what");
    line("Retry-After: 120\r\n");
    tap_is_int((int64_t)answer.retry_after_s, 120, "retry after");
    line("Retry-After: 999999999\r\n");
    tap_is_int((int64_t)answer.retry_after_s, 3600, "at most an hour");
    line("Date: Fri, 24 May 2013 00:00:00 GMT\r\n");
    tap_is_int(answer.date_s, 1369353600, "a date");
    line("Date: some day\r\n");
    tap_is_int(answer.date_s, 0, "no date");
    line("x-amz-bucket-region: eu-west-1\r\n");
    tap_is_str(answer.region, "eu-west-1", "a region");
    char text[2000];
    memset(text, 'x', sizeof(text));
    vv_http_parse_header(&answer, text, sizeof(text));
    vv_http_parse_header(&answer, "\r\n", 2);
    vv_http_parse_header(&answer, "", 0);
    vv_http_parse_header(&answer, "a\0b: c", 6);
    tap_ok(true, "long, empty and binary lines do no harm");
    return tap_done();
}
