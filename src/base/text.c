#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Digits after the point that a size may have. */
#define FRACTION_DIGITS_MAX 9

size_t vv_format(char *out, size_t size, const char *format, ...)
{
    assert(size > 0);
    va_list args;
    va_start(args, format);
    int len = vsnprintf(out, size, format, args);
    va_end(args);
    if (len < 0) {
        out[0] = '\0';
        return 0;
    }
    return (size_t)len < size ? (size_t)len : size - 1;
}

int vv_copy_text(char *out, size_t size, const char *text)
{
    assert(size > 0);
    size_t len = strnlen(text, size);
    bool is_cut = len == size;
    if (is_cut)
        len = size - 1;
    memcpy(out, text, len);
    out[len] = '\0';
    return is_cut ? -ENAMETOOLONG : 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads digits from *text on, and moves it behind them. -EINVAL when there are none, -ERANGE. */
static int take_digits(const char **text, uint64_t *out_value)
{
    const char *at = *text;
    uint64_t value = 0;
    if (!is_digit(*at))
        return -EINVAL;
    for (; is_digit(*at); at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return -ERANGE;
    *text = at;
    *out_value = value;
    return 0;
}

int vv_parse_u64(const char *text, uint64_t *out_value)
{
    uint64_t value;
    /* What is no number is -EINVAL, however long it is. */
    if (text[strspn(text, "0123456789")] != '\0')
        return -EINVAL;
    TRY(take_digits(&text, &value));
    *out_value = value;
    return 0;
}

/* The power of two that "", "B", "K", "KB", "KiB" ... stand for; -EINVAL. */
static int unit_shift(const char *unit)
{
    static const char letters[] = "kmgtpe";
    if (unit[0] == '\0' || strcmp(unit, "B") == 0)
        return 0;
    const char *letter = strchr(letters, unit[0] | 0x20);
    if (!letter || *letter == '\0')
        return -EINVAL;
    const char *rest = unit + 1;
    if (*rest != '\0' && strcmp(rest, "i") != 0 && strcmp(rest, "B") != 0 &&
        strcmp(rest, "iB") != 0)
        return -EINVAL;
    return 10 * (int)(letter - letters + 1);
}

int vv_parse_size(const char *text, uint64_t *out_bytes)
{
    uint64_t whole;
    uint64_t fraction = 0;
    uint64_t fraction_unit = 1;
    TRY(take_digits(&text, &whole));
    if (*text == '.') {
        const char *digits = ++text;
        TRY(take_digits(&text, &fraction));
        if (text - digits > FRACTION_DIGITS_MAX)
            return -EINVAL;
        for (; digits < text; digits++)
            fraction_unit *= 10;
    }
    int shift = unit_shift(text);
    TRY(shift);
    if (shift == 0 && fraction_unit > 1)
        return -EINVAL;
    uint64_t bytes;
    uint64_t part = (uint64_t)(((unsigned __int128)fraction << shift) / fraction_unit);
    if (__builtin_mul_overflow(whole, UINT64_C(1) << shift, &bytes) ||
        __builtin_add_overflow(bytes, part, &bytes))
        return -ERANGE;
    *out_bytes = bytes;
    return 0;
}

char *vv_size_to_text(uint64_t bytes, char *out, size_t size)
{
    static const char letters[] = "KMGTPE";
    if (bytes < 1024) {
        vv_format(out, size, "%" PRIu64 " B", bytes);
        return out;
    }
    unsigned power = (63 - (unsigned)__builtin_clzll(bytes)) / 10;
    uint64_t unit = UINT64_C(1) << (10 * power);
    uint64_t whole = bytes / unit;
    unsigned tenths = (unsigned)((unsigned __int128)(bytes % unit) * 10 / unit);
    if (tenths > 0)
        vv_format(out, size, "%" PRIu64 ".%u %ciB", whole, tenths, letters[power - 1]);
    else
        vv_format(out, size, "%" PRIu64 " %ciB", whole, letters[power - 1]);
    return out;
}
