/* Planted bugs: each rule of PROTOCOL that tests must be able to miss can be switched off, to prove
 * that the tests find it. In the product every condition here is a constant that the compiler
 * removes. Built with -Dplant=true, the environment variable VARVE_PLANT (a number) chooses one when
 * the program starts. Any thread. */
#ifndef VV_BASE_PLANT_H
#define VV_BASE_PLANT_H

#include <stdbool.h>

enum vv_plant {
    VV_PLANT_ACK_UNCONFIRMED = 1,   /* log: acknowledge a put before it is confirmed (11) */
    VV_PLANT_NO_FENCES = 2,         /* log: skip fencing older epochs when opening (7) */
    VV_PLANT_NO_DIRECTORY_SYNC = 3, /* store: skip a directory's sync */
    VV_PLANT_REUSED_SALT = 4,       /* seal: the salt follows from the name (3) */
    VV_PLANT_LOSE_DEBIT = 5,        /* volume: now and then a segment is not debited (10) */
    VV_PLANT_SYNC_EARLY = 6,        /* volume: a sync returns at once (11) */
    VV_PLANT_DROP_PIECE = 7,        /* volume: a piece of an extent is lost at commit (10) */
    VV_PLANT_WRONG_REPLAY = 8,      /* volume: the replay point is one too far (13) */
    VV_PLANT_DELETE_EARLY = 9,      /* volume: delete before the debit is behind a manifest (14) */
    VV_PLANT_RANGE_FORGOTTEN = 10,  /* volume: tombstones do not hide frozen bytes (10) */
    VV_PLANT_ONE_REPLAY_POINT = 11, /* log: drop older epochs when a manifest is written (13) */
    VV_PLANT_FOREIGN_IS_OURS = 12,  /* log: take what a put found there for its own (1) */
    VV_PLANT_NO_LIST_AFTER_CLAIM = 13, /* log: skip the LISTs above the claim (6, 9) */
    VV_PLANT_NEXT_MANIFEST = 14,       /* log: a lost manifest number is retried at the next (13) */
    VV_PLANT_JOURNAL_NO_SYNC = 15,     /* journal: acknowledge before the sync */
    VV_PLANT_FOREIGN_JOURNAL = 16,     /* log: call any journal current (17) */
    VV_PLANT_GAP_IS_END = 17,          /* log: a missing position ends an epoch's replay (8) */
    VV_PLANT_NO_REPLAY_SYNC = 18,      /* log, store: what is found is not synced (8) */
    VV_PLANT_FENCES_COLLECTED = 19,    /* log: delete the fences of epochs that are over (15) */
    VV_PLANT_NO_LIST_AFTER_MANIFEST = 20, /* log: a manifest that was put is confirmed (13) */
    VV_PLANT_DELETE_LOG_DATA = 21,  /* volume: delete log objects that hold live data (12, 14) */
    VV_PLANT_JOURNAL_CONFIRMS = 22, /* volume: a debit in the journal alone deletes (18) */
    VV_PLANT_OUT_OF_TURN = 23,      /* volume: units are finalised as their seals end (10) */
    VV_PLANT_IN_FLIGHT_IS_SYNCED = 24, /* volume: fsync does not wait for a commit in flight */
    VV_PLANT_MERGED_DELETES = 25,      /* lsm: merging commits loses deletes of all but the last */
    VV_PLANT_TOMBSTONES_DROPPED = 26,  /* lsm: compaction drops deletes that hide older records */
    VV_PLANT_HALF_RENAME = 27,         /* fs: a replacing rename is two operations */
    VV_PLANT_LATE_REPLY = 28,          /* fs: a reply is written by the next operation that has one */
    VV_PLANT_SWEEP_NEWER = 29,         /* volume: the orphan sweep takes ids of any epoch (16) */
    VV_PLANT_SWEEP_EARLY = 30,         /* volume: ... does not wait for what was replayed (16, 18) */
    VV_PLANT_SWEEP_NEVER = 31,         /* volume: ... does not happen (16) */
    VV_PLANT_REPACK_EARLY = 32,        /* volume: moves are judged before they are finalised (10) */
    VV_PLANT_REPACK_OVER_LAYERS = 33,  /* volume: moves overrule what is not confirmed yet (10) */
    VV_PLANT_REPACK_OVER_TOMBSTONES = 34, /* volume: moves bring back what is hidden (10) */
    VV_PLANT_REPACK_NOT_REWRITTEN = 35,   /* volume: a moved frame's record says the old place */
    VV_PLANT_REPACK_DELETES = 36,         /* volume: old segments go before moves are confirmed (14) */
    VV_PLANT_ASIDE_TWICE = 37, /* volume: writing into space set aside counts it again */
    VV_PLANT_ASIDE_FORGOTTEN = 38, /* journal: that a write lay in space set aside does not stand in its record (17) */
    VV_PLANT_MERGE_FROZEN = 39, /* volume: a write goes into a layer of a commit that is on its way (10) */
    VV_PLANT_END = 40
};

#ifdef VV_PLANTABLE
/* plant.c: what VARVE_PLANT says; 0 = none. */
int vv_plant_chosen(void);

static inline bool vv_planted(enum vv_plant plant)
{
    return vv_plant_chosen() == (int)plant;
}
#else
static inline bool vv_planted(enum vv_plant plant)
{
    (void)plant;
    return false;
}
#endif

#endif
