#include "store/store.h"

#include "contract.h"

#define OBJECTS 300
#define ROUNDS 60

static char names[OBJECTS][40];
static int name_count;

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Random names of few characters, so that directories and objects sort among each other. */
static void put_random(struct vv_store *store)
{
    static const char chars[] = "a0-./";
    name_count = 0;
    while (name_count < OBJECTS) {
        char *name = names[name_count];
        size_t len = 1 + vv_sim_random(12);
        for (size_t i = 0; i < len; i++)
            name[i] = chars[vv_sim_random(sizeof(chars) - 1)];
        name[len] = 0;
        /* Refused names, and those of directories, are simply not there. */
        if (put_text(store, name, name) == 0)
            name_count++;
    }
    qsort(names, OBJECTS, sizeof(names[0]), compare_names);
}

/* Is what list gives what a plain search through all names gives? */
static bool list_is_right(struct vv_store *store, const char *prefix, const char *after, size_t max)
{
    static struct vv_store_entry entries[VV_STORE_LIST_MAX];
    size_t count = 0;
    ssize_t got = vv_store_list(store, prefix, after, entries, max);
    if (got == -EINVAL)
        return true;
    for (int i = 0; i < OBJECTS && count < max; i++) {
        if (strncmp(names[i], prefix, strlen(prefix)) != 0 || strcmp(names[i], after) <= 0)
            continue;
        if (got <= (ssize_t)count || strcmp(entries[count].name, names[i]) != 0 ||
            entries[count].size != strlen(names[i]))
            return false;
        count++;
    }
    return got == (ssize_t)count;
}

static void random_main(void *arg)
{
    struct vv_store *store;
    bool is_right = true;
    if (vv_store_dir_open("/store", true, &store) < 0)
        return;
    put_random(store);
    is_right &= list_is_right(store, "", "", VV_STORE_LIST_MAX);
    for (int i = 0; i < ROUNDS; i++) {
        char prefix[40];
        char after[40];
        const char *name = names[vv_sim_random(OBJECTS)];
        (void)snprintf(prefix, sizeof(prefix), "%.*s", (int)vv_sim_random(6), name);
        name = vv_sim_chance(500) ? name : names[vv_sim_random(OBJECTS)];
        (void)snprintf(after, sizeof(after), "%.*s", (int)vv_sim_random(13), name);
        is_right &= list_is_right(store, prefix, after, 1 + vv_sim_random(40));
    }
    tap_ok(is_right, "random names, prefixes and starts");
    vv_store_close(store);
}

/* More names than one call gives, read in pages. */
static void pages_main(void *arg)
{
    static struct vv_store_entry entries[7];
    struct vv_store *store;
    char after[VV_STORE_NAME_MAX + 1] = "";
    int total = 0;
    ssize_t count;
    if (vv_store_dir_open("/store", true, &store) < 0)
        return;
    put_random(store);
    do {
        count = vv_store_list(store, "", after, entries, 7);
        for (ssize_t i = 0; i < count; i++)
            total += strcmp(entries[i].name, names[total]) == 0;
        if (count > 0)
            (void)snprintf(after, sizeof(after), "%s", entries[count - 1].name);
    } while (count == 7);
    tap_is_int(total, OBJECTS, "pages give all names in order");
    vv_store_close(store);
}

static void no_memory_main(void *arg)
{
    static struct vv_store_entry entries[VV_STORE_LIST_MAX];
    struct vv_store *store;
    if (vv_store_dir_open("/store", true, &store) < 0)
        return;
    put_random(store);
    size_t live = vv_alloc_domain_count(vv_alloc_domain());
    ssize_t count = -ENOMEM;
    int n = 0;
    for (; count < 0 && n < 10000; n += 7) {
        vv_alloc_fail_at(n, false);
        count = vv_store_list(store, "", "", entries, VV_STORE_LIST_MAX);
        vv_alloc_fail_at(-1, false);
        if (count < 0 && (count != -ENOMEM || vv_alloc_domain_count(vv_alloc_domain()) != live))
            tap_ok(false, "allocation %d fails: nothing is left", n);
    }
    tap_is_int(count, OBJECTS, "n-th allocation failing: succeeds at last");
    tap_ok(n > OBJECTS, "after %d", n);
    vv_store_close(store);
}

int main(void)
{
    vv_alloc_track(true);
    for (uint64_t seed = 0; seed < 10; seed++)
        run_sim_disk(seed, random_main, NULL);
    run_sim_disk(1, pages_main, NULL);
    run_sim_disk(1, no_memory_main, NULL);
    return tap_done();
}
