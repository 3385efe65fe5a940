#include "history.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

static void *checked(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

/* ---- eras ---- */

struct era *era_new(struct model *const *models, unsigned owner_count)
{
    struct era *era = checked(calloc(1, sizeof(*era)));
    era->owner_count = owner_count;
    era->refs = 1;
    for (unsigned i = 0; i < owner_count; i++) {
        era->owners[i].base = models[i];
        era->owners[i].now = model_copy(models[i]);
    }
    return era;
}

void era_ref(struct era *era)
{
    era->refs++;
}

void era_unref(struct era *era)
{
    if (!era || --era->refs > 0)
        return;
    for (unsigned i = 0; i < era->owner_count; i++) {
        struct history *history = &era->owners[i];
        for (size_t j = 0; j < history->count; j++)
            free(history->records[j]);
        free(history->records);
        free(history->is_match);
        model_free(history->base);
        model_free(history->now);
    }
    free(era);
}

/* ---- recording ---- */

struct record *history_begin(struct history *history, const struct op *op, uint64_t event)
{
    if (history->count == history->capacity) {
        history->capacity = 2 * history->capacity + 64;
        history->records =
            checked(realloc(history->records, history->capacity * sizeof(*history->records)));
    }
    struct record *record = checked(calloc(1, sizeof(*record)));
    record->op = *op;
    record->called = event;
    record->returned = HISTORY_NEVER;
    history->records[history->count++] = record;
    return record;
}

void history_end(struct history *history, struct record *record, uint64_t event, bool is_failed)
{
    assert(history->count > 0 && history->records[history->count - 1] == record);
    record->returned = event;
    record->has_failed = is_failed;
}

void history_acknowledge(struct history *history, size_t count)
{
    if (history->bound < count)
        history->bound = count;
}

/* ---- replaying ---- */

/* A rename between two names of one inode does nothing. */
static bool is_idle_rename(const struct model *model, const struct op *op)
{
    if (op->kind != OP_RENAME)
        return false;
    uint32_t from = model_lookup(model, op->dir, op->name.text);
    return from != 0 && from == model_lookup(model, op->dir2, op->name2.text);
}

/* Do the record number `index` to a model that has done those before. True if something changed.
 * *out_is_replied: then its reply is kept. */
static bool replay(const struct history *history, size_t index, struct model *model,
                   bool *out_is_replied)
{
    const struct record *record = history->records[index];
    struct model_result result;
    bool is_replied = op_is_replied(&record->op) && !is_idle_rename(model, &record->op);
    *out_is_replied = false;
    model->clock = index;
    int err = record->has_failed ? -1 : model_apply(model, &record->op, &result);
    model->clock = index + 1;
    if (err < 0)
        return false;
    *out_is_replied = is_replied;
    if (result.inode && record->real)
        model_inode(model, result.inode)->real = record->real;
    return record->op.kind != OP_OPEN || record->op.flags != 0;
}

/* Are the inodes those that they were? Those of operations cut off by a crash are not known. */
static bool has_same_inodes(const struct model *model, const struct model_dump *is)
{
    struct model_dump should;
    bool is_same = true;
    model_dump(model, &should);
    for (size_t i = 0; i < should.count && i < is->count; i++) {
        uint64_t real = model_inode(model, (uint32_t)should.entries[i].key)->real;
        is_same &= real == 0 || real == is->entries[i].key;
    }
    model_dump_done(&should);
    return is_same;
}

/* What the replies found say of an owner's prefixes. */
struct told {
    size_t least;      /* so many records are in: the last one's reply was found */
    size_t missing_at; /* from this record on a reply that is missing was never there */
};

static struct told replies_tell(const struct era *era, const struct history *history)
{
    struct told told = {0, 0};
    uint64_t oldest = era->reply_count > VV_REPLIES_MAX ? era->reply_count - VV_REPLIES_MAX : 0;
    uint64_t last = 0;
    for (size_t i = 0; i < history->count; i++) {
        if (history->records[i]->reply == 0)
            continue;
        told.least = i + 1;
        last = history->records[i]->reply - 1;
    }
    /* Some were overwritten. What comes behind one that can't be was not. */
    if (oldest > 0)
        told.missing_at = told.least > 0 && last >= oldest ? told.least : SIZE_MAX;
    return told;
}

/* Which prefixes of at least `least` records have the dump's state, and the replies that were found?
 * Returns how many. */
static size_t match(struct history *history, const struct model_dump *dump, size_t least,
                    struct told told)
{
    struct model *model = model_copy(history->base);
    struct hash wanted = model_dump_hash(dump);
    size_t found = 0;
    bool is_equal = false;
    bool is_fresh = true; /* the state has changed since it was compared */
    bool is_replied = false;
    bool is_missing = false;
    free(history->is_match);
    history->match_count = history->count + 1;
    history->is_match = checked(calloc(history->match_count, sizeof(bool)));
    for (size_t k = 0; k < history->match_count; k++) {
        if (k > 0) {
            is_fresh |= replay(history, k - 1, model, &is_replied);
            is_missing |= is_replied && k > told.missing_at && history->records[k - 1]->reply == 0;
        }
        if (k < least || k < told.least || is_missing)
            continue;
        if (is_fresh)
            is_equal = hash_equal(model_hash(model), wanted) && has_same_inodes(model, dump);
        is_fresh = false;
        history->is_match[k] = is_equal;
        found += is_equal;
    }
    model_free(model);
    return found;
}

void era_match(struct era *era, const struct model_dump *dumps)
{
    for (unsigned i = 0; i < era->owner_count; i++) {
        /* What is older than what was acknowledged is looked at only to tell what is wrong. */
        struct history *history = &era->owners[i];
        struct told told = replies_tell(era, history);
        if (match(history, &dumps[i], history->bound, told) == 0 && history->bound > 0)
            (void)match(history, &dumps[i], 0, told);
    }
}

struct record *history_called(const struct history *history, uint64_t called)
{
    size_t from = 0;
    size_t to = history->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (history->records[middle]->called < called)
            from = middle + 1;
        else
            to = middle;
    }
    return from < history->count && history->records[from]->called == called
               ? history->records[from]
               : NULL;
}

/* The least k >= from that matches; match_count when there is none. */
static size_t next_match(const struct history *history, size_t from)
{
    while (from < history->match_count && !history->is_match[from])
        from++;
    return from;
}

/* Must owner `a` have more records in, because of what is in of owner `b`? */
static bool is_short(const struct history *a, size_t a_count, const struct history *b,
                     size_t b_count)
{
    return a_count < a->match_count - 1 && b_count > 0 &&
           a->records[a_count]->returned < b->records[b_count - 1]->called;
}

/* The condition is "if that many of b, then at least that many of a", for all pairs: so raising
 * what is too short until nothing is, from the least matches on, finds the least solution if there
 * is one. */
int era_choose(const struct era *era, size_t *out_counts, char *text, size_t size)
{
    for (unsigned i = 0; i < era->owner_count; i++) {
        const struct history *history = &era->owners[i];
        out_counts[i] = next_match(history, history->bound);
        if (out_counts[i] < history->match_count)
            continue;
        bool is_older = next_match(history, 0) < history->match_count;
        snprintf(text, size, "owner %u: %s (records %zu, of which durable %zu)", i,
                 is_older ? "what was acknowledged as durable is lost"
                          : "the state is none that it ever was in since",
                 history->match_count - 1, history->bound);
        return -1;
    }
    for (bool is_changed = true; is_changed;) {
        is_changed = false;
        for (unsigned pair = 0; pair < era->owner_count * era->owner_count; pair++) {
            unsigned a = pair / era->owner_count;
            unsigned b = pair % era->owner_count;
            const struct history *history = &era->owners[a];
            if (a == b || !is_short(history, out_counts[a], &era->owners[b], out_counts[b]))
                continue;
            is_changed = true;
            size_t had = out_counts[a];
            out_counts[a] = next_match(history, had + 1);
            if (out_counts[a] < history->match_count)
                continue;
            snprintf(
                text, size,
                "no prefix: owner %u has at most %zu records in, but the next had returned before "
                "record %zu of owner %u was called, which is in",
                a, had, out_counts[b] - 1, b);
            return -1;
        }
    }
    return 0;
}

struct model *history_model(const struct history *history, size_t count)
{
    struct model *model = model_copy(history->base);
    bool is_replied;
    for (size_t i = 0; i < count; i++)
        (void)replay(history, i, model, &is_replied);
    model_forget_handles(model);
    model->clock = 0;
    for (uint32_t i = 1; i < model->inode_count; i++) {
        if (model->inodes[i])
            model->inodes[i]->changed = 0;
    }
    return model;
}

size_t history_nearest(const struct history *history, const struct model_dump *dump)
{
    size_t nearest = 0;
    size_t least = SIZE_MAX;
    struct model_dump should;
    struct model *model = model_copy(history->base);
    bool is_replied;
    for (size_t k = 0; k <= history->count; k++) {
        if (k > 0)
            (void)replay(history, k - 1, model, &is_replied);
        model_dump(model, &should);
        size_t differences = model_dump_diff(dump, &should, 0, NULL, NULL);
        model_dump_done(&should);
        if (differences <= least) {
            least = differences;
            nearest = k;
        }
    }
    model_free(model);
    return nearest;
}

void history_diff(const struct history *history, size_t count, const struct model_dump *dump,
                  void (*line)(void *arg, const char *text), void *arg)
{
    struct model_dump should;
    struct model *model = history_model(history, count);
    model_dump(model, &should);
    (void)model_dump_diff(dump, &should, 8, line, arg);
    model_dump_done(&should);
    model_free(model);
}
