/* Header lines of an answer. What comes from a server may be anything. */
#include <curl/curl.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "store/s3_http_impl.h"

#define RETRY_AFTER_MAX_S 3600

/* Decimal digits at *at; *at moves over them. false: there are none, or too many. */
static bool take_number(const char **at, uint64_t *out)
{
    uint64_t value = 0;
    const char *start = *at;
    while (**at >= '0' && **at <= '9') {
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(**at - '0'), &value))
            return false;
        (*at)++;
    }
    *out = value;
    return *at > start;
}

/* "bytes FIRST-LAST/TOTAL", TOTAL perhaps "*". */
static void parse_range(struct vv_http_answer *answer, const char *value)
{
    uint64_t first;
    uint64_t last;
    uint64_t total = VV_HTTP_UNKNOWN;
    if (strncasecmp(value, "bytes ", 6) != 0)
        return;
    value += 6;
    if (!take_number(&value, &first) || *value++ != '-' || !take_number(&value, &last) ||
        *value++ != '/')
        return;
    if (*value != '*' && !take_number(&value, &total))
        return;
    if (first > last || last >= total)
        return;
    answer->has_range = true;
    answer->range_first = first;
    answer->range_last = last;
    answer->range_total = total;
}

/* "HTTP/1.1 206 ...": a new answer begins (the one before it was only "100 Continue"). */
static bool parse_status(struct vv_http_answer *answer, const char *line)
{
    uint64_t status;
    if (strncmp(line, "HTTP/", 5) != 0)
        return false;
    line += strcspn(line, " ");
    line += strspn(line, " ");
    if (take_number(&line, &status) && status < 1000)
        answer->status = (unsigned)status;
    return true;
}

void vv_http_parse_header(struct vv_http_answer *answer, const char *line, size_t len)
{
    char text[512];
    uint64_t number;
    while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
        len--;
    if (len >= sizeof(text) || memchr(line, 0, len))
        return;
    memcpy(text, line, len);
    text[len] = 0;
    if (parse_status(answer, text))
        return;
    char *value = strchr(text, ':');
    if (!value)
        return;
    *value++ = 0;
    value += strspn(value, " \t");
    const char *at = value;
    if (strcasecmp(text, "content-length") == 0 && take_number(&at, &number) && *at == 0)
        answer->length = number;
    else if (strcasecmp(text, "content-range") == 0)
        parse_range(answer, value);
    else if (strcasecmp(text, "retry-after") == 0 && take_number(&at, &number) && *at == 0)
        answer->retry_after_s = number < RETRY_AFTER_MAX_S ? number : RETRY_AFTER_MAX_S;
    else if (strcasecmp(text, "date") == 0)
        answer->date_s = curl_getdate(value, NULL) > 0 ? curl_getdate(value, NULL) : 0;
    else if (strcasecmp(text, "x-amz-bucket-region") == 0)
        (void)vv_copy_text(answer->region, sizeof(answer->region), value);
    else if (strcasecmp(text, "x-amz-request-id") == 0)
        (void)vv_copy_text(answer->request_id, sizeof(answer->request_id), value);
}
