/* Do others want the processors? */
#include "rt/real_impl.h"

#include <fcntl.h>
#include <unistd.h>

/* Between two looks; one costs 2 us. */
#define LOOK_NS (2 * VV_NS_PER_MS)
#define TEXT_MAX 128
/* Threads that may be runnable beside one for each processor: a client that has just been answered is, beside the reactor and
 * whoever has the other processors. */
#define SPARE 1

void vv_crowd_init(struct vv_crowd *crowd)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    *crowd = (struct vv_crowd){.fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC),
                               .cpu_count = count > 0 ? (unsigned)count : 1};
}

void vv_crowd_done(struct vv_crowd *crowd)
{
    if (crowd->fd >= 0)
        close(crowd->fd);
    crowd->fd = -1;
}

/* "0.20 0.18 0.12 RUNNABLE/THREADS LAST\n" */
unsigned vv_crowd_runnable(const char *text, size_t len)
{
    size_t at = 0;
    for (int field = 0; field < 3; field++) {
        while (at < len && text[at] != ' ')
            at++;
        at++;
    }
    unsigned runnable = 0;
    for (; at < len && text[at] >= '0' && text[at] <= '9' && runnable < UINT32_MAX / 20; at++)
        runnable = runnable * 10 + (unsigned)(text[at] - '0');
    return at < len && text[at] == '/' ? runnable : 0;
}

bool vv_crowd_is_seen(struct vv_crowd *crowd, struct vv_workers *workers, uint64_t now_ns)
{
    char text[TEXT_MAX];
    if (crowd->fd < 0 || now_ns < crowd->looked_ns + LOOK_NS)
        return false;
    crowd->looked_ns = now_ns;
    ssize_t len = pread(crowd->fd, text, sizeof(text), 0);
    unsigned runnable = len > 0 ? vv_crowd_runnable(text, (size_t)len) : 0;
    return runnable > crowd->cpu_count + SPARE + vv_workers_awake(workers);
}
