/* The rows of tables that make a level: searching, adding, removing. */
#include "lsm/lsm_impl.h"

#include "rig.h"

/* A table from one letter to another. */
static struct vv_table *table_of(uint64_t order, const char *keys)
{
    struct vv_table_ref ref = {
        .level = order > 0 ? 0 : 1,
        .order = order,
        .bytes = 100,
        .min_key = (uint8_t *)keys,
        .min_key_len = 1,
        .max_key = (uint8_t *)keys + 1,
        .max_key_len = 1,
    };
    struct vv_table *table = NULL;
    if (vv_table_new(NULL, &ref, &table) < 0)
        tap_ok(false, "a table");
    return table;
}

static void add(struct vv_level *level, uint64_t order, const char *keys)
{
    if (vv_level_promise(level, 1) < 0)
        tap_ok(false, "a promise");
    vv_level_add(level, table_of(order, keys));
    vv_level_settle(level);
}

/* The tables in order: "ab cd|ef", runs divided by bars. */
static const char *text_of(const struct vv_level *level)
{
    static char text[256];
    size_t len = 0;
    text[0] = '\0';
    for (size_t run = 0; run < level->run_count; run++) {
        size_t count;
        struct vv_table *const *tables = vv_level_run(level, run, &count);
        for (size_t i = 0; i < count; i++)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%c%c",
                                    i > 0     ? " "
                                    : run > 0 ? "|"
                                              : "",
                                    tables[i]->ref.min_key[0], tables[i]->ref.max_key[0]);
    }
    return text;
}

static void drop(struct vv_level *level)
{
    for (size_t i = 0; i < level->count; i++)
        vv_table_free(level->tables[i]);
    vv_free(level->tables);
    vv_free(level->run_starts);
}

static void test_sorted(void)
{
    struct vv_level level = {0};
    size_t first;
    add(&level, 0, "gh");
    add(&level, 0, "ab");
    add(&level, 0, "df");
    tap_is_str(text_of(&level), "ab df gh", "tables by key");
    tap_ok(vv_level_is_sound(&level), "that do not overlap");
    tap_ok(vv_run_find(level.tables, level.count, text_bytes("e")) == level.tables[1], "a key");
    tap_ok(vv_run_find(level.tables, level.count, text_bytes("b")) == level.tables[0], "the last");
    tap_ok(!vv_run_find(level.tables, level.count, text_bytes("c")), "between tables");
    tap_ok(!vv_run_find(level.tables, level.count, text_bytes("hh")), "above all");
    tap_is_int((int64_t)vv_run_range(level.tables, 3, text_bytes("b"), text_bytes("g"), &first), 2,
               "a range without its end");
    tap_is_int((int64_t)vv_run_overlap(level.tables, 3, text_bytes("b"), text_bytes("g"), &first),
               3, "a range with its end");
    tap_is_int((int64_t)vv_run_range(level.tables, 3, text_bytes("c"), text_bytes(""), &first), 2,
               "a range without an end");
    tap_is_int((int64_t)first, 1, "from the second on");
    tap_is_int((int64_t)vv_run_overlap(level.tables, 3, text_bytes("c"), text_bytes("cc"), &first),
               0, "a range between tables");
    tap_is_int((int64_t)level.bytes, 300, "bytes");
    struct vv_table *table = level.tables[1];
    vv_level_remove(&level, table);
    vv_level_settle(&level);
    vv_table_free(table);
    tap_is_str(text_of(&level), "ab gh", "one less");
    add(&level, 0, "hi");
    tap_ok(!vv_level_is_sound(&level), "an overlap is noticed");
    drop(&level);
}

static void test_runs(void)
{
    struct vv_level level = {0};
    add(&level, 5, "mz");
    add(&level, 3, "az");
    add(&level, 5, "al");
    add(&level, 4, "kk");
    tap_is_str(text_of(&level), "az|kk|al mz", "runs by order");
    tap_ok(vv_level_is_sound(&level), "that overlap each other only");
    drop(&level);
}

static void test_promises(void)
{
    struct vv_level level = {0};
    for (int64_t n = 0; n < 2; n++) {
        vv_alloc_fail_at(n, false);
        tap_is_int(vv_level_promise(&level, 4), -ENOMEM, "no memory");
        vv_alloc_fail_at(-1, false);
        tap_is_int((int64_t)level.promised, 0, "no promise");
    }
    tap_is_int(vv_level_promise(&level, 4), 0, "a promise");
    vv_alloc_fail_at(0, true);
    struct vv_table *tables[4];
    vv_alloc_fail_at(-1, false);
    for (unsigned i = 0; i < 4; i++)
        tables[i] = table_of(0, i % 2 ? (i > 1 ? "gh" : "cd") : (i > 1 ? "ef" : "ab"));
    vv_alloc_fail_at(0, true);
    for (unsigned i = 0; i < 4; i++)
        vv_level_add(&level, tables[i]);
    vv_level_settle(&level);
    vv_alloc_fail_at(-1, false);
    tap_is_str(text_of(&level), "ab cd ef gh", "adding what was promised does not allocate");
    drop(&level);
}

int main(void)
{
    test_sorted();
    test_runs();
    test_promises();
    return tap_done();
}
