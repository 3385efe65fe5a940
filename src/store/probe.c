#include "store/store.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "rt/rt.h"

#define CONTENT_BYTES 64
#define RACERS 4 /* puts of one name at the same time */

struct probe {
    struct vv_store *store;
    char *text;
    size_t text_size;
    char name[VV_STORE_NAME_MAX + 1];
    uint8_t content[CONTENT_BYTES];
};

/* One of several fibers that put the same name; each writes its own content. */
struct racer {
    struct race *race;
    uint8_t content[CONTENT_BYTES];
    int result;
};

struct race {
    const struct probe *probe;
    struct racer racers[RACERS];
    int running;
    struct vv_waitq finished;
};

/* The only place where a store is found unsafe. */
static int unsafe(const struct probe *probe, const char *why)
{
    vv_format(probe->text, probe->text_size, "%s", why);
    return -VV_ERR_STORE_UNSAFE;
}

static void pick_name(struct probe *probe)
{
    uint8_t id[16];
    char hex[2 * sizeof(id) + 1];
    vv_rt_random(id, sizeof(id));
    vv_hex(id, sizeof(id), hex);
    vv_format(probe->name, sizeof(probe->name), "probe/%s", hex);
    vv_rt_random(probe->content, sizeof(probe->content));
}

static int put_content(const struct probe *probe, const uint8_t *content)
{
    struct iovec iov = {(void *)content, CONTENT_BYTES};
    return vv_store_put(probe->store, probe->name, &iov, 1);
}

/* 1 when exactly the object's name is listed, 0 when nothing is. */
static int is_listed(const struct probe *probe)
{
    struct vv_store_entry entry;
    ssize_t count = vv_store_list(probe->store, probe->name, "", &entry, 1);
    TRY(count);
    return count == 1 && strcmp(entry.name, probe->name) == 0;
}

/* 1 when the object holds `content`, 0 when something else. */
static int holds(const struct probe *probe, const uint8_t *content)
{
    uint8_t got[CONTENT_BYTES + 1];
    ssize_t len = vv_store_get(probe->store, probe->name, got, sizeof(got), 0);
    TRY(len);
    return len == CONTENT_BYTES && memcmp(got, content, CONTENT_BYTES) == 0;
}

static int check_visible(const struct probe *probe)
{
    const size_t half = CONTENT_BYTES / 2;
    uint8_t got[CONTENT_BYTES];
    int found = holds(probe, probe->content);
    if (found == -ENOENT)
        return unsafe(probe, "put is answered before the object can be read");
    TRY(found);
    if (found == 0)
        return unsafe(probe, "an object does not hold the bytes that were put");
    found = is_listed(probe);
    TRY(found);
    if (found == 0)
        return unsafe(probe, "list lags behind put: a new object is not shown");
    ssize_t len = vv_store_get(probe->store, probe->name, got, half, half);
    TRY(len);
    if ((size_t)len != half || memcmp(got, probe->content + half, half) != 0)
        return unsafe(probe, "ranges of an object are not read as asked for");
    return 0;
}

static int check_absence_is_tested(const struct probe *probe)
{
    uint8_t other[CONTENT_BYTES];
    memset(other, 0, sizeof(other));
    int err = put_content(probe, other);
    if (err == 0)
        return unsafe(probe, "put-if-absent is ignored: a second put of one name succeeded");
    if (err != -EEXIST)
        return err;
    int found = holds(probe, probe->content);
    TRY(found);
    if (found == 0)
        return unsafe(probe, "put-if-absent is refused, yet the object was overwritten");
    return 0;
}

static int check_removed(const struct probe *probe)
{
    TRY(vv_store_remove(probe->store, probe->name));
    int found = holds(probe, probe->content);
    if (found >= 0)
        return unsafe(probe, "a removed object can still be read");
    if (found != -ENOENT)
        return found;
    found = is_listed(probe);
    TRY(found);
    if (found > 0)
        return unsafe(probe, "list lags behind remove: a removed object is shown");
    return 0;
}

static void race_main(void *arg)
{
    struct racer *racer = arg;
    racer->result = put_content(racer->race->probe, racer->content);
    racer->race->running--;
    vv_waitq_wake_all(&racer->race->finished);
}

/* Start all racers and wait for those that could be started. */
static int run_race(struct race *race)
{
    int err = 0;
    vv_waitq_init(&race->finished);
    for (int i = 0; i < RACERS && err == 0; i++) {
        struct racer *racer = &race->racers[i];
        racer->race = race;
        memset(racer->content, i + 1, sizeof(racer->content));
        err = vv_fiber_start(race_main, racer, "store-probe");
        race->running += err == 0;
    }
    while (race->running > 0)
        (void)vv_waitq_wait(&race->finished, VV_NEVER);
    return err;
}

static int check_race(const struct probe *probe)
{
    struct race race = {.probe = probe};
    const struct racer *winner = NULL;
    TRY(run_race(&race));
    for (int i = 0; i < RACERS; i++) {
        int result = race.racers[i].result;
        if (result == -EEXIST)
            continue;
        TRY(result);
        if (winner)
            return unsafe(probe, "put-if-absent is not atomic: two puts at once succeeded");
        winner = &race.racers[i];
    }
    if (!winner)
        return unsafe(probe, "put-if-absent is not atomic: of several puts at once none succeeded");
    int found = holds(probe, winner->content);
    TRY(found);
    if (found == 0)
        return unsafe(probe, "put-if-absent is not atomic: the object is not the winner's");
    return 0;
}

/* Put an object and look at it in all ways; it is left to be removed. */
static int check_object(const struct probe *probe)
{
    int found = is_listed(probe);
    TRY(found);
    if (found > 0)
        return unsafe(probe, "list shows an object that was never put");
    TRY(put_content(probe, probe->content));
    TRY(check_visible(probe));
    TRY(check_absence_is_tested(probe));
    return check_removed(probe);
}

int vv_store_probe(struct vv_store *store, char *text, size_t size)
{
    struct probe probe = {.store = store, .text = text, .text_size = size};
    int err = 0;
    for (int round = 0; round < 2 && err == 0; round++) {
        pick_name(&probe);
        err = round == 0 ? check_object(&probe) : check_race(&probe);
        /* Nothing depends on its removal: the name is never used again. */
        int removed = vv_store_remove(store, probe.name);
        (void)removed;
    }
    return err;
}
