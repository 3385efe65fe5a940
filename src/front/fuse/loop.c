#include "front/fuse/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/text.h"

#define LOOP_BYTES 4096 /* the least that has a block */

/* The free device that the kernel names, with `backing` under it. */
static int take_free(int control, int backing, char *path)
{
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0)
        return -errno;
    vv_format(path, VV_FUSE_LOOP_PATH_MAX, "/dev/loop%d", number);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct loop_config config = {.fd = (uint32_t)backing, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
    vv_format((char *)config.info.lo_file_name, sizeof(config.info.lo_file_name), "varve");
    if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

int vv_fuse_loop_open(char out_path[VV_FUSE_LOOP_PATH_MAX])
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return -errno;
    int backing = memfd_create("varve", MFD_CLOEXEC);
    int err = backing < 0 || ftruncate(backing, LOOP_BYTES) < 0 ? -errno : -EBUSY;
    for (int i = 0; i < VV_FUSE_LOOP_TRIES_MAX && err == -EBUSY; i++)
        err = take_free(control, backing, out_path);
    if (backing >= 0)
        close(backing);
    close(control);
    return err;
}
