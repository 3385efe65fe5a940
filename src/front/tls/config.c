/* Certificates, keys and pre-shared keys of a server. */
#include <errno.h>
#include <openssl/err.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "front/tls/tls_impl.h"

#define PSK_FILE_BYTES_MAX (256u << 10)

void vv_tls_error_text(char *out, size_t size)
{
    unsigned long code = ERR_peek_last_error();
    if (code != 0)
        ERR_error_string_n(code, out, size);
    else
        vv_format(out, size, "no reason given");
    ERR_clear_error();
}

/* Both TLS 1.2 and 1.3 ask here. Any thread. */
static unsigned find_psk(SSL *ssl, const char *identity, unsigned char *out, unsigned size)
{
    const struct vv_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    for (size_t i = 0; identity && i < tls->psk_count; i++) {
        const struct vv_tls_psk *psk = &tls->psks[i];
        if (strcmp(psk->identity, identity) != 0 || psk->key_len > size)
            continue;
        memcpy(out, psk->key, psk->key_len);
        return (unsigned)psk->key_len;
    }
    return 0;
}

/* ---- the PSK file ---- */

static int parse_line(char *line, struct vv_tls_psk *psk)
{
    char *colon = strrchr(line, ':');
    if (!colon || colon == line || (size_t)(colon - line) > VV_TLS_PSK_IDENTITY_MAX)
        return -EINVAL;
    size_t digits = strlen(colon + 1);
    if (digits == 0 || digits % 2 != 0 || digits / 2 > VV_TLS_PSK_KEY_MAX)
        return -EINVAL;
    memcpy(psk->identity, line, (size_t)(colon - line));
    psk->identity[colon - line] = 0;
    psk->key_len = digits / 2;
    return vv_unhex(colon + 1, psk->key, psk->key_len);
}

static int parse_psks(struct vv_tls *tls, char *text, const char *path)
{
    unsigned number = 0;
    while (*text) {
        size_t len = strcspn(text, "\r\n");
        char *next = text + len + (text[len] != 0);
        text[len] = 0;
        number++;
        if (len > 0 && text[0] != '#') {
            if (tls->psk_count == VV_TLS_PSK_MAX ||
                parse_line(text, &tls->psks[tls->psk_count]) < 0) {
                vv_error("tls", "%s, line %u: not \"identity:key in hex\", or one too many", path,
                         number);
                return -EINVAL;
            }
            tls->psk_count++;
        }
        text = next;
    }
    if (tls->psk_count > 0)
        return 0;
    vv_error("tls", "%s: no keys in it", path);
    return -EINVAL;
}

static int read_psk_file(const char *path, char *text)
{
    struct vv_file *file;
    TRY(vv_file_open(path, VV_FILE_READ, &file));
    ssize_t got = vv_file_pread(file, text, PSK_FILE_BYTES_MAX, 0);
    vv_file_close(file);
    TRY(got);
    text[got] = 0;
    return got == PSK_FILE_BYTES_MAX ? -EFBIG : 0;
}

static int load_psks(struct vv_tls *tls, const char *path)
{
    char *text = vv_alloc(PSK_FILE_BYTES_MAX + 1);
    tls->psks = vv_calloc(VV_TLS_PSK_MAX, sizeof(*tls->psks));
    int err = text && tls->psks ? read_psk_file(path, text) : -ENOMEM;
    if (err < 0)
        vv_error("tls", "%s: %s", path, vv_err_text(err));
    if (err == 0)
        err = parse_psks(tls, text, path);
    if (text)
        OPENSSL_cleanse(text, PSK_FILE_BYTES_MAX);
    vv_free(text);
    if (err == 0)
        SSL_CTX_set_psk_server_callback(tls->context, find_psk);
    return err;
}

/* ---- certificates ---- */

static int complain(const char *path)
{
    char text[256];
    vv_tls_error_text(text, sizeof(text));
    vv_error("tls", "%s: %s", path, text);
    return -EINVAL;
}

static int load_certificates(struct vv_tls *tls, const struct vv_tls_options *options)
{
    const char *key_file = options->key_file ? options->key_file : options->cert_file;
    if (SSL_CTX_use_certificate_chain_file(tls->context, options->cert_file) != 1)
        return complain(options->cert_file);
    if (SSL_CTX_use_PrivateKey_file(tls->context, key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(tls->context) != 1)
        return complain(key_file);
    return 0;
}

static int load_authorities(struct vv_tls *tls, const char *path)
{
    if (SSL_CTX_load_verify_locations(tls->context, path, NULL) != 1)
        return complain(path);
    SSL_CTX_set_client_CA_list(tls->context, SSL_load_client_CA_file(path));
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

struct load {
    struct vv_tls *tls;
    const struct vv_tls_options *options;
    int err;
};

/* On a worker: OpenSSL reads the files itself. */
static void load_files(void *arg)
{
    struct load *load = arg;
    const struct vv_tls_options *options = load->options;
    load->err = options->cert_file ? load_certificates(load->tls, options) : 0;
    if (load->err == 0 && options->ca_file)
        load->err = load_authorities(load->tls, options->ca_file);
}

static int make_context(struct vv_tls *tls)
{
    tls->context = SSL_CTX_new(TLS_server_method());
    if (!tls->context)
        return -ENOMEM;
    SSL_CTX_set_app_data(tls->context, tls);
    SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION);
    SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                          SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(tls->context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(tls->context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(tls->context, 0);
    SSL_CTX_set_dh_auto(tls->context, 1);
    return 0;
}

int vv_tls_new(const struct vv_tls_options *options, struct vv_tls **out_tls)
{
    if (!options->cert_file && !options->psk_file) {
        vv_error("tls", "neither a certificate nor a file of pre-shared keys was given");
        return -EINVAL;
    }
    struct vv_tls *tls = vv_zalloc(sizeof(*tls));
    if (!tls)
        return -ENOMEM;
    struct load load = {.tls = tls, .options = options, .err = make_context(tls)};
    if (load.err == 0)
        vv_rt_offload(load_files, &load);
    int err = load.err;
    if (err == 0 && options->psk_file)
        err = load_psks(tls, options->psk_file);
    if (err < 0) {
        vv_tls_free(tls);
        return err;
    }
    *out_tls = tls;
    return 0;
}

void vv_tls_free(struct vv_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    if (tls->psks)
        OPENSSL_cleanse(tls->psks, VV_TLS_PSK_MAX * sizeof(*tls->psks));
    vv_free(tls->psks);
    vv_free(tls);
}
