/* Where volumes are: URLs, the directories of this machine that belong to them, and their stores. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "rt/rt.h"

#define RETRY_TRIES 3
#define RETRY_TRIES_S3 4
#define PROBE_DAYS 30

/* ---- places ---- */

static int parse_file(const char *url, const char *path, struct vv_place *place)
{
    if (*path == 0 || strlen(path) >= sizeof place->dir - 1) {
        fprintf(stderr, "varve: %s: not a usable path\n", url);
        return -EINVAL;
    }
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    memcpy(place->dir, path, len);
    place->dir[len] = 0;
    vv_format(place->journal, sizeof place->journal, "%s/journal", place->dir);
    vv_format(place->admin, sizeof place->admin, "%s/admin.sock", place->dir);
    return 0;
}

/* The directory of everything that varve keeps on this machine. */
static int state_root(const struct vv_options *options, char *out, size_t size)
{
    const char *xdg = vv_environment("XDG_STATE_HOME");
    const char *home = vv_environment("HOME");
    size_t len;
    if (options->state != NULL)
        len = vv_format(out, size, "%s", options->state);
    else if (geteuid() == 0)
        len = vv_format(out, size, "/var/lib/varve");
    else if (xdg != NULL)
        len = vv_format(out, size, "%s/varve", xdg);
    else if (home != NULL)
        len = vv_format(out, size, "%s/.local/state/varve", home);
    else
        len = size;
    if (len + 1 < size)
        return 0;
    fprintf(stderr, "varve: where to keep journals and sockets? Give --state DIR\n");
    return -EINVAL;
}

static int derive_state(const struct vv_options *options, struct vv_place *place)
{
    char root[4000];
    char text[1400];
    uint8_t hash[16];
    char hex[33];
    TRY(state_root(options, root, sizeof root));
    size_t len = vv_format(text, sizeof text, "%s\n%s\n%s", place->endpoint, place->bucket,
                           place->prefix);
    vv_xxh3_128(text, len, 0, hash);
    vv_hex(hash, 8, hex);
    vv_format(place->state, sizeof place->state, "%s/%s", root, hex);
    vv_format(place->journal, sizeof place->journal, "%s/journal", place->state);
    vv_format(place->admin, sizeof place->admin, "%s/admin.sock", place->state);
    return 0;
}

int vv_place_parse(const char *url, const struct vv_options *options, struct vv_place *out_place)
{
    memset(out_place, 0, sizeof *out_place);
    if (strncmp(url, "s3://", 5) == 0) {
        out_place->is_s3 = true;
        TRY(vv_place_parse_s3(url, options, out_place));
        TRY(derive_state(options, out_place));
    } else if (strncmp(url, "file://", 7) == 0) {
        TRY(parse_file(url, url + 7, out_place));
    } else if (strstr(url, "://") != NULL) {
        fprintf(stderr, "varve: %s: only file:// and s3:// stores are supported\n", url);
        return -EINVAL;
    } else {
        TRY(parse_file(url, url, out_place));
    }
    if (options->journal != NULL &&
        vv_copy_text(out_place->journal, sizeof out_place->journal, options->journal) < 0) {
        fprintf(stderr, "varve: --journal %s: too long\n", options->journal);
        return -EINVAL;
    }
    return 0;
}

enum vv_durability vv_place_durability(const struct vv_place *place,
                                       const struct vv_options *options)
{
    if (options->is_durability_set)
        return options->durability;
    return place->is_s3 ? VV_DURABILITY_BUCKET : VV_DURABILITY_JOURNAL;
}

/* As mkdir -p. */
static int make_dirs(const char *path)
{
    char part[4200];
    TRY(vv_copy_text(part, sizeof part, path));
    for (char *at = part + 1;; at++) {
        if (*at != '/' && *at != 0)
            continue;
        char end = *at;
        *at = 0;
        int err = vv_path_mkdir(part);
        if (err < 0 && err != -EEXIST)
            return err;
        *at = end;
        if (end == 0)
            return 0;
    }
}

int vv_place_make(const struct vv_place *place)
{
    if (!place->is_s3)
        return 0;
    int err = make_dirs(place->state);
    if (err < 0) {
        vv_fail(place->state, err);
        fprintf(stderr, "varve: choose another directory with --state\n");
    }
    return err;
}

/* ---- the probe ---- */

/* A store that has passed is remembered by a file, so that opening costs no requests for it. What it
 * says is for people; what counts is its age. */
static void probe_path(const struct vv_place *place, char *out, size_t size)
{
    vv_format(out, size, "%s/probed", place->state);
}

static bool is_probed(const struct vv_place *place)
{
    char path[4200];
    char text[64] = {0};
    uint64_t at_s;
    probe_path(place, path, sizeof path);
    if (vv_read_text(path, text, sizeof text) < 0)
        return false;
    text[strcspn(text, " \n")] = 0;
    if (vv_parse_u64(text, &at_s) < 0)
        return false;
    uint64_t now_s = (uint64_t)vv_rt_wall().tv_sec;
    return at_s <= now_s && now_s - at_s < PROBE_DAYS * 86400ull;
}

/* Forgetting costs a probe more; so a failure is only told. */
static void remember_probe(const struct vv_place *place)
{
    char path[4200];
    char text[1400];
    struct vv_file *file;
    probe_path(place, path, sizeof path);
    size_t len = vv_format(text, sizeof text, "%llu s3://%s%s%s at %s keeps what varve needs\n",
                           (unsigned long long)vv_rt_wall().tv_sec, place->bucket,
                           place->prefix[0] ? "/" : "", place->prefix, place->endpoint);
    int err = vv_file_open(path, VV_FILE_WRITE | VV_FILE_CREATE | VV_FILE_TRUNCATE, &file);
    if (err == 0) {
        struct iovec iov = {text, len};
        err = vv_file_pwritev(file, &iov, 1, 0);
        vv_file_close(file);
    }
    if (err < 0)
        vv_debug("cmd", "%s: %s", path, vv_err_text(err));
}

static int probe(const struct vv_place *place, const struct vv_options *options,
                 struct vv_store *store)
{
    char why[256] = "";
    if (!place->is_s3 || is_probed(place))
        return 0;
    int err = vv_store_probe(store, why, sizeof why);
    if (err == 0) {
        remember_probe(place);
        return 0;
    }
    if (err != -VV_ERR_STORE_UNSAFE) {
        vv_fail(options->url, err);
        return err;
    }
    fprintf(stderr, "varve: %s: %s: %s.\n", options->url, vv_err_text(err), why);
    if (options->is_unsafe_no_fencing) {
        fprintf(stderr, "varve: going on because of --unsafe-no-fencing: nothing keeps a second server out\n");
        return 0;
    }
    fprintf(stderr, "varve: Without that, two servers could both believe that they have the volume, and what one\n"
                    "varve: has made durable could be lost. Use a server that keeps it (docs/s3.md lists some).\n"
                    "varve: If there will never be more than one server, --unsafe-no-fencing goes on anyway.\n");
    return err;
}

/* ---- stores ---- */

static int open_bare(const struct vv_place *place, const struct vv_options *options,
                     enum vv_access access, struct vv_store **out_store)
{
    if (place->is_s3)
        return vv_place_open_s3(place, options, out_store);
    int err = vv_store_dir_open(place->dir, access == VV_ACCESS_CREATE, out_store);
    if (err == -ENOENT)
        err = -VV_ERR_NOT_VOLUME;
    if (err < 0)
        vv_fail(place->dir, err);
    return err;
}

/* Put the wrappers around *store; on failure it is left to be closed. */
static int wrap(const struct vv_place *place, const struct vv_options *options,
                struct vv_store **store, const struct vv_store **out_counted)
{
    struct vv_store *outer;
    if (options->store_latency_ms > 0) {
        TRY(vv_store_latency_new(*store, options->store_latency_ms * VV_NS_PER_MS, 0, &outer));
        *store = outer;
    }
    TRY(vv_store_count_new(*store, &outer));
    *store = outer;
    if (out_counted != NULL)
        *out_counted = outer;
    unsigned tries = place->is_s3 ? RETRY_TRIES_S3 : RETRY_TRIES;
    uint64_t pause_ns = (place->is_s3 ? 50 : 10) * VV_NS_PER_MS;
    TRY(vv_store_retry_new(*store, tries, pause_ns, 2 * VV_NS_PER_S, &outer));
    *store = outer;
    return 0;
}

int vv_place_open(const struct vv_place *place, const struct vv_options *options,
                  enum vv_access access, struct vv_store **out_store,
                  const struct vv_store **out_counted)
{
    struct vv_store *store;
    TRY(open_bare(place, options, access, &store));
    int err = wrap(place, options, &store, out_counted);
    if (err < 0)
        vv_fail("opening the store", err);
    if (err == 0 && access != VV_ACCESS_READ)
        err = vv_place_make(place);
    if (err == 0 && access != VV_ACCESS_READ)
        err = probe(place, options, store);
    if (err < 0)
        vv_store_close(store);
    else
        *out_store = store;
    return err;
}
