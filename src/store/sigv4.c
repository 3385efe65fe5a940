#include "store/sigv4.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"

#define SIGNATURE_PARAMETER "X-Amz-Signature"

/* What the two dialects call things. */
static const char *word(const struct vv_sigv4_scope *scope)
{
    return scope->is_google ? "GOOG4" : "AWS4";
}

static const char *terminator(const struct vv_sigv4_scope *scope)
{
    return scope->is_google ? "goog4_request" : "aws4_request";
}

/* ---- hashes ---- */

static int hmac(const void *key, size_t key_len, const char *text, size_t len, uint8_t out[32])
{
    unsigned out_len = 32;
    const unsigned char *bytes = (const unsigned char *)text;
    return HMAC(EVP_sha256(), key, (int)key_len, bytes, len, out, &out_len) ? 0 : -ENOMEM;
}

static int sha256(const void *bytes, size_t len, uint8_t out[32])
{
    return EVP_Digest(bytes, len, out, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

int vv_sigv4_hash(const struct iovec *iov, int count, char out[VV_SIGV4_HEX_LEN + 1])
{
    uint8_t hash[32];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool is_good = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    for (int i = 0; i < count && is_good; i++)
        is_good = EVP_DigestUpdate(context, iov[i].iov_base, iov[i].iov_len) == 1;
    is_good = is_good && EVP_DigestFinal_ex(context, hash, NULL) == 1;
    EVP_MD_CTX_free(context);
    if (!is_good)
        return -ENOMEM;
    vv_hex(hash, sizeof(hash), out);
    return 0;
}

void vv_sigv4_time(time_t now, char out[17])
{
    struct tm tm = {0};
    gmtime_r(&now, &tm);
    unsigned year = (unsigned)(tm.tm_year + 1900) % 10000;
    vv_format(out, 17, "%04u%02u%02uT%02u%02u%02uZ", year, (unsigned)(tm.tm_mon + 1) % 100,
              (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100,
              (unsigned)tm.tm_sec % 100);
}

/* ---- percent-encoding ---- */

static bool is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           c == '-' || c == '.' || c == '_' || c == '~';
}

static void encode_byte(struct vv_writer *writer, char c, bool is_path)
{
    static const char digits[] = "0123456789ABCDEF";
    if (is_unreserved(c) || (is_path && c == '/')) {
        vv_writer_bytes(writer, &c, 1);
        return;
    }
    char text[3] = {'%', digits[(uint8_t)c >> 4], digits[(uint8_t)c & 15]};
    vv_writer_bytes(writer, text, sizeof(text));
}

void vv_sigv4_encode(struct vv_writer *writer, const char *text, bool is_path)
{
    for (; *text; text++)
        encode_byte(writer, *text, is_path);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The character at *index of `text`, percent-decoded; *index moves over it. -EINVAL. */
static int decode_one(const char *text, size_t len, size_t *index, bool is_query)
{
    char c = text[*index];
    if (c != '%') {
        (*index)++;
        return is_query && c == '+' ? ' ' : (uint8_t)c;
    }
    if (*index + 2 >= len)
        return -EINVAL;
    int high = hex_digit(text[*index + 1]);
    int low = hex_digit(text[*index + 2]);
    if (high < 0 || low < 0)
        return -EINVAL;
    *index += 3;
    return high << 4 | low;
}

/* Append `text` in canonical encoding, whatever its own was. -EINVAL. */
static int recode(struct vv_writer *writer, const char *text, size_t len, bool is_path)
{
    for (size_t i = 0; i < len;) {
        int c = decode_one(text, len, &i, !is_path);
        TRY(c);
        encode_byte(writer, (char)c, is_path);
    }
    return 0;
}

/* ---- the canonical request ---- */

/* A parameter in canonical form: where its "name=value" stands in the scratch text. */
struct parameter {
    const char *text;
    size_t name_len;
    size_t len;
};

/* By name, then by value. "name=value" as one text would sort "a-b" before "a", as '-' < '='. */
static int compare_parameters(const void *a, const void *b)
{
    const struct parameter *left = a;
    const struct parameter *right = b;
    struct vv_bytes left_name = {(const uint8_t *)left->text, left->name_len};
    struct vv_bytes right_name = {(const uint8_t *)right->text, right->name_len};
    int order = vv_bytes_compare(left_name, right_name);
    if (order != 0)
        return order;
    struct vv_bytes left_all = {(const uint8_t *)left->text, left->len};
    struct vv_bytes right_all = {(const uint8_t *)right->text, right->len};
    return vv_bytes_compare(left_all, right_all);
}

/* Canonical "name=value" pieces into `scratch`, whose room is reserved; their number. */
static int split_query(const char *query, struct vv_writer *scratch, struct parameter *out)
{
    size_t count = 0;
    while (*query) {
        size_t len = strcspn(query, "&");
        size_t name_len = len < strcspn(query, "=") ? len : strcspn(query, "=");
        if (len > 0) {
            if (count == VV_SIGV4_ITEMS_MAX)
                return -E2BIG;
            struct parameter *parameter = &out[count++];
            size_t start = scratch->len;
            TRY(recode(scratch, query, name_len, false));
            parameter->name_len = scratch->len - start;
            vv_writer_bytes(scratch, "=", 1);
            if (name_len < len)
                TRY(recode(scratch, query + name_len + 1, len - name_len - 1, false));
            parameter->text = (const char *)scratch->ptr + start;
            parameter->len = scratch->len - start;
        }
        query += len + (query[len] == '&');
    }
    return (int)count;
}

static int write_query(const char *query, struct vv_writer *out)
{
    struct parameter parameters[VV_SIGV4_ITEMS_MAX];
    size_t room = 3 * strlen(query) + VV_SIGV4_ITEMS_MAX + 1;
    uint8_t *bytes CLEANUP(vv_free_ptr) = vv_alloc(room);
    if (!bytes)
        return -ENOMEM;
    struct vv_writer scratch = vv_writer_of(bytes, room);
    int count = split_query(query, &scratch, parameters);
    TRY(count);
    TRY(vv_writer_check(&scratch));
    qsort(parameters, (size_t)count, sizeof(parameters[0]), compare_parameters);
    bool is_first = true;
    for (int i = 0; i < count; i++) {
        const struct parameter *parameter = &parameters[i];
        if (parameter->name_len == strlen(SIGNATURE_PARAMETER) &&
            memcmp(parameter->text, SIGNATURE_PARAMETER, parameter->name_len) == 0)
            continue;
        if (!is_first)
            vv_writer_bytes(out, "&", 1);
        vv_writer_bytes(out, parameter->text, parameter->len);
        is_first = false;
    }
    return 0;
}

static int compare_headers(const void *a, const void *b)
{
    const struct vv_sigv4_header *const *left = a;
    const struct vv_sigv4_header *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* Pointers to the headers, by name. */
static int sort_headers(const struct vv_sigv4_request *request, const struct vv_sigv4_header **out)
{
    if (request->header_count > VV_SIGV4_ITEMS_MAX)
        return -E2BIG;
    for (size_t i = 0; i < request->header_count; i++) {
        out[i] = &request->headers[i];
        if (strnlen(out[i]->value, VV_SIGV4_TEXT_MAX + 1) > VV_SIGV4_TEXT_MAX ||
            strnlen(out[i]->name, VV_SIGV4_TEXT_MAX + 1) > VV_SIGV4_TEXT_MAX)
            return -E2BIG;
    }
    qsort(out, request->header_count, sizeof(out[0]), compare_headers);
    for (size_t i = 1; i < request->header_count; i++) {
        if (strcmp(out[i - 1]->name, out[i]->name) == 0)
            return -EINVAL;
    }
    return 0;
}

/* Without spaces at the ends, and with one for each run of them. */
static void write_value(struct vv_writer *out, const char *value)
{
    bool is_gap = false;
    bool is_begun = false;
    for (; *value; value++) {
        if (*value == ' ' || *value == '\t') {
            is_gap = is_begun;
            continue;
        }
        if (is_gap)
            vv_writer_bytes(out, " ", 1);
        vv_writer_bytes(out, value, 1);
        is_gap = false;
        is_begun = true;
    }
}

static void write_text(struct vv_writer *out, const char *text)
{
    vv_writer_bytes(out, text, strlen(text));
}

static void write_names(struct vv_writer *out, const struct vv_sigv4_header *const *headers,
                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            write_text(out, ";");
        write_text(out, headers[i]->name);
    }
}

int vv_sigv4_canonical(const struct vv_sigv4_request *request, struct vv_writer *out)
{
    const struct vv_sigv4_header *headers[VV_SIGV4_ITEMS_MAX];
    if (strnlen(request->path, VV_SIGV4_TEXT_MAX + 1) > VV_SIGV4_TEXT_MAX ||
        strnlen(request->query, VV_SIGV4_TEXT_MAX + 1) > VV_SIGV4_TEXT_MAX)
        return -E2BIG;
    TRY(sort_headers(request, headers));
    write_text(out, request->method);
    write_text(out, "\n");
    TRY(recode(out, request->path, strlen(request->path), true));
    write_text(out, "\n");
    TRY(write_query(request->query, out));
    write_text(out, "\n");
    for (size_t i = 0; i < request->header_count; i++) {
        write_text(out, headers[i]->name);
        write_text(out, ":");
        write_value(out, headers[i]->value);
        write_text(out, "\n");
    }
    write_text(out, "\n");
    write_names(out, headers, request->header_count);
    write_text(out, "\n");
    write_text(out, request->payload_hash);
    return vv_writer_check(out);
}

/* ---- keys and signatures ---- */

void vv_sigv4_cache_done(struct vv_sigv4_cache *cache)
{
    OPENSSL_cleanse(cache, sizeof(*cache));
}

static bool is_cached(const struct vv_sigv4_cache *cache, const uint8_t secret_hash[32],
                      const struct vv_sigv4_scope *scope)
{
    return cache && cache->is_set && memcmp(cache->date, scope->time, 8) == 0 &&
           strcmp(cache->region, scope->region) == 0 &&
           strcmp(cache->service, scope->service) == 0 && cache->is_google == scope->is_google &&
           CRYPTO_memcmp(cache->secret_hash, secret_hash, 32) == 0;
}

static int derive_key(const char *secret, const struct vv_sigv4_scope *scope, uint8_t out[32])
{
    char first[512];
    if (strnlen(secret, sizeof(first)) > sizeof(first) - 5)
        return -E2BIG;
    size_t len = vv_format(first, sizeof(first), "%s%s", word(scope), secret);
    int err = hmac(first, len, scope->time, 8, out);
    OPENSSL_cleanse(first, sizeof(first));
    TRY(err);
    TRY(hmac(out, 32, scope->region, strlen(scope->region), out));
    TRY(hmac(out, 32, scope->service, strlen(scope->service), out));
    return hmac(out, 32, terminator(scope), strlen(terminator(scope)), out);
}

int vv_sigv4_key(struct vv_sigv4_cache *cache, const char *secret,
                 const struct vv_sigv4_scope *scope, uint8_t out_key[32])
{
    uint8_t secret_hash[32];
    TRY(sha256(secret, strlen(secret), secret_hash));
    if (is_cached(cache, secret_hash, scope)) {
        memcpy(out_key, cache->key, 32);
        return 0;
    }
    TRY(derive_key(secret, scope, out_key));
    if (cache) {
        memcpy(cache->key, out_key, 32);
        memcpy(cache->secret_hash, secret_hash, 32);
        memcpy(cache->date, scope->time, 8);
        memcpy(cache->region, scope->region, sizeof(cache->region));
        memcpy(cache->service, scope->service, sizeof(cache->service));
        cache->is_google = scope->is_google;
        cache->is_set = true;
    }
    return 0;
}

int vv_sigv4_sign(struct vv_sigv4_cache *cache, const char *secret,
                  const struct vv_sigv4_scope *scope, const struct vv_sigv4_request *request,
                  char out[VV_SIGV4_HEX_LEN + 1])
{
    uint8_t hash[32];
    uint8_t key[32];
    char hex[VV_SIGV4_HEX_LEN + 1];
    char text[512];
    struct vv_writer canonical CLEANUP(vv_writer_done) = vv_writer_new();
    TRY(vv_sigv4_canonical(request, &canonical));
    TRY(sha256(canonical.ptr, canonical.len, hash));
    vv_hex(hash, sizeof(hash), hex);
    size_t len = vv_format(text, sizeof(text), "%s-HMAC-SHA256\n%s\n%.8s/%s/%s/%s\n%s", word(scope),
                           scope->time, scope->time, scope->region, scope->service,
                           terminator(scope), hex);
    TRY(vv_sigv4_key(cache, secret, scope, key));
    int err = hmac(key, sizeof(key), text, len, hash);
    OPENSSL_cleanse(key, sizeof(key));
    TRY(err);
    vv_hex(hash, sizeof(hash), out);
    return 0;
}

int vv_sigv4_authorize(struct vv_sigv4_cache *cache, const char *access_key, const char *secret,
                       const struct vv_sigv4_scope *scope, const struct vv_sigv4_request *request,
                       struct vv_writer *out)
{
    const struct vv_sigv4_header *headers[VV_SIGV4_ITEMS_MAX];
    char signature[VV_SIGV4_HEX_LEN + 1];
    char text[512];
    TRY(vv_sigv4_sign(cache, secret, scope, request, signature));
    TRY(sort_headers(request, headers));
    vv_format(text, sizeof(text), "%s-HMAC-SHA256 Credential=%s/%.8s/%s/%s/%s, ", word(scope),
              access_key, scope->time, scope->region, scope->service, terminator(scope));
    write_text(out, text);
    write_text(out, "SignedHeaders=");
    write_names(out, headers, request->header_count);
    write_text(out, ", Signature=");
    write_text(out, signature);
    return vv_writer_check(out);
}

int vv_sigv4_verify(struct vv_sigv4_cache *cache, const char *secret,
                    const struct vv_sigv4_claim *claim, const struct vv_sigv4_request *request)
{
    char signature[VV_SIGV4_HEX_LEN + 1];
    TRY(vv_sigv4_sign(cache, secret, &claim->scope, request, signature));
    return CRYPTO_memcmp(signature, claim->signature, VV_SIGV4_HEX_LEN) == 0 ? 0 : -EACCES;
}
