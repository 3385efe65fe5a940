/* Clients: fibers of a server's process that do random operations of their owner, one after
 * another, and compare each with the model. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "rt/rt.h"
#include "world.h"

#define ZOMBIE_OPS_MAX 60   /* of a server that was superseded, before it gives up */
#define COMMON_PERMILLE 120 /* of the operations that are on common property */
#define REST_NS (5 * VV_NS_PER_MS)
#define LONG_PAUSE_PERMILLE 6
#define LONG_PAUSE_NS (2500 * VV_NS_PER_MS)

static void fail_op(struct server *server, unsigned owner, const struct op *op, const char *text)
{
    char line[700];
    op_to_text(op, line, sizeof(line));
    world_fail(server->world, "server %u, owner %u, operation %zu: %s: %s", server->number, owner,
               server->era->owners[owner].count, line, text);
}

/* ---- operations that change something ---- */

/* Freeing space must work when there is none. */
static bool is_freeing(const struct history *history, const struct op *op)
{
    if (op->kind == OP_UNLINK || op->kind == OP_RMDIR || op->kind == OP_RELEASE)
        return true;
    return op->kind == OP_SETATTR && op->mask == OP_SET_SIZE &&
           op->len <= model_inode(history->now, op->inode)->content.size;
}

/* The engine failed for a reason outside of the model: right only if the world explains it. */
static void compare_excused(struct server *server, unsigned owner, const struct op *op, int err)
{
    char text[200];
    server->world->facts.excused_ops++;
    if (vv_err_errno(err) == ENOSPC && is_freeing(&server->era->owners[owner], op)) {
        snprintf(text, sizeof(text), "gave %s, though it frees space", vv_err_name(err));
        fail_op(server, owner, op, text);
    }
}

/* The model has done it too. */
static void compare_done(struct server *server, unsigned owner, struct record *record, int err,
                         int should, const struct model_result *result, uint64_t value)
{
    struct history *history = &server->era->owners[owner];
    const struct op *op = &record->op;
    char text[200];
    server->world->facts.failed_ops += should < 0;
    if (vv_err_errno(err) != -should && vv_err_errno(err) != result->other_errno) {
        snprintf(text, sizeof(text), "gave %s, should give %s",
                 err < 0 ? vv_err_name(err) : "success",
                 should < 0 ? strerror(-should) : "success");
        fail_op(server, owner, op, text);
        return;
    }
    if (should < 0 || err < 0)
        return;
    bool is_counting = op->kind == OP_WRITE || op->kind == OP_APPEND || op->kind == OP_COPY;
    if (is_counting && value != result->value) {
        snprintf(text, sizeof(text), "did %" PRIu64 " bytes, should do %" PRIu64, value,
                 result->value);
        fail_op(server, owner, op, text);
    }
    struct model_inode *inode = model_inode(history->now, result->inode);
    if (inode && record->real) {
        if (inode->real && inode->real != record->real)
            fail_op(server, owner, op, "another inode than before");
        inode->real = record->real;
    }
}

static void do_change(struct server *server, unsigned owner, const struct op *op)
{
    struct world *world = server->world;
    struct history *history = &server->era->owners[owner];
    struct engine *engine = &server->engines[owner];
    struct record *record = history_begin(history, op, ++world->events);
    struct model_result result;
    uint64_t value;
    engine_ask(engine, owner, record->called);
    int err = engine_apply(engine, history->now, op, &value, &record->real);
    bool is_excused = err < 0 && world_excuses(server, err);
    if (is_excused) {
        compare_excused(server, owner, op, err);
    } else {
        if (op->kind == OP_COPY && err == 0 && value > 0 && value < op->len)
            record->op.len = value; /* it may copy less */
        history->now->clock = history->count - 1;
        int should = model_apply(history->now, &record->op, &result);
        compare_done(server, owner, record, err, should, &result, value);
    }
    history->now->clock = history->count;
    history_end(history, record, ++world->events, is_excused);
}

/* ---- syncs ---- */

static void do_fsync(struct server *server, unsigned owner, const struct op *op)
{
    struct history *history = &server->era->owners[owner];
    size_t count = model_changed(history->now, op->inode);
    int err = vv_fs_sync(server->fs, model_inode(history->now, op->inode)->real);
    server->world->facts.syncs++;
    server->world->facts.failed_syncs += err < 0;
    if (err == 0)
        history_acknowledge(history, count);
    else if (!world_excuses(server, err))
        fail_op(server, owner, op, vv_err_text(err));
}

static void do_sync(struct server *server, unsigned owner, const struct op *op)
{
    struct era *era = server->era;
    size_t counts[OWNERS_MAX];
    for (unsigned i = 0; i < era->owner_count; i++)
        counts[i] = era->owners[i].now->clock; /* those that have returned */
    int err = vv_fs_sync(server->fs, 0);
    server->world->facts.syncs++;
    server->world->facts.failed_syncs += err < 0;
    for (unsigned i = 0; i < era->owner_count && err == 0; i++)
        history_acknowledge(&era->owners[i], counts[i]);
    if (err < 0 && !world_excuses(server, err))
        fail_op(server, owner, op, vv_err_text(err));
}

/* ---- looking ---- */

static void do_look(struct server *server, unsigned owner, const struct op *op)
{
    struct world *world = server->world;
    struct sight *sight = &world->sights[owner];
    const struct model *model = server->era->owners[owner].now;
    char text[300];
    int err = engine_look(&server->engines[owner], model, op, sight);
    if (err < 0 && world_excuses(server, err)) {
        world->facts.excused_ops++;
        return;
    }
    if (expect_check(model, op, sight, text, sizeof(text)) < 0)
        fail_op(server, owner, op, text);
}

/* For a person who follows one world: what begins, and what came of it. */
static void trace(const struct server *server, unsigned owner, const struct op *op, bool is_done)
{
    char line[700];
    if (!server->world->options.is_tracing)
        return;
    op_to_text(op, line, sizeof(line));
    world_note(server->world, "%u.%u %s %s", server->number, owner, is_done ? "did" : "   ", line);
}

void client_do(struct server *server, unsigned owner, struct op *op)
{
    struct world *world = server->world;
    trace(server, owner, op, false);
    world->facts.ops++;
    world->facts.ops_by_kind[op->kind]++;
    if (op->kind == OP_SYNC)
        do_sync(server, owner, op);
    else if (op->kind == OP_FSYNC)
        do_fsync(server, owner, op);
    else if (op_is_reading(op->kind))
        do_look(server, owner, op);
    else
        do_change(server, owner, op);
    trace(server, owner, op, true);
}

/* ---- the fiber ---- */

static void think(struct world *world, struct rng *rng)
{
    if (rng_chance(rng, LONG_PAUSE_PERMILLE))
        vv_rt_sleep_ns(rng_below(rng, LONG_PAUSE_NS));
    else if (rng_chance(rng, 500))
        vv_rt_sleep_ns(rng_below(rng, world->think_ns) + 1);
}

static bool is_going_on(const struct server *server)
{
    const struct world *world = server->world;
    if (world->is_failed || server->is_silent)
        return false;
    if (server->is_superseded || server->is_down)
        return server->zombie_ops < ZOMBIE_OPS_MAX;
    return world->ops_done < world->options.ops;
}

static void do_one(struct client *client)
{
    struct server *server = client->server;
    struct world *world = server->world;
    unsigned owner = client->index;
    struct op op;
    bool is_common =
        !server->is_common_busy && rng_chance(&world->generators[owner].rng, COMMON_PERMILLE);
    if (is_common) {
        server->is_common_busy = true;
        owner = world->owner_count - 1;
    }
    generate(&world->generators[owner], server->era->owners[owner].now, &op);
    client_do(server, owner, &op);
    if (is_common)
        server->is_common_busy = false;
}

void client_main(void *arg)
{
    struct client *client = arg;
    struct server *server = client->server;
    struct world *world = server->world;
    while (is_going_on(server)) {
        if (server->is_resting) {
            vv_rt_sleep_ns(REST_NS);
            continue;
        }
        if (server->is_down_due && !server->is_down) {
            world_note(world, "server %u is shut down", server->number);
            server->is_down = true;
            vv_fs_shut_down(server->fs);
        }
        server->clients_going++;
        do_one(client);
        server->clients_going--;
        if (server->is_superseded || server->is_down)
            server->zombie_ops++;
        else
            world->ops_done++;
        think(world, &world->generators[client->index].rng);
    }
    server->clients_running--;
}

/* ---- the end ---- */

/* The last name in a directory that holds nothing itself, or of something that is no directory. */
static bool find_leaf(const struct model *model, struct op *op)
{
    for (uint32_t i = model->inode_count; i-- > 1;) {
        const struct model_inode *dir = model_inode(model, i);
        for (uint32_t j = dir ? dir->child_count : 0; j-- > 0;) {
            const struct model_inode *inode = model_inode(model, dir->children[j].inode);
            if (S_ISDIR(inode->mode) && inode->child_count > 0)
                continue;
            op->kind = S_ISDIR(inode->mode) ? OP_RMDIR : OP_UNLINK;
            op->dir = i;
            op->name.len = (uint16_t)snprintf(op->name.text, sizeof(op->name.text), "%s",
                                              dir->children[j].name);
            return true;
        }
    }
    return false;
}

/* The shared file's bytes go, its size stays. */
static void clean_shared_file(struct server *server)
{
    struct vv_attr attr = {0};
    int err = engine_resolve(server->fs, SHARED_FILE, &attr);
    struct vv_attr set = {.size = 0};
    if (err == 0)
        err = vv_fs_setattr(server->fs, &engine_call, attr.inode, NULL, &set, VV_SET_SIZE, &attr);
    set.size = (uint64_t)REGION_BYTES * server->world->owner_count;
    if (err == 0)
        err = vv_fs_setattr(server->fs, &engine_call, attr.inode, NULL, &set, VV_SET_SIZE, &attr);
    if (err < 0)
        world_fail(server->world, "cleaning: %s", vv_err_text(err));
}

void client_clean(struct server *server)
{
    struct world *world = server->world;
    for (unsigned i = 0; i < world->owner_count && !world->is_failed; i++) {
        const struct model *model = server->era->owners[i].now;
        struct op op = {.handle = -1};
        while (!world->is_failed && find_leaf(model, &op))
            client_do(server, i, &op);
        op = (struct op){.kind = OP_FALLOCATE,
                         .handle = -1,
                         .inode = world->generators[i].region,
                         .flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         .len = REGION_BYTES};
        client_do(server, i, &op);
    }
    clean_shared_file(server);
}
