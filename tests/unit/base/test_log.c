#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"

struct seen {
    int count;
    enum vv_log_level level;
    char line[VV_LOG_LINE_MAX * 2];
};

static void sink(void *arg, enum vv_log_level level, const char *line)
{
    struct seen *seen = arg;
    seen->count++;
    seen->level = level;
    snprintf(seen->line, sizeof(seen->line), "%s", line);
}

/* What vv_log writes to standard error, through a temporary file. */
static void test_stderr(void)
{
    char text[256] = "";
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    vv_warn("base", "number %d", 7);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[len] = '\0';
    tap_ok(len > 25 && text[4] == '-' && text[10] == 'T' && text[23] == 'Z', "a line has a time");
    tap_is_str(text + 24, " WARN base: number 7\n", "then level, module and text");
}

int main(void)
{
    struct seen seen = {0};
    vv_log_set_sink(sink, &seen);
    vv_error("base", "cannot %s object %d", "read", 5);
    tap_is_str(seen.line, "base: cannot read object 5", "the sink gets the line");
    tap_is_int(seen.level, VV_LOG_ERROR, "and the level");
    vv_debug("base", "hidden");
    tap_is_int(seen.count, 1, "debug is off at first");
    vv_log_set_level(VV_LOG_DEBUG);
    vv_debug("base", "shown");
    tap_is_str(seen.line, "base: shown", "debug is on");
    vv_log_set_level(VV_LOG_ERROR);
    vv_warn("base", "hidden");
    tap_is_int(seen.count, 2, "errors only");
    vv_error("base", "name a\nb\033c");
    tap_is_str(seen.line, "base: name a?b?c", "control characters are replaced");
    char text[VV_LOG_LINE_MAX * 2];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    vv_error("base", "%s", text);
    tap_is_int((int64_t)strlen(seen.line), VV_LOG_LINE_MAX - 1, "a long line is cut");

    vv_log_set_sink(NULL, NULL);
    vv_log_set_level(VV_LOG_INFO);
    test_stderr();
    return tap_done();
}
