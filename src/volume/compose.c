/* Composing a unit: which extents its commits touch, what of them is visible, and sealing that. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/plant.h"
#include "volume/unit_impl.h"

static int compare_extents(const void *a, const void *b)
{
    const struct unit_extent *first = a;
    const struct unit_extent *second = b;
    if (first->data_id != second->data_id)
        return first->data_id < second->data_id ? -1 : 1;
    if (first->index != second->index)
        return first->index < second->index ? -1 : 1;
    return 0;
}

static size_t count_layers(struct unit *unit)
{
    size_t count = 0;
    for (const struct vv_commit *commit = unit->first_commit; commit != NULL;
         commit = vv_unit_next(unit, commit)) {
        vv_list_each (node, &commit->layers)
            count++;
    }
    return count;
}

static int collect_extents(struct unit *unit)
{
    size_t max = count_layers(unit);
    unit->extents = vv_calloc(max + 1, sizeof *unit->extents);
    if (unit->extents == NULL)
        return -ENOMEM;
    size_t count = 0;
    for (const struct vv_commit *commit = unit->first_commit; commit != NULL;
         commit = vv_unit_next(unit, commit)) {
        vv_list_each (node, &commit->layers) {
            const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_commit);
            struct unit_extent *extent = &unit->extents[count++];
            extent->data_id = layer->extent->data->id;
            extent->index = layer->extent->index;
            extent->inode = layer->extent->data->inode;
        }
    }
    qsort(unit->extents, count, sizeof *unit->extents, compare_extents);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || compare_extents(&unit->extents[kept - 1], &unit->extents[i]) != 0)
            unit->extents[kept++] = unit->extents[i];
    }
    unit->extent_count = kept;
    return 0;
}

/* What must be sealed, and which piece gets the place. */
struct todo {
    struct vv_seal_job *jobs;
    struct vv_piece **targets;
    size_t count, capacity;
    uint8_t **scratch; /* joined bytes, to be freed */
    size_t scratch_count, scratch_capacity;
};

static int todo_grow(struct todo *todo)
{
    if (todo->count < todo->capacity)
        return 0;
    size_t capacity = todo->capacity == 0 ? 16 : 2 * todo->capacity;
    struct vv_seal_job *jobs = vv_realloc(todo->jobs, capacity * sizeof *jobs);
    if (jobs == NULL)
        return -ENOMEM;
    todo->jobs = jobs;
    struct vv_piece **targets = vv_realloc(todo->targets, capacity * sizeof *targets);
    if (targets == NULL)
        return -ENOMEM;
    todo->targets = targets;
    todo->capacity = capacity;
    return 0;
}

static uint8_t *todo_scratch(struct todo *todo, size_t len)
{
    if (todo->scratch_count == todo->scratch_capacity) {
        size_t capacity = todo->scratch_capacity == 0 ? 16 : 2 * todo->scratch_capacity;
        uint8_t **scratch = vv_realloc(todo->scratch, capacity * sizeof *scratch);
        if (scratch == NULL)
            return NULL;
        todo->scratch = scratch;
        todo->scratch_capacity = capacity;
    }
    uint8_t *bytes = vv_alloc(len);
    if (bytes != NULL)
        todo->scratch[todo->scratch_count++] = bytes;
    return bytes;
}

static void todo_done(struct todo *todo)
{
    for (size_t i = 0; i < todo->scratch_count; i++)
        vv_free(todo->scratch[i]);
    vv_free(todo->scratch);
    vv_free(todo->jobs);
    vv_free(todo->targets);
}

static bool is_plain(const struct vv_stretch *stretch)
{
    return !stretch->layer->is_zero && stretch->layer->state != VV_LAYER_SEALED;
}

static const uint8_t *stretch_bytes(const struct vv_stretch *stretch)
{
    return stretch->layer->buf->data + (stretch->from - stretch->layer->buf_at);
}

static int remember_frame(struct unit *unit, struct vv_layer *layer, struct todo *todo)
{
    if (unit->frame_count == unit->frame_capacity) {
        size_t capacity = unit->frame_capacity == 0 ? 16 : 2 * unit->frame_capacity;
        struct unit_frame *frames = vv_realloc(unit->frames, capacity * sizeof *frames);
        if (frames == NULL)
            return -ENOMEM;
        unit->frames = frames;
        unit->frame_capacity = capacity;
    }
    unit->frames[unit->frame_count].layer = layer;
    unit->frames[unit->frame_count].loc.index = (uint32_t)todo->count; /* job, until sealed */
    unit->frame_count++;
    return 0;
}

/* One piece for the adjacent plain stretches first..end-1. */
static int compose_run(struct unit *unit, struct unit_extent *target,
                       const struct vv_stretch *stretches, unsigned first, unsigned end,
                       struct todo *todo)
{
    const struct vv_stretch *start = &stretches[first];
    uint32_t len = stretches[end - 1].to - start->from;
    const uint8_t *bytes = stretch_bytes(start);
    TRY(todo_grow(todo));
    if (end - first > 1) {
        uint8_t *joined = todo_scratch(todo, len);
        if (joined == NULL)
            return -ENOMEM;
        for (unsigned i = first; i < end; i++)
            memcpy(joined + (stretches[i].from - start->from), stretch_bytes(&stretches[i]),
                   stretches[i].to - stretches[i].from);
        bytes = joined;
    } else if (start->from == start->layer->from && start->to == start->layer->to) {
        TRY(remember_frame(unit, start->layer, todo));
    }
    struct vv_piece *piece = &target->pieces[target->piece_count++];
    memset(piece, 0, sizeof *piece);
    piece->from = start->from;
    piece->to = start->from + len;
    struct vv_seal_job *job = &todo->jobs[todo->count];
    job->origin.data_id = target->data_id;
    job->origin.extent = target->index;
    job->bytes = bytes;
    job->len = len;
    todo->targets[todo->count++] = piece;
    return 0;
}

/* Layers that are sealed already come first, whole, oldest first: what lies over them comes later. */
static void compose_sealed(struct unit *unit, const struct vv_extent *extent,
                           struct unit_extent *target)
{
    uint64_t hidden = vv_hidden_commit(extent->data, extent->index, unit->last);
    for (struct vv_list *node = extent->layers.prev; node != &extent->layers; node = node->prev) {
        const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
        if (layer->commit < unit->first || layer->commit > unit->last || layer->commit < hidden ||
            layer->state != VV_LAYER_SEALED || layer->is_zero)
            continue;
        struct vv_piece *piece = &target->pieces[target->piece_count++];
        memset(piece, 0, sizeof *piece);
        piece->from = layer->from;
        piece->to = layer->to;
        piece->loc = layer->loc;
    }
}

static int compose_extent(struct unit *unit, struct unit_extent *target, struct todo *todo)
{
    struct vv_extent *extent = vv_extent_find(unit->volume, target->data_id, target->index);
    struct vv_stretch stretches[VV_STRETCHES_MAX];
    int count = vv_extent_stretches(extent, unit->first, unit->last, stretches);
    TRY(count);
    target->pieces = vv_calloc((size_t)count + extent->layer_count + VV_FOLDED_MAX,
                               sizeof *target->pieces);
    if (target->pieces == NULL)
        return -ENOMEM;
    vv_extent_overlay(extent, unit->first, unit->last, &target->state);
    compose_sealed(unit, extent, target);
    for (unsigned i = 0; i < (unsigned)count;) {
        unsigned first = i++;
        const struct vv_stretch *stretch = &stretches[first];
        if (stretch->layer->is_zero) {
            struct vv_piece *piece = &target->pieces[target->piece_count++];
            memset(piece, 0, sizeof *piece);
            piece->from = stretch->from;
            /* One piece: two do not free a block that they cover together. */
            while (i < (unsigned)count && stretches[i].layer->is_zero &&
                   stretches[i].from == stretches[i - 1].to)
                i++;
            piece->to = stretches[i - 1].to;
            piece->is_zero = true;
        } else if (is_plain(stretch)) {
            while (i < (unsigned)count && is_plain(&stretches[i]) &&
                   stretches[i].from == stretches[i - 1].to)
                i++;
            TRY(compose_run(unit, target, stretches, first, i, todo));
        }
    }
    if (vv_planted(VV_PLANT_DROP_PIECE) && target->piece_count > 1)
        target->piece_count--;
    return 0;
}

static int compose_all(struct unit *unit, struct todo *todo)
{
    TRY(collect_extents(unit));
    for (size_t i = 0; i < unit->extent_count; i++)
        TRY(compose_extent(unit, &unit->extents[i], todo));
    return 0;
}

static void compose_undo(struct unit *unit, struct todo *todo)
{
    for (size_t i = 0; i < unit->extent_count; i++)
        vv_free(unit->extents[i].pieces);
    vv_free(unit->extents);
    unit->extents = NULL;
    unit->extent_count = 0;
    unit->frame_count = 0;
    todo_done(todo);
    memset(todo, 0, sizeof *todo);
}

int vv_unit_compose(struct unit *unit)
{
    struct todo todo = {0};
    int err;
    while ((err = compose_all(unit, &todo)) == -ENOMEM) {
        compose_undo(unit, &todo);
        vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    }
    if (err == 0 && todo.count > 0)
        vv_seal_jobs(unit->builder, todo.jobs, todo.count);
    for (size_t i = 0; i < todo.count && err == 0; i++)
        todo.targets[i]->loc = todo.jobs[i].loc;
    for (size_t i = 0; i < unit->frame_count && err == 0; i++)
        unit->frames[i].loc = todo.jobs[unit->frames[i].loc.index].loc;
    todo_done(&todo);
    return err;
}
