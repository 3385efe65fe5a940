/* What a server does for block devices: the NBD door, and the requests of `varve device`. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cmd/server.h"
#include "front/nbd/device.h"
#include "front/nbd/nbd.h"
#include "front/tls/stream.h"

#define LIST_BATCH 32
#define LIST_MAX 4096 /* devices of one answer; more are left out, and the answer says so */

/* ---- the door ---- */

static int open_tls(struct vv_server *server)
{
    const struct vv_options *options = server->options;
    struct vv_tls_options tls = {
        .cert_file = options->nbd_tls_cert,
        .key_file = options->nbd_tls_key,
        .ca_file = options->nbd_tls_ca,
        .psk_file = options->nbd_psk_file,
    };
    if (tls.cert_file == NULL && tls.psk_file == NULL) {
        if (tls.key_file == NULL && tls.ca_file == NULL && !options->is_nbd_tls_set)
            return 0;
        fprintf(stderr, "varve: TLS needs --nbd-tls-cert or --nbd-psk-file\n");
        return -EINVAL;
    }
    return vv_tls_new(&tls, &server->nbd_tls);
}

int vv_server_open_nbd(struct vv_server *server)
{
    const struct vv_options *options = server->options;
    if (options->nbd_count == 0)
        return 0;
    TRY(open_tls(server));
    struct vv_nbd_options nbd = {
        .door = VV_DOOR_NBD,
        .is_read_only = options->is_read_only,
        .memory = &server->conn_memory,
        .tls = server->nbd_tls,
        .is_tls_required = server->nbd_tls != NULL &&
                           (options->is_nbd_tls_required || !options->is_nbd_tls_set),
    };
    TRY(vv_nbd_new(server->fs, &nbd, &server->nbd));
    for (unsigned i = 0; i < options->nbd_count; i++) {
        int err = vv_nbd_listen(server->nbd, options->nbd[i], &server->nbd_ports[i]);
        if (err < 0) {
            vv_fail(options->nbd[i], err);
            return err;
        }
    }
    return 0;
}

void vv_server_close_nbd(struct vv_server *server)
{
    vv_nbd_close(server->nbd);
    server->nbd = NULL;
    vv_tls_free(server->nbd_tls);
    server->nbd_tls = NULL;
}

/* ---- varve device ---- */

static int describe(struct vv_server *server, json_t *list, const struct vv_dirent *entry)
{
    struct vv_attr attr;
    int err = vv_fs_getattr(server->fs, entry->inode, &attr);
    if (err == -ESTALE)
        return 0; /* gone since it was listed */
    TRY(err);
    json_t *device = json_object();
    unsigned users = server->nbd != NULL ? vv_nbd_users(server->nbd, entry->inode) : 0;
    json_object_set_new(device, "name", json_stringn(entry->name, entry->name_len));
    json_object_set_new(device, "size", json_integer((json_int_t)attr.size));
    json_object_set_new(device, "used_bytes", json_integer((json_int_t)attr.blocks * 512));
    json_object_set_new(device, "is_read_only", json_boolean((attr.mode & 0222) == 0));
    json_object_set_new(device, "connections", json_integer(users));
    return json_array_append_new(list, device) < 0 ? -ENOMEM : 0;
}

static int list(struct vv_server *server, json_t *answer)
{
    CLEANUP(vv_free_ptr) struct vv_dirent *entries = vv_calloc(LIST_BATCH, sizeof(*entries));
    uint64_t after = 0;
    json_t *devices = json_array();
    json_object_set_new(answer, "devices", devices);
    if (entries == NULL || devices == NULL)
        return -ENOMEM;
    do {
        int count = vv_nbd_device_list(server->fs, VV_DOOR_ADMIN, &after, entries, LIST_BATCH);
        TRY(count);
        for (int i = 0; i < count; i++)
            TRY(describe(server, devices, &entries[i]));
    } while (after != 0 && json_array_size(devices) < LIST_MAX);
    json_object_set_new(answer, "is_cut", json_boolean(after != 0));
    return 0;
}

static struct vv_bytes name_of(const char *text)
{
    return (struct vv_bytes){(const uint8_t *)text, strlen(text)};
}

/* "SIZE NAME" */
static int size_and_name(char *text, uint64_t *out_size, struct vv_bytes *out_name)
{
    char *space = strchr(text, ' ');
    if (space == NULL)
        return -EINVAL;
    *space = 0;
    *out_name = name_of(space + 1);
    return vv_parse_u64(text, out_size);
}

static int remove_device(struct vv_server *server, struct vv_bytes name)
{
    struct vv_attr attr;
    TRY(vv_nbd_device_find(server->fs, VV_DOOR_ADMIN, name, &attr));
    if (server->nbd != NULL && vv_nbd_users(server->nbd, attr.inode) > 0)
        return -EBUSY;
    return vv_nbd_device_remove(server->fs, VV_DOOR_ADMIN, name);
}

static int change(struct vv_server *server, char *request)
{
    uint64_t size;
    struct vv_bytes name;
    if (strncmp(request, "remove ", 7) == 0)
        return remove_device(server, name_of(request + 7));
    if (strncmp(request, "create ", 7) == 0) {
        TRY(size_and_name(request + 7, &size, &name));
        return vv_nbd_device_create(server->fs, VV_DOOR_ADMIN, name, size);
    }
    if (strncmp(request, "resize ", 7) == 0) {
        TRY(size_and_name(request + 7, &size, &name));
        return vv_nbd_device_resize(server->fs, VV_DOOR_ADMIN, name, size);
    }
    return -EINVAL;
}

json_t *vv_server_device(struct vv_server *server, const char *request)
{
    json_t *answer = json_object();
    CLEANUP(vv_free_ptr) char *copy = vv_strdup(request);
    int err = -ENOMEM;
    if (answer != NULL && copy != NULL)
        err = strcmp(copy, "list") == 0 ? list(server, answer) : change(server, copy);
    if (answer != NULL)
        json_object_set_new(answer, "error",
                            err < 0 ? json_string(vv_err_text(err)) : json_null());
    return answer;
}
