/* Private to front/conn. */
#ifndef VV_FRONT_CONN_CONN_IMPL_H
#define VV_FRONT_CONN_CONN_IMPL_H

#include "front/conn/conn.h"

/* Serve a new connection in a fiber of its own; it owns the socket from now on, whatever is
 * returned. A client that has gone already is no error. -ENOMEM, -VV_ERR_LIMIT. */
MUST_CHECK int vv_conn_start(struct vv_conns *conns, struct vv_socket *socket);

#endif
