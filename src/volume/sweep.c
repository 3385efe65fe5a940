#include "volume/sweep_impl.h"

#include <string.h>

#include "base/log.h"
#include "base/plant.h"

#define LOOKUPS 32  /* records asked for at once */
#define REMOVALS 16 /* under way at once */

/* Where orphans may lie, and what their headers must say. */
static const struct place {
    const char *prefix;
    uint8_t kind;
} places[] = {{"data/", VV_KIND_DATA}, {"sst/", VV_KIND_SST}, {"log/", VV_KIND_LOG}};

struct sweep {
    struct vv_volume *volume;
    const struct place *place;
    struct vv_table_id *tables; /* that are known */
    size_t table_count;
    struct vv_store_entry *page;
    size_t count; /* of the page's names that may be orphans, and in the end are */
    size_t next;  /* to be removed */
    unsigned fibers;
    struct vv_waitq done;
    int err;
};

/* ---- what may be deleted ---- */

static bool is_going(const struct vv_volume *volume)
{
    if (vv_planted(VV_PLANT_SWEEP_NEVER))
        return false;
    return !volume->is_fenced && !volume->is_closing && !volume->is_abandoning &&
           !vv_log_is_fenced(volume->log) && vv_log_manifest(volume->log)->pin_count == 0;
}

/* Does the last confirmed manifest hold all that this opening replayed, and is every older epoch over? */
static bool is_allowed(const struct vv_volume *volume)
{
    const struct vv_manifest *manifest = vv_log_manifest(volume->log);
    if (vv_planted(VV_PLANT_SWEEP_EARLY))
        return true;
    return manifest->last_commit >= volume->replayed_commit && manifest->epoch_count == 1 &&
           manifest->epochs[0].epoch == volume->epoch;
}

static bool is_older(const struct vv_volume *volume, uint64_t epoch)
{
    return epoch < volume->epoch || vv_planted(VV_PLANT_SWEEP_NEWER);
}

/* As far as the name tells. */
static bool is_candidate(const struct sweep *sweep, const struct vv_store_entry *entry)
{
    const struct vv_volume *volume = sweep->volume;
    struct vv_segment_id id;
    uint64_t epoch, counter;
    if (vv_table_name_parse(entry->name, &epoch, &counter) == 0)
        return is_older(volume, epoch) &&
               !vv_table_ids_have(sweep->tables, sweep->table_count, epoch, counter);
    if (vv_segment_name_parse(entry->name, &id) < 0 || !is_older(volume, id.epoch))
        return false;
    if (id.kind == VV_SEGMENT_LOG && entry->size <= VV_OBJECT_HEADER_LEN)
        return false; /* a fence (15) */
    return !vv_segref_is_held(volume, &id) || vv_planted(VV_PLANT_SWEEP_EARLY);
}

/* ---- what is known ---- */

static int take_known(void *is_known, size_t i, const struct vv_lsm_value *value)
{
    ((bool *)is_known)[i] = value != NULL;
    return 0;
}

/* Which of these segments have 'S' records? */
static int look_up(struct vv_volume *volume, const struct vv_store_entry *entries, size_t count,
                   bool *is_known)
{
    uint8_t bytes[LOOKUPS][VV_VOLUME_KEY_MAX];
    struct vv_bytes keys[LOOKUPS];
    for (size_t i = 0; i < count; i++) {
        struct vv_segment_id id;
        TRY(vv_segment_name_parse(entries[i].name, &id));
        keys[i] = (struct vv_bytes){bytes[i], vv_key_segment(bytes[i], &id)};
    }
    struct vv_look_up how = {volume, is_going, take_known, is_known};
    return vv_look_up(&how, keys, count);
}

static int drop_known(struct sweep *sweep)
{
    size_t kept = 0;
    for (size_t from = 0; from < sweep->count; from += LOOKUPS) {
        size_t count = sweep->count - from < LOOKUPS ? sweep->count - from : LOOKUPS;
        bool is_known[LOOKUPS] = {false};
        TRY(look_up(sweep->volume, &sweep->page[from], count, is_known));
        for (size_t i = 0; i < count; i++) {
            if (!is_known[i])
                sweep->page[kept++] = sweep->page[from + i];
        }
    }
    sweep->count = kept;
    return 0;
}

/* ---- removing ---- */

/* 1 = it may go, 0 = it is not ours to remove, or gone. Suspends. */
static int check_header(const struct sweep *sweep, const char *name)
{
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    struct vv_object_header header;
    ssize_t got = vv_store_get(sweep->volume->store, name, bytes, sizeof bytes, 0);
    if (got == -ENOENT)
        return 0;
    TRY(got);
    if (vv_object_header_decode(bytes, (size_t)got, &header) == 0 &&
        header.kind == sweep->place->kind &&
        memcmp(header.volume_id, vv_keyring_volume_id(sweep->volume->ring), 16) == 0)
        return 1;
    vv_debug("volume", "%s is not named by anything, but does not look like this volume's: it stays",
             name);
    return 0;
}

static int remove_one(const struct sweep *sweep, const struct vv_store_entry *entry)
{
    struct vv_volume *volume = sweep->volume;
    int is_ours = check_header(sweep, entry->name);
    if (is_ours <= 0)
        return is_ours;
    if (!is_going(volume))
        return -VV_ERR_STOPPED;
    TRY(vv_store_remove(volume->store, entry->name));
    volume->stats.leftovers_deleted++;
    volume->stats.leftover_bytes_deleted += entry->size;
    return 0;
}

static void remove_all(struct sweep *sweep)
{
    while (sweep->next < sweep->count && sweep->err == 0) {
        int err = remove_one(sweep, &sweep->page[sweep->next++]);
        if (err < 0)
            sweep->err = err;
    }
}

static void remove_run(void *arg)
{
    struct sweep *sweep = arg;
    remove_all(sweep);
    sweep->fibers--;
    vv_waitq_wake_all(&sweep->done);
}

static int remove_page(struct sweep *sweep)
{
    sweep->next = 0;
    for (unsigned i = 1; i < REMOVALS && i < sweep->count; i++)
        sweep->fibers += vv_fiber_start(remove_run, sweep, "orphan") == 0;
    remove_all(sweep);
    while (sweep->fibers > 0)
        vv_waitq_wait(&sweep->done, VV_NEVER);
    return sweep->err;
}

/* ---- the sweep ---- */

static int sweep_page(struct sweep *sweep, size_t count)
{
    sweep->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (is_candidate(sweep, &sweep->page[i]))
            sweep->page[sweep->count++] = sweep->page[i];
    }
    if (sweep->place->kind != VV_KIND_SST)
        TRY(drop_known(sweep));
    return remove_page(sweep);
}

static int sweep_place(struct sweep *sweep, const struct place *place)
{
    char after[VV_STORE_NAME_MAX + 1] = "";
    ssize_t count;
    sweep->place = place;
    do {
        if (!is_going(sweep->volume))
            return -VV_ERR_STOPPED;
        count = vv_store_list(sweep->volume->store, place->prefix, after, sweep->page,
                              VV_STORE_LIST_MAX);
        TRY(count);
        if (count > 0)
            memcpy(after, sweep->page[count - 1].name, sizeof after);
        TRY(sweep_page(sweep, (size_t)count));
    } while (count == VV_STORE_LIST_MAX);
    return 0;
}

static int sweep_all(struct vv_volume *volume)
{
    struct sweep sweep = {.volume = volume};
    uint64_t below = vv_planted(VV_PLANT_SWEEP_NEWER) ? UINT64_MAX : volume->epoch;
    vv_waitq_init(&sweep.done);
    TRY(vv_lsm_table_ids(volume->lsm, below, &sweep.tables, &sweep.table_count));
    sweep.page = vv_calloc(VV_STORE_LIST_MAX, sizeof *sweep.page);
    int err = sweep.page == NULL ? -ENOMEM : 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0] && err == 0; i++)
        err = sweep_place(&sweep, &places[i]);
    vv_free(sweep.page);
    vv_free(sweep.tables);
    return err;
}

static void sweep_main(void *arg)
{
    struct vv_volume *volume = arg;
    uint64_t before = volume->stats.leftovers_deleted;
    int err = sweep_all(volume);
    uint64_t deleted = volume->stats.leftovers_deleted - before;
    if (deleted > 0)
        vv_info("volume", "%llu objects that servers left which ended early are deleted",
                (unsigned long long)deleted);
    if (err < 0 && err != -VV_ERR_STOPPED && is_going(volume))
        vv_warn("volume", "looking for what servers left which ended early: %s (again after the next flush)",
                vv_err_text(err));
    volume->is_swept_of_orphans = err == 0;
    volume->is_sweeping_orphans = false;
    vv_volume_fiber_ended(volume);
}

void vv_orphans_sweep(struct vv_volume *volume)
{
    if (volume->is_swept_of_orphans || volume->is_sweeping_orphans || !is_going(volume) ||
        !is_allowed(volume) || vv_fiber_start(sweep_main, volume, "orphans") < 0)
        return;
    volume->is_sweeping_orphans = true;
    volume->fibers++;
}
