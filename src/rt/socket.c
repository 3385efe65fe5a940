#include "rt/real_impl.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

#define BACKLOG 1024
#define LONG_SEND_BYTES (128u << 10)
#define ROOMY_BYTES (1 << 20) /* of the kernel's, which takes twice as much for its own needs, too */

struct vv_socket {
    int fd;
    bool is_shut_down;
    bool is_unix;
    bool is_roomy;
    unsigned port;
    /* The socket file that listening made, to be removed at the end if it is still the same. */
    struct sockaddr_un made;
    dev_t made_dev;
    ino_t made_ino;
};

/* ---- making and ending ---- */

/* Wrap a descriptor; it is closed when that fails. */
static int wrap(struct vv_real *real, int fd, int family, struct vv_socket **out_socket)
{
    struct vv_socket *socket = vv_zalloc(sizeof(*socket));
    int err = socket ? vv_poll_register(&real->poll, fd, VV_RT_READ | VV_RT_WRITE) : -ENOMEM;
    if (err != 0) {
        vv_free(socket);
        close(fd);
        return err;
    }
    int on = 1;
    socket->fd = fd;
    socket->is_unix = family == AF_UNIX;
    if (!socket->is_unix)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    *out_socket = socket;
    return 0;
}

static int open_socket(struct vv_real *real, int family, struct vv_socket **out_socket)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    return wrap(real, fd, family, out_socket);
}

void vv_socket_shutdown(struct vv_socket *socket)
{
    struct vv_real *real = vv_real_self();
    socket->is_shut_down = true;
    shutdown(socket->fd, SHUT_RDWR);
    vv_poll_wake(&real->poll, socket->fd, VV_RT_READ | VV_RT_WRITE);
}

static void remove_made(const struct vv_socket *socket)
{
    struct stat found;
    if (socket->made.sun_path[0] == '\0' || lstat(socket->made.sun_path, &found) != 0)
        return;
    if (found.st_dev == socket->made_dev && found.st_ino == socket->made_ino)
        unlink(socket->made.sun_path);
}

void vv_socket_close(struct vv_socket *socket)
{
    if (!socket)
        return;
    vv_poll_forget(&vv_real_self()->poll, socket->fd);
    remove_made(socket);
    close(socket->fd);
    vv_free(socket);
}

/* ---- listening ---- */

/* Remove a socket file that nobody listens on any more. -EADDRINUSE when somebody does. */
static int remove_stale(const union vv_address *address)
{
    struct stat found;
    if (lstat(address->local.sun_path, &found) != 0 || !S_ISSOCK(found.st_mode))
        return 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int err = connect(fd, &address->any, sizeof(address->local)) == 0 ? 0 : -errno;
    close(fd);
    if (err != -ECONNREFUSED)
        return err == -ENOENT ? 0 : -EADDRINUSE;
    return unlink(address->local.sun_path) == 0 || errno == ENOENT ? 0 : -errno;
}

static void remember_made(struct vv_socket *socket, const union vv_address *address)
{
    struct stat found;
    if (lstat(address->local.sun_path, &found) != 0)
        return;
    socket->made = address->local;
    socket->made_dev = found.st_dev;
    socket->made_ino = found.st_ino;
}

static int bind_and_listen(struct vv_socket *socket, const union vv_address *address, socklen_t len)
{
    int on = 1;
    if (!socket->is_unix)
        setsockopt(socket->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(socket->fd, &address->any, len) != 0)
        return -errno;
    if (socket->is_unix)
        remember_made(socket, address);
    if (listen(socket->fd, BACKLOG) != 0)
        return -errno;
    union vv_address bound;
    socklen_t bound_len = sizeof(bound);
    if (getsockname(socket->fd, &bound.any, &bound_len) != 0)
        return -errno;
    if (bound.any.sa_family == AF_INET6)
        socket->port = ntohs(bound.v6.sin6_port);
    else if (bound.any.sa_family == AF_INET)
        socket->port = ntohs(bound.v4.sin_port);
    return 0;
}

int vv_socket_listen(const char *address_text, struct vv_socket **out_socket)
{
    struct vv_real *real = vv_real_self();
    if (!real)
        return -ENOSYS;
    union vv_address address;
    socklen_t len;
    TRY(vv_address_parse(address_text, &address, &len));
    if (address.any.sa_family == AF_UNIX)
        TRY(remove_stale(&address));
    struct vv_socket *socket;
    TRY(open_socket(real, address.any.sa_family, &socket));
    int err = bind_and_listen(socket, &address, len);
    if (err != 0) {
        vv_socket_close(socket);
        return err;
    }
    *out_socket = socket;
    return 0;
}

/* ---- waiting ---- */

/* After EAGAIN: wait until it is worth another try. 0 then. */
static int wait_ready(struct vv_socket *socket, unsigned event, uint64_t deadline_ns)
{
    int ready = vv_poll_wait(&vv_real_self()->poll, socket->fd, event, deadline_ns);
    if (socket->is_shut_down)
        return -VV_ERR_STOPPED;
    return ready < 0 ? ready : 0;
}

static bool is_again(int err)
{
    return err == -EAGAIN || err == -EWOULDBLOCK;
}

static bool is_loopback(const union vv_address *address)
{
    const struct in6_addr *v6 = &address->v6.sin6_addr;
    if (address->any.sa_family == AF_INET)
        return (ntohl(address->v4.sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
    return address->any.sa_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == IN_LOOPBACKNET));
}

/* A client on this machine: there is no line between to be careful with. Where the system's choice is BBR, the kernel
 * would send no faster than it believes that line to be, and set a timer for each piece, which takes longer than to
 * copy it. Reno, which every kernel has, does neither. */
static void ease_loopback(int fd)
{
    static const char name[] = "reno";
    union vv_address peer;
    socklen_t len = sizeof(peer);
    if (getpeername(fd, &peer.any, &len) == 0 && is_loopback(&peer))
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, sizeof(name) - 1);
}

int vv_socket_accept(struct vv_socket *socket, struct vv_socket **out_socket)
{
    struct vv_real *real = vv_real_self();
    if (!real)
        return -ENOSYS;
    while (!socket->is_shut_down) {
        int fd = accept4(socket->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && !socket->is_unix)
            ease_loopback(fd);
        if (fd >= 0)
            return wrap(real, fd, socket->is_unix ? AF_UNIX : AF_INET, out_socket);
        int err = -errno;
        if (is_again(err))
            err = wait_ready(socket, VV_RT_READ, VV_NEVER);
        else if (err == -EINTR || err == -ECONNABORTED)
            err = 0; /* that peer has gone; the next one counts */
        TRY(err);
    }
    return -VV_ERR_STOPPED;
}

/* ---- connecting ---- */

static int finish_connect(struct vv_socket *socket, const union vv_address *address, socklen_t len,
                          uint64_t deadline_ns)
{
    if (connect(socket->fd, &address->any, len) == 0)
        return 0;
    if (errno != EINPROGRESS && errno != EINTR)
        return -errno;
    /* Registration may report the unconnected state first: ask the socket until it knows. */
    for (;;) {
        TRY(wait_ready(socket, VV_RT_WRITE, deadline_ns));
        int err = 0;
        socklen_t err_len = sizeof(err);
        if (getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &err, &err_len) != 0)
            return -errno;
        if (err != 0)
            return -err;
        union vv_address peer;
        socklen_t peer_len = sizeof(peer);
        if (getpeername(socket->fd, &peer.any, &peer_len) == 0)
            return 0;
        if (errno != ENOTCONN)
            return -errno;
    }
}

int vv_socket_connect(const char *address_text, uint64_t deadline_ns, struct vv_socket **out_socket)
{
    struct vv_real *real = vv_real_self();
    if (!real)
        return -ENOSYS;
    union vv_address address;
    socklen_t len;
    TRY(vv_address_parse(address_text, &address, &len));
    struct vv_socket *socket;
    TRY(open_socket(real, address.any.sa_family, &socket));
    int err = finish_connect(socket, &address, len, deadline_ns);
    if (err != 0) {
        vv_socket_close(socket);
        return err;
    }
    *out_socket = socket;
    return 0;
}

/* ---- bytes ---- */

ssize_t vv_socket_recv(struct vv_socket *socket, void *buf, size_t len, uint64_t deadline_ns)
{
    struct iovec iov = {buf, len};
    return vv_socket_recv_iov(socket, &iov, 1, deadline_ns);
}

ssize_t vv_socket_recv_iov(struct vv_socket *socket, struct iovec *iov, int count,
                           uint64_t deadline_ns)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    while (!socket->is_shut_down) {
        ssize_t got = count == 1 ? recv(socket->fd, iov->iov_base, iov->iov_len, 0)
                                 : recvmsg(socket->fd, &message, 0);
        if (got >= 0)
            return got;
        int err = -errno;
        if (is_again(err))
            err = wait_ready(socket, VV_RT_READ, deadline_ns);
        if (err != 0 && err != -EINTR)
            return err;
    }
    return -VV_ERR_STOPPED;
}

/* Take `len` bytes, which were sent, off the front. */
static void advance(struct iovec **iov, int *count, size_t len)
{
    while (*count > 0 && len >= (*iov)->iov_len) {
        len -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (len > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + len;
        (*iov)->iov_len -= len;
    }
}

/* More than the 208 KiB that a unix socket holds if nobody asks, which TCP's grows beyond by itself: of long answers, the
 * sender and the receiver each waited for the other five times a MiB. Only for who sends such, since it is the kernel's memory
 * that a client can leave full. Root may have more than the system's net.core.wmem_max, others get that. */
static void make_room(struct vv_socket *socket, const struct iovec *iov, int count)
{
    const int bytes = ROOMY_BYTES;
    size_t len = 0;
    for (int i = 0; i < count && len < LONG_SEND_BYTES; i++)
        len += iov[i].iov_len;
    if (len < LONG_SEND_BYTES)
        return;
    if (setsockopt(socket->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
        setsockopt(socket->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    socket->is_roomy = true;
}

int vv_socket_send(struct vv_socket *socket, struct iovec *iov, int count, uint64_t deadline_ns)
{
    advance(&iov, &count, 0);
    if (socket->is_unix && !socket->is_roomy)
        make_room(socket, iov, count);
    while (count > 0 && !socket->is_shut_down) {
        struct msghdr message = {.msg_iov = iov};
        message.msg_iovlen = (size_t)(count < IOV_MAX ? count : IOV_MAX);
        ssize_t sent = sendmsg(socket->fd, &message, MSG_NOSIGNAL);
        if (sent >= 0) {
            advance(&iov, &count, (size_t)sent);
            continue;
        }
        int err = -errno;
        if (is_again(err))
            err = wait_ready(socket, VV_RT_WRITE, deadline_ns);
        if (err != 0 && err != -EINTR)
            return err;
    }
    return count > 0 ? -VV_ERR_STOPPED : 0;
}

unsigned vv_socket_port(const struct vv_socket *socket)
{
    return socket->port;
}

int vv_socket_peer(const struct vv_socket *socket, uid_t *out_uid, gid_t *out_gid)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (!socket->is_unix)
        return -ENOTSUP;
    if (getsockopt(socket->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return -errno;
    *out_uid = peer.uid;
    *out_gid = peer.gid;
    return 0;
}

int vv_socket_remote(const struct vv_socket *socket, uint8_t out_address[16], unsigned *out_port)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    union vv_address peer;
    socklen_t len = sizeof(peer);
    if (socket->is_unix)
        return -ENOTSUP;
    if (getpeername(socket->fd, &peer.any, &len) != 0)
        return -errno;
    if (peer.any.sa_family == AF_INET6) {
        memcpy(out_address, &peer.v6.sin6_addr, 16);
        *out_port = ntohs(peer.v6.sin6_port);
        return 0;
    }
    memcpy(out_address, mapped, sizeof(mapped));
    memcpy(out_address + sizeof(mapped), &peer.v4.sin_addr, 4);
    *out_port = ntohs(peer.v4.sin_port);
    return 0;
}
