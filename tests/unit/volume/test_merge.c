/* Writes that go into the layer on top of their extent: when they do and when they must not, what is counted, who still has
 * the old bytes, and what is left when an operation or an allocation fails. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "rig.h"
#include "tap.h"
#include "volume/volume_impl.h"

#define INODE 77
#define BYTES (16u * VV_EXTENT_BYTES)
#define FIRST_DATA 5000
#define STEPS_MAX 4
#define APPENDS 1000
#define RANDOM_STEPS 6000
#define READS_MAX 4
#define COUNT_ROUNDS 300u

struct step {
    enum { NONE, WRITE, ASIDE, PAYLOAD, CLEAR, DROP } kind;
    uint32_t from, to;
};

struct reading {
    struct vv_read *read;
    uint8_t *expected;
};

struct test {
    struct rig rig;
    uint64_t data_id;
    uint8_t *model, *source;
    const struct step *steps;
    int result; /* of the operation's function, once it has staged everything */
    struct vv_read *read;
    uint64_t allocated;
    int is_changing; /* is what vv_op_allocated said */
    uint32_t random;
    struct reading readings[READS_MAX];
};

static uint32_t draw(struct test *test, uint32_t bound)
{
    test->random = test->random * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(test->random ^ test->random >> 15) * bound >> 32);
}

/* ---- doing ---- */

static struct vv_payload *payload_of(struct test *test, const struct step *step)
{
    struct vv_payload *payload;
    if (vv_payload_new(test->rig.volume, step->from, step->to - step->from, &payload) < 0)
        return NULL;
    size_t at = step->from;
    for (unsigned i = 0; i < vv_payload_count(payload); i++) {
        struct iovec piece = vv_payload_piece(payload, i);
        memcpy(piece.iov_base, test->source + at, piece.iov_len);
        at += piece.iov_len;
    }
    return payload;
}

static struct vv_payload *payload;

static int do_steps(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    for (const struct step *step = test->steps; step < test->steps + STEPS_MAX; step++) {
        uint32_t len = step->to - step->from;
        struct vv_payload_part part = {payload, 0, len};
        vv_op_into_aside(op, step->kind == ASIDE);
        if (step->kind == WRITE || step->kind == ASIDE)
            TRY(vv_op_write(op, INODE, test->data_id, step->from, test->source + step->from, len));
        else if (step->kind == PAYLOAD)
            TRY(vv_op_write_payload(op, INODE, test->data_id, step->from, &part));
        else if (step->kind == CLEAR)
            TRY(vv_op_clear(op, INODE, test->data_id, step->from, step->to));
        else if (step->kind == DROP)
            TRY(vv_op_drop(op, INODE, test->data_id));
    }
    return test->result;
}

/* What ranges clear comes first, whatever the order: that is how operations are applied. */
static void follow(struct test *test)
{
    for (const struct step *step = test->steps; step < test->steps + STEPS_MAX; step++) {
        if (step->kind == CLEAR || step->kind == DROP)
            memset(test->model + step->from, 0, step->to - step->from);
    }
    for (const struct step *step = test->steps; step < test->steps + STEPS_MAX; step++) {
        if (step->kind != CLEAR && step->kind != DROP)
            memcpy(test->model + step->from, test->source + step->from, step->to - step->from);
    }
}

static void new_bytes(struct test *test, const struct step *steps)
{
    for (const struct step *step = steps; step < steps + STEPS_MAX; step++) {
        uint8_t fill = (uint8_t)draw(test, 256);
        for (uint32_t i = step->from; i < step->to; i++)
            test->source[i] = (uint8_t)(fill + i / 3);
    }
}

/* One operation of up to STEPS_MAX steps, at most one of them by payload. */
static int run(struct test *test, const struct step *steps)
{
    size_t bytes = 0;
    new_bytes(test, steps);
    test->steps = steps;
    payload = NULL;
    for (const struct step *step = steps; step < steps + STEPS_MAX; step++) {
        bytes += step->kind == CLEAR ? 0 : step->to - step->from;
        if (step->kind == PAYLOAD && (payload = payload_of(test, step)) == NULL)
            return -ENOMEM;
    }
    int err = vv_volume_run(test->rig.volume, VV_OP_WRITE, bytes, do_steps, test);
    if (payload != NULL)
        vv_payload_settle(payload);
    vv_payload_free(payload);
    if (err >= 0)
        follow(test);
    return err;
}

static int do_one(struct test *test, int kind, uint32_t from, uint32_t to)
{
    struct step steps[STEPS_MAX] = {{.kind = kind, .from = from, .to = to}};
    return run(test, steps);
}

static int do_read(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    vv_read_reset(test->read);
    return vv_op_read(op, test->data_id, 0, BYTES, &test->read);
}

static bool is_as_modelled(struct test *test)
{
    static uint8_t out[BYTES];
    test->read = NULL;
    ssize_t got = vv_volume_run(test->rig.volume, VV_OP_READ, 0, do_read, test);
    if (got >= 0)
        got = vv_read_finish(test->rig.volume, test->read, out);
    vv_read_free(test->read);
    return got == BYTES && memcmp(out, test->model, BYTES) == 0;
}

/* ---- looking ---- */

static struct vv_extent *extent_of(const struct test *test, uint64_t index)
{
    return vv_extent_find(test->rig.volume, test->data_id, index);
}

static struct vv_layer *top_of(const struct test *test, uint64_t index)
{
    return vv_list_first(&extent_of(test, index)->layers, struct vv_layer, in_extent);
}

static uint64_t merged(const struct test *test)
{
    return test->rig.volume->stats.merged_writes;
}

/* Bytes of the blocks in which layers that are not settled have bytes that no later zeros take away. */
static uint64_t counted_of(const struct vv_extent *extent)
{
    uint64_t counted = 0;
    for (uint32_t at = 0; at < VV_EXTENT_BYTES; at += VV_EXTENT_BLOCK) {
        bool is_counted = false, is_decided = false;
        vv_list_each (node, &extent->layers) {
            const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
            bool is_whole = layer->from <= at && layer->to >= at + VV_EXTENT_BLOCK;
            bool is_touched = layer->from < at + VV_EXTENT_BLOCK && layer->to > at;
            if (is_decided || layer->is_settled || !(layer->is_zero ? is_whole : is_touched))
                continue;
            is_decided = true; /* the newest */
            is_counted = !layer->is_zero && !(layer->aside >> at / VV_EXTENT_BLOCK & 1);
        }
        counted += is_counted ? VV_EXTENT_BLOCK : 0;
    }
    return counted;
}

/* All sums are those of what is there. */
static bool is_counted_well(const struct test *test)
{
    const struct vv_volume *volume = test->rig.volume;
    const struct vv_data *data = vv_data_find(test->rig.volume, test->data_id);
    uint64_t plain = 0, counted = 0, charged = 0;
    bool is_good = true;
    vv_list_each (node, &volume->open->layers) {
        const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_commit);
        plain += layer->is_zero || layer->state != VV_LAYER_PLAIN ? 0 : layer->to - layer->from;
    }
    if (data == NULL)
        return plain == 0 && volume->open->plain_bytes == 0;
    vv_list_each (each, &data->extents) {
        const struct vv_extent *extent = vv_list_entry(each, struct vv_extent, in_data);
        is_good &= extent->holds == 0 && extent->dirty_bytes == counted_of(extent);
        counted += extent->dirty_bytes;
        vv_list_each (node, &extent->layers) {
            const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
            if (layer->buf == NULL)
                continue;
            charged += layer->buf->charge;
            is_good &= layer->from >= layer->buf_at &&
                       layer->to - layer->buf_at <= layer->buf->capacity &&
                       (layer->aside & ~vv_blocks_of(layer->from, layer->to, false)) == 0;
        }
    }
    return is_good && plain == volume->open->plain_bytes && counted == data->dirty_bytes &&
           charged <= volume->dirty_budget.used;
}

/* ---- the volume ---- */

static void make_volume(struct test *test)
{
    test->model = calloc(1, BYTES);
    test->source = calloc(1, BYTES);
    rig_make(&test->rig);
    test->data_id = FIRST_DATA - 1;
}

/* Another data id, without bytes; what was written before is in the store. */
static void begin(struct test *test)
{
    if (vv_volume_sync(test->rig.volume, 0) < 0)
        tap_ok(false, "sync");
    test->data_id++;
    memset(test->model, 0, BYTES);
}

/* ---- tests ---- */

static void appends(struct test *test)
{
    bool is_good = true;
    begin(test);
    uint64_t before = test->rig.volume->dirty_budget.used;
    for (uint32_t i = 0; i < APPENDS; i++)
        is_good &= do_one(test, WRITE, 4 * i, 4 * i + 4) == 0;
    tap_ok(is_good, "%d appends of 4 bytes", APPENDS);
    tap_is_int(extent_of(test, 0)->layer_count, 1, "are one layer");
    tap_is_int((int64_t)(test->rig.volume->dirty_budget.used - before), 4096, "in a block of memory");
    tap_is_int((int64_t)test->rig.volume->open->plain_bytes, 4 * APPENDS, "each byte counted once");
    tap_is_int((int64_t)merged(test), APPENDS - 1, "all but the first were merged");
    tap_ok(test->rig.volume->open->change_bytes < 2 * VV_CHANGE_LAYER_BYTES, "the commit has one change");
    tap_ok(is_counted_well(test) && is_as_modelled(test), "read back");
}

static void blocks(struct test *test, int kind, const char *what)
{
    bool is_good = true;
    begin(test);
    uint64_t before = test->rig.volume->dirty_budget.used;
    for (uint32_t at = 0; at < VV_EXTENT_BYTES; at += 4096)
        is_good &= do_one(test, kind, at, at + 4096) == 0;
    tap_ok(is_good, "an extent, 4 KiB at a time%s", what);
    tap_is_int(extent_of(test, 0)->layer_count, 1, "is one layer");
    tap_is_int(top_of(test, 0)->to, VV_EXTENT_BYTES, "the whole extent");
    tap_is_int((int64_t)(test->rig.volume->dirty_budget.used - before), VV_EXTENT_BYTES, "and no more memory");
    tap_ok(is_counted_well(test) && is_as_modelled(test), "read back");
}

/* The open commit's layers are kept, but may not change any more. */
static void freeze(struct test *test)
{
    struct vv_volume *volume = test->rig.volume;
    if (volume->spare_commit == NULL && vv_commit_new(0, &volume->spare_commit) < 0)
        abort();
    vv_commit_freeze(volume);
    vv_waitq_wake_all(&volume->unit_work);
}

/* Two operations, and the layer on top after them. */
static void rows(struct test *test)
{
    static const struct {
        struct step first, second;
        bool is_frozen; /* the commit, between them */
        unsigned merged, layers;
        uint32_t from, to;
        const char *what;
    } rows[] = {
        {{WRITE, 100, 200}, {WRITE, 200, 300}, false, 1, 1, 100, 300, "directly behind"},
        {{WRITE, 100, 200}, {WRITE, 50, 100}, false, 1, 1, 50, 200, "directly before"},
        {{WRITE, 100, 200}, {WRITE, 150, 9000}, false, 1, 1, 100, 9000, "over its end"},
        {{WRITE, 100, 200}, {WRITE, 0, 101}, false, 1, 1, 0, 200, "over its begin"},
        {{WRITE, 100, 200}, {WRITE, 110, 120}, false, 1, 1, 100, 200, "inside"},
        {{WRITE, 100, 200}, {WRITE, 0, 32768}, false, 1, 1, 0, 32768, "over all of it"},
        {{WRITE, 32000, 32768}, {WRITE, 0, 32000}, false, 1, 1, 0, 32768, "up to the extent's end"},
        {{WRITE, 100, 200}, {WRITE, 201, 300}, false, 0, 2, 201, 300, "with a gap"},
        {{WRITE, 100, 200}, {WRITE, 50, 99}, false, 0, 2, 50, 99, "with a gap before"},
        {{WRITE, 100, 200}, {WRITE, 200, 300}, true, 0, 2, 200, 300, "of another commit"},
        {{CLEAR, 100, 200}, {WRITE, 200, 300}, false, 0, 2, 200, 300, "behind zeros"},
        {{WRITE, 100, 200}, {CLEAR, 200, 300}, false, 0, 2, 200, 300, "zeros"},
        {{WRITE, 100, 200}, {CLEAR, 0, 32768}, false, 0, 0, 0, 0, "zeros over the extent"},
        {{PAYLOAD, 0, 4096}, {PAYLOAD, 0, 4096}, false, 1, 1, 0, 4096, "a block, again"},
        {{PAYLOAD, 0, 8192}, {PAYLOAD, 0, 32768}, false, 0, 1, 0, 32768, "a payload over all of it"},
        {{PAYLOAD, 4096, 8192}, {PAYLOAD, 8192, 16384}, false, 1, 1, 4096, 16384, "behind a payload"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(test);
        int err = do_one(test, rows[i].first.kind, rows[i].first.from, rows[i].first.to);
        uint64_t merged_before = merged(test);
        if (rows[i].is_frozen)
            freeze(test);
        if (err == 0)
            err = do_one(test, rows[i].second.kind, rows[i].second.from, rows[i].second.to);
        tap_is_int(err, 0, "%s", rows[i].what);
        tap_is_int((int64_t)(merged(test) - merged_before), rows[i].merged, "merged");
        const struct vv_extent *extent = extent_of(test, 0);
        tap_is_int(extent ? extent->layer_count : 0, rows[i].layers, "layers");
        if (extent != NULL) {
            tap_is_int(top_of(test, 0)->from, rows[i].from, "from");
            tap_is_int(top_of(test, 0)->to, rows[i].to, "to");
        }
        tap_ok(is_counted_well(test) && is_as_modelled(test), "read back");
        tap_is_int(vv_volume_sync(test->rig.volume, 0), 0, "sync");
        tap_ok(is_as_modelled(test), "read back from the store");
    }
}

/* Operations of several steps, over a layer that is there. */
static void together(struct test *test)
{
    static const struct {
        struct step steps[STEPS_MAX];
        unsigned merged, layers;
        const char *what;
    } rows[] = {
        {{{WRITE, 200, 300}, {WRITE, 300, 400}}, 1, 2, "two writes: the second has its own layer"},
        {{{WRITE, 200, 300}, {WRITE, 0, 32768}}, 1, 1, "the second over all of it"},
        {{{WRITE, 200, 300}, {WRITE, 50, 100}, {WRITE, 90, 110}}, 1, 3, "three writes"},
        {{{CLEAR, 0, 65536}, {WRITE, 200, 300}}, 0, 1, "a range, then a write"},
        {{{WRITE, 200, 300}, {CLEAR, 0, 65536}}, 0, 1, "a write, then a range"},
        {{{WRITE, 200, 30000}, {CLEAR, 0, 65536}}, 0, 1, "a longer write, then a range"},
        {{{WRITE, 200, 300}, {CLEAR, 32768, 65536}}, 1, 1, "a range beside it"},
        {{{WRITE, 200, 300}, {DROP, 0, BYTES}}, 0, 1, "a write, then a drop"},
        {{{DROP, 0, BYTES}, {WRITE, 200, 300}}, 0, 1, "a drop, then a write"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(test);
        int err = do_one(test, WRITE, 100, 200);
        uint64_t merged_before = merged(test);
        tap_is_int(err == 0 ? run(test, rows[i].steps) : err, 0, "%s", rows[i].what);
        tap_is_int((int64_t)(merged(test) - merged_before), rows[i].merged, "merged");
        tap_is_int(extent_of(test, 0)->layer_count, rows[i].layers, "layers");
        tap_ok(is_counted_well(test) && is_as_modelled(test), "read back");
        tap_is_int(vv_volume_sync(test->rig.volume, 0), 0, "sync");
        tap_ok(is_as_modelled(test), "read back from the store");
    }
}

/* A layer that another one surrounds now has nothing to say. */
static void surrounded(struct test *test)
{
    begin(test);
    tap_is_int(do_one(test, WRITE, 0, 100), 0, "a layer");
    tap_is_int(do_one(test, WRITE, 200, 300), 0, "and one with a gap");
    tap_is_int(do_one(test, WRITE, 0, 210), 0, "a write over the first that meets the second");
    tap_is_int(extent_of(test, 0)->layer_count, 1, "one layer is left");
    tap_ok(is_counted_well(test) && is_as_modelled(test), "read back");
}

/* Who has resolved a read gets what was there then. */
static void readers(struct test *test)
{
    static const struct step over[] = {{WRITE, 100, 200}, {WRITE, 200, 300}, {WRITE, 90, 20000},
                                       {WRITE, 120, 130}};
    static uint8_t out[BYTES], old[BYTES];
    for (size_t i = 0; i < sizeof over / sizeof over[0]; i++) {
        begin(test);
        tap_is_int(do_one(test, WRITE, 100, 200), 0, "a layer");
        memcpy(old, test->model, BYTES);
        struct vv_read *held;
        test->read = NULL;
        tap_is_int(vv_volume_run(test->rig.volume, VV_OP_READ, 0, do_read, test), 0, "a reader");
        held = test->read;
        const struct vv_buf *buf = top_of(test, 0)->buf;
        tap_is_int(do_one(test, WRITE, over[i].from, over[i].to), 0, "a write");
        tap_is_int(extent_of(test, 0)->layer_count, 1, "into the layer");
        tap_ok(top_of(test, 0)->buf != buf, "but not into what the reader holds");
        tap_ok(vv_read_finish(test->rig.volume, held, out) == BYTES && memcmp(out, old, BYTES) == 0,
               "the reader has the old bytes");
        vv_read_free(held);
        tap_ok(is_counted_well(test) && is_as_modelled(test), "others have the new ones");
        buf = top_of(test, 0)->buf;
        tap_is_int(do_one(test, WRITE, 110, 120), 0, "once it is gone");
        tap_ok(top_of(test, 0)->buf == buf, "it is written in place");
    }
}

/* A payload that was handed over and not settled yet is held by who wrote it. */
static void unsettled(struct test *test)
{
    static const struct step steps[STEPS_MAX] = {{PAYLOAD, 0, 4096}};
    begin(test);
    new_bytes(test, steps);
    test->steps = steps;
    struct vv_payload *held = payload = payload_of(test, &steps[0]);
    tap_is_int(vv_volume_run(test->rig.volume, VV_OP_WRITE, 4096, do_steps, test), 0, "a payload");
    follow(test);
    tap_ok(top_of(test, 0)->buf == held->bufs[0], "is the layer's memory");
    uint8_t first = held->bufs[0]->data[0];
    test->source[0] = (uint8_t)~first;
    static const struct step again[STEPS_MAX] = {{WRITE, 0, 1}};
    test->steps = again;
    tap_is_int(vv_volume_run(test->rig.volume, VV_OP_WRITE, 1, do_steps, test), 0, "a write over it");
    follow(test);
    tap_ok(top_of(test, 0)->buf != held->bufs[0] && held->bufs[0]->data[0] == first,
           "leaves the payload alone");
    tap_ok(is_counted_well(test) && is_as_modelled(test), "read back");
    vv_payload_settle(held);
    tap_ok(held->bufs[0] != NULL && held->bufs[0]->budget == NULL, "which has its memory back, uncounted");
    vv_payload_free(held);
}

/* Space set aside: what is counted is what is not in it. */
static void aside(struct test *test)
{
    static const struct {
        struct step step;
        uint8_t aside;
        uint32_t counted;
        const char *what;
    } rows[] = {
        {{ASIDE, 0, 4096}, 1, 0, "a block set aside"},
        {{WRITE, 4096, 8192}, 1, 4096, "one that is not"},
        {{ASIDE, 8192, 8200}, 5, 4096, "a part of one that is"},
        {{ASIDE, 8200, 16384}, 13, 4096, "its rest, and another"},
        {{WRITE, 100, 200}, 12, 8192, "the first again, without"},
        {{ASIDE, 0, 10}, 13, 4096, "and with"},
    };
    begin(test);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct step *step = &rows[i].step;
        tap_is_int(do_one(test, step->kind, step->from, step->to), 0, "%s", rows[i].what);
        tap_is_int(extent_of(test, 0)->layer_count, 1, "one layer");
        tap_is_int(top_of(test, 0)->aside, rows[i].aside, "blocks set aside");
        tap_is_int((int64_t)vv_data_find(test->rig.volume, test->data_id)->dirty_bytes, rows[i].counted,
                   "bytes counted");
        tap_ok(is_counted_well(test), "all is counted well");
    }
}

static int do_count(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    return vv_op_allocated(op, INODE, test->data_id, &test->allocated);
}

static uint64_t allocated(struct test *test)
{
    test->is_changing = vv_volume_run(test->rig.volume, VV_OP_READ, 0, do_count, test);
    return test->is_changing < 0 ? UINT64_MAX : test->allocated;
}

/* A write or zeros somewhere in one half of an extent. is_aside: the lower one is set aside; is_whole: zeros are of whole
 * blocks. */
static int count_step(struct test *test, bool is_aside, bool is_whole)
{
    uint32_t half = draw(test, 2) * (VV_EXTENT_BYTES / 2);
    uint32_t from = draw(test, VV_EXTENT_BYTES / 2);
    uint32_t to = from + 1 + draw(test, draw(test, 2) ? 300 : VV_EXTENT_BYTES / 2);
    if (to > VV_EXTENT_BYTES / 2)
        to = VV_EXTENT_BYTES / 2;
    bool is_zeros = draw(test, 3) == 0;
    if (is_zeros && is_whole) {
        from = from / VV_EXTENT_BLOCK * VV_EXTENT_BLOCK;
        to = (to + VV_EXTENT_BLOCK - 1) / VV_EXTENT_BLOCK * VV_EXTENT_BLOCK;
    }
    return do_one(test, is_zeros ? CLEAR : is_aside && half == 0 ? ASIDE : WRITE, half + from,
                  half + to);
}

/* Of bytes that lie over nothing in the store, the same is counted before and after they are there: blocks, whatever
 * was written how often, in how many commits. Only when zeros take away all that was written in a part of a block, that may
 * free it then. */
static void same_when_sealed(struct test *test)
{
    unsigned compared = 0, same = 0, fewer = 0;
    for (unsigned i = 0; i < COUNT_ROUNDS; i++) {
        bool is_aside = draw(test, 2), is_whole = draw(test, 2);
        bool is_good = true;
        begin(test);
        uint64_t finalised = test->rig.volume->finalised_commit;
        for (unsigned steps = 1 + draw(test, 8); steps-- > 0;) {
            is_good &= count_step(test, is_aside, is_whole) == 0;
            if (draw(test, 4) == 0)
                freeze(test);
        }
        uint64_t before = allocated(test);
        is_good &= is_counted_well(test);
        bool is_dirty = finalised == test->rig.volume->finalised_commit;
        is_good &= vv_volume_sync(test->rig.volume, 0) == 0;
        uint64_t after = allocated(test);
        compared += is_dirty;
        same += is_dirty && is_good && after == before;
        fewer += is_dirty && is_good && after < before && !is_whole;
    }
    tap_ok(same + fewer == compared && fewer < compared / 8 && compared > COUNT_ROUNDS / 2,
           "%u of %u times the same was counted before and after a sync, and %u times fewer", same,
           compared, fewer);
}

/* What the contract says of st_blocks while bytes are in memory only. */
static void counted_until_sealed(struct test *test)
{
    static const struct {
        struct step first, second;
        bool is_synced; /* between them */
        unsigned dirty, sealed; /* blocks */
        const char *what;
    } rows[] = {
        {{WRITE, 10000, 10001}, {NONE, 0, 0}, false, 1, 1, "a byte"},
        {{WRITE, 10000, 10010}, {WRITE, 10100, 10110}, false, 1, 1, "two writes in a block"},
        {{WRITE, 0, 32768}, {WRITE, 4096, 12288}, false, 8, 8, "an overwrite in memory"},
        {{WRITE, 0, 32768}, {CLEAR, 4096, 12288}, false, 6, 6, "blocks freed in memory"},
        {{WRITE, 0, 32768}, {CLEAR, 100, 4000}, true, 8, 8, "zeros in a block"},
        {{WRITE, 0, 32768}, {WRITE, 4096, 12288}, true, 10, 8, "an overwrite counts twice"},
        {{WRITE, 0, 32768}, {CLEAR, 4096, 12288}, true, 8, 6, "zeros free a block later"},
        {{WRITE, 0, 65536}, {CLEAR, 0, 32768}, true, 16, 8, "and an extent"},
        {{WRITE, 0, 65536}, {DROP, 0, 65536}, true, 16, 0, "and a file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(test);
        int err = do_one(test, rows[i].first.kind, rows[i].first.from, rows[i].first.to);
        if (err == 0 && rows[i].is_synced)
            err = vv_volume_sync(test->rig.volume, 0);
        if (err == 0)
            err = do_one(test, rows[i].second.kind, rows[i].second.from, rows[i].second.to);
        tap_is_int(err, 0, "%s", rows[i].what);
        tap_is_int((int64_t)allocated(test) / VV_EXTENT_BLOCK, rows[i].dirty, "blocks in memory");
        tap_is_int(test->is_changing, rows[i].is_synced, "which may change by itself");
        tap_is_int(vv_volume_settle(test->rig.volume), 0, "settled");
        tap_is_int((int64_t)allocated(test) / VV_EXTENT_BLOCK, rows[i].sealed, "blocks");
        tap_is_int(test->is_changing, 0, "for good");
    }
}

static void refused(struct test *test)
{
    static const struct step over[] = {{WRITE, 200, 300}, {WRITE, 200, 20000}, {PAYLOAD, 0, 30000}};
    begin(test);
    tap_is_int(do_one(test, WRITE, 100, 200), 0, "a layer");
    for (size_t i = 0; i < sizeof over / sizeof over[0]; i++) {
        uint64_t used = test->rig.volume->dirty_budget.used, before = merged(test);
        test->result = -EACCES;
        tap_is_int(do_one(test, over[i].kind, over[i].from, over[i].to), -EACCES,
                   "refused after staging");
        test->result = 0;
        tap_ok(test->rig.volume->dirty_budget.used == used && merged(test) == before, "nothing has changed");
        tap_is_int(top_of(test, 0)->to, 200, "nor the layer");
        tap_ok(is_counted_well(test) && is_as_modelled(test), "read back");
    }
}

static void no_memory(struct test *test)
{
    static const struct step rows[][STEPS_MAX] = {
        {{WRITE, 200, 20000}},
        {{WRITE, 150, 33000}, {CLEAR, 0, 65536}},
        {{PAYLOAD, 150, 40000}},
        {{WRITE, 0, 32768}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool is_good = true, has_failed = true;
        int n = 0;
        for (; has_failed && n < 200 && is_good; n++) {
            begin(test);
            is_good &= do_one(test, WRITE, 100, 200) == 0;
            uint64_t used = test->rig.volume->dirty_budget.used;
            vv_alloc_fail_at(n, false);
            int err = run(test, rows[i]);
            has_failed = vv_alloc_failed();
            vv_alloc_fail_at(-1, false);
            is_good &= err == 0 || err == -ENOMEM;
            is_good &= err == 0 || test->rig.volume->dirty_budget.used == used;
            is_good &= is_counted_well(test) && is_as_modelled(test);
            is_good &= run(test, rows[i]) == 0 && is_counted_well(test) && is_as_modelled(test);
        }
        tap_ok(is_good && n > 3 && !has_failed, "with each of %d allocations failing", n);
    }
}

static void reader_ends(struct test *test, struct reading *reading, bool *is_good)
{
    static uint8_t out[BYTES];
    if (reading->read == NULL)
        return;
    *is_good &= vv_read_finish(test->rig.volume, reading->read, out) == BYTES &&
                memcmp(out, reading->expected, BYTES) == 0;
    vv_read_free(reading->read);
    reading->read = NULL;
}

static void reader_begins(struct test *test, struct reading *reading, bool *is_good)
{
    test->read = NULL;
    *is_good &= vv_volume_run(test->rig.volume, VV_OP_READ, 0, do_read, test) == 0;
    reading->read = test->read;
    memcpy(reading->expected, test->model, BYTES);
}

/* Small pieces in runs, to and fro, beside readers that hold on, while units and segments take what was written. */
static void random_writes(struct test *test)
{
    bool is_good = true;
    uint32_t at = 0;
    begin(test);
    for (unsigned i = 0; i < READS_MAX; i++)
        test->readings[i].expected = calloc(1, BYTES);
    for (unsigned i = 0; i < RANDOM_STEPS && is_good; i++) {
        static const int kinds[] = {WRITE, WRITE, PAYLOAD, ASIDE, CLEAR};
        uint32_t len = 1 + draw(test, draw(test, 8) ? 3000 : 90000);
        if (draw(test, 12) == 0)
            at = draw(test, BYTES);
        at = draw(test, 10) == 0 && at > 2 * len ? at - 2 * len : at;
        if (at + len > BYTES)
            at = 0;
        is_good &= do_one(test, kinds[draw(test, draw(test, 6) ? 4 : 5)], at, at + len) == 0;
        at += len;
        struct reading *reading = &test->readings[draw(test, READS_MAX)];
        if (draw(test, 8) == 0) {
            reader_ends(test, reading, &is_good);
            reader_begins(test, reading, &is_good);
        }
        is_good &= is_counted_well(test);
        if (i % 64 == 0)
            is_good &= is_as_modelled(test);
        if (draw(test, 60) == 0)
            is_good &= vv_volume_sync(test->rig.volume, 0) == 0;
        if (draw(test, 4) == 0)
            vv_rt_sleep_ns(draw(test, 20) * VV_NS_PER_MS);
    }
    for (unsigned i = 0; i < READS_MAX; i++) {
        reader_ends(test, &test->readings[i], &is_good);
        free(test->readings[i].expected);
    }
    tap_ok(is_good && is_as_modelled(test), "%d operations, read back", RANDOM_STEPS);
    tap_ok(merged(test) > RANDOM_STEPS / 3, "%llu writes merged", (unsigned long long)merged(test));
    tap_is_int(vv_volume_close(test->rig.volume), 0, "close");
    rig_open(&test->rig);
    tap_ok(is_as_modelled(test), "and read back after opening");
}

static void process_main(void *arg)
{
    struct test *test = arg;
    make_volume(test);
    appends(test);
    blocks(test, WRITE, "");
    blocks(test, PAYLOAD, ", by payloads");
    rows(test);
    together(test);
    surrounded(test);
    readers(test);
    unsettled(test);
    aside(test);
    same_when_sealed(test);
    counted_until_sealed(test);
    refused(test);
    no_memory(test);
    random_writes(test);
    rig_close(&test->rig);
    free(test->model);
    free(test->source);
}

int main(void)
{
    struct test test = {.random = 1};
    return rig_main(process_main, &test);
}
