#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "log/log.h"
#include "rt/rt.h"

#define ANSWER_MAX (1u << 20)

int vv_exit_of(int err)
{
    switch (-err) {
    case 0: return VV_EXIT_OK;
    case VV_ERR_NOT_VOLUME:
    case VV_ERR_VOLUME_EXISTS: return VV_EXIT_NO_VOLUME;
    case VV_ERR_NO_KEY: return VV_EXIT_NO_KEY;
    case VV_ERR_LOCKED:
    case VV_ERR_JOURNAL: return VV_EXIT_IN_USE;
    case VV_ERR_CHECKSUM:
    case VV_ERR_AUTH:
    case VV_ERR_FORMAT:
    case VV_ERR_GAP:
    case VV_ERR_CORRUPT: return VV_EXIT_DAMAGED;
    case VV_ERR_FENCED: return VV_EXIT_FENCED;
    default: return VV_EXIT_FAILED;
    }
}

int vv_fail(const char *what, int err)
{
    fprintf(stderr, "varve: %s: %s\n", what, vv_err_text(err));
    if (err == -VV_ERR_JOURNAL)
        fprintf(stderr, "varve: the newest changes are in a journal that is not here. Serve it from the machine\n"
                        "varve: that has it, or give those changes up with --abandon-journal.\n");
    if (err == -VV_ERR_LOCKED)
        fprintf(stderr, "varve: stop the server that has it first (varve status shows it).\n");
    if (err == -VV_ERR_NEWER)
        fprintf(stderr, "varve: use a version of varve at least as new as the one that wrote it.\n");
    return vv_exit_of(err);
}

/* ---- secrets ---- */

int vv_read_text(const char *path, char *out, size_t size)
{
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t len = 0;
    ssize_t got = 1;
    while (len < size - 1 && (got = read(fd, out + len, size - 1 - len)) > 0)
        len += (size_t)got;
    int err = got < 0 ? -errno : (int)len;
    out[len] = 0;
    if (fd != STDIN_FILENO)
        close(fd);
    return err;
}

static int read_key_file(const char *path, struct vv_held_secret *out)
{
    char text[256] = {0};
    int len = vv_read_text(path, text, sizeof text);
    if (len < 0) {
        fprintf(stderr, "varve: key file %s: %s\n", path, vv_err_text(len));
        return len;
    }
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        text[--len] = 0;
    int err = vv_unhex(text, out->bytes, VV_KEY_FILE_LEN);
    sodium_memzero(text, sizeof text);
    if (err < 0) {
        fprintf(stderr, "varve: key file %s: not 64 hex digits\n", path);
        return err;
    }
    out->secret.kind = VV_SECRET_KEY_FILE;
    out->secret.bytes = out->bytes;
    out->secret.len = VV_KEY_FILE_LEN;
    return 0;
}

static int ask_terminal(const char *what, char *out, size_t size)
{
    if (!isatty(STDIN_FILENO)) {
        fprintf(stderr, "varve: give --key-file or --passphrase-file\n");
        return -EINVAL;
    }
    struct termios old, quiet;
    fprintf(stderr, "%s: ", what);
    if (tcgetattr(STDIN_FILENO, &old) < 0)
        return -errno;
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    char *got = fgets(out, (int)size, stdin);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
    fprintf(stderr, "\n");
    return got == NULL ? -EINVAL : 0;
}

static int read_passphrase(const char *path, const char *what, struct vv_held_secret *out)
{
    char *text = (char *)out->bytes;
    int err = path != NULL ? vv_read_text(path, text, sizeof out->bytes)
                           : ask_terminal(what, text, sizeof out->bytes);
    if (err < 0) {
        if (path != NULL)
            fprintf(stderr, "varve: passphrase file %s: %s\n", path, vv_err_text(err));
        return err;
    }
    size_t len = strcspn(text, "\r\n");
    text[len] = 0;
    if (len == 0) {
        fprintf(stderr, "varve: the passphrase is empty\n");
        return -EINVAL;
    }
    out->secret.kind = VV_SECRET_PASSPHRASE;
    out->secret.bytes = out->bytes;
    out->secret.len = len;
    return 0;
}

int vv_secret_read(const char *key_file, const char *passphrase_file, const char *what,
                   struct vv_held_secret *out_secret)
{
    memset(out_secret, 0, sizeof *out_secret);
    if (key_file != NULL && passphrase_file != NULL) {
        fprintf(stderr, "varve: give a key file or a passphrase file, not both\n");
        return -EINVAL;
    }
    if (key_file != NULL)
        return read_key_file(key_file, out_secret);
    return read_passphrase(passphrase_file, what, out_secret);
}

void vv_secret_done(struct vv_held_secret *secret)
{
    sodium_memzero(secret, sizeof *secret);
}

struct open_slots {
    const uint8_t *keys;
    size_t len;
    const struct vv_secret *secret;
    struct vv_keyring *ring;
    int err;
};

static void open_slots(void *arg)
{
    struct open_slots *open = arg;
    open->err = vv_slots_open(open->keys, open->len, open->secret, &open->ring);
}

int vv_ring_open(struct vv_store *store, const struct vv_options *options,
                 struct vv_keyring **out_ring, struct vv_log_seen *out_seen)
{
    uint8_t *keys;
    size_t len;
    uint64_t number;
    int err = vv_volume_keys(store, &keys, &len, &number, out_seen);
    if (err < 0) {
        vv_fail(options->url, err);
        return err;
    }
    struct vv_held_secret held;
    err = vv_secret_read(options->key_file, options->passphrase_file, "passphrase", &held);
    if (err == 0) {
        struct open_slots open = {keys, len, &held.secret, NULL, 0};
        vv_rt_offload(open_slots, &open);
        err = open.err;
        if (err == 0)
            *out_ring = open.ring;
        else
            vv_fail(options->url, err);
    }
    vv_secret_done(&held);
    vv_free(keys);
    return err;
}

/* ---- asking the server ---- */

static int receive_answer(struct vv_socket *socket, char **out_answer)
{
    char *answer = vv_alloc(ANSWER_MAX + 1);
    if (answer == NULL)
        return -ENOMEM;
    size_t len = 0;
    ssize_t got;
    while ((got = vv_socket_recv(socket, answer + len, ANSWER_MAX - len, VV_NEVER)) > 0)
        len += (size_t)got;
    if (got < 0 || len == 0) {
        vv_free(answer);
        return got < 0 ? (int)got : -ECONNREFUSED;
    }
    answer[len] = 0;
    *out_answer = answer;
    return 0;
}

int vv_admin_ask(const struct vv_place *place, const char *request, char **out_answer)
{
    char address[4300];
    struct vv_socket *socket;
    vv_format(address, sizeof address, "unix:%s", place->admin);
    TRY(vv_socket_connect(address, vv_rt_now_ns() + 5 * VV_NS_PER_S, &socket));
    struct iovec iov = {(void *)(uintptr_t)request, strlen(request)};
    int err = vv_socket_send(socket, &iov, 1, vv_rt_now_ns() + 5 * VV_NS_PER_S);
    if (err == 0)
        err = receive_answer(socket, out_answer);
    vv_socket_close(socket);
    return err;
}
