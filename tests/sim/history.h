/* What the owners did since the last known state, and which prefixes of it a state found can be.
 *
 * An era begins with a state known for sure (models of all owners) and holds, for each owner, the
 * operations that changed something, in its order: an owner has one operation under way at most.
 * Each has the moment it was called and the moment it returned, in events of the world. Owners
 * share nothing, so a state found is compared owner by owner: it may be the state after the first k
 * operations of an owner for one or several k. The k chosen for all owners must form a prefix of
 * some order that agrees with real time: if an operation is in, every operation that had returned
 * before it was called is in. And each owner's k must cover what was acknowledged as durable.
 * Replies sharpen it: one that was found says that its operation is in, one that is missing, and is
 * not so old that it was overwritten, says that it is not. */
#ifndef SIM_HISTORY_H
#define SIM_HISTORY_H

#include "model.h"
#include "op.h"

#define OWNERS_MAX 12
#define HISTORY_NEVER UINT64_MAX

struct record {
    struct op op;
    uint64_t called;
    uint64_t returned; /* HISTORY_NEVER: under way, or cut off by a crash */
    uint64_t real;     /* the inode that it made, for the copies of the model */
    bool has_failed;   /* for a reason outside of the model: it must have done nothing */
    uint64_t reply;    /* its reply was found in the volume: 1 + its sequence there; 0 = was not */
};

struct history {
    struct model *base;      /* the state at the era's start */
    struct model *now;       /* with all records that have returned */
    struct record **records; /* owned */
    size_t count, capacity;
    size_t bound;       /* the first `bound` records were acknowledged as durable */
    bool *is_match;     /* [match_count]: may the state found be that after the first k records? */
    size_t match_count; /* 0 = not compared yet */
};

struct era {
    struct history owners[OWNERS_MAX];
    unsigned owner_count;
    unsigned refs;
    uint64_t reply_count; /* 1 + the greatest sequence of a reply found in the volume */
};

/* Takes the models over as the state. */
struct era *era_new(struct model *const *models, unsigned owner_count);
void era_ref(struct era *era);
void era_unref(struct era *era);

/* An operation begins; its record is valid for the era. */
struct record *history_begin(struct history *history, const struct op *op, uint64_t event);
/* It has returned, and the model has done it: model_apply's error, which the caller has compared.
 * Operations that failed outside of the model's world are passed with is_failed. */
void history_end(struct history *history, struct record *record, uint64_t event, bool is_failed);
/* The first `count` records are durable. */
void history_acknowledge(struct history *history, size_t count);

/* The record of an owner that was called at an event, or NULL. */
struct record *history_called(const struct history *history, uint64_t called);
/* Compare the state found with all prefixes: everything canonical, and the inode numbers that are
 * known (the dumps' keys). */
void era_match(struct era *era, const struct model_dump *dumps);
/* Choose the prefixes. 0; or -1: with a text saying why there is no choice. May be called again
 * when bounds have grown. out_counts has owner_count numbers. */
int era_choose(const struct era *era, size_t *out_counts, char *text, size_t size);
/* The owner's model after `count` records, all handles forgotten; the caller's. */
struct model *history_model(const struct history *history, size_t count);
/* The length of the prefix nearest to a dump; and what differs from the state after `count`
 * records. */
size_t history_nearest(const struct history *history, const struct model_dump *dump);
void history_diff(const struct history *history, size_t count, const struct model_dump *dump,
                  void (*line)(void *arg, const char *text), void *arg);

#endif
