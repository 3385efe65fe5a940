/* varve passwd: replace a secret. Only the key slots are rewritten. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "cmd/cmd.h"
#include "log/log.h"
#include "rt/rt.h"

struct change {
    const uint8_t *keys;
    size_t len;
    const struct vv_secret *old_secret, *new_secret;
    struct vv_keyring *ring;
    uint8_t *new_keys;
    size_t new_len;
    int err;
};

static void change_slots(void *arg)
{
    struct change *change = arg;
    change->err = vv_slots_open(change->keys, change->len, change->old_secret, &change->ring);
    if (change->err == 0)
        change->err = vv_slots_change(change->keys, change->len, change->old_secret,
                                      change->new_secret, &vv_slot_cost_default,
                                      &change->new_keys, &change->new_len);
}

/* Through the running server: it alone writes manifests. -ECONNREFUSED, -ENOENT: there is none. */
static int give_to_server(const struct vv_place *place, const struct change *change)
{
    char *answer;
    size_t size = 2 * change->new_len + 8;
    char *request = vv_alloc(size);
    if (request == NULL)
        return -ENOMEM;
    memcpy(request, "keys ", 5);
    vv_hex(change->new_keys, change->new_len, request + 5);
    memcpy(request + 5 + 2 * change->new_len, "\n", 2);
    int err = vv_admin_ask(place, request, &answer);
    vv_free(request);
    TRY(err);
    json_t *object = json_loads(answer, 0, NULL);
    const char *text = json_string_value(json_object_get(object, "error"));
    if (text != NULL)
        fprintf(stderr, "varve: the server says: %s\n", text);
    err = object == NULL || text != NULL ? -EIO : 0;
    json_decref(object);
    vv_free(answer);
    return err;
}

static int write_keys(const struct vv_options *options, const struct vv_place *place,
                      struct vv_store *store, const struct change *change)
{
    struct vv_volume *volume;
    struct vv_path_stat stat;
    int err = give_to_server(place, change);
    if (err != -ECONNREFUSED && err != -ENOENT)
        return err;
    struct vv_volume_options open = {.store = store, .ring = change->ring,
                                     .is_syncing_replay = true,
                                     .memory_bytes = options->memory_bytes};
    if (vv_path_stat(place->journal, &stat) == 0) {
        open.journal_path = place->journal;
        open.durability = VV_DURABILITY_JOURNAL;
    }
    TRY(vv_volume_open(&open, &volume));
    err = vv_volume_set_keys(volume, change->new_keys, change->new_len);
    int closed = vv_volume_close(volume);
    return err < 0 ? err : closed;
}

static int passwd(const struct vv_options *options, const struct vv_place *place,
                  struct vv_store *store)
{
    struct vv_held_secret old_secret = {0};
    struct vv_held_secret new_secret = {0};
    uint8_t *keys;
    size_t len;
    uint64_t number;
    int err = vv_volume_keys(store, &keys, &len, &number, NULL);
    if (err < 0)
        return vv_fail(options->url, err);
    err = vv_secret_read(options->key_file, options->passphrase_file, "old passphrase",
                         &old_secret);
    if (err == 0)
        err = vv_secret_read(options->new_key_file, options->new_passphrase_file,
                             "new passphrase", &new_secret);
    int code = VV_EXIT_USAGE;
    if (err == 0) {
        struct change change = {.keys = keys, .len = len, .old_secret = &old_secret.secret,
                                .new_secret = &new_secret.secret};
        vv_rt_offload(change_slots, &change);
        err = change.err;
        if (err == 0)
            err = write_keys(options, place, store, &change);
        code = err < 0 ? vv_fail(options->url, err) : VV_EXIT_OK;
        if (err == 0 && !options->is_quiet)
            printf("the key slot was replaced; the old secret no longer opens %s\n", options->url);
        vv_keyring_free(change.ring);
        vv_free(change.new_keys);
    }
    vv_secret_done(&old_secret);
    vv_secret_done(&new_secret);
    vv_free(keys);
    return code;
}

int vv_cmd_passwd(const struct vv_options *options)
{
    struct vv_place place;
    struct vv_store *store;
    if (vv_place_parse(options->url, options, &place) < 0)
        return VV_EXIT_USAGE;
    int err = vv_place_open(&place, options, VV_ACCESS_WRITE, &store, NULL);
    if (err < 0)
        return vv_exit_of(err);
    int code = passwd(options, &place, store);
    vv_store_close(store);
    return code;
}
