#include "history.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Do the record number `index` to a model that has done those before. True if something changed. */
static bool replay(const struct history *history, size_t index, struct model *model)
{
    const struct record *record = history->records[index];
    struct model_result result;
    model->clock = index;
    int err = record->has_failed ? -1 : model_apply(model, &record->op, &result);
    model->clock = index + 1;
    if (err < 0)
        return false;
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

/* Which prefixes of at least `least` records have the dump's state? Returns how many. */
static size_t match(struct history *history, const struct model_dump *dump, size_t least)
{
    struct model *model = model_copy(history->base);
    struct hash wanted = model_dump_hash(dump);
    size_t found = 0;
    bool is_equal = false;
    bool is_fresh = true; /* the state has changed since it was compared */
    free(history->is_match);
    history->match_count = history->count + 1;
    history->is_match = checked(calloc(history->match_count, sizeof(bool)));
    for (size_t k = 0; k < history->match_count; k++) {
        if (k > 0)
            is_fresh |= replay(history, k - 1, model);
        if (k < least)
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
        if (match(history, &dumps[i], history->bound) == 0 && history->bound > 0)
            (void)match(history, &dumps[i], 0);
    }
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
    for (size_t i = 0; i < count; i++)
        (void)replay(history, i, model);
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
    for (size_t k = 0; k <= history->count; k++) {
        if (k > 0)
            (void)replay(history, k - 1, model);
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
