/* TLS streams against OpenSSL's own client on a thread of its own: certificates of both sides,
 * pre-shared keys, both versions, much data both ways at once, and clients that do it wrong. */
#include "front/tls/stream.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "tap.h"

#define TIMEOUT_NS (10 * VV_NS_PER_S)
#define MUCH (3u << 20) /* bytes each way */

static char folder[64];
static char address[108];
static struct vv_socket *listener;

static char *path_of(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    vv_format(path, 128, "%s/%s", folder, name);
    return path;
}

/* ---- certificates ---- */

static EVP_PKEY *authority_key;
static X509 *authority;

static X509 *make_certificate(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), issuer ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *subject = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0);
    X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject);
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer ? issuer : cert, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(
        NULL, &context, NID_basic_constraints, issuer ? "CA:FALSE" : "critical,CA:TRUE");
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
    X509_sign(cert, issuer_key, EVP_sha256());
    return cert;
}

static void write_pem(const char *name, X509 *cert, EVP_PKEY *key)
{
    FILE *file = fopen(path_of(name), "w");
    if (cert)
        PEM_write_X509(file, cert);
    if (key)
        PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
}

static void make_signed(const char *name)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = make_certificate(key, name, authority, authority_key);
    char file[64];
    write_pem(name, cert, key);
    vv_format(file, sizeof(file), "%s.cert", name);
    write_pem(file, cert, NULL);
    vv_format(file, sizeof(file), "%s.key", name);
    write_pem(file, NULL, key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(path_of(name), "w");
    fputs(text, file);
    fclose(file);
}

static void make_files(void)
{
    authority_key = EVP_EC_gen("P-256");
    authority = make_certificate(authority_key, "authority", NULL, authority_key);
    write_pem("ca", authority, NULL);
    make_signed("server");
    make_signed("client");
    write_text("psk", "# keys\nalice:00112233445566778899aabbccddeeff\n\nbob:0011\n");
    write_text("psk-bad", "alice:0\n");
    write_text("psk-none", "# no keys\n");
    write_text("rubbish", "this is no certificate\n");
    X509_free(authority);
    EVP_PKEY_free(authority_key);
}

/* ---- the client, on a thread ---- */

enum behaviour { ECHO, SILENT_END, PLAIN_TEXT, GARBAGE };

struct client {
    enum behaviour behaviour;
    int version;              /* TLS1_2_VERSION, ... */
    const char *cert;         /* of the client; NULL = none */
    const char *psk_identity; /* NULL = by certificate */
    const char *psk_key;
    size_t len; /* bytes each way */
    bool is_good; /* out */
    pthread_t thread;
    int done;
};

static unsigned client_psk(SSL *ssl, const char *hint, char *identity, unsigned identity_max,
                           unsigned char *key, unsigned key_max)
{
    const struct client *client = SSL_get_app_data(ssl);
    size_t len = strlen(client->psk_key) / 2;
    vv_format(identity, identity_max, "%s", client->psk_identity);
    return len <= key_max && vv_unhex(client->psk_key, key, len) == 0 ? (unsigned)len : 0;
}

static int connect_to_server(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    vv_format(to.sun_path, sizeof(to.sun_path), "%s", address + 5);
    struct timeval limit = {10, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        return -1;
    return fd;
}

static bool exchange(SSL *ssl, size_t len)
{
    uint8_t *bytes = malloc(len);
    size_t at = 0;
    memset(bytes, 0x33, len);
    /* A slow taker: the server's sender and receiver both wait for us at times. */
    while (at < len) {
        size_t part = len - at < 100000 ? len - at : 100000, done = 0;
        if (SSL_write_ex(ssl, bytes, part, &done) != 1)
            break;
        size_t want = at + done;
        while (at < want) {
            if (SSL_read_ex(ssl, bytes, want - at, &done) != 1)
                break;
            at += done;
        }
        if (at < want)
            break;
    }
    free(bytes);
    return at == len;
}

static bool be_client(struct client *client, int fd)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, client->version);
    SSL_CTX_set_max_proto_version(context, client->version);
    SSL_CTX_set_security_level(context, 0); /* it says what it is told to: the server refuses */
    if (client->cert && (SSL_CTX_use_certificate_file(context, client->cert, SSL_FILETYPE_PEM) != 1 ||
                         SSL_CTX_use_PrivateKey_file(context, client->cert, SSL_FILETYPE_PEM) != 1))
        tap_note("%s", "the client's own certificate");
    if (client->psk_identity) {
        SSL_CTX_set_psk_client_callback(context, client_psk);
    } else {
        SSL_CTX_load_verify_locations(context, path_of("ca"), NULL);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    }
    SSL *ssl = SSL_new(context);
    SSL_set_app_data(ssl, client);
    SSL_set_fd(ssl, fd);
    bool is_good = SSL_connect(ssl) == 1 && exchange(ssl, client->len);
    if (client->behaviour == GARBAGE && is_good)
        is_good = send(fd, "\x17\3\3\0\x20 this was not sealed by anybody", 37, MSG_NOSIGNAL) == 37;
    if (client->behaviour == ECHO && is_good)
        SSL_shutdown(ssl);
    SSL_free(ssl);
    SSL_CTX_free(context);
    return is_good;
}

static void *client_main(void *arg)
{
    struct client *client = arg;
    int fd = connect_to_server();
    if (fd >= 0 && client->behaviour == PLAIN_TEXT)
        client->is_good = send(fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL) == 18;
    else if (fd >= 0)
        client->is_good = be_client(client, fd);
    if (fd >= 0)
        close(fd);
    __atomic_store_n(&client->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* ---- the server, in fibers ---- */

/* What comes in goes out again, by another fiber than the one that receives. */
struct echo {
    struct vv_stream *stream;
    uint8_t *bytes;
    size_t in, out, len;
    bool is_over;
    struct vv_waitq changed, ended;
    bool has_ended;
    int send_err;
};

static void send_back(void *arg)
{
    struct echo *echo = arg;
    while (echo->send_err == 0 && (!echo->is_over || echo->out < echo->in)) {
        if (echo->out == echo->in) {
            vv_waitq_wait(&echo->changed, VV_NEVER);
            continue;
        }
        size_t len = echo->in - echo->out, half = len / 2;
        struct iovec iov[2] = {{echo->bytes + echo->out, half},
                               {echo->bytes + echo->out + half, len - half}};
        echo->out += len;
        echo->send_err =
            vv_stream_send(echo->stream, iov, 2, vv_rt_now_ns() + TIMEOUT_NS);
        if (echo->send_err < 0)
            vv_stream_shutdown(echo->stream);
    }
    echo->has_ended = true;
    vv_waitq_wake_all(&echo->ended);
}

/* What the server's receiving ends with: 0 = the end of the stream. */
static int serve_echo(struct vv_stream *stream, size_t len)
{
    struct echo echo = {.stream = stream, .bytes = malloc(len + 1), .len = len};
    ssize_t got = 1;
    vv_waitq_init(&echo.changed);
    vv_waitq_init(&echo.ended);
    if (vv_fiber_start(send_back, &echo, "echo") < 0)
        abort();
    while (got > 0) {
        got = vv_stream_recv(stream, echo.bytes + echo.in, len + 1 - echo.in,
                             vv_rt_now_ns() + TIMEOUT_NS);
        echo.in += got > 0 ? (size_t)got : 0;
        vv_waitq_wake_all(&echo.changed);
    }
    echo.is_over = true;
    vv_waitq_wake_all(&echo.changed);
    while (!echo.has_ended)
        vv_waitq_wait(&echo.ended, VV_NEVER);
    free(echo.bytes);
    return got < 0 ? (int)got : echo.send_err;
}

static void join(void *arg)
{
    struct client *client = arg;
    pthread_join(client->thread, NULL);
}

/* One connection of a client with these manners: the handshake's result, and what receiving ended
 * with. */
static int meet(struct vv_tls *tls, struct client *client, int *out_end)
{
    struct vv_socket *socket;
    struct vv_stream *stream = NULL;
    pthread_create(&client->thread, NULL, client_main, client);
    int err = vv_socket_accept(listener, &socket);
    if (err == 0)
        err = vv_stream_new(socket, &stream);
    if (err == 0)
        err = vv_stream_start_tls(stream, tls, vv_rt_now_ns() + TIMEOUT_NS);
    *out_end = 1;
    if (err == 0) {
        tap_ok(vv_stream_is_tls(stream), "the stream says that it is TLS");
        *out_end = serve_echo(stream, client->len);
    }
    vv_stream_close(stream);
    vv_rt_offload(join, client);
    return err;
}

static void test_configs(void)
{
    static const struct {
        const char *what, *cert, *key, *ca, *psk;
        int error;
    } configs[] = {
        {"nothing at all", NULL, NULL, NULL, NULL, -EINVAL},
        {"a certificate with its key", "server", NULL, NULL, NULL, 0},
        {"in two files", "server.cert", "server.key", NULL, NULL, 0},
        {"a certificate without a key", "server.cert", NULL, NULL, NULL, -EINVAL},
        {"another's key", "server.cert", "client.key", NULL, NULL, -EINVAL},
        {"a certificate that is not there", "none", NULL, NULL, NULL, -EINVAL},
        {"rubbish", "rubbish", NULL, NULL, NULL, -EINVAL},
        {"authorities", "server", NULL, "ca", NULL, 0},
        {"authorities that make no sense", "server", NULL, "rubbish", NULL, -EINVAL},
        {"keys", NULL, NULL, NULL, "psk", 0},
        {"both", "server", NULL, NULL, "psk", 0},
        {"half a key", NULL, NULL, NULL, "psk-bad", -EINVAL},
        {"no keys", NULL, NULL, NULL, "psk-none", -EINVAL},
        {"keys that are not there", NULL, NULL, NULL, "none", -ENOENT},
    };
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        struct vv_tls_options options = {
            .cert_file = configs[i].cert ? path_of(configs[i].cert) : NULL,
            .key_file = configs[i].key ? path_of(configs[i].key) : NULL,
            .ca_file = configs[i].ca ? path_of(configs[i].ca) : NULL,
            .psk_file = configs[i].psk ? path_of(configs[i].psk) : NULL,
        };
        struct vv_tls *tls = NULL;
        tap_is_int(vv_tls_new(&options, &tls), configs[i].error, "%s", configs[i].what);
        vv_tls_free(tls);
    }
}

static void test_certificates(void)
{
    struct vv_tls_options options = {.cert_file = path_of("server"), .ca_file = path_of("ca")};
    struct vv_tls *tls = NULL;
    int end;
    tap_is_int(vv_tls_new(&options, &tls), 0, "a server that wants certificates");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct client client = {.version = version, .cert = path_of("client"), .len = MUCH};
        tap_is_int(meet(tls, &client, &end), 0, "version %x: a handshake", version);
        tap_ok(client.is_good, "version %x: all comes back", version);
        tap_is_int(end, 0, "version %x: a goodbye", version);
        client = (struct client){.version = version, .len = 1};
        tap_is_int(meet(tls, &client, &end), -EPROTO, "version %x: no certificate", version);
        tap_ok(!client.is_good, "version %x: nothing comes back", version);
    }
    struct client silent = {.behaviour = SILENT_END, .version = TLS1_3_VERSION,
                            .cert = path_of("client"), .len = 100};
    tap_is_int(meet(tls, &silent, &end), 0, "a client that goes without a word");
    tap_is_int(end, -EPROTO, "may have been cut off");
    struct client garbage = {.behaviour = GARBAGE, .version = TLS1_3_VERSION,
                             .cert = path_of("client"), .len = 100};
    tap_is_int(meet(tls, &garbage, &end), 0, "bytes that nobody sealed");
    tap_is_int(end, -EPROTO, "are noticed");
    struct client plain = {.behaviour = PLAIN_TEXT};
    tap_is_int(meet(tls, &plain, &end), -EPROTO, "no TLS at all");
    struct client old = {.version = TLS1_1_VERSION, .cert = path_of("client")};
    tap_is_int(meet(tls, &old, &end), -EPROTO, "TLS 1.1");
    vv_tls_free(tls);
}

static void test_keys(void)
{
    struct vv_tls_options options = {.psk_file = path_of("psk")};
    struct vv_tls *tls = NULL;
    int end;
    tap_is_int(vv_tls_new(&options, &tls), 0, "a server with keys");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct client alice = {.version = version, .psk_identity = "alice", .len = 1000,
                               .psk_key = "00112233445566778899aabbccddeeff"};
        tap_is_int(meet(tls, &alice, &end), 0, "version %x: the right key", version);
        tap_ok(alice.is_good && end == 0, "version %x: all comes back", version);
        alice.psk_key = "ff112233445566778899aabbccddeeff";
        tap_ok(meet(tls, &alice, &end) < 0, "version %x: a wrong key", version);
        struct client carol = {.version = version, .psk_identity = "carol", .len = 1000,
                               .psk_key = "00112233445566778899aabbccddeeff"};
        tap_ok(meet(tls, &carol, &end) < 0, "version %x: a wrong name", version);
        tap_ok(!carol.is_good, "version %x: nothing comes back", version);
    }
    vv_tls_free(tls);
}

/* OpenSSL's own allocations are not made to fail: they are not ours. */
static void test_no_memory(void)
{
    int64_t n = 0;
    int err, end = 1;
    do {
        struct vv_tls_options options = {.cert_file = path_of("server"), .psk_file = path_of("psk")};
        struct vv_tls *tls = NULL;
        vv_alloc_fail_at(n++, false);
        err = vv_tls_new(&options, &tls);
        vv_tls_free(tls);
    } while (vv_alloc_failed() && n < 100);
    vv_alloc_fail_at(-1, false);
    tap_ok(n > 3 && n < 100 && err == 0, "a server whose %lld allocations failed", (long long)n - 1);
    struct vv_tls_options options = {.cert_file = path_of("server")};
    struct vv_tls *tls = NULL;
    tap_is_int(vv_tls_new(&options, &tls), 0, "a server");
    n = 0;
    do {
        struct client client = {.version = TLS1_3_VERSION, .len = 1000};
        vv_alloc_fail_at(n++, false);
        err = meet(tls, &client, &end);
    } while (vv_alloc_failed() && n < 100);
    vv_alloc_fail_at(-1, false);
    tap_ok(n > 3 && n < 100, "a connection whose %lld allocations failed", (long long)n - 1);
    tap_ok(err == 0 && end == 0, "and one without");
    vv_tls_free(tls);
}

static void run(void *arg)
{
    vv_format(address, sizeof(address), "unix:%s/socket", folder);
    int err = vv_socket_listen(address, &listener);
    tap_is_int(err, 0, "listening");
    if (err < 0)
        return;
    test_configs();
    test_certificates();
    test_keys();
    test_no_memory();
    vv_socket_close(listener);
}

static void drop_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(void)
{
    const struct vv_rt_options options = {.workers = 2};
    vv_format(folder, sizeof(folder), "/tmp/varve-test-tls-XXXXXX");
    if (!mkdtemp(folder))
        return 1;
    signal(SIGPIPE, SIG_IGN); /* of the clients; the server asks for none */
    make_files();
    vv_log_set_sink(drop_line, NULL);
    tap_is_int(vv_rt_run(&options, run, NULL), 0, "the runtime ends well");
    static const char *const names[] = {"ca",         "server",     "server.cert", "server.key",
                                        "client",     "client.cert", "client.key", "psk",
                                        "psk-bad",    "psk-none",   "rubbish"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(path_of(names[i]));
    rmdir(folder);
    return tap_done();
}
