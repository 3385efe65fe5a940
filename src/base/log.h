/* Log lines. Modules return errors; servers and cmd log once, with what was tried, on which object,
 * and the error's text. A line is "time level module: text" on standard error, or what the sink
 * makes of it. Thread-safe; never suspends; a line longer than VV_LOG_LINE_MAX is cut. */
#ifndef VV_BASE_LOG_H
#define VV_BASE_LOG_H

#define VV_LOG_LINE_MAX 1024

enum vv_log_level { VV_LOG_ERROR, VV_LOG_WARN, VV_LOG_INFO, VV_LOG_DEBUG };

void vv_log_set_level(enum vv_log_level level);
/* `sink` gets each finished line as "module: text", without time, level and newline, one at a time;
 * it must not log. NULL restores standard error. */
void vv_log_set_sink(void (*sink)(void *arg, enum vv_log_level level, const char *line), void *arg);
void vv_log(enum vv_log_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define vv_error(module, ...) vv_log(VV_LOG_ERROR, module, __VA_ARGS__)
#define vv_warn(module, ...) vv_log(VV_LOG_WARN, module, __VA_ARGS__)
#define vv_info(module, ...) vv_log(VV_LOG_INFO, module, __VA_ARGS__)
#define vv_debug(module, ...) vv_log(VV_LOG_DEBUG, module, __VA_ARGS__)

#endif
