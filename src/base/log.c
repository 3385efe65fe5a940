#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

/* "2025-01-31T12:00:00.123Z ERROR " and a newline around the line. */
#define LINE_FRAME_MAX 48

static atomic_int level_max = VV_LOG_INFO;

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*sink_fn)(void *arg, enum vv_log_level level, const char *line);
static void *sink_arg;

void vv_log_set_level(enum vv_log_level level)
{
    atomic_store(&level_max, (int)level);
}

void vv_log_set_sink(void (*sink)(void *arg, enum vv_log_level level, const char *line), void *arg)
{
    pthread_mutex_lock(&sink_lock);
    sink_fn = sink;
    sink_arg = arg;
    pthread_mutex_unlock(&sink_lock);
}

/* File names and wire strings get into log lines: none may begin a line of its own or reach the
 * terminal as an escape. */
static void replace_controls(char *line)
{
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
}

static void write_stderr(enum vv_log_level level, const char *line)
{
    static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
    char text[VV_LOG_LINE_MAX + LINE_FRAME_MAX];
    char when[24];
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &parts);
    size_t len = vv_format(text, sizeof(text) - 1, "%s.%03dZ %s %s", when,
                           (int)(now.tv_nsec / 1000000), names[level], line);
    text[len++] = '\n';
    /* One write, so that lines of several processes do not mix. A log that cannot be written has
     * nowhere to report that. */
    ssize_t written = write(STDERR_FILENO, text, len);
    (void)written;
}

void vv_log(enum vv_log_level level, const char *module, const char *format, ...)
{
    if ((int)level > atomic_load_explicit(&level_max, memory_order_relaxed))
        return;
    char line[VV_LOG_LINE_MAX];
    size_t len = vv_format(line, sizeof(line), "%s: ", module);
    va_list args;
    va_start(args, format);
    if (vsnprintf(line + len, sizeof(line) - len, format, args) < 0)
        vv_format(line + len, sizeof(line) - len, "(a line that cannot be formatted)");
    va_end(args);
    replace_controls(line);

    pthread_mutex_lock(&sink_lock);
    if (sink_fn)
        sink_fn(sink_arg, level, line);
    else
        write_stderr(level, line);
    pthread_mutex_unlock(&sink_lock);
}
