/* Planted bugs: each rule of PROTOCOL that tests must be able to miss can be switched off at
 * compile time (meson -Dplant=N), to prove that the tests find it. VV_PLANT is 0 in the product,
 * and then every condition here is a constant that the compiler removes. Any thread. */
#ifndef VV_BASE_PLANT_H
#define VV_BASE_PLANT_H

#include <stdbool.h>

#ifndef VV_PLANT
#define VV_PLANT 0
#endif

enum vv_plant {
    VV_PLANT_ACK_UNCONFIRMED = 1,   /* log: acknowledge a put before it is confirmed (11) */
    VV_PLANT_NO_FENCES = 2,         /* log: skip fencing older epochs when opening (7) */
    VV_PLANT_NO_DIRECTORY_SYNC = 3, /* store: skip a directory's sync */
    VV_PLANT_REUSED_SALT = 4,       /* seal: use a salt twice (3) */
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
    VV_PLANT_NO_REPLAY_SYNC = 18       /* log: do not sync what is replayed (8) */
};

static inline bool vv_planted(enum vv_plant plant)
{
    return VV_PLANT == (int)plant;
}

#endif
