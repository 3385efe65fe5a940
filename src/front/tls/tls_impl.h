/* Private to front/tls. */
#ifndef VV_FRONT_TLS_TLS_IMPL_H
#define VV_FRONT_TLS_TLS_IMPL_H

#include <openssl/ssl.h>

#include "front/tls/stream.h"

struct vv_tls_psk {
    char identity[VV_TLS_PSK_IDENTITY_MAX + 1];
    uint8_t key[VV_TLS_PSK_KEY_MAX];
    size_t key_len;
};

struct vv_tls {
    SSL_CTX *context;
    struct vv_tls_psk *psks;
    size_t psk_count;
};

/* The newest error of OpenSSL in this thread, as text; empties its queue. */
void vv_tls_error_text(char *out, size_t size);

#endif
