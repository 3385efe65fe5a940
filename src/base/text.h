/* Small text helpers: bounded formatting, numbers and sizes as people write them. */
#ifndef VV_BASE_TEXT_H
#define VV_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* As snprintf, but always ends the text and returns the length that stands in `out`. */
size_t vv_format(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Copies text, cut to size - 1. Returns 0, or -ENAMETOOLONG when it was cut. */
int vv_copy_text(char *out, size_t size, const char *text);
/* Decimal digits only; -EINVAL, -ERANGE. */
MUST_CHECK int vv_parse_u64(const char *text, uint64_t *out_value);
/* "4096", "16M", "1.5G", "2TiB": powers of 1024; -EINVAL, -ERANGE. */
MUST_CHECK int vv_parse_size(const char *text, uint64_t *out_bytes);
/* "1.5 GiB" into out; returns out. */
char *vv_size_to_text(uint64_t bytes, char *out, size_t size);

#endif
