#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "puppet.h"
#include "rt/rt.h"

#define POLL_NS VV_NS_PER_MS
#define PATIENCE_NS (600 * VV_NS_PER_S)
#define LISTED_MAX 1000

struct door {
    struct vv_store store;
    struct vv_store *inner;
    struct gate *gate;
};

struct gate *gate_new(void)
{
    struct gate *gate = calloc(1, sizeof(*gate));
    if (!gate || vv_store_backend_new(&gate->backend) < 0 ||
        vv_store_mem_open(gate->backend, &gate->direct) < 0)
        abort();
    return gate;
}

void gate_free(struct gate *gate)
{
    while (gate->strays) {
        struct gate_stray *stray = gate->strays;
        gate->strays = stray->next;
        free(stray);
    }
    vv_store_close(gate->direct);
    vv_store_backend_free(gate->backend);
    free(gate);
}

static bool begins_with(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static void copy_name(char out[VV_STORE_NAME_MAX + 1], const char *name)
{
    snprintf(out, VV_STORE_NAME_MAX + 1, "%s", name);
}

/* ---- rules ---- */

void gate_rule(struct gate *gate, enum gate_request request, const char *prefix,
               enum gate_fate fate, unsigned times, int process)
{
    for (unsigned i = 0; i < GATE_RULES_MAX; i++) {
        if (gate->rules[i].left > 0)
            continue;
        gate->rules[i].request = request;
        gate->rules[i].fate = fate;
        gate->rules[i].left = times;
        gate->rules[i].process = process;
        copy_name(gate->rules[i].prefix, prefix);
        return;
    }
    abort();
}

void gate_forget_rules(struct gate *gate)
{
    memset(gate->rules, 0, sizeof(gate->rules));
}

static enum gate_fate fate_of(struct gate *gate, enum gate_request request, const char *name)
{
    for (unsigned i = 0; i < GATE_RULES_MAX; i++) {
        bool is_his =
            gate->rules[i].process == 0 || gate->rules[i].process == vv_sim_process_self();
        if (gate->rules[i].left == 0 || gate->rules[i].request != request || !is_his ||
            !begins_with(name, gate->rules[i].prefix))
            continue;
        gate->rules[i].left--;
        return gate->rules[i].fate;
    }
    return GATE_PASS;
}

void gate_release(struct gate *gate)
{
    gate->releases++;
    gate->held = 0;
}

/* Waits here are polled: nothing of a killed process stays behind. */
static void hold(struct gate *gate)
{
    uint64_t release = gate->releases;
    gate->held++;
    while (gate->releases == release)
        vv_rt_sleep_ns(POLL_NS);
}

static void note(struct gate *gate, enum gate_request request, const char *name, int result,
                 bool is_late)
{
    if (gate->event_count == GATE_EVENTS_MAX)
        return;
    struct gate_event *event = &gate->events[gate->event_count++];
    event->request = request;
    event->result = result;
    event->is_late = is_late;
    copy_name(event->name, name);
}

/* ---- strays ---- */

static void stray(struct gate *gate, const char *name, const struct iovec *iov, int count)
{
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    struct gate_stray *stray = calloc(1, sizeof(*stray) + len);
    if (!stray)
        abort();
    copy_name(stray->name, name);
    for (int i = 0; i < count; i++) {
        memcpy(stray->bytes + stray->len, iov[i].iov_base, iov[i].iov_len);
        stray->len += iov[i].iov_len;
    }
    struct gate_stray **at = &gate->strays;
    while (*at)
        at = &(*at)->next;
    *at = stray;
}

unsigned gate_strays(const struct gate *gate, const char *prefix)
{
    unsigned count = 0;
    for (const struct gate_stray *stray = gate->strays; stray; stray = stray->next)
        count += begins_with(stray->name, prefix);
    return count;
}

unsigned gate_land(struct gate *gate, const char *prefix)
{
    unsigned landed = 0;
    struct gate_stray **at = &gate->strays;
    while (*at) {
        struct gate_stray *stray = *at;
        if (!begins_with(stray->name, prefix)) {
            at = &stray->next;
            continue;
        }
        *at = stray->next;
        struct iovec iov = {stray->bytes, stray->len};
        int err = vv_store_put(gate->direct, stray->name, &iov, 1);
        note(gate, GATE_PUT, stray->name, err, true);
        landed += err == 0;
        free(stray);
        at = &gate->strays;
    }
    return landed;
}

bool gate_wait_held(const struct gate *gate, unsigned count)
{
    uint64_t end = vv_rt_now_ns() + PATIENCE_NS;
    while (gate->held < count && vv_rt_now_ns() < end)
        vv_rt_sleep_ns(POLL_NS);
    return gate->held >= count;
}

bool gate_wait_strays(const struct gate *gate, const char *prefix, unsigned count)
{
    uint64_t end = vv_rt_now_ns() + PATIENCE_NS;
    while (gate_strays(gate, prefix) < count && vv_rt_now_ns() < end)
        vv_rt_sleep_ns(POLL_NS);
    return gate_strays(gate, prefix) >= count;
}

unsigned gate_objects(const struct gate *gate, const char *prefix)
{
    struct vv_store_entry *entries = calloc(LISTED_MAX, sizeof(*entries));
    ssize_t count = vv_store_list(gate->direct, prefix, "", entries, LISTED_MAX);
    free(entries);
    return count < 0 ? 0 : (unsigned)count;
}

unsigned gate_events(const struct gate *gate, enum gate_request request, const char *prefix,
                     size_t from)
{
    unsigned count = 0;
    for (size_t i = from; i < gate->event_count; i++)
        count += gate->events[i].request == request && gate->events[i].result == 0 &&
                 begins_with(gate->events[i].name, prefix);
    return count;
}

/* ---- the store ---- */

static struct door *door_of(struct vv_store *store)
{
    return vv_container_of(store, struct door, store);
}

/* 0 = go on. */
static int meet(struct gate *gate, enum gate_request request, const char *name)
{
    switch (fate_of(gate, request, name)) {
    case GATE_HOLD:
        hold(gate);
        return 0;
    case GATE_FAIL:
        return -EIO;
    case GATE_STRAY:
        return -VV_ERR_UNKNOWN;
    default:
        return 0;
    }
}

static int door_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct gate *gate = door_of(store)->gate;
    int err = meet(gate, GATE_PUT, name);
    if (err == -VV_ERR_UNKNOWN)
        stray(gate, name, iov, count);
    if (err < 0)
        return err;
    err = vv_store_put(door_of(store)->inner, name, iov, count);
    note(gate, GATE_PUT, name, err, false);
    return err;
}

static ssize_t door_get(struct vv_store *store, const char *name, void *buf, size_t len,
                        uint64_t offset)
{
    TRY(meet(door_of(store)->gate, GATE_GET, name));
    return vv_store_get(door_of(store)->inner, name, buf, len, offset);
}

static int door_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    TRY(meet(door_of(store)->gate, GATE_GET, name));
    return vv_store_size(door_of(store)->inner, name, out_size);
}

static ssize_t door_list(struct vv_store *store, const char *prefix, const char *after,
                         struct vv_store_entry *out_entries, size_t max)
{
    TRY(meet(door_of(store)->gate, GATE_LIST, prefix));
    return vv_store_list(door_of(store)->inner, prefix, after, out_entries, max);
}

static int door_remove(struct vv_store *store, const char *name)
{
    TRY(meet(door_of(store)->gate, GATE_REMOVE, name));
    int err = vv_store_remove(door_of(store)->inner, name);
    note(door_of(store)->gate, GATE_REMOVE, name, err, false);
    return err;
}

static void door_close(struct vv_store *store)
{
    struct door *door = door_of(store);
    vv_store_close(door->inner);
    vv_free(door);
}

static const struct vv_store_ops door_ops = {
    .type = "gate",
    .put = door_put,
    .get = door_get,
    .size = door_size,
    .list = door_list,
    .remove = door_remove,
    .close = door_close,
};

int gate_open(struct gate *gate, struct vv_store **out_store)
{
    struct door *door = vv_zalloc(sizeof(*door));
    if (!door)
        return -ENOMEM;
    door->store.ops = &door_ops;
    door->gate = gate;
    int err = vv_store_mem_open(gate->backend, &door->inner);
    if (err < 0) {
        vv_free(door);
        return err;
    }
    *out_store = &door->store;
    return 0;
}
