/* When repacking begins and when it must stop, and which segments it takes; repack_impl.h has the rules. */
#include "volume/repack_impl.h"

#include <stdlib.h>
#include <string.h>

#include "volume/op_impl.h"

#define WASTE_BYTES (64ull << 20)
#define WASTE_PERCENT 25
#define LIVE_PERCENT 60
#define TINY_COUNT 1024
#define TINY_PART 16 /* a tiny segment has less than this part of a data segment */
#define NEWS_PART 8  /* of the waste that makes a pass due: so much must have died since a vain one */
#define STORE_PART 32 /* of a bounded store: so much waste makes a pass due, though it is less than WASTE_BYTES */
#define URGENT 2      /* times the waste that makes a pass due: then it goes on though writers wait */
#define ROOM_MIN (4ull << 20) /* in a bounded store */
#define ROOM_PART 4           /* a batch takes at most this part of it */
#define SCAN_YIELDS 256

/* ---- when ---- */

static uint64_t default_to(uint64_t value, uint64_t otherwise)
{
    return value != 0 ? value : otherwise;
}

void vv_repack_init(struct vv_volume *volume, const struct vv_repack_options *options)
{
    struct vv_repack *repack = &volume->repack;
    repack->options = *options;
    repack->options.waste_bytes = default_to(options->waste_bytes, WASTE_BYTES);
    repack->options.waste_percent =
        (unsigned)default_to(options->waste_percent, WASTE_PERCENT);
    repack->options.live_percent = (unsigned)default_to(options->live_percent, LIVE_PERCENT);
    repack->options.tiny_count = (unsigned)default_to(options->tiny_count, TINY_COUNT);
    repack->dead_news = UINT64_MAX;
    vv_waitq_init(&repack->work);
}

static uint64_t tiny_bytes(const struct vv_volume *volume)
{
    return volume->segment_bytes / TINY_PART;
}

void vv_repack_note_segment(struct vv_volume *volume, int64_t total)
{
    if (total > 0 && (uint64_t)total < tiny_bytes(volume) && volume->repack.tiny_news < UINT64_MAX)
        volume->repack.tiny_news++;
}

void vv_repack_note_dead(struct vv_volume *volume, uint64_t bytes)
{
    uint64_t *news = &volume->repack.dead_news;
    *news = bytes > UINT64_MAX - *news ? UINT64_MAX : *news + bytes;
}

/* Dead bytes of the volume that are worth a pass: on a small store, a part of it is. */
static uint64_t waste_due(const struct vv_volume *volume)
{
    const struct vv_repack_options *options = &volume->repack.options;
    uint64_t part = volume->stats.live_bytes / 100 * options->waste_percent;
    uint64_t least = options->waste_bytes;
    if (volume->store_total != UINT64_MAX && least > volume->store_total / STORE_PART)
        least = volume->store_total / STORE_PART;
    return part > least ? part : least;
}

/* Dead bytes, those of dead segments that are not deleted yet included. */
static uint64_t waste_of(const struct vv_volume *volume)
{
    uint64_t total = volume->stats.total_bytes;
    uint64_t live = volume->stats.live_bytes;
    return total > live ? total - live : 0;
}

bool vv_repack_is_due(const struct vv_volume *volume)
{
    const struct vv_repack *repack = &volume->repack;
    uint64_t due = waste_due(volume);
    return (waste_of(volume) > due && repack->dead_news > due / NEWS_PART) ||
           repack->tiny_news >= repack->options.tiny_count;
}

bool vv_repack_is_ending(const struct vv_volume *volume)
{
    return volume->is_fenced || volume->is_abandoning || volume->is_closing;
}

/* What serves users comes first; but writers who never stop must not make it wait for ever. */
bool vv_repack_is_calm(const struct vv_volume *volume)
{
    bool is_urgent = waste_of(volume) / URGENT > waste_due(volume);
    return !vv_repack_is_ending(volume) && volume->store_error == 0 &&
           (volume->dirty_waiters == 0 || is_urgent) && !vv_lsm_is_stalled(volume->lsm) &&
           vv_log_manifest(volume->log)->pin_count == 0 &&
           vv_lsm_memtable_bytes(volume->lsm) <= 2 * volume->memtable_limit;
}

/* Bytes that it may take of a bounded store before it gives anything back: when users have no room left, half of what is
 * kept from them is left to deleting and flushing. */
static uint64_t store_room(const struct vv_volume *volume)
{
    uint64_t kept = vv_store_reserve(volume) / 2;
    if (volume->store_free == UINT64_MAX)
        return UINT64_MAX;
    return volume->store_free > kept ? volume->store_free - kept : 0;
}

bool vv_repack_is_going(const struct vv_volume *volume)
{
    return vv_repack_is_calm(volume) && store_room(volume) >= ROOM_MIN;
}

uint64_t vv_repack_batch_max(const struct vv_volume *volume)
{
    uint64_t due = vv_upload_due_bytes(volume);
    uint64_t part = store_room(volume) / ROOM_PART;
    return due < part ? due : part;
}

/* ---- picking ---- */

/* What a scan of the 'S' table finds. */
struct finds {
    struct vv_pick sparse[2 * VV_PICKS_MAX]; /* the sparsest of them */
    struct vv_pick tiny[VV_PICKS_MAX];       /* that are not sparse, the first of them */
    size_t sparse_count, tiny_count;
    uint64_t waste, tiny_seen;
};

static int compare_picks(const void *a, const void *b)
{
    const struct vv_pick *first = a;
    const struct vv_pick *second = b;
    uint64_t left = first->live * second->total;
    uint64_t right = second->live * first->total;
    return left < right ? -1 : left > right;
}

static void find(const struct vv_volume *volume, struct finds *finds, const struct vv_pick *pick)
{
    const struct vv_repack_options *options = &volume->repack.options;
    bool is_tiny = pick->total < tiny_bytes(volume);
    finds->waste += pick->total - pick->live;
    finds->tiny_seen += is_tiny;
    if (pick->live * 100 <= pick->total * options->live_percent) {
        if (finds->sparse_count == 2 * VV_PICKS_MAX) {
            qsort(finds->sparse, finds->sparse_count, sizeof *finds->sparse, compare_picks);
            finds->sparse_count = VV_PICKS_MAX;
        }
        finds->sparse[finds->sparse_count++] = *pick;
    } else if (is_tiny && finds->tiny_count < VV_PICKS_MAX) {
        finds->tiny[finds->tiny_count++] = *pick;
    }
}

/* A record of the 'S' table. */
static int look_at(const struct vv_volume *volume, struct finds *finds, struct vv_bytes key,
                   struct vv_bytes value)
{
    struct vv_pick pick = {.live = 0};
    TRY(vv_key_segment_parse(key, &pick.id));
    struct vv_cursor cursor = vv_cursor_of(value.ptr, value.len);
    int64_t total = vv_cursor_svarint(&cursor);
    int64_t live = vv_cursor_svarint(&cursor);
    TRY(vv_cursor_end(&cursor));
    if (live <= 0 || total < live || total > 2 * (int64_t)VV_SEGMENT_BYTES_MAX ||
        pick.id.volume != 0 ||
        (pick.id.kind == VV_SEGMENT_LOG && !vv_space_is_behind_replay(volume, &pick.id)))
        return 0;
    pick.total = (uint64_t)total;
    pick.live = (uint64_t)live;
    find(volume, finds, &pick);
    return 0;
}

static int scan(struct vv_volume *volume, struct finds *finds)
{
    static const uint8_t lower[] = {VV_TABLE_SEGMENT};
    static const uint8_t upper[] = {VV_TABLE_SEGMENT + 1};
    struct vv_lsm_iter *iter;
    struct vv_bytes key, value;
    int found;
    TRY(vv_lsm_iter_open(volume->lsm, (struct vv_bytes){lower, 1}, (struct vv_bytes){upper, 1},
                         &iter));
    for (unsigned i = 0; (found = vv_lsm_iter_next(iter, &key, &value)) > 0; i++) {
        found = vv_repack_is_going(volume) ? look_at(volume, finds, key, value) : -VV_ERR_STOPPED;
        if (found < 0)
            break;
        if (i % SCAN_YIELDS == SCAN_YIELDS - 1)
            vv_fiber_yield(); /* what is in memory would else be gone through at one go */
    }
    vv_lsm_iter_close(iter);
    return found;
}

static size_t choose(const struct vv_volume *volume, struct finds *finds, struct vv_pick *out)
{
    size_t count = 0;
    uint64_t due = waste_due(volume);
    uint64_t waste = finds->waste > due ? finds->waste : 0;
    bool is_crowded = finds->tiny_seen >= volume->repack.options.tiny_count;
    qsort(finds->sparse, finds->sparse_count, sizeof *finds->sparse, compare_picks);
    for (size_t i = 0; i < finds->sparse_count && count < VV_PICKS_MAX; i++) {
        const struct vv_pick *pick = &finds->sparse[i];
        if (waste <= due / 2 && !(is_crowded && pick->total < tiny_bytes(volume)))
            continue;
        waste -= waste < pick->total - pick->live ? waste : pick->total - pick->live;
        out[count++] = *pick;
    }
    for (size_t i = 0; is_crowded && i < finds->tiny_count && count < VV_PICKS_MAX; i++)
        out[count++] = finds->tiny[i];
    return count;
}

int vv_repack_pick(struct vv_volume *volume, struct vv_pick *out_picks, size_t *out_count)
{
    struct finds *finds = vv_zalloc(sizeof *finds);
    if (finds == NULL)
        return -ENOMEM;
    int err = scan(volume, finds);
    if (err == 0)
        *out_count = choose(volume, finds, out_picks);
    vv_free(finds);
    return err;
}
