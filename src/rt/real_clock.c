/* The operating system's clocks and randomness. */
#include "rt/rt_impl.h"

#include <assert.h>
#include <errno.h>
#include <sys/random.h>
#include <time.h>

uint64_t vv_real_now_ns(struct vv_reactor *reactor)
{
    (void)reactor;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * VV_NS_PER_S + (uint64_t)now.tv_nsec;
}

struct timespec vv_real_wall(struct vv_reactor *reactor)
{
    (void)reactor;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now;
}

void vv_real_random(struct vv_reactor *reactor, void *out, size_t len)
{
    (void)reactor;
    char *place = out;
    while (len > 0) {
        ssize_t got = getrandom(place, len, 0);
        if (got < 0) {
            assert(errno == EINTR && "the kernel has getrandom");
            continue;
        }
        place += got;
        len -= (size_t)got;
    }
}
