/* The admin door: a unix socket that answers one request per connection with one JSON text.
 *
 * Requests are one line: a word and, for some, a value. What they mean is the handler's business. Only
 * the user who runs the server (and root) can connect: the socket's mode is 0600. One reactor. */
#ifndef VV_FRONT_ADMIN_ADMIN_H
#define VV_FRONT_ADMIN_ADMIN_H

#include "base/bytes.h"
#include "base/err.h"

#define VV_ADMIN_REQUEST_MAX (64u << 10) /* bytes of a request line */
#define VV_ADMIN_CONNECTIONS_MAX 16      /* more wait */
#define VV_ADMIN_TIMEOUT_S 10            /* for the request line to arrive */

struct vv_admin;

/* Listen at `path`. For each request, handle(arg, line, answer) writes the answer; it may suspend.
 * `line` has no newline. Errors of vv_socket_listen, -ENOMEM. */
MUST_CHECK int vv_admin_listen(const char *path,
                               void (*handle)(void *arg, const char *line,
                                              struct vv_writer *answer),
                               void *arg, struct vv_admin **out_admin);
/* Returns when no fiber of it runs any more. Suspends. NULL is fine. */
void vv_admin_close(struct vv_admin *admin);

#endif
