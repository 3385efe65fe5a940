#include "front/admin/admin.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"
#include "rt/rt.h"

struct vv_admin {
    struct vv_socket *listener;
    void (*handle)(void *arg, const char *line, struct vv_writer *answer);
    void *arg;
    struct vv_list connections;
    unsigned count;
    bool is_closing;
    bool is_accepting;
    struct vv_waitq changed;
};

struct connection {
    struct vv_list node;
    struct vv_admin *admin;
    struct vv_socket *socket;
};

/* Reads up to the newline. 0, or an error. */
static int read_line(struct vv_socket *socket, char *line, size_t size)
{
    uint64_t deadline = vv_rt_now_ns() + VV_ADMIN_TIMEOUT_S * VV_NS_PER_S;
    size_t len = 0;
    for (;;) {
        ssize_t got = vv_socket_recv(socket, line + len, size - 1 - len, deadline);
        TRY(got);
        char *end = memchr(line + len, '\n', (size_t)got);
        len += (size_t)got;
        if (end != NULL) {
            *end = 0;
            return 0;
        }
        if (got == 0 || len == size - 1)
            return -EINVAL;
    }
}

static void serve(struct connection *connection)
{
    struct vv_admin *admin = connection->admin;
    char *line = vv_alloc(VV_ADMIN_REQUEST_MAX);
    if (line == NULL || read_line(connection->socket, line, VV_ADMIN_REQUEST_MAX) < 0) {
        vv_free(line);
        return;
    }
    struct vv_writer answer = vv_writer_new();
    admin->handle(admin->arg, line, &answer);
    struct iovec iov = {answer.ptr, answer.len};
    int err = vv_writer_check(&answer);
    if (err == 0 && answer.len > 0)
        err = vv_socket_send(connection->socket, &iov, 1,
                             vv_rt_now_ns() + VV_ADMIN_TIMEOUT_S * VV_NS_PER_S);
    if (err < 0)
        vv_debug("admin", "answering: %s", vv_err_text(err));
    vv_writer_done(&answer);
    vv_free(line);
}

static void connection_run(void *arg)
{
    struct connection *connection = arg;
    struct vv_admin *admin = connection->admin;
    serve(connection);
    vv_list_remove(&connection->node);
    vv_socket_close(connection->socket);
    vv_free(connection);
    admin->count--;
    vv_waitq_wake_all(&admin->changed);
}

static int start_connection(struct vv_admin *admin, struct vv_socket *socket)
{
    struct connection *connection = vv_zalloc(sizeof *connection);
    if (connection == NULL)
        return -ENOMEM;
    connection->admin = admin;
    connection->socket = socket;
    vv_list_push_back(&admin->connections, &connection->node);
    int err = vv_fiber_start(connection_run, connection, "admin connection");
    if (err < 0) {
        vv_list_remove(&connection->node);
        vv_free(connection);
        return err;
    }
    admin->count++;
    return 0;
}

static void accept_run(void *arg)
{
    struct vv_admin *admin = arg;
    while (!admin->is_closing) {
        struct vv_socket *socket;
        if (admin->count >= VV_ADMIN_CONNECTIONS_MAX) {
            vv_waitq_wait(&admin->changed, VV_NEVER);
            continue;
        }
        int err = vv_socket_accept(admin->listener, &socket);
        if (err == -VV_ERR_STOPPED)
            break;
        if (err < 0)
            vv_rt_sleep_ns(100 * VV_NS_PER_MS);
        else if (start_connection(admin, socket) < 0)
            vv_socket_close(socket);
    }
    admin->is_accepting = false;
    vv_waitq_wake_all(&admin->changed);
}

int vv_admin_listen(const char *path,
                    void (*handle)(void *arg, const char *line, struct vv_writer *answer),
                    void *arg, struct vv_admin **out_admin)
{
    struct vv_admin *admin = vv_zalloc(sizeof *admin);
    char address[4300];
    if (admin == NULL)
        return -ENOMEM;
    admin->handle = handle;
    admin->arg = arg;
    vv_list_init(&admin->connections);
    vv_waitq_init(&admin->changed);
    vv_format(address, sizeof address, "unix:%s", path);
    int err = vv_socket_listen(address, &admin->listener);
    if (err == 0) {
        admin->is_accepting = true;
        err = vv_fiber_start(accept_run, admin, "admin");
    }
    if (err < 0) {
        if (admin->listener != NULL)
            vv_socket_close(admin->listener);
        vv_free(admin);
        return err;
    }
    *out_admin = admin;
    return 0;
}

void vv_admin_close(struct vv_admin *admin)
{
    if (admin == NULL)
        return;
    admin->is_closing = true;
    vv_socket_shutdown(admin->listener);
    vv_list_each (node, &admin->connections)
        vv_socket_shutdown(vv_list_entry(node, struct connection, node)->socket);
    vv_waitq_wake_all(&admin->changed);
    while (admin->is_accepting || admin->count > 0)
        vv_waitq_wait(&admin->changed, VV_NEVER);
    vv_socket_close(admin->listener);
    vv_free(admin);
}
