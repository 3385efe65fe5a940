/* Sockets and descriptors of the real runtime. */
#include "both.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/alloc.h"

static uint64_t soon(void)
{
    return vv_rt_now_ns() + 5 * VV_NS_PER_S;
}

/* ---- a server that sends everything back ---- */

struct server {
    struct vv_socket *socket;
    int accepted;
    int connections;
    int last_err;
    struct vv_waitq ended;
    struct vv_socket *next; /* for the fiber that is started */
};

static void echo(void *arg)
{
    struct server *server = arg;
    struct vv_socket *socket = server->next;
    char buf[8192];
    server->next = NULL;
    ssize_t got;
    while ((got = vv_socket_recv(socket, buf, sizeof(buf), VV_NEVER)) > 0) {
        struct iovec iov = {buf, (size_t)got};
        if (vv_socket_send(socket, &iov, 1, VV_NEVER) != 0)
            break;
    }
    vv_socket_close(socket);
    server->connections--;
    vv_waitq_wake_all(&server->ended);
}

static void serve(void *arg)
{
    struct server *server = arg;
    struct vv_socket *socket;
    while ((server->last_err = vv_socket_accept(server->socket, &socket)) == 0) {
        server->accepted++;
        server->connections++;
        server->next = socket;
        if (vv_fiber_start(echo, server, "echo") != 0)
            break;
        while (server->next)
            vv_fiber_yield();
    }
    vv_socket_close(server->socket);
    server->socket = NULL;
    vv_waitq_wake_all(&server->ended);
}

static bool start_server(struct server *server, const char *address)
{
    *server = (struct server){0};
    vv_waitq_init(&server->ended);
    int err = vv_socket_listen(address, &server->socket);
    return tap_is_int(err, 0, "listen on %s", address) &&
           tap_is_int(vv_fiber_start(serve, server, "serve"), 0, "serve");
}

static void stop_server(struct server *server)
{
    vv_socket_shutdown(server->socket);
    while (server->socket || server->connections > 0)
        vv_waitq_wait(&server->ended, VV_NEVER);
    tap_is_int(server->last_err, -VV_ERR_STOPPED, "shutdown ends accepting");
}

/* ---- clients ---- */

#define BIG_BYTES (1u << 20)

struct transfer {
    struct vv_socket *socket;
    uint8_t *bytes;
    int err;
    bool has_ended;
};

/* One after another in small and large pieces, so that the socket's buffer fills. */
static void send_all(void *arg)
{
    struct transfer *transfer = arg;
    struct iovec iov[3] = {
        {transfer->bytes, 10}, {transfer->bytes + 10, 0}, {transfer->bytes + 10, BIG_BYTES - 10}};
    transfer->err = vv_socket_send(transfer->socket, iov, 3, soon());
    transfer->has_ended = true;
}

static void exchange(struct vv_socket *socket)
{
    struct transfer transfer = {.socket = socket, .bytes = vv_alloc(BIG_BYTES)};
    uint8_t *back = vv_alloc(BIG_BYTES);
    for (size_t i = 0; i < BIG_BYTES; i++)
        transfer.bytes[i] = (uint8_t)(i * 31 + i / 1000);
    if (vv_fiber_start(send_all, &transfer, "send") != 0)
        return;
    size_t done = 0;
    while (done < BIG_BYTES) {
        ssize_t got = vv_socket_recv(socket, back + done, BIG_BYTES - done, soon());
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    while (!transfer.has_ended)
        vv_rt_sleep_ns(10000);
    tap_is_int(transfer.err, 0, "everything was sent");
    tap_is_int((int64_t)done, BIG_BYTES, "everything came back");
    tap_is_bytes(back, transfer.bytes, BIG_BYTES, "the same bytes");
    vv_free(back);
    vv_free(transfer.bytes);
}

#define CLIENTS 3
#define DESCRIPTORS_MAX 256

/* Our unix sockets that hold more than they would if nobody had asked. */
static int count_roomy(void)
{
    int pair[2], usual = 0, count = 0;
    socklen_t len = sizeof(usual);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -1;
    getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &usual, &len);
    for (int fd = 0; fd < DESCRIPTORS_MAX; fd++) {
        int domain = 0, bytes = 0;
        socklen_t domain_len = sizeof(domain), bytes_len = sizeof(bytes);
        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) == 0 && domain == AF_UNIX &&
            getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &bytes_len) == 0)
            count += bytes > usual;
    }
    close(pair[0]);
    close(pair[1]);
    return count;
}

/* Our descriptors of connections that `port` has accepted and that nothing holds back. */
static int count_eased(unsigned port)
{
    int count = 0;
    for (int fd = 0; fd < DESCRIPTORS_MAX; fd++) {
        struct sockaddr_in ours, theirs;
        socklen_t ours_len = sizeof(ours), theirs_len = sizeof(theirs);
        char name[16] = "";
        socklen_t name_len = sizeof(name) - 1;
        if (getsockname(fd, (struct sockaddr *)&ours, &ours_len) == 0 && ours.sin_family == AF_INET &&
            ntohs(ours.sin_port) == port &&
            getpeername(fd, (struct sockaddr *)&theirs, &theirs_len) == 0 &&
            getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &name_len) == 0)
            count += strcmp(name, "reno") == 0;
    }
    return count;
}

static void test_echo(const char *listen_on, const char *connect_to_format)
{
    struct server server;
    char address[128];
    struct vv_socket *clients[CLIENTS] = {NULL};
    if (!start_server(&server, listen_on))
        return;
    snprintf(address, sizeof(address), connect_to_format, vv_socket_port(server.socket));
    for (int i = 0; i < CLIENTS; i++)
        tap_is_int(vv_socket_connect(address, soon(), &clients[i]), 0, "connect to %s", address);
    tap_is_int(count_roomy(), 0, "as much room as usual for those who have not sent much");
    for (int i = CLIENTS - 1; i >= 0; i--)
        exchange(clients[i]);
    tap_is_int(server.accepted, CLIENTS, "all were accepted");
    bool is_tcp = vv_socket_port(server.socket) != 0;
    tap_is_int(count_roomy(), is_tcp ? 0 : CLIENTS, "more for unix sockets that sent much at once");
    if (is_tcp)
        tap_is_int(count_eased(vv_socket_port(server.socket)), CLIENTS, "no pacing towards this machine");
    for (int i = 0; i < CLIENTS; i++)
        vv_socket_close(clients[i]);
    stop_server(&server);
}

static void test_times(void)
{
    struct server server;
    char address[64];
    char byte;
    struct vv_socket *client = NULL;
    if (!start_server(&server, "127.0.0.1:0"))
        return;
    snprintf(address, sizeof(address), "%u", vv_socket_port(server.socket));
    tap_is_int(vv_socket_connect(address, soon(), &client), 0, "connect to a port alone");
    uint64_t from_ns = vv_rt_now_ns();
    ssize_t got = vv_socket_recv(client, &byte, 1, from_ns + VV_NS_PER_MS);
    tap_is_int(got, -ETIMEDOUT, "receiving times out");
    tap_ok(vv_rt_now_ns() - from_ns >= VV_NS_PER_MS, "not too early");
    uid_t uid;
    gid_t gid;
    tap_is_int(vv_socket_peer(client, &uid, &gid), -ENOTSUP, "TCP tells no user");
    uint8_t remote[16] = {0};
    unsigned port = 0;
    tap_is_int(vv_socket_remote(client, remote, &port), 0, "but an address");
    tap_is_bytes(remote, "\0\0\0\0\0\0\0\0\0\0\377\377\177\0\0\1", 16, "of loopback");
    tap_is_int(port, vv_socket_port(server.socket), "and a port");
    vv_socket_shutdown(client);
    got = vv_socket_recv(client, &byte, 1, soon());
    tap_is_int(got, -VV_ERR_STOPPED, "after shutdown nothing is received");
    struct iovec iov = {&byte, 1};
    tap_is_int(vv_socket_send(client, &iov, 1, soon()), -VV_ERR_STOPPED, "nor sent");
    vv_socket_close(client);
    struct vv_socket *second = NULL;
    snprintf(address, sizeof(address), "localhost:%u", vv_socket_port(server.socket));
    tap_is_int(vv_socket_listen(address, &second), -EADDRINUSE, "a port is taken");
    stop_server(&server);
    tap_is_int(vv_socket_connect(address, soon(), &client), -ECONNREFUSED, "nobody listens");
}

static void test_unix(struct both *both)
{
    char path[100];
    char address[128];
    struct server server;
    struct vv_socket *client = NULL;
    struct vv_socket *second = NULL;
    snprintf(path, sizeof(path), "%s/socket", both->dir);
    snprintf(address, sizeof(address), "unix:%s", path);
    test_echo(address, address);
    tap_is_int(access(path, F_OK), -1, "closing removes the socket file");

    /* What a server that crashed leaves behind. */
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un {
        sa_family_t family;
        char path[108];
    } stale = {.family = AF_UNIX};
    snprintf(stale.path, sizeof(stale.path), "%s", path);
    int err = bind(fd, (const struct sockaddr *)&stale, sizeof(stale));
    close(fd);
    tap_is_int(err, 0, "a stale socket file");
    tap_is_int(vv_socket_connect(address, soon(), &client), -ECONNREFUSED, "nobody listens");
    if (!start_server(&server, address))
        return;
    tap_is_int(vv_socket_listen(address, &second), -EADDRINUSE, "a live one is not replaced");
    tap_is_int(vv_socket_connect(address, soon(), &client), 0, "connect");
    uid_t uid = 12345;
    gid_t gid = 12345;
    tap_is_int(vv_socket_peer(client, &uid, &gid), 0, "credentials");
    tap_ok(uid == getuid() && gid == getgid(), "are ours");
    tap_is_int(vv_socket_port(client), 0, "no port");
    uint8_t remote[16];
    unsigned port;
    tap_is_int(vv_socket_remote(client, remote, &port), -ENOTSUP, "nor an address");
    vv_socket_close(client);
    stop_server(&server);
}

static void test_addresses(void)
{
    static const char *const wrong[] = {"",           ":80",   "127.0.0.1:",   "127.0.0.1:65536",
                                        "1.2.3.4:8x", "unix:", "::1:80",       "-1",
                                        "[::1]80",    "x",     "127.0.0.1:-80"};
    struct vv_socket *socket = NULL;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        tap_is_int(vv_socket_listen(wrong[i], &socket), -EINVAL, "'%s' is no address", wrong[i]);
    char longest[200] = "unix:/";
    memset(longest + 6, 'x', 150);
    tap_is_int(vv_socket_listen(longest, &socket), -ENAMETOOLONG, "a long path");
    tap_ok(socket == NULL, "outputs untouched");
    vv_socket_close(NULL);
}

/* ---- descriptors ---- */

static void write_later(void *arg)
{
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_is_int(write(*(int *)arg, "x", 1), 1, "a byte is written");
}

static void wake_later(void *arg)
{
    vv_rt_sleep_ns(VV_NS_PER_MS);
    vv_rt_wake_fd(*(int *)arg);
}

/* A waiter looks again when it is told to, though nothing has come. */
static void test_woken(void)
{
    int fds[2];
    if (!tap_is_int(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0, "a pipe"))
        return;
    vv_rt_wake_fd(fds[0]);
    tap_is_int(vv_fiber_start(wake_later, &fds[0], "waker"), 0, "a waker");
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, soon()), VV_RT_READ, "woken");
    uint64_t deadline_ns = vv_rt_now_ns() + VV_NS_PER_MS;
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, deadline_ns), -ETIMEDOUT, "once");
    /* What comes after EAGAIN is seen without a look; a direction asked for later is added. */
    tap_ok(read(fds[0], &(char){0}, 1) < 0 && errno == EAGAIN, "nothing to read");
    tap_is_int(vv_fiber_start(write_later, &fds[1], "writer"), 0, "a writer");
    tap_is_int(vv_rt_wait_fd_new(fds[0], VV_RT_READ, soon()), VV_RT_READ, "new bytes");
    tap_is_int(vv_rt_wait_fd_new(fds[1], VV_RT_WRITE, soon()), VV_RT_WRITE, "registering tells what is ready");
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ | VV_RT_WRITE, soon()), VV_RT_READ, "one of both");
    vv_rt_forget_fd(fds[1]);
    vv_rt_forget_fd(fds[0]);
    vv_rt_wake_fd(fds[0]);
    vv_rt_wake_fd(-1);
    close(fds[0]);
    close(fds[1]);
}

static void test_descriptors(void)
{
    int fds[2];
    char buf[4096] = "";
    if (!tap_is_int(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0, "a pipe"))
        return;
    uint64_t deadline_ns = vv_rt_now_ns() + VV_NS_PER_MS;
    int ready = vv_rt_wait_fd(fds[0], VV_RT_READ, deadline_ns);
    tap_is_int(ready, -ETIMEDOUT, "an empty pipe");
    tap_is_int(vv_rt_wait_fd(fds[1], VV_RT_WRITE, soon()), VV_RT_WRITE, "can be written");
    if (vv_fiber_start(write_later, &fds[1], "writer") != 0)
        return;
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, soon()), VV_RT_READ, "a byte arrives");
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, soon()), VV_RT_READ, "it is still there");
    tap_is_int(read(fds[0], buf, sizeof(buf)), 1, "it is read");
    deadline_ns = vv_rt_now_ns() + VV_NS_PER_MS;
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, deadline_ns), -ETIMEDOUT, "it is gone");
    while (write(fds[1], buf, sizeof(buf)) > 0)
        continue;
    deadline_ns = vv_rt_now_ns() + VV_NS_PER_MS;
    tap_is_int(vv_rt_wait_fd(fds[1], VV_RT_WRITE, deadline_ns), -ETIMEDOUT, "a full pipe");
    vv_rt_forget_fd(fds[1]);
    close(fds[1]);
    while (read(fds[0], buf, sizeof(buf)) > 0)
        continue;
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, soon()), VV_RT_READ, "the end is an event");
    vv_rt_forget_fd(fds[0]);
    vv_rt_forget_fd(fds[0]);
    close(fds[0]);
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, soon()), -EBADF, "a closed one");
    tap_is_int(vv_rt_wait_fd(-1, VV_RT_READ, soon()), -EBADF, "none");
    tap_is_int(vv_rt_wait_fd(0, 0, soon()), -EINVAL, "no event");
    int file = open("/tmp", O_RDONLY | O_DIRECTORY);
    tap_is_int(vv_rt_wait_fd(file, VV_RT_READ, soon()), -EPERM, "files can't be waited for");
    close(file);
}

/* ---- time is over and the event comes, both before the fiber has run ---- */

struct hog {
    int read_fd;
    int write_fd;
    uint64_t until_ns;
    bool is_waking; /* by hand, instead of by a byte */
};

static void hog(void *arg)
{
    struct hog *hog = arg;
    while (vv_rt_now_ns() < hog->until_ns)
        continue;
    if (!hog->is_waking && write(hog->write_fd, "x", 1) != 1)
        hog->write_fd = -1;
    vv_fiber_yield(); /* the loop looks at timers, then at descriptors */
    if (hog->is_waking)
        vv_rt_wake_fd(hog->read_fd);
}

static void test_both_at_once(bool is_waking)
{
    int fds[2];
    if (!tap_is_int(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0, "a pipe"))
        return;
    uint64_t deadline_ns = vv_rt_now_ns() + VV_NS_PER_MS;
    struct hog it = {fds[0], fds[1], deadline_ns + VV_NS_PER_MS, is_waking};
    tap_is_int(vv_fiber_start(hog, &it, "hog"), 0, "somebody who does not let go");
    tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, deadline_ns), -ETIMEDOUT, "the time is over first");
    if (!is_waking)
        tap_is_int(vv_rt_wait_fd(fds[0], VV_RT_READ, soon()), VV_RT_READ, "the event is not lost");
    vv_fiber_yield();
    vv_rt_forget_fd(fds[0]);
    close(fds[0]);
    close(fds[1]);
}

/* ---- allocation failures ---- */

static void test_alloc_failure(void)
{
    struct server server;
    char address[64];
    if (!start_server(&server, "127.0.0.1:0"))
        return;
    snprintf(address, sizeof(address), "127.0.0.1:%u", vv_socket_port(server.socket));
    bool is_ended = false;
    for (int n = 0; n < 20 && !is_ended; n++) {
        struct vv_socket *listener = NULL;
        struct vv_socket *client = NULL;
        vv_alloc_fail_at(n, false);
        int listen_err = vv_socket_listen("127.0.0.1:0", &listener);
        int err = vv_socket_connect(address, soon(), &client);
        is_ended = !vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        if (!is_ended)
            tap_ok(listen_err == -ENOMEM || err == -ENOMEM || server.last_err == -ENOMEM,
                   "allocation %d fails", n);
        vv_socket_close(listener);
        vv_socket_close(client);
        if (server.last_err != 0)
            break;
    }
    tap_ok(is_ended || server.last_err == -ENOMEM, "the walk ends");
    if (server.socket)
        stop_server(&server);
}

static void test_all(struct both *both)
{
    test_echo("127.0.0.1:0", "127.0.0.1:%u");
    test_echo("0", "localhost:%u");
    test_times();
    test_unix(both);
    test_addresses();
    test_descriptors();
    test_woken();
    test_both_at_once(false);
    test_both_at_once(true);
    test_alloc_failure();
}

static void test_simulated(struct both *both)
{
    (void)both;
    struct vv_socket *socket = NULL;
    tap_is_int(vv_socket_listen("0", &socket), -ENOSYS, "sim: no sockets");
    tap_is_int(vv_socket_connect("1", VV_NEVER, &socket), -ENOSYS, "sim: no sockets");
    tap_is_int(vv_rt_wait_fd(0, VV_RT_READ, VV_NEVER), -ENOSYS, "sim: no descriptors");
}

int main(void)
{
    vv_alloc_track(true);
    run_real(test_all);
    run_sim(test_simulated, 1);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    return tap_done();
}
