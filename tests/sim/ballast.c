#include "ballast.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "rt/rt.h"

#define DIR_NAME "ballast"
#define FILE_BYTES (16u << 20)
#define PIECE_BYTES (1u << 20) /* of one write */
#define CHURN_BYTES (256u << 10)
#define CHECKED_BYTES (32u << 10)
#define CHECKS_PER_FILE 6
#define PAUSE_NS (20 * VV_NS_PER_MS)
#define TRIES 60 /* of a call in bad weather */
#define AGAIN_NS VV_NS_PER_S

static unsigned file_count(const struct world *world)
{
    return world->mode->ballast_mib * (1u << 20) / FILE_BYTES;
}

/* Every 512 bytes are of one kind, so that it compresses, and all differ. */
static void pattern(unsigned file, uint64_t offset, uint8_t *bytes, size_t len)
{
    for (size_t at = 0; at < len; at += 512) {
        uint64_t number = (offset + at) / 512 * 64 + file + 1;
        memset(bytes + at, (int)(number % 251), 512);
        memcpy(bytes + at, &number, sizeof(number));
    }
}

static int find(struct server *server, unsigned file, struct vv_attr *out_attr)
{
    char path[64];
    snprintf(path, sizeof(path), "/%s/b%u", DIR_NAME, file);
    return engine_resolve(server->fs, path, out_attr);
}

static int write_piece(struct server *server, uint64_t inode, unsigned file, uint64_t offset,
                       size_t len)
{
    uint8_t *bytes = malloc(len);
    if (!bytes)
        abort();
    pattern(file, offset, bytes, len);
    ssize_t done = vv_fs_write(server->fs, &engine_call, inode, NULL, bytes, len, offset, 0);
    free(bytes);
    return done < 0 ? (int)done : (size_t)done == len ? 0 : -EIO;
}

static int fill_file(struct server *server, uint64_t dir, unsigned file)
{
    struct vv_create create = {.mode = S_IFREG | 0644};
    struct vv_attr attr;
    char name[16];
    snprintf(name, sizeof(name), "b%u", file);
    int err = vv_fs_mknod(server->fs, &engine_call, dir, name, strlen(name), &create, &attr);
    if (err == -EEXIST)
        err = find(server, file, &attr);
    for (uint64_t at = attr.size; err == 0 && at < FILE_BYTES; at += PIECE_BYTES) {
        at -= at % PIECE_BYTES;
        err = write_piece(server, attr.inode, file, at, PIECE_BYTES);
    }
    return err;
}

int ballast_fill(struct server *server)
{
    struct world *world = server->world;
    struct vv_create create = {.mode = S_IFDIR | 0755};
    struct vv_attr attr;
    if (world->mode->ballast_mib == 0 || world->has_ballast)
        return 0;
    int err = vv_fs_mkdir(server->fs, &engine_call, VV_ROOT_INODE, DIR_NAME, strlen(DIR_NAME),
                          &create, &attr);
    if (err < 0 && err != -EEXIST)
        return err;
    TRY(engine_resolve(server->fs, "/" DIR_NAME, &attr));
    for (unsigned i = 0; i < file_count(world); i++)
        TRY(fill_file(server, attr.inode, i));
    TRY(vv_fs_sync(server->fs, 0));
    world->has_ballast = true;
    return 0;
}

/* The bytes at a place, compared. -EILSEQ: they are others. */
static int read_piece(struct server *server, unsigned file, uint64_t inode, uint64_t offset)
{
    uint8_t is[CHECKED_BYTES];
    uint8_t should[CHECKED_BYTES];
    pattern(file, offset, should, sizeof(should));
    ssize_t got =
        vv_fs_read(server->fs, &engine_call, inode, NULL, is, sizeof(is), offset);
    if (got < 0)
        return (int)got;
    return (size_t)got == sizeof(is) && memcmp(is, should, sizeof(is)) == 0 ? 0 : -EILSEQ;
}

static int look_at(struct server *server, unsigned file, uint64_t offset)
{
    struct vv_attr attr;
    TRY(find(server, file, &attr));
    return attr.size == FILE_BYTES ? read_piece(server, file, attr.inode, offset) : -ENODATA;
}

/* Errors that the weather explains are no news. */
static int judge_piece(struct server *server, unsigned file, uint64_t offset, int err)
{
    if (err == 0 || world_excuses(server, err))
        return 0;
    world_fail(server->world, "server %u: ballast file %u at %" PRIu64 ": %s", server->number, file,
               offset, vv_err_text(err));
    return -1;
}

static int churn(struct server *server, struct rng *rng)
{
    unsigned file = (unsigned)rng_below(rng, file_count(server->world));
    uint64_t offset = rng_below(rng, FILE_BYTES / CHURN_BYTES) * CHURN_BYTES;
    if (rng_chance(rng, 600))
        return judge_piece(server, file, offset, look_at(server, file, offset));
    struct vv_attr attr;
    int err = find(server, file, &attr);
    if (err == 0)
        err = write_piece(server, attr.inode, file, offset, CHURN_BYTES);
    return judge_piece(server, file, offset, err);
}

void ballast_main(void *arg)
{
    struct server *server = arg;
    struct world *world = server->world;
    struct rng rng = {rng_next(&world->rng)};
    while (!world->is_failed && !server->is_superseded && world->ops_done < world->options.ops &&
           churn(server, &rng) == 0)
        vv_rt_sleep_ns(rng_below(&rng, PAUSE_NS));
    server->clients_running--;
}

int ballast_check(struct server *server)
{
    struct world *world = server->world;
    if (!world->has_ballast)
        return 0;
    for (unsigned i = 0; i < file_count(world) * CHECKS_PER_FILE; i++) {
        unsigned file = i / CHECKS_PER_FILE;
        uint64_t offset = rng_below(&world->rng, FILE_BYTES / CHECKED_BYTES) * CHECKED_BYTES;
        int err = look_at(server, file, offset);
        for (unsigned tries = 0; tries < TRIES && err < 0 && world_excuses(server, err); tries++) {
            vv_rt_sleep_ns(AGAIN_NS);
            err = look_at(server, file, offset);
        }
        if (judge_piece(server, file, offset, err) < 0)
            return -1;
    }
    return 0;
}

int ballast_remove(struct server *server)
{
    struct world *world = server->world;
    struct vv_attr attr;
    if (!world->has_ballast)
        return 0;
    int err = engine_resolve(server->fs, "/" DIR_NAME, &attr);
    for (unsigned i = 0; i < file_count(world) && err == 0; i++) {
        char name[16];
        snprintf(name, sizeof(name), "b%u", i);
        err = vv_fs_unlink(server->fs, &engine_call, attr.inode, name, strlen(name));
    }
    if (err < 0)
        world_fail(world, "removing the ballast: %s", vv_err_text(err));
    return err < 0 ? -1 : 0;
}
