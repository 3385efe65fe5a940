/* Compaction: which tables are merged into the next level, and merging them.
 *
 * Level 0 goes down as a whole, as its runs overlap. But as long as it is small beside what it
 * overlaps in level 1, its newest runs, those of about one size, are merged into one instead: many
 * small flushes must not rewrite level 1 again and again. Of another level one table is taken: of
 * the next few in key order the one that overlaps least of the level below, so that all get their
 * turn and the cheap ones first. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "lsm/output_impl.h"

#define CANDIDATES_MAX 64
#define STRETCH_BYTES (VV_READ_AHEAD_MAX / 2) /* of each input twice: in use and being read */
#define SMALL_PART 4 /* level 0 is small below a quarter of what it overlaps */
#define DUE 1000

/* ---- picking ---- */

static uint64_t level_target(const struct vv_lsm *lsm, unsigned level)
{
    uint64_t target = lsm->options.level1_bytes;
    while (--level > 0) {
        if (__builtin_mul_overflow(target, VV_LSM_LEVEL_FACTOR, &target))
            return UINT64_MAX;
    }
    return target;
}

static unsigned level_score(const struct vv_lsm *lsm, unsigned level)
{
    const struct vv_level *at = &lsm->levels[level];
    if (level == 0)
        return (unsigned)(at->run_count * DUE / VV_LSM_L0_COMPACT);
    if (level == VV_LSM_LEVELS_MAX - 1)
        return 0;
    uint64_t target = level_target(lsm, level) / DUE;
    uint64_t score = at->bytes / (target ? target : 1);
    return score < UINT32_MAX ? (unsigned)score : UINT32_MAX;
}

static unsigned best_level(const struct vv_lsm *lsm, unsigned *out_score)
{
    unsigned best = 0;
    unsigned best_score = level_score(lsm, 0);
    for (unsigned i = 1; i < VV_LSM_LEVELS_MAX; i++) {
        unsigned score = level_score(lsm, i);
        if (score > best_score) {
            best = i;
            best_score = score;
        }
    }
    *out_score = best_score;
    return best;
}

unsigned vv_lsm_compaction_score(const struct vv_lsm *lsm)
{
    unsigned score;
    (void)best_level(lsm, &score);
    return score;
}

bool vv_lsm_is_stalled(const struct vv_lsm *lsm)
{
    return lsm->levels[0].run_count >= VV_LSM_L0_STALL;
}

/* The tables that take part: `above` of the level that is too large, `below` of the next one. */
struct pick {
    struct vv_lsm *lsm;
    unsigned level;
    struct vv_table *const *above;
    size_t above_count;
    struct vv_table *const *below;
    size_t below_count;
    struct vv_bytes min;
    struct vv_bytes max;
    size_t first_run; /* of level 0: this one and all newer ones */
    bool is_staying;  /* the output stays in level 0 */
};

static struct vv_level *level_of(const struct pick *pick, unsigned down)
{
    return &pick->lsm->levels[pick->level + down];
}

static void find_bounds(struct pick *pick)
{
    pick->min = vv_table_min(pick->above[0]);
    pick->max = vv_table_max(pick->above[0]);
    for (size_t i = 1; i < pick->above_count; i++) {
        if (vv_bytes_compare(vv_table_min(pick->above[i]), pick->min) < 0)
            pick->min = vv_table_min(pick->above[i]);
        if (vv_bytes_compare(vv_table_max(pick->above[i]), pick->max) > 0)
            pick->max = vv_table_max(pick->above[i]);
    }
    const struct vv_level *below = level_of(pick, 1);
    size_t first;
    pick->below_count = vv_run_overlap(below->tables, below->count, pick->min, pick->max, &first);
    pick->below = below->tables + first;
}

static uint64_t bytes_of(struct vv_table *const *tables, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += tables[i]->ref.bytes;
    return bytes;
}

/* Remember where the next pick of this level begins. Without memory it begins where this one did.
 */
static void remember(struct pick *pick)
{
    struct vv_lsm *lsm = pick->lsm;
    uint8_t *key = vv_memdup(pick->max.ptr, pick->max.len);
    if (!key)
        return;
    vv_free(lsm->compact_key[pick->level]);
    lsm->compact_key[pick->level] = key;
    lsm->compact_key_len[pick->level] = pick->max.len;
}

static void pick_table(struct pick *pick)
{
    const struct vv_lsm *lsm = pick->lsm;
    const struct vv_level *level = level_of(pick, 0);
    struct vv_bytes from = {lsm->compact_key[pick->level], lsm->compact_key_len[pick->level]};
    size_t first = 0;
    while (first < level->count &&
           vv_bytes_compare(vv_table_min(level->tables[first]), from) <= 0 && from.len > 0)
        first++;
    double best_cost = 0;
    struct pick best = *pick;
    for (size_t i = 0; i < CANDIDATES_MAX && i < level->count; i++) {
        pick->above = &level->tables[(first + i) % level->count];
        pick->above_count = 1;
        find_bounds(pick);
        double cost = (double)bytes_of(pick->below, pick->below_count) /
                      (double)(pick->above[0]->ref.bytes + 1);
        if (i == 0 || cost < best_cost) {
            best_cost = cost;
            best = *pick;
        }
    }
    *pick = best;
}

/* Merge the newest runs: each older one, too, that is not much larger than those after it together.
 */
static void pick_newest_runs(struct pick *pick)
{
    const struct vv_level *level = level_of(pick, 0);
    size_t first = level->run_count;
    uint64_t bytes = 0;
    while (first > 0) {
        size_t count;
        struct vv_table *const *tables = vv_level_run(level, first - 1, &count);
        uint64_t more = bytes_of(tables, count);
        if (first + 2 <= level->run_count && more > bytes + bytes / 2)
            break;
        bytes += more;
        first--;
    }
    pick->is_staying = true;
    pick->first_run = first;
    pick->above = level->tables + level->run_starts[first];
    pick->above_count = level->count - level->run_starts[first];
    pick->below_count = 0;
}

static bool pick_inputs(struct pick *pick)
{
    unsigned score;
    pick->level = best_level(pick->lsm, &score);
    if (score < DUE)
        return false;
    if (pick->level > 0) {
        pick_table(pick);
        remember(pick);
        return true;
    }
    pick->above = level_of(pick, 0)->tables;
    pick->above_count = level_of(pick, 0)->count;
    find_bounds(pick);
    uint64_t overlap = bytes_of(pick->below, pick->below_count);
    if (bytes_of(pick->above, pick->above_count) < overlap / SMALL_PART)
        pick_newest_runs(pick);
    return true;
}

/* Tables of level 0 can go down as they are when they overlap nothing, one another included, and
 * are not so small that merging is worth it. */
static bool is_movable(const struct pick *pick)
{
    if (pick->below_count > 0 || pick->is_staying)
        return false;
    if (pick->level > 0)
        return true;
    for (size_t i = 0; i < pick->above_count; i++) {
        for (size_t j = i + 1; j < pick->above_count; j++) {
            const struct vv_table *a = pick->above[i];
            const struct vv_table *b = pick->above[j];
            if (vv_bytes_compare(vv_table_min(a), vv_table_max(b)) <= 0 &&
                vv_bytes_compare(vv_table_min(b), vv_table_max(a)) <= 0)
                return false;
        }
    }
    return bytes_of(pick->above, pick->above_count) / pick->above_count >=
           pick->lsm->options.table_bytes / 4;
}

/* ---- merging ---- */

static int remove_inputs(const struct pick *pick, struct vv_lsm_edit *edit)
{
    size_t count = pick->above_count + (edit->is_move ? 0 : pick->below_count);
    edit->removed = vv_calloc(count, sizeof(struct vv_table *));
    if (!edit->removed)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        struct vv_table *table =
            i < pick->above_count ? pick->above[i] : pick->below[i - pick->above_count];
        vv_table_ref(table);
        edit->removed[edit->removed_count++] = table;
    }
    return 0;
}

static int add_run(struct vv_output *output, struct vv_table *const *tables, size_t count)
{
    struct vv_bytes all = {NULL, 0};
    struct vv_run_source *run = &output->runs[output->run_count];
    TRY(vv_run_source_init(run, tables, count, (uint32_t)output->run_count, NULL, all, all));
    run->stretch_max = run->stretch_len = STRETCH_BYTES;
    output->run_count++;
    vv_merge_add(&output->merge, &run->source);
    return 0;
}

/* Newest first: the runs from above, then the one from below. */
static int add_inputs(const struct pick *pick, struct vv_output *output)
{
    if (pick->level > 0) {
        TRY(add_run(output, pick->above, pick->above_count));
    } else {
        const struct vv_level *level = level_of(pick, 0);
        for (size_t i = level->run_count; i-- > pick->first_run;) {
            size_t count;
            struct vv_table *const *tables = vv_level_run(level, i, &count);
            TRY(add_run(output, tables, count));
        }
    }
    return pick->below_count > 0 ? add_run(output, pick->below, pick->below_count) : 0;
}

/* What lies deeper than the output, anywhere in the range of all inputs, decides which deletes must
 * stay. */
static int add_below(const struct pick *pick, struct vv_output *output)
{
    struct vv_bytes min = pick->min;
    struct vv_bytes max = pick->max;
    if (pick->is_staying)
        return 0; /* there is something below: all stay */
    if (pick->below_count > 0) {
        const struct vv_table *first = pick->below[0];
        const struct vv_table *last = pick->below[pick->below_count - 1];
        min = vv_bytes_compare(vv_table_min(first), min) < 0 ? vv_table_min(first) : min;
        max = vv_bytes_compare(vv_table_max(last), max) > 0 ? vv_table_max(last) : max;
    }
    for (unsigned i = pick->level + 2; i < VV_LSM_LEVELS_MAX; i++) {
        const struct vv_level *level = &pick->lsm->levels[i];
        struct vv_below *below = &output->below[i];
        size_t from;
        size_t count = vv_run_overlap(level->tables, level->count, min, max, &from);
        below->tables = vv_calloc(count + 1, sizeof(struct vv_table *));
        if (!below->tables)
            return -ENOMEM;
        for (size_t j = 0; j < count; j++) {
            below->tables[below->count++] = level->tables[from + j];
            vv_table_ref(level->tables[from + j]);
        }
    }
    output->is_bottom_known = true;
    return 0;
}

/* The pick borrows from the levels: everything is referenced before the first suspension. */
static int compact(const struct pick *pick, struct vv_lsm_edit *edit)
{
    struct vv_lsm *lsm = pick->lsm;
    struct vv_output output = {0};
    int err = remove_inputs(pick, edit);
    if (err == 0 && !edit->is_move) {
        err = vv_output_init(&output, lsm, level_of(pick, 0)->run_count + 1, 0);
        output.edit = edit;
        output.order = pick->is_staying ? pick->above[pick->above_count - 1]->ref.order : 0;
        if (err == 0)
            err = add_inputs(pick, &output);
        if (err == 0)
            err = add_below(pick, &output);
        if (err == 0)
            err = vv_output_run(&output);
        lsm->stats.bytes_compacted += output.bytes;
    }
    vv_output_done(&output);
    return err < 0 ? err : vv_edit_promise(lsm, edit);
}

int vv_lsm_prepare_compaction(struct vv_lsm *lsm, struct vv_lsm_edit **out_edit)
{
    assert(!lsm->is_compacting);
    struct pick pick = {.lsm = lsm};
    if (!pick_inputs(&pick)) {
        *out_edit = NULL;
        return 0;
    }
    struct vv_lsm_edit *edit;
    TRY(vv_edit_new(pick.level + !pick.is_staying, &edit));
    lsm->is_compacting = true;
    edit->is_move = is_movable(&pick);
    int err = compact(&pick, edit);
    if (err < 0) {
        vv_lsm_abandon(lsm, edit);
        return err;
    }
    *out_edit = edit;
    return 0;
}
