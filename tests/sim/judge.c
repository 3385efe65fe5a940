/* Judging a state that was found: which prefix of the history it is. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "fs/inode.h"
#include "world.h"

#define EXPLAINED_BYTES (8u << 20) /* of a file that is not what it should be */

struct lines {
    char *text;
    size_t size;
};

static void add_line(void *arg, const char *text)
{
    struct lines *lines = arg;
    int len = snprintf(lines->text, lines->size, "\n#     %s", text);
    size_t step = (size_t)len < lines->size ? (size_t)len : lines->size - 1;
    lines->text += step;
    lines->size -= step;
}

/* The state before anything happened. */
static struct era *first_era(const struct world *world)
{
    struct model *models[OWNERS_MAX];
    for (unsigned i = 0; i < world->owner_count; i++) {
        char root[64];
        bool is_common = i == world->owner_count - 1;
        snprintf(root, sizeof(root), is_common ? "/common" : "/c%u", i);
        models[i] = model_new();
        model_add_root(models[i], root, S_IFDIR | 0755, 0, false);
        model_add_root(models[i], SHARED_DIR, S_IFDIR | 0755, 0, true);
        model_add_root(models[i], SHARED_FILE, S_IFREG | 0644, REGION_BYTES, false);
    }
    return era_new(models, world->owner_count);
}

/* Which bytes of a file differ: at most three stretches. Reads again; suspends. */
static void explain_bytes(const struct server *server, const struct content *should, uint64_t real,
                          uint64_t base, struct lines *lines)
{
    uint8_t is[CONTENT_BLOCK];
    uint8_t wanted[CONTENT_BLOCK];
    unsigned told = 0;
    for (uint64_t at = content_next_block(should, 0); at < should->size && told < 3;
         at += sizeof(is)) {
        char line[200];
        at -= at % sizeof(is);
        size_t len = content_read(should, at, wanted, sizeof(wanted));
        ssize_t got = vv_fs_read(server->fs, &engine_call, real, NULL, is, len, base + at);
        size_t from = 0;
        size_t to = len;
        while (from < len && got == (ssize_t)len && is[from] == wanted[from])
            from++;
        while (to > from && got == (ssize_t)len && is[to - 1] == wanted[to - 1])
            to--;
        if (from == to || at > EXPLAINED_BYTES)
            continue;
        snprintf(line, sizeof(line),
                 "  bytes [%" PRIu64 ", %" PRIu64
                 ") begin %02x%02x%02x%02x, should %02x%02x%02x%02x "
                 "(read gave %zd)",
                 at + from, at + to, is[from], is[(from + 1) % len], is[(from + 2) % len],
                 is[(from + 3) % len], wanted[from], wanted[(from + 1) % len],
                 wanted[(from + 2) % len], wanted[(from + 3) % len], got);
        add_line(lines, line);
        told++;
    }
}

static void explain_files(struct server *server, const struct history *history, unsigned owner,
                          size_t count, struct lines *lines)
{
    const struct model_dump *is = &server->parts[owner].dump;
    struct model *model = history_model(history, count);
    struct model_dump should;
    model_dump(model, &should);
    for (size_t i = 0, j = 0; i < is->count && j < should.count;) {
        const struct model_entry *a = &is->entries[i];
        const struct model_entry *b = &should.entries[j];
        int order = strcmp(a->path, b->path);
        if (order == 0 && S_ISREG(a->mode) && !hash_equal(a->content, b->content)) {
            const struct model_inode *inode = model_inode(model, (uint32_t)b->key);
            bool is_region = strcmp(a->path, SHARED_FILE) == 0;
            char line[300];
            snprintf(line, sizeof(line), "bytes of %.200s, which is #%u:", a->path, inode->number);
            add_line(lines, line);
            explain_bytes(server, &inode->content, a->key,
                          is_region ? server->parts[owner].region_offset : 0, lines);
        }
        i += order <= 0;
        j += order >= 0;
    }
    model_dump_done(&should);
    model_free(model);
}

static void explain_owner(struct server *server, const struct history *history, unsigned owner,
                          struct lines *lines)
{
    char line[700];
    char op[500];
    const struct model_dump *is = &server->parts[owner].dump;
    size_t nearest = history_nearest(history, is);
    snprintf(line, sizeof(line), "owner %u: nearest to the state after %zu of %zu (durable %zu)",
             owner, nearest, history->count, history->bound);
    add_line(lines, line);
    history_diff(history, nearest, is, add_line, lines);
    explain_files(server, history, owner, nearest, lines);
    for (size_t i = nearest > 2 ? nearest - 2 : 0; i < nearest + 2 && i < history->count; i++) {
        op_to_text(&history->records[i]->op, op, sizeof(op));
        snprintf(line, sizeof(line), "operation %zu was %s%s", i, op,
                 history->records[i]->returned == HISTORY_NEVER ? " (under way)" : "");
        add_line(lines, line);
    }
}

/* What differs, for those owners whose state is none of theirs. */
static void explain(struct server *server, const struct era *era, const char *text)
{
    char details[3000] = "";
    struct lines lines = {details, sizeof(details)};
    for (unsigned i = 0; i < era->owner_count; i++) {
        const struct history *history = &era->owners[i];
        bool is_match = false;
        for (size_t k = history->bound; k < history->match_count; k++)
            is_match |= history->is_match[k];
        if (!is_match)
            explain_owner(server, history, i, &lines);
    }
    world_fail(server->world, "server %u found a state that is no prefix: %s%s", server->number,
               text, details);
}

/* Learn the volume's inode numbers from what was found; those known must be the same. */
static void learn_inodes(struct server *server, struct model *model, unsigned owner)
{
    const struct model_dump *is = &server->parts[owner].dump;
    struct model_dump should;
    model_dump(model, &should);
    assert(is->count == should.count);
    for (size_t i = 0; i < should.count; i++) {
        struct model_inode *inode = model_inode(model, (uint32_t)should.entries[i].key);
        uint64_t real = is->entries[i].key;
        if (inode->real && inode->real != real)
            world_fail(server->world, "server %u: %s has become inode %" PRIu64 ", was %" PRIu64,
                       server->number, is->entries[i].path, real, inode->real);
        inode->real = real;
    }
    model_dump_done(&should);
}

static void begin_era(struct server *server, const size_t *counts)
{
    struct world *world = server->world;
    struct model *models[OWNERS_MAX];
    struct vv_attr shared = {0};
    int err = engine_resolve(server->fs, SHARED_DIR, &shared);
    for (unsigned i = 0; i < world->owner_count; i++) {
        const struct history *history = &world->era->owners[i];
        world->facts.records_lost += history->count - counts[i];
        models[i] = history_model(history, counts[i]);
        learn_inodes(server, models[i], i);
        model_inode(models[i], models[i]->roots[1].inode)->real = shared.inode;
    }
    if (err < 0)
        world_fail(world, "server %u: %s: %s", server->number, SHARED_DIR, vv_err_text(err));
    world->is_left_behind = false;
    snprintf(world->journal, sizeof(world->journal), "%s", server->journal);
    server->era = era_new(models, world->owner_count);
    era_unref(world->era);
    world->era = server->era;
    era_ref(world->era);
}

/* One reply in the volume. Those of earlier eras, and of servers that were superseded, are nobody's. */
static void judge_reply(struct server *server, const struct vv_reply_record *found, bool is_fresh)
{
    struct world *world = server->world;
    struct vv_fs_reply known;
    unsigned owner;
    uint64_t called;
    engine_asked(&found->reply, &owner, &called);
    if (world->era->reply_count < found->sequence + 1)
        world->era->reply_count = found->sequence + 1;
    if (owner >= world->owner_count) {
        world_fail(world, "server %u: a reply to owner %u", server->number, owner);
        return;
    }
    struct record *record = history_called(&world->era->owners[owner], called);
    if (is_fresh && (!vv_fs_reply_find(server->fs, VV_REPLY_NFS3, found->reply.id, &known) ||
                     known.inode != found->reply.inode))
        world_fail(world, "server %u does not know the reply of event %" PRIu64, server->number,
                   called);
    if (!record)
        return;
    if (record->real != 0 && record->real != found->reply.inode)
        world_fail(world, "server %u: the reply of event %" PRIu64 " is about another inode",
                   server->number, called);
    world->facts.replies += record->reply == 0;
    record->reply = found->sequence + 1;
}

/* All of them, in memory of the server's: it may be killed meanwhile. */
struct found_replies {
    struct vv_reply_record *records;
    size_t count, capacity;
};

static int note_reply(struct found_replies *found, struct vv_bytes key, struct vv_bytes value)
{
    uint64_t slot;
    if (found->count == found->capacity) {
        size_t capacity = found->capacity ? 2 * found->capacity : 64;
        struct vv_reply_record *records = vv_realloc(found->records, capacity * sizeof(*records));
        if (!records)
            return -ENOMEM;
        found->records = records;
        found->capacity = capacity;
    }
    TRY(vv_reply_slot(key, &slot));
    TRY(vv_reply_decode(value, slot, &found->records[found->count]));
    found->count++;
    return 0;
}

static int find_replies(struct server *server, struct found_replies *found)
{
    static const uint8_t lower[] = {VV_TABLE_REPLY};
    static const uint8_t upper[] = {VV_TABLE_REPLY + 1};
    struct vv_lsm_iter *iter;
    struct vv_bytes key;
    struct vv_bytes value;
    TRY(vv_volume_scan(server->volume, (struct vv_bytes){lower, 1}, (struct vv_bytes){upper, 1},
                       &iter));
    int err;
    while ((err = vv_lsm_iter_next(iter, &key, &value)) > 0) {
        err = note_reply(found, key, value);
        if (err < 0)
            break;
    }
    vv_lsm_iter_close(iter);
    return err;
}

/* What another server found, which was killed before it came to a judgement, does not count: with
 * another journal there may be less. */
static void forget_replies(struct era *era)
{
    era->reply_count = 0;
    for (unsigned i = 0; i < era->owner_count; i++) {
        for (size_t j = 0; j < era->owners[i].count; j++)
            era->owners[i].records[j]->reply = 0;
    }
}

int judge_replies(struct server *server, bool is_fresh)
{
    struct found_replies found = {0};
    if (!server->world->era)
        return 0;
    int err = find_replies(server, &found);
    if (err == 0)
        forget_replies(server->world->era);
    for (size_t i = 0; i < found.count && err == 0; i++)
        judge_reply(server, &found.records[i], is_fresh);
    vv_free(found.records);
    return err;
}

int judge_state(struct server *server, bool is_exact)
{
    struct world *world = server->world;
    struct model_dump dumps[OWNERS_MAX];
    size_t counts[OWNERS_MAX];
    char text[400];
    if (!world->era)
        world->era = first_era(world);
    for (unsigned i = 0; i < world->owner_count; i++) {
        dumps[i] = server->parts[i].dump;
        if (is_exact)
            history_acknowledge(&world->era->owners[i], world->era->owners[i].count);
    }
    for (unsigned i = 0; i < world->owner_count && world->is_left_behind && !is_exact; i++)
        world->era->owners[i].bound = 0;
    era_match(world->era, dumps);
    if (era_choose(world->era, counts, text, sizeof(text)) < 0) {
        explain(server, world->era, text);
        return -1;
    }
    if (!is_exact)
        begin_era(server, counts);
    return world->is_failed ? -1 : 0;
}

void judge_era(struct world *world, const struct era *era)
{
    size_t counts[OWNERS_MAX];
    char text[400];
    if (era && era->owners[0].match_count > 0 && era_choose(era, counts, text, sizeof(text)) < 0)
        world_fail(world, "a superseded server acknowledged too much: %s", text);
}
