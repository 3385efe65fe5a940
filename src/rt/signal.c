#include "rt/real_impl.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

void vv_signals_init(struct vv_signals *signals)
{
    signals->fd = -1;
    sigemptyset(&signals->watched);
}

void vv_signals_done(struct vv_signals *signals)
{
    if (signals->fd < 0)
        return;
    close(signals->fd);
    pthread_sigmask(SIG_SETMASK, &signals->were_blocked, NULL);
}

void vv_signals_deliver(struct vv_signals *signals)
{
    struct signalfd_siginfo info;
    while (read(signals->fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo < VV_SIGNALS_MAX && signals->handlers[info.ssi_signo].fn)
            signals->handlers[info.ssi_signo].fn(signals->handlers[info.ssi_signo].arg);
    }
}

static int open_signalfd(struct vv_real *real)
{
    struct vv_signals *signals = &real->signals;
    int fd = signalfd(-1, &signals->watched, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(real->poll.epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    pthread_sigmask(SIG_SETMASK, NULL, &signals->were_blocked);
    signals->fd = fd;
    return 0;
}

static bool can_be_handled(int signo)
{
    return signo > 0 && signo < VV_SIGNALS_MAX && signo != SIGKILL && signo != SIGSTOP;
}

int vv_rt_on_signal(int signo, void (*fn)(void *), void *arg)
{
    struct vv_real *real = vv_real_self();
    if (!real)
        return -ENOSYS;
    if (!can_be_handled(signo))
        return -EINVAL;
    struct vv_signals *signals = &real->signals;
    if (signals->fd < 0)
        TRY(open_signalfd(real));
    sigset_t watched = signals->watched;
    if (fn)
        sigaddset(&watched, signo);
    else
        sigdelset(&watched, signo);
    if (signalfd(signals->fd, &watched, 0) < 0)
        return -errno;
    signals->watched = watched;
    signals->handlers[signo].fn = fn;
    signals->handlers[signo].arg = arg;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signo);
    bool is_blocking = fn || sigismember(&signals->were_blocked, signo);
    pthread_sigmask(is_blocking ? SIG_BLOCK : SIG_UNBLOCK, &one, NULL);
    return 0;
}
