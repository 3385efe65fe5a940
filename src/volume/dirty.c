/* Bytes in memory: data ids, extents and layers. Nothing here suspends. */
#include "volume/volume_impl.h"

#include <assert.h>
#include <string.h>

#include "base/hash.h"

struct vv_data *vv_data_find(struct vv_volume *volume, uint64_t id)
{
    struct vv_map_node *node = vv_map_find(&volume->data, vv_mix64(id));
    for (; node != NULL; node = vv_map_next(node)) {
        struct vv_data *data = vv_container_of(node, struct vv_data, node);
        if (data->id == id)
            return data;
    }
    return NULL;
}

struct vv_data *vv_data_make(struct vv_volume *volume, uint64_t id, uint64_t inode)
{
    struct vv_data *data = vv_data_find(volume, id);
    if (data != NULL)
        return data;
    data = vv_zalloc(sizeof *data);
    if (data == NULL)
        return NULL;
    data->id = id;
    data->inode = inode;
    vv_list_init(&data->extents);
    vv_list_init(&data->ranges);
    data->range_places = &volume->range_places;
    vv_list_init(&data->in_queue);
    vv_map_insert(&volume->data, &data->node, vv_mix64(id));
    return data;
}

void vv_data_tidy(struct vv_volume *volume, struct vv_data *data)
{
    if (data->holds > 0 || data->drop_commit != 0 || !vv_list_is_empty(&data->extents) ||
        !vv_list_is_empty(&data->ranges))
        return;
    assert(data->dirty_bytes == 0);
    vv_map_remove(&volume->data, &data->node);
    vv_free(data);
}

static uint64_t extent_hash(uint64_t data_id, uint64_t index)
{
    return vv_mix64(vv_mix64(data_id) + index);
}

struct vv_extent *vv_extent_find(struct vv_volume *volume, uint64_t data_id, uint64_t index)
{
    struct vv_map_node *node = vv_map_find(&volume->extents, extent_hash(data_id, index));
    for (; node != NULL; node = vv_map_next(node)) {
        struct vv_extent *extent = vv_container_of(node, struct vv_extent, node);
        if (extent->index == index && extent->data->id == data_id)
            return extent;
    }
    return NULL;
}

struct vv_extent *vv_extent_make(struct vv_volume *volume, struct vv_data *data, uint64_t index)
{
    struct vv_extent *extent = vv_extent_find(volume, data->id, index);
    if (extent != NULL)
        return extent;
    extent = vv_zalloc(sizeof *extent);
    if (extent == NULL)
        return NULL;
    extent->data = data;
    extent->index = index;
    vv_list_init(&extent->layers);
    vv_list_push_back(&data->extents, &extent->in_data);
    data->extent_count++;
    vv_map_insert(&volume->extents, &extent->node, extent_hash(data->id, index));
    return extent;
}

void vv_extent_tidy(struct vv_volume *volume, struct vv_extent *extent)
{
    if (!vv_list_is_empty(&extent->layers) || extent->holds > 0)
        return;
    struct vv_data *data = extent->data;
    vv_map_remove(&volume->extents, &extent->node);
    vv_list_remove(&extent->in_data);
    data->extent_count--;
    vv_free(extent);
    vv_data_tidy(volume, data);
}

struct vv_layer *vv_layer_new(uint32_t from, uint32_t to)
{
    assert(from < to && to <= VV_EXTENT_BYTES);
    struct vv_layer *layer = vv_zalloc(sizeof *layer);
    if (layer == NULL)
        return NULL;
    vv_list_init(&layer->in_extent);
    vv_list_init(&layer->in_commit);
    layer->refs = 1;
    layer->from = from;
    layer->to = to;
    layer->buf_at = from;
    return layer;
}

void vv_layer_unref(struct vv_layer *layer)
{
    if (layer == NULL || --layer->refs > 0)
        return;
    assert(layer->extent == NULL);
    vv_buf_unref(layer->buf);
    vv_free(layer);
}

/* Counts the layer in (sign 1) or out (-1) of its commit's and data's sums. */
static void layer_account(struct vv_layer *layer, int sign)
{
    uint64_t bytes = layer->to - layer->from;
    if (layer->is_zero)
        return;
    if (layer->state == VV_LAYER_PLAIN) {
        if (sign > 0)
            layer->commit_ref->plain_bytes += bytes;
        else
            layer->commit_ref->plain_bytes -= bytes;
    }
}

static void overlay_layer(struct vv_extent_state *state, const struct vv_layer *layer)
{
    uint8_t these = vv_blocks_of(layer->from, layer->to, layer->is_zero);
    uint8_t aside = layer->is_zero ? 0 : layer->aside & these;
    state->blocks = vv_blocks_put(state->blocks, layer->from, layer->to, layer->is_zero);
    state->aside = (uint8_t)((state->aside & ~these) | aside);
    state->known |= these;
}

void vv_extent_count(struct vv_extent *extent)
{
    struct vv_extent_state state = {0};
    for (struct vv_list *node = extent->layers.prev; node != &extent->layers; node = node->prev) {
        const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
        if (!layer->is_settled)
            overlay_layer(&state, layer);
    }
    extent->data->dirty_bytes -= extent->dirty_bytes;
    extent->dirty_bytes =
        (uint32_t)__builtin_popcount(state.blocks & ~(unsigned)state.aside) * VV_EXTENT_BLOCK;
    extent->data->dirty_bytes += extent->dirty_bytes;
}

void vv_layer_settle(struct vv_layer *layer)
{
    if (layer->is_settled)
        return;
    layer->is_settled = true;
    vv_extent_count(layer->extent);
}

void vv_layer_attach_above(struct vv_volume *volume, struct vv_extent *extent,
                           struct vv_commit *commit, struct vv_layer *layer,
                           struct vv_layer *below)
{
    assert(layer->extent == NULL);
    extent->stamp = ++volume->stamp;
    layer->extent = extent;
    layer->commit_ref = commit;
    layer->commit = commit->number;
    if (below != NULL)
        vv_list_insert_before(&below->in_extent, &layer->in_extent);
    else
        vv_list_push_back(&extent->layers, &layer->in_extent);
    vv_list_push_back(&commit->layers, &layer->in_commit);
    extent->layer_count++;
    commit->change_bytes += VV_CHANGE_LAYER_BYTES;
    if (!layer->is_settled)
        vv_extent_count(extent);
    layer_account(layer, 1);
}

void vv_layer_attach(struct vv_volume *volume, struct vv_extent *extent, struct vv_commit *commit,
                     struct vv_layer *layer)
{
    struct vv_layer *top = NULL;
    if (!vv_list_is_empty(&extent->layers))
        top = vv_list_first(&extent->layers, struct vv_layer, in_extent);
    vv_layer_attach_above(volume, extent, commit, layer, top);
}

void vv_layer_detach(struct vv_volume *volume, struct vv_layer *layer)
{
    struct vv_extent *extent = layer->extent;
    assert(extent != NULL);
    extent->stamp = ++volume->stamp;
    layer_account(layer, -1);
    if (layer->state == VV_LAYER_SEALED)
        vv_segref_release(volume, &layer->loc.segment);
    if (layer->commit_ref->moved_to == &layer->in_commit)
        layer->commit_ref->moved_to = layer->in_commit.prev;
    vv_list_remove(&layer->in_extent);
    vv_list_remove(&layer->in_commit);
    if (!layer->is_settled)
        vv_extent_count(extent);
    extent->layer_count--;
    layer->extent = NULL;
    layer->commit_ref = NULL;
    vv_layer_unref(layer);
    vv_extent_tidy(volume, extent);
}

int vv_extent_stretches(const struct vv_extent *extent, uint64_t first, uint64_t last,
                        struct vv_stretch *out)
{
    struct vv_cover cover = {0};
    unsigned count = 0;
    uint64_t hidden = vv_hidden_commit(extent->data, extent->index, last);
    vv_list_each (node, &extent->layers) {
        struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
        if (layer->commit > last || layer->commit < first || layer->commit < hidden)
            continue;
        if (vv_cover_has(&cover, 0, VV_EXTENT_BYTES))
            break;
        uint32_t gaps[VV_COVER_MAX + 1][2];
        unsigned gap_count = vv_cover_gaps(&cover, layer->from, layer->to, gaps);
        if (count + gap_count > VV_STRETCHES_MAX || !vv_cover_add(&cover, layer->from, layer->to))
            return -VV_ERR_LIMIT;
        for (unsigned i = 0; i < gap_count; i++) {
            unsigned at = count++;
            for (; at > 0 && out[at - 1].from > gaps[i][0]; at--)
                out[at] = out[at - 1];
            out[at].from = gaps[i][0];
            out[at].to = gaps[i][1];
            out[at].layer = layer;
        }
    }
    return (int)count;
}

void vv_extent_overlay(const struct vv_extent *extent, uint64_t first, uint64_t last,
                       struct vv_extent_state *state)
{
    uint64_t hidden = vv_hidden_commit(extent->data, extent->index, last);
    for (struct vv_list *node = extent->layers.prev; node != &extent->layers; node = node->prev) {
        const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
        if (layer->commit < first || layer->commit > last || layer->commit < hidden)
            continue;
        overlay_layer(state, layer);
    }
}

void vv_extent_state_now(struct vv_volume *volume, uint64_t data_id, uint64_t index,
                         const struct vv_extent_record *record, struct vv_extent_state *out_state)
{
    uint64_t hidden = vv_hidden_commit(vv_data_find(volume, data_id), index, UINT64_MAX);
    const struct vv_extent *extent = vv_extent_find(volume, data_id, index);
    *out_state = (struct vv_extent_state){0};
    if (record != NULL && record->commit >= hidden) {
        out_state->blocks = vv_extent_blocks(record);
        out_state->aside = record->aside;
    }
    if (extent != NULL)
        vv_extent_overlay(extent, 0, UINT64_MAX, out_state);
}

static int add_folded(struct vv_folded *folded, uint32_t from, uint32_t to)
{
    assert(folded->count < VV_FOLDED_MAX);
    struct vv_layer *layer = vv_layer_new(from, to);
    if (layer == NULL)
        return -ENOMEM;
    layer->is_zero = folded->count > 0;
    folded->layers[folded->count++] = layer;
    return 0;
}

static int add_all_folded(struct vv_volume *volume, uint32_t end, uint8_t blocks,
                          struct vv_folded *folded)
{
    TRY(add_folded(folded, 0, end));
    folded->layers[0]->buf = vv_buf_new(VV_EXTENT_BYTES, &volume->dirty_budget);
    if (folded->layers[0]->buf == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i * VV_EXTENT_BLOCK < end; i++) {
        unsigned first = i;
        while (i * VV_EXTENT_BLOCK < end && !(blocks >> i & 1))
            i++;
        if (first < i)
            TRY(add_folded(folded, first * VV_EXTENT_BLOCK, i * VV_EXTENT_BLOCK));
    }
    return 0;
}

int vv_folded_make(struct vv_volume *volume, uint32_t end, const struct vv_extent_state *state,
                   struct vv_folded *out_folded)
{
    struct vv_folded folded = {0};
    int err = add_all_folded(volume, end, state->blocks, &folded);
    if (err < 0) {
        vv_folded_done(&folded);
        return err;
    }
    folded.layers[0]->aside = state->aside;
    *out_folded = folded;
    return 0;
}

void vv_folded_done(struct vv_folded *folded)
{
    for (unsigned i = 0; i < folded->count; i++)
        vv_layer_unref(folded->layers[i]);
    folded->count = 0;
}

static void free_commit_layers(struct vv_volume *volume, struct vv_commit *commit)
{
    while (!vv_list_is_empty(&commit->layers))
        vv_layer_detach(volume, vv_list_first(&commit->layers, struct vv_layer, in_commit));
}

void vv_volume_free_dirty(struct vv_volume *volume)
{
    vv_list_each (node, &volume->commits)
        free_commit_layers(volume, vv_list_entry(node, struct vv_commit, node));
    while (!vv_list_is_empty(&volume->reclaims))
        vv_range_remove(volume, vv_list_first(&volume->reclaims, struct vv_range, in_queue));
    while (!vv_list_is_empty(&volume->drops)) {
        struct vv_data *data = vv_list_first(&volume->drops, struct vv_data, in_queue);
        vv_list_remove(&data->in_queue);
        data->drop_commit = 0;
        vv_data_tidy(volume, data);
    }
}
