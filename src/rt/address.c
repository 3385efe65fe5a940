#include "rt/real_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "base/text.h"

#define UNIX_PREFIX "unix:"
#define HOST_MAX 256

static int parse_unix(const char *path, union vv_address *address, socklen_t *out_len)
{
    size_t len = strlen(path);
    if (len == 0)
        return -EINVAL;
    if (len >= sizeof(address->local.sun_path))
        return -ENAMETOOLONG;
    address->local = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->local.sun_path, path, len + 1);
    *out_len = sizeof(address->local);
    return 0;
}

/* Split into host and port; the host is empty when there is only a port. */
static int split(const char *text, char host[HOST_MAX], uint16_t *out_port)
{
    const char *colon = strrchr(text, ':');
    const char *port_text = colon ? colon + 1 : text;
    size_t host_len = colon ? (size_t)(colon - text) : 0;
    uint64_t port;
    TRY(vv_parse_u64(port_text, &port));
    if (port > UINT16_MAX || (colon && host_len == 0))
        return -EINVAL;
    if (host_len >= 2 && text[0] == '[' && text[host_len - 1] == ']') {
        text++;
        host_len -= 2;
    } else if (memchr(text, ':', host_len)) {
        return -EINVAL; /* an IPv6 address needs its brackets */
    }
    if (host_len >= HOST_MAX)
        return -ENAMETOOLONG;
    memcpy(host, text, host_len);
    host[host_len] = '\0';
    *out_port = (uint16_t)port;
    return 0;
}

struct lookup {
    const char *host;
    int status;
    struct addrinfo *found;
};

static void run_lookup(void *arg)
{
    struct lookup *lookup = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    lookup->status = getaddrinfo(lookup->host, NULL, &hints, &lookup->found);
}

static int look_up(const char *host, union vv_address *address, socklen_t *out_len)
{
    struct lookup lookup = {.host = host};
    vv_real_offload_blocking(run_lookup, &lookup);
    if (lookup.status != 0)
        return lookup.status == EAI_MEMORY ? -ENOMEM : -EHOSTUNREACH;
    int err = -EHOSTUNREACH;
    if (lookup.found->ai_addrlen <= sizeof(*address)) {
        memcpy(address, lookup.found->ai_addr, lookup.found->ai_addrlen);
        *out_len = lookup.found->ai_addrlen;
        err = 0;
    }
    freeaddrinfo(lookup.found);
    return err;
}

int vv_address_parse(const char *text, union vv_address *out_address, socklen_t *out_len)
{
    char host[HOST_MAX];
    uint16_t port;
    if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return parse_unix(text + strlen(UNIX_PREFIX), out_address, out_len);
    if (split(text, host, &port) != 0)
        return -EINVAL;
    const char *numeric = host[0] == '\0' || strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    *out_address = (union vv_address){.v4 = {.sin_family = AF_INET}};
    *out_len = sizeof(out_address->v4);
    if (inet_pton(AF_INET, numeric, &out_address->v4.sin_addr) != 1) {
        *out_address = (union vv_address){.v6 = {.sin6_family = AF_INET6}};
        *out_len = sizeof(out_address->v6);
        if (inet_pton(AF_INET6, numeric, &out_address->v6.sin6_addr) != 1)
            TRY(look_up(numeric, out_address, out_len));
    }
    if (out_address->any.sa_family == AF_INET6)
        out_address->v6.sin6_port = htons(port);
    else
        out_address->v4.sin_port = htons(port);
    return 0;
}
