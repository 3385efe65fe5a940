/* Fetching frames: what lies close together in one GET, each frame once at a time. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "volume/read_impl.h"

#define GROUP_SLOW_BYTES (4u << 20)    /* of one GET of a store where requests cost time */
#define GROUP_QUICK_BYTES (256u << 10) /* ... of a quick one: one group is opened while the next is read */
#define GROUP_GAP_MAX (16u << 10)      /* bytes read in vain to join two frames */
#define OFFLOAD_BYTES (40u << 10)    /* sealed bytes whose opening is worth waking a worker: more than one frame's */
#define ROUNDS_MAX 3 /* tries of frames that somebody else failed to load */

void vv_frame_cache_key(const struct vv_frame_loc *loc, struct vv_cache_key *out_key)
{
    const struct vv_segment_id *id = &loc->segment;
    out_key->space = VV_CACHE_FRAME | (uint64_t)id->kind << 55 | (uint64_t)id->volume << 32 |
                     loc->index;
    out_key->a = id->epoch;
    out_key->b = id->counter;
}

/* ---- sealers ---- */

static void destroy_sealer(void *data, size_t len)
{
    struct vv_sealer **holder = data;
    (void)len;
    vv_sealer_free(*holder);
    vv_free(holder);
}

static struct vv_cache_key sealer_key(const struct vv_segment_id *id)
{
    return (struct vv_cache_key){VV_CACHE_OBJECT | (uint64_t)id->kind << 48 | id->volume, id->epoch,
                                 id->counter};
}

/* From an object's first bytes. */
static int make_sealer(struct vv_volume *volume, const struct vv_segment_id *id,
                       const uint8_t *bytes, size_t len, uint8_t **out_data, size_t *out_len)
{
    struct vv_object_header header;
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(id, name, sizeof name);
    TRY(vv_object_header_decode(bytes, len, &header));
    struct vv_sealer **holder = vv_alloc(sizeof *holder);
    if (holder == NULL)
        return -ENOMEM;
    int err = vv_sealer_open(volume->ring, &header, name, holder);
    if (err < 0) {
        vv_free(holder);
        return err;
    }
    *out_data = (uint8_t *)holder;
    *out_len = 512; /* about what a sealer takes */
    return 0;
}

struct sealer_load {
    struct vv_volume *volume;
    const struct vv_segment_id *id;
};

static int load_sealer(void *arg, uint8_t **out_data, size_t *out_len)
{
    struct sealer_load *load = arg;
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(load->id, name, sizeof name);
    ssize_t got = vv_store_get(load->volume->store, name, bytes, sizeof bytes, 0);
    TRY(got);
    return make_sealer(load->volume, load->id, bytes, (size_t)got, out_data, out_len);
}

int vv_segment_sealer(struct vv_volume *volume, const struct vv_segment_id *id,
                      struct vv_block **out_block, const struct vv_sealer **out_sealer)
{
    struct vv_cache_key key = sealer_key(id);
    struct sealer_load load = {volume, id};
    TRY(vv_cache_get(volume->cache, &key, load_sealer, &load, out_block));
    (*out_block)->destroy = destroy_sealer;
    *out_sealer = *(struct vv_sealer **)(void *)(*out_block)->data;
    return 0;
}

/* ---- groups ---- */

struct fetch {
    struct vv_volume *volume;
    uint8_t *out; /* for parts in place */
    size_t running;
    struct vv_waitq done;
};

/* Frames that lie close together in one segment: one GET, opened together. */
struct group {
    struct fetch *fetch;
    struct vv_read_part **parts; /* one per frame */
    size_t count;
    struct vv_block *sealer_block;
    const struct vv_sealer *sealer;
    int sealer_err;
    bool is_sealer_coming;     /* a fiber is getting it */
    struct vv_waitq sealer_came;
    uint32_t start; /* in the object, of `sealed` */
    uint8_t *sealed;
    size_t charge; /* of the cache's budget, for `sealed` */
    uint8_t **plain; /* per part, made by open_frames; NULL for one opened in place */
    size_t *plain_len;
    int err;
    size_t bad; /* the part that err is about */
};

/* Open one frame into its place, or into memory of its own. */
static int open_frame(struct group *group, size_t i, const uint8_t *frame)
{
    struct vv_read_part *part = group->parts[i];
    ssize_t len = vv_frame_plain_len(frame, part->loc.len);
    TRY(len);
    if (len > VV_EXTENT_BYTES)
        return -VV_ERR_FORMAT;
    if ((size_t)len < part->skip + (size_t)part->len)
        return -VV_ERR_CORRUPT;
    bool is_whole = part->block == NULL && part->skip == 0 && (size_t)len == part->len;
    uint8_t *plain = is_whole ? group->fetch->out + part->at : vv_alloc((size_t)len + 1);
    if (plain == NULL)
        return -ENOMEM;
    if (!is_whole)
        group->plain[i] = plain;
    len = vv_frame_open(group->sealer, part->loc.index, &part->origin, frame, part->loc.len, plain,
                        (size_t)len);
    TRY(len);
    group->plain_len[i] = (size_t)len;
    if (part->block == NULL && !is_whole)
        memcpy(group->fetch->out + part->at, plain + part->skip, part->len);
    return 0;
}

static void open_frames(void *arg)
{
    struct group *group = arg;
    for (size_t i = 0; i < group->count && group->err == 0; i++) {
        group->bad = i;
        group->err = open_frame(group, i, group->sealed + (group->parts[i]->loc.offset - group->start));
    }
}

/* How long a request takes, as a moving average. */
static void note_request(struct vv_volume *volume, uint64_t begun_ns)
{
    uint64_t took_ns = vv_rt_now_ns() - begun_ns;
    volume->get_ns = volume->get_ns == 0 ? took_ns : (7 * volume->get_ns + took_ns) / 8;
}

static void get_sealer(void *arg)
{
    struct group *group = arg;
    group->sealer_err = vv_segment_sealer(group->fetch->volume, &group->parts[0]->loc.segment,
                                          &group->sealer_block, &group->sealer);
    group->is_sealer_coming = false;
    vv_waitq_wake_all(&group->sealer_came);
}

/* The sealer is in memory, or comes with the frames if they begin near enough to the header, or by a request
 * beside theirs. */
static void begin_sealer(struct group *group)
{
    const struct vv_frame_loc *first = &group->parts[0]->loc;
    struct vv_cache_key key = sealer_key(&first->segment);
    struct vv_block *block = vv_cache_peek(group->fetch->volume->cache, &key);
    group->start = first->offset;
    group->sealer_block = block;
    if (block != NULL)
        group->sealer = *(struct vv_sealer **)(void *)block->data;
    else if (first->offset <= GROUP_GAP_MAX)
        group->start = 0;
    else if (vv_fiber_start(get_sealer, group, "fetch header") == 0)
        group->is_sealer_coming = true;
}

static int finish_sealer(struct group *group, size_t len)
{
    struct vv_volume *volume = group->fetch->volume;
    const struct vv_segment_id *id = &group->parts[0]->loc.segment;
    while (group->is_sealer_coming)
        vv_waitq_wait(&group->sealer_came, VV_NEVER);
    if (group->sealer != NULL || group->sealer_err < 0)
        return group->sealer_err;
    if (group->start == 0) {
        struct vv_cache_key key = sealer_key(id);
        uint8_t *data;
        size_t data_len;
        TRY(make_sealer(volume, id, group->sealed, len, &data, &data_len));
        struct vv_block *block;
        int found = vv_cache_begin(volume->cache, &key, &block);
        if (found == 2) {
            block->destroy = destroy_sealer;
            vv_block_end(block, data, data_len);
            group->sealer_block = block;
            group->sealer = *(struct vv_sealer **)(void *)data;
            return 0;
        }
        destroy_sealer(data, data_len);
        TRY(found);
        vv_block_unref(block);
    }
    return vv_segment_sealer(volume, id, &group->sealer_block, &group->sealer);
}

static int group_get(struct group *group, size_t len)
{
    struct vv_volume *volume = group->fetch->volume;
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(&group->parts[0]->loc.segment, name, sizeof name);
    group->sealed = vv_alloc(len);
    if (group->sealed == NULL)
        return -ENOMEM;
    group->charge = len;
    vv_budget_charge(&volume->cache_budget, group->charge); /* others make room for it */
    uint64_t begun_ns = vv_rt_now_ns();
    ssize_t got = vv_store_get(volume->store, name, group->sealed, len, group->start);
    if (got >= 0 && volume->failed_reads > 0) {
        vv_info("volume", "the store answers reads again, after %u that failed", volume->failed_reads);
        volume->failed_reads = 0;
    }
    TRY(got);
    if ((size_t)got != len)
        return -VV_ERR_CORRUPT;
    note_request(volume, begun_ns);
    return 0;
}

static int group_load(struct group *group)
{
    const struct vv_read_part *last = group->parts[group->count - 1];
    begin_sealer(group);
    size_t len = last->loc.offset + last->loc.len - group->start;
    int err = group_get(group, len);
    int sealer_err = err == 0 || group->is_sealer_coming ? finish_sealer(group, len) : 0;
    TRY(err);
    TRY(sealer_err);
    if (len > OFFLOAD_BYTES)
        vv_rt_offload(open_frames, group);
    else
        open_frames(group);
    return group->err;
}

static void group_report(const struct group *group, int err)
{
    const struct vv_read_part *part = group->parts[group->bad];
    struct vv_volume *volume = group->fetch->volume;
    bool is_away = err == -EIO || err == -EAGAIN || err == -ETIMEDOUT || err == -VV_ERR_UNKNOWN;
    /* A store that is away is said once. */
    if (is_away && volume->failed_reads++ > 0)
        return;
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(&part->loc.segment, name, sizeof name);
    vv_error("volume", "reading object %s, offset %u (data id %llu, extent %llu): %s", name,
             part->loc.offset, (unsigned long long)part->origin.data_id,
             (unsigned long long)part->origin.extent, vv_err_text(err));
}

/* Every block begun gets its bytes or an error. */
static void group_settle(struct group *group, int err)
{
    for (size_t i = 0; i < group->count; i++) {
        struct vv_read_part *part = group->parts[i];
        part->is_begun = false;
        if (part->block == NULL) {
            part->is_in_place = err == 0;
            if (group->plain != NULL)
                vv_free(group->plain[i]);
        } else if (group->plain != NULL && group->plain[i] != NULL && group->plain_len[i] > 0) {
            vv_block_end(part->block, group->plain[i], group->plain_len[i]);
        } else {
            if (group->plain != NULL)
                vv_free(group->plain[i]);
            vv_block_fail(part->block, err < 0 ? err : -VV_ERR_FORMAT);
            part->block = NULL;
        }
    }
}

static void group_run(void *arg)
{
    struct group *group = arg;
    struct fetch *fetch = group->fetch;
    vv_waitq_init(&group->sealer_came);
    group->plain = vv_calloc(group->count, sizeof(uint8_t *));
    group->plain_len = vv_calloc(group->count, sizeof(size_t));
    int err = group->plain == NULL || group->plain_len == NULL ? -ENOMEM : 0;
    if (err == 0)
        err = group_load(group);
    if (err < 0 && err != -ENOMEM)
        group_report(group, err);
    group_settle(group, err);
    group->err = err;
    vv_block_unref(group->sealer_block);
    vv_free(group->sealed);
    vv_budget_release(&fetch->volume->cache_budget, group->charge);
    vv_free(group->plain);
    vv_free(group->plain_len);
    if (--fetch->running == 0)
        vv_waitq_wake_all(&fetch->done);
}

static int compare_places(const struct vv_frame_loc *a, const struct vv_frame_loc *b)
{
    if (a->segment.kind != b->segment.kind)
        return a->segment.kind < b->segment.kind ? -1 : 1;
    if (a->segment.epoch != b->segment.epoch)
        return a->segment.epoch < b->segment.epoch ? -1 : 1;
    if (a->segment.counter != b->segment.counter)
        return a->segment.counter < b->segment.counter ? -1 : 1;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return 0;
}

static int compare_parts(const void *a, const void *b)
{
    const struct vv_read_part *const *first = a;
    const struct vv_read_part *const *second = b;
    return compare_places(&(*first)->loc, &(*second)->loc);
}

static bool belongs(const struct vv_read_part *first, const struct vv_read_part *previous,
                    const struct vv_read_part *next, uint32_t bytes_max)
{
    return vv_segment_id_equal(&first->loc.segment, &next->loc.segment) &&
           next->loc.offset >= previous->loc.offset + previous->loc.len &&
           next->loc.offset - (previous->loc.offset + previous->loc.len) <= GROUP_GAP_MAX &&
           next->loc.offset + next->loc.len - first->loc.offset <= bytes_max;
}

/* Runs the groups, all but the last in fibers of their own. */
static int run_groups(struct fetch *fetch, struct group *groups, size_t count)
{
    vv_waitq_init(&fetch->done);
    fetch->running = count;
    for (size_t i = 0; i < count; i++) {
        groups[i].fetch = fetch;
        if (i + 1 == count || vv_fiber_start(group_run, &groups[i], "fetch") < 0)
            group_run(&groups[i]);
    }
    while (fetch->running > 0)
        vv_waitq_wait(&fetch->done, VV_NEVER);
    for (size_t i = 0; i < count; i++)
        TRY(groups[i].err);
    return 0;
}

/* `missing` holds one part per frame, in order of place, each begun if it has a block. */
static int fetch_groups(struct fetch *fetch, struct vv_read_part **missing, size_t count)
{
    struct group *groups = vv_calloc(count, sizeof *groups);
    if (groups == NULL) {
        for (size_t i = 0; i < count; i++) {
            if (missing[i]->block == NULL)
                continue;
            vv_block_fail(missing[i]->block, -ENOMEM);
            missing[i]->block = NULL;
            missing[i]->is_begun = false;
        }
        return -ENOMEM;
    }
    uint32_t bytes_max =
        fetch->volume->get_ns < VV_READ_SLOW_NS ? GROUP_QUICK_BYTES : GROUP_SLOW_BYTES;
    size_t group_count = 0;
    for (size_t i = 0; i < count;) {
        struct group *group = &groups[group_count++];
        size_t first = i++;
        while (i < count && belongs(missing[first], missing[i - 1], missing[i], bytes_max))
            i++;
        group->parts = missing + first;
        group->count = i - first;
    }
    int err = run_groups(fetch, groups, group_count);
    vv_free(groups);
    return err;
}

/* ---- a read's frames ---- */

static bool needs_frame(const struct vv_read_part *part)
{
    return part->buf == NULL && !part->is_in_place && (part->block == NULL || part->is_begun);
}

/* Can each frame that is missing go into its place? Not when a frame has two parts. */
static bool are_frames_single(struct vv_read_part **parts, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (compare_places(&parts[i - 1]->loc, &parts[i]->loc) == 0)
            return false;
    }
    return true;
}

/* Sort out who loads what: what is left in parts[0..*count) is ours to load. */
static int begin_parts(struct fetch *fetch, struct vv_read_part **parts, size_t *count)
{
    size_t ours = 0;
    int err = 0;
    qsort(parts, *count, sizeof *parts, compare_parts);
    bool is_in_place = fetch->out != NULL && are_frames_single(parts, *count);
    for (size_t i = 0; i < *count && err >= 0; i++) {
        struct vv_cache_key key;
        vv_frame_cache_key(&parts[i]->loc, &key);
        if (is_in_place)
            err = vv_cache_find(fetch->volume->cache, &key, &parts[i]->block);
        else
            err = vv_cache_begin(fetch->volume->cache, &key, &parts[i]->block);
        if (is_in_place && err == -ENOENT)
            err = 2;
        if (err == 2) {
            parts[i]->is_begun = parts[i]->block != NULL;
            parts[ours++] = parts[i];
        }
    }
    for (size_t i = 0; i < ours && err < 0; i++) {
        if (!parts[i]->is_begun)
            continue;
        vv_block_fail(parts[i]->block, err);
        parts[i]->block = NULL;
        parts[i]->is_begun = false;
    }
    *count = ours;
    return err < 0 ? err : 0;
}

/* Wait for what others load. 1 when one of them failed: then it has no block. */
static int wait_parts(struct vv_read *read)
{
    int result = 0;
    for (size_t i = 0; i < read->count; i++) {
        struct vv_read_part *part = &read->parts[i];
        if (part->block == NULL || vv_block_wait(part->block) == 0)
            continue;
        part->block = NULL;
        result = 1;
    }
    return result;
}

static int fetch_round(struct vv_read *read, struct fetch *fetch)
{
    struct vv_read_part **parts = vv_calloc(read->count + 1, sizeof(struct vv_read_part *));
    if (parts == NULL)
        return -ENOMEM;
    size_t count = 0;
    for (size_t i = 0; i < read->count; i++) {
        if (needs_frame(&read->parts[i]))
            parts[count++] = &read->parts[i];
    }
    int err = count > 0 ? begin_parts(fetch, parts, &count) : 0;
    if (err == 0 && count > 0)
        err = fetch_groups(fetch, parts, count);
    vv_free(parts);
    int waited = wait_parts(read);
    return err < 0 ? err : waited;
}

/* They were held when they were resolved, perhaps more than once: now they are used. */
static void use_at_hand(struct vv_read *read)
{
    for (size_t i = 0; i < read->count; i++) {
        if (read->parts[i].is_at_hand)
            vv_block_use(read->parts[i].block);
    }
}

int vv_read_fetch(struct vv_read *read, uint8_t *out)
{
    struct fetch fetch = {.volume = read->volume, .out = out};
    int result = 1;
    use_at_hand(read);
    if (read->away_count == 0)
        return 0;
    for (unsigned round = 0; result == 1 && round < ROUNDS_MAX; round++)
        result = fetch_round(read, &fetch);
    return result == 1 ? -EIO : result;
}
