#include "tap.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int check_count;
static int failed_count;

/* Each line is flushed at once, so that a crash shows the last check that was reached. */
static void print_line(const char *start, const char *format, va_list args)
{
    fputs(start, stdout);
    vprintf(format, args);
    putchar('\n');
    fflush(stdout);
}

static bool report(bool passed, const char *file, int line, const char *name, va_list args)
{
    char start[32];
    check_count++;
    snprintf(start, sizeof(start), "%sok %d - ", passed ? "" : "not ", check_count);
    print_line(start, name, args);
    if (!passed) {
        failed_count++;
        tap_note("  at %s:%d", file, line);
    }
    return passed;
}

void tap_note(const char *text, ...)
{
    va_list args;
    va_start(args, text);
    print_line("# ", text, args);
    va_end(args);
}

void tap_skip(const char *why, ...)
{
    char start[32];
    va_list args;
    check_count++;
    snprintf(start, sizeof(start), "ok %d # SKIP ", check_count);
    va_start(args, why);
    print_line(start, why, args);
    va_end(args);
}

bool tap_check(bool passed, const char *file, int line, const char *what, const char *name, ...)
{
    va_list args;
    va_start(args, name);
    report(passed, file, line, name, args);
    va_end(args);
    if (!passed)
        tap_note("  false: %s", what);
    return passed;
}

bool tap_check_int(int64_t got, int64_t want, const char *file, int line, const char *name, ...)
{
    va_list args;
    va_start(args, name);
    bool passed = report(got == want, file, line, name, args);
    va_end(args);
    if (!passed)
        tap_note("  got %" PRId64 ", want %" PRId64, got, want);
    return passed;
}

bool tap_check_str(const char *got, const char *want, const char *file, int line, const char *name,
                   ...)
{
    bool is_same = got && want ? strcmp(got, want) == 0 : got == want;
    va_list args;
    va_start(args, name);
    bool passed = report(is_same, file, line, name, args);
    va_end(args);
    if (!passed)
        tap_note("  got '%s', want '%s'", got ? got : "(null)", want ? want : "(null)");
    return passed;
}

bool tap_check_bytes(const void *got, const void *want, size_t len, const char *file, int line,
                     const char *name, ...)
{
    const uint8_t *a = got;
    const uint8_t *b = want;
    size_t i = 0;
    while (i < len && a && b && a[i] == b[i])
        i++;
    va_list args;
    va_start(args, name);
    bool passed = report(i == len, file, line, name, args);
    va_end(args);
    if (!passed && a && b)
        tap_note("  first difference at byte %zu: got %02x, want %02x", i, a[i], b[i]);
    else if (!passed)
        tap_note("  got %p, want %p", got, want);
    return passed;
}

int tap_done(void)
{
    printf("1..%d\n", check_count);
    fflush(stdout);
    return failed_count > 0;
}
