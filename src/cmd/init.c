/* varve init: create a volume. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cmd/cmd.h"
#include "fs/fs.h"
#include "log/log.h"
#include "rt/rt.h"

/* A fresh key file, mode 0600, if there is none. */
static int make_key_file(const char *path, bool is_quiet)
{
    uint8_t key[VV_KEY_FILE_LEN];
    char text[2 * VV_KEY_FILE_LEN + 2];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST ? 0 : -errno;
    vv_rt_random(key, sizeof key);
    vv_hex(key, sizeof key, text);
    text[sizeof text - 2] = '\n';
    int err = write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1 ? 0 : -EIO;
    if (err == 0 && fsync(fd) < 0)
        err = -errno;
    close(fd);
    if (err == 0 && !is_quiet)
        printf("made the key file %s: keep a copy, without it the data is lost\n", path);
    return err;
}

struct create_slots {
    const struct vv_keyring *ring;
    const struct vv_secret *secret;
    uint8_t *keys;
    size_t len;
    int err;
};

static void create_slots(void *arg)
{
    struct create_slots *create = arg;
    create->err = vv_slots_create(create->ring, create->secret, &vv_slot_cost_default,
                                  &create->keys, &create->len);
}

/* The root comes first, as with the first server (fs.c). */
static int set_label(struct vv_store *store, const struct vv_keyring *ring, const char *label)
{
    struct vv_volume_options open = {.store = store, .ring = ring, .is_syncing_replay = true};
    struct vv_volume *volume;
    struct vv_fs *fs = NULL;
    TRY(vv_volume_open(&open, &volume));
    int err = vv_fs_open_as(volume, geteuid(), getegid(), &fs);
    if (err == 0)
        err = vv_fs_set_label(volume, label);
    vv_fs_close(fs);
    int close_err = vv_volume_close(volume);
    return err < 0 ? err : close_err;
}

static int create_volume(struct vv_store *store, const struct vv_options *options,
                         const struct vv_secret *secret)
{
    uint8_t volume_id[16];
    struct vv_keyring *ring;
    struct vv_counters counters = {.next_inode = VV_ROOT_INODE + 1,
                                   .next_data_id = VV_ORIGIN_FIRST_DATA};
    vv_rt_random(volume_id, sizeof volume_id);
    TRY(vv_keyring_new(volume_id, &ring));
    struct create_slots create = {.ring = ring, .secret = secret};
    vv_rt_offload(create_slots, &create);
    int err = create.err;
    if (err == 0)
        err = vv_volume_create(store, ring, create.keys, create.len, &options->settings,
                               &counters);
    if (err == 0 && options->label != NULL)
        err = set_label(store, ring, options->label);
    vv_free(create.keys);
    vv_keyring_free(ring);
    return err;
}

int vv_cmd_init(const struct vv_options *options)
{
    struct vv_place place;
    struct vv_store *store;
    struct vv_held_secret secret;
    if (vv_place_parse(options->url, options, &place) < 0)
        return VV_EXIT_USAGE;
    int err = vv_place_open(&place, options, VV_ACCESS_CREATE, &store, NULL);
    if (err < 0)
        return vv_exit_of(err);
    if (options->key_file != NULL)
        err = make_key_file(options->key_file, options->is_quiet);
    if (err < 0) {
        vv_store_close(store);
        return vv_fail(options->key_file, err);
    }
    err = vv_secret_read(options->key_file, options->passphrase_file, "new passphrase", &secret);
    if (err == 0) {
        err = create_volume(store, options, &secret.secret);
        if (err < 0)
            vv_fail(options->url, err);
        else if (!options->is_quiet)
            printf("created a volume at %s (%s, %s)\n", options->url,
                   vv_cipher_name(options->settings.cipher),
                   vv_compression_name(options->settings.compression));
    }
    vv_secret_done(&secret);
    vv_store_close(store);
    return vv_exit_of(err);
}
