/* The client's end of a door's connection, for the unit tests of the doors: bytes out, and bytes in until there are enough. */
#ifndef UNIT_FRONT_WIRE_H
#define UNIT_FRONT_WIRE_H

#include <errno.h>
#include <string.h>

#include "rt/rt.h"

#define WIRE_BYTES (1u << 18)
#define WIRE_TIMEOUT_NS (10 * VV_NS_PER_S)

struct wire {
    struct vv_socket *socket; /* NULL = closed */
    uint8_t in[WIRE_BYTES];
    size_t in_len;  /* bytes in `in` */
    size_t in_used; /* of them, looked at */
};

static inline int wire_open(struct wire *wire, const char *address)
{
    wire->socket = NULL;
    wire->in_len = wire->in_used = 0;
    return vv_socket_connect(address, vv_rt_now_ns() + WIRE_TIMEOUT_NS, &wire->socket);
}

static inline void wire_close(struct wire *wire)
{
    if (wire->socket)
        vv_socket_close(wire->socket);
    wire->socket = NULL;
}

static inline int wire_send(struct wire *wire, const void *bytes, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    return vv_socket_send(wire->socket, &iov, 1, vv_rt_now_ns() + WIRE_TIMEOUT_NS);
}

/* At least `len` bytes at *out, behind those used, which are gone. -EPIPE at the end of the stream. */
static inline int wire_need(struct wire *wire, size_t len, const uint8_t **out)
{
    *out = wire->in;
    wire->in_len -= wire->in_used;
    memmove(wire->in, wire->in + wire->in_used, wire->in_len);
    wire->in_used = 0;
    if (len > WIRE_BYTES)
        return -EMSGSIZE;
    while (wire->in_len < len) {
        ssize_t got = vv_socket_recv(wire->socket, wire->in + wire->in_len,
                                     WIRE_BYTES - wire->in_len, vv_rt_now_ns() + WIRE_TIMEOUT_NS);
        if (got <= 0)
            return got < 0 ? (int)got : -EPIPE;
        wire->in_len += (size_t)got;
    }
    return 0;
}

#endif
