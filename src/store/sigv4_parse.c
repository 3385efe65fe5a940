/* What a request claims about its own signature. */
#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "store/sigv4.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
#define GOOGLE_ALGORITHM "GOOG4-HMAC-SHA256"
#define EXPIRES_MAX_S 604800 /* seven days, as S3 has it */

/* Copy `len` bytes as text; -EINVAL when it is empty or too long. */
static int take(char *out, size_t size, const char *text, size_t len)
{
    if (len == 0 || len >= size)
        return -EINVAL;
    memcpy(out, text, len);
    out[len] = 0;
    return 0;
}

static bool is_digits(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
    }
    return true;
}

static int check_time(const char *time)
{
    bool is_good = strnlen(time, 17) == 16 && is_digits(time, 8) && time[8] == 'T' &&
                   is_digits(time + 9, 6) && time[15] == 'Z';
    return is_good ? 0 : -EINVAL;
}

/* KEY/YYYYMMDD/REGION/SERVICE/aws4_request; the key may hold slashes. */
static int parse_credential(const char *text, size_t len, struct vv_sigv4_claim *claim)
{
    size_t starts[5];
    size_t ends[5];
    size_t end = len;
    for (int i = 4; i >= 1; i--) {
        size_t start = end;
        while (start > 0 && text[start - 1] != '/')
            start--;
        if (start == 0)
            return -EINVAL;
        starts[i] = start;
        ends[i] = end;
        end = start - 1;
    }
    const char *last = claim->scope.is_google ? "goog4_request" : "aws4_request";
    if (ends[4] - starts[4] != strlen(last) || memcmp(text + starts[4], last, strlen(last)) != 0)
        return -EINVAL;
    if (ends[1] - starts[1] != 8 || !is_digits(text + starts[1], 8))
        return -EINVAL;
    TRY(take(claim->access_key, sizeof(claim->access_key), text, end));
    memcpy(claim->scope.time, text + starts[1], 8);
    TRY(take(claim->scope.region, sizeof(claim->scope.region), text + starts[2],
             ends[2] - starts[2]));
    return take(claim->scope.service, sizeof(claim->scope.service), text + starts[3],
                ends[3] - starts[3]);
}

static int parse_signature(const char *text, size_t len, struct vv_sigv4_claim *claim)
{
    if (len != VV_SIGV4_HEX_LEN)
        return -EINVAL;
    for (size_t i = 0; i < len; i++) {
        bool is_hex = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (!is_hex)
            return -EINVAL;
    }
    return take(claim->signature, sizeof(claim->signature), text, len);
}

static int parse_signed_headers(const char *text, size_t len, struct vv_sigv4_claim *claim)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || (text[i] >= 'A' && text[i] <= 'Z'))
            return -EINVAL;
    }
    return take(claim->signed_headers, sizeof(claim->signed_headers), text, len);
}

/* The day of the credential and the time given elsewhere must agree. */
static int set_time(struct vv_sigv4_claim *claim, const char *time)
{
    TRY(check_time(time));
    if (memcmp(claim->scope.time, time, 8) != 0)
        return -EINVAL;
    memcpy(claim->scope.time, time, sizeof(claim->scope.time));
    return 0;
}

static int check_complete(const struct vv_sigv4_claim *claim)
{
    bool is_complete = claim->access_key[0] && claim->signed_headers[0] && claim->signature[0];
    return is_complete ? 0 : -EINVAL;
}

/* Does `text` begin with `word`? Then *rest stands behind it. */
static bool begins(const char *text, size_t len, const char *word, const char **rest)
{
    size_t word_len = strlen(word);
    if (len < word_len || memcmp(text, word, word_len) != 0)
        return false;
    *rest = text + word_len;
    return true;
}

int vv_sigv4_parse_header(const char *authorization, const char *amz_date,
                          struct vv_sigv4_claim *out_claim)
{
    struct vv_sigv4_claim claim = {0};
    const char *at;
    size_t total = strnlen(authorization, VV_SIGV4_TEXT_MAX + 1);
    if (total > VV_SIGV4_TEXT_MAX)
        return -EINVAL;
    claim.scope.is_google = begins(authorization, total, GOOGLE_ALGORITHM, &at);
    if (!claim.scope.is_google && !begins(authorization, total, ALGORITHM, &at))
        return -EINVAL;
    while (*at) {
        const char *value;
        at += strspn(at, " ,");
        size_t len = strcspn(at, " ,");
        if (len == 0)
            break;
        if (begins(at, len, "Credential=", &value))
            TRY(parse_credential(value, len - (size_t)(value - at), &claim));
        else if (begins(at, len, "SignedHeaders=", &value))
            TRY(parse_signed_headers(value, len - (size_t)(value - at), &claim));
        else if (begins(at, len, "Signature=", &value))
            TRY(parse_signature(value, len - (size_t)(value - at), &claim));
        else
            return -EINVAL;
        at += len;
    }
    TRY(check_complete(&claim));
    TRY(set_time(&claim, amz_date));
    *out_claim = claim;
    return 0;
}

/* ---- presigned ---- */

struct presigned {
    struct vv_sigv4_claim claim;
    char algorithm[32];
    char time[32];
    char expires[16];
};

/* Percent-decoded text of a parameter; -EINVAL when it is malformed or too long. */
static int decode(const char *text, size_t len, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c == '%') {
            char pair[3] = {i + 1 < len ? text[i + 1] : 0, i + 2 < len ? text[i + 2] : 0, 0};
            TRY(vv_unhex(pair, &c, 1));
            i += 2;
        }
        if (c == 0 || used + 1 >= size)
            return -EINVAL;
        out[used++] = (char)c;
    }
    out[used] = 0;
    return (int)used;
}

static int parse_parameter(const char *text, size_t len, struct presigned *presigned)
{
    char decoded[1025];
    const char *value;
    if (!begins(text, len, "X-Amz-", &value))
        return 0;
    size_t name_len = strcspn(text, "=");
    if (name_len >= len)
        return 0;
    const char *raw = text + name_len + 1;
    int decoded_len = decode(raw, len - name_len - 1, decoded, sizeof(decoded));
    /* A session token may be longer; it is no part of the claim. */
    if (decoded_len < 0)
        return begins(text, len, "X-Amz-Security-Token=", &value) ? 0 : -EINVAL;
    size_t size = (size_t)decoded_len;
    if (begins(text, len, "X-Amz-Algorithm=", &value))
        return take(presigned->algorithm, sizeof(presigned->algorithm), decoded, size);
    if (begins(text, len, "X-Amz-Credential=", &value))
        return parse_credential(decoded, size, &presigned->claim);
    if (begins(text, len, "X-Amz-Date=", &value))
        return take(presigned->time, sizeof(presigned->time), decoded, size);
    if (begins(text, len, "X-Amz-Expires=", &value))
        return take(presigned->expires, sizeof(presigned->expires), decoded, size);
    if (begins(text, len, "X-Amz-SignedHeaders=", &value))
        return parse_signed_headers(decoded, size, &presigned->claim);
    if (begins(text, len, "X-Amz-Signature=", &value))
        return parse_signature(decoded, size, &presigned->claim);
    return 0;
}

int vv_sigv4_parse_query(const char *query, struct vv_sigv4_claim *out_claim)
{
    struct presigned presigned = {0};
    uint64_t expires_s = 0;
    if (strnlen(query, VV_SIGV4_TEXT_MAX + 1) > VV_SIGV4_TEXT_MAX)
        return -E2BIG;
    while (*query) {
        size_t len = strcspn(query, "&");
        TRY(parse_parameter(query, len, &presigned));
        query += len + (query[len] == '&');
    }
    if (presigned.algorithm[0] == 0 && presigned.claim.signature[0] == 0)
        return -ENOENT;
    if (strcmp(presigned.algorithm, ALGORITHM) != 0)
        return -EINVAL;
    TRY(check_complete(&presigned.claim));
    TRY(set_time(&presigned.claim, presigned.time));
    if (vv_parse_u64(presigned.expires, &expires_s) < 0 || expires_s > EXPIRES_MAX_S)
        return -EINVAL;
    presigned.claim.expires_s = (uint32_t)expires_s;
    *out_claim = presigned.claim;
    return 0;
}

bool vv_sigv4_is_signed(const struct vv_sigv4_claim *claim, const char *name)
{
    size_t name_len = strlen(name);
    const char *at = claim->signed_headers;
    while (*at) {
        size_t len = strcspn(at, ";");
        if (len == name_len && memcmp(at, name, len) == 0)
            return true;
        at += len + (at[len] == ';');
    }
    return false;
}
