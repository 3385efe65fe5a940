#include "rig.h"

struct spy {
    struct vv_fs_watch watch;
    char log[400];
    unsigned waits;
    bool is_slow;
};

static struct spy spies[2];
static uint64_t top;

static void add(struct spy *spy, const char *format, uint64_t a, uint64_t b, uint64_t c)
{
    size_t len = strlen(spy->log);
    snprintf(spy->log + len, sizeof(spy->log) - len, format, (unsigned long long)a,
             (unsigned long long)b, (unsigned long long)c);
}

static void on_inode(void *arg, uint64_t inode, uint64_t offset, uint64_t len)
{
    add(arg, "i%llu:%llu+%llx ", inode, offset, len);
}

static void on_entry(void *arg, uint64_t parent, const char *name, size_t name_len)
{
    struct spy *spy = arg;
    size_t len = strlen(spy->log);
    snprintf(spy->log + len, sizeof(spy->log) - len, "e%llu/%.*s ", (unsigned long long)parent,
             (int)name_len, name);
}

static void wait_for(void *arg)
{
    struct spy *spy = arg;
    if (spy->is_slow)
        vv_rt_sleep_ns(1000000);
    spy->waits++;
}

static const char *log_of(int spy)
{
    static char text[400];
    memcpy(text, spies[spy].log, sizeof(text));
    spies[spy].log[0] = 0;
    return text;
}

static void test_all(void)
{
    char want[200];
    struct vv_fs_call other = root_call;
    other.door = 2;
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "top", 0777);
    for (unsigned i = 0; i < 2; i++) {
        spies[i].watch = (struct vv_fs_watch){.door = i + 1,
                                              .on_inode = on_inode,
                                              .on_entry = on_entry,
                                              .wait = wait_for,
                                              .arg = &spies[i]};
        vv_fs_watch_add(fs, &spies[i].watch);
    }
    uint64_t file = (uint64_t)make_node(ROOT, top, "a", S_IFREG | 0644);
    snprintf(want, sizeof(want), "e%llu/a i%llu:0+0 ", (unsigned long long)top,
             (unsigned long long)top);
    tap_is_str(log_of(1), want, "the other door hears of a new file");
    tap_is_str(log_of(0), "", "its own does not");
    tap_is_int(spies[1].waits, 1, "the call waits for the other");
    tap_is_int(spies[0].waits, 0, "not for its own");
    write_at(file, "hello", 5, 3);
    snprintf(want, sizeof(want), "i%llu:3+5 ", (unsigned long long)file);
    tap_is_str(log_of(1), want, "of written bytes");
    make_node(&other, top, "b", S_IFREG | 0644);
    snprintf(want, sizeof(want), "e%llu/b i%llu:0+0 ", (unsigned long long)top,
             (unsigned long long)top);
    tap_is_str(log_of(0), want, "and the first of what the second does");
    log_of(1);
    rename_name(ROOT, top, "a", top, "c", 0);
    const char *log = log_of(1);
    tap_ok(strstr(log, "/a ") && strstr(log, "/c "), "both names: %s", log);
    set_mode(ROOT, file, 0600);
    snprintf(want, sizeof(want), "i%llu:0+0 ", (unsigned long long)file);
    tap_is_str(log_of(1), want, "of attributes");
    set_size(ROOT, file, 1);
    snprintf(want, sizeof(want), "i%llu:0+ffffffffffffffff ", (unsigned long long)file);
    tap_is_str(log_of(1), want, "of all data");
    unlink_name(ROOT, top, "b");
    log = log_of(1);
    tap_ok(strstr(log, "/b "), "of names that go: %s", log);
    unsigned waits = spies[1].waits;
    tap_is_int(unlink_name(ROOT, top, "b"), -ENOENT, "a call that fails");
    tap_is_str(log_of(1), "", "says nothing");
    char got[4];
    read_at(file, got, 1, 0);
    look(ROOT, top, "c");
    tap_is_str(log_of(1), "", "nor does one that changes nothing");
    tap_is_int(spies[1].waits, waits, "nor does it wait");
    spies[1].is_slow = true;
    uint64_t before = vv_rt_now_ns();
    set_mode(ROOT, file, 0644);
    tap_ok(vv_rt_now_ns() - before >= 1000000, "the reply is held back");
    vv_fs_watch_remove(fs, &spies[1].watch);
    log_of(1);
    set_mode(ROOT, file, 0600);
    tap_is_str(log_of(1), "", "after it is removed it hears nothing");
    vv_fs_watch_remove(fs, &spies[0].watch);
}

int main(void)
{
    return rig_main(test_all);
}
