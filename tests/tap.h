/* Tests print TAP (the Test Anything Protocol): one line "ok" or "not ok" per check, then a plan.
 * main() ends with `return tap_done();`. Single-threaded; a check's arguments are used once. */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One check; the rest is its name, as for printf. Each returns whether it passed. */
#define tap_ok(cond, ...) tap_check((cond), __FILE__, __LINE__, #cond, __VA_ARGS__)
#define tap_is_int(got, want, ...) tap_check_int((got), (want), __FILE__, __LINE__, __VA_ARGS__)
#define tap_is_str(got, want, ...) tap_check_str((got), (want), __FILE__, __LINE__, __VA_ARGS__)
/* The same `len` bytes. */
#define tap_is_bytes(got, want, len, ...)                                                          \
    tap_check_bytes((got), (want), (len), __FILE__, __LINE__, __VA_ARGS__)

/* One check that could not be made; the text says why. */
void tap_skip(const char *why, ...) __attribute__((format(printf, 1, 2)));
/* A comment line. */
void tap_note(const char *text, ...) __attribute__((format(printf, 1, 2)));
/* Prints the plan; returns main's status: 0 when no check failed, else 1. */
int tap_done(void);

/* Behind the macros. */
bool tap_check(bool passed, const char *file, int line, const char *what, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
bool tap_check_int(int64_t got, int64_t want, const char *file, int line, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
bool tap_check_str(const char *got, const char *want, const char *file, int line, const char *name,
                   ...) __attribute__((format(printf, 5, 6)));
bool tap_check_bytes(const void *got, const void *want, size_t len, const char *file, int line,
                     const char *name, ...) __attribute__((format(printf, 6, 7)));

#endif
