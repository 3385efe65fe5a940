#include "scene.h"

#include <errno.h>

#include "tap.h"

struct file_args file_a = {"a", 1, 0, 20000};
struct file_args file_b = {"b", 2, 0, 20000};
struct file_args file_c = {"c", 3, 0, 20000};

struct scene scene_new(bool is_gate, const char *journal_path)
{
    struct scene scene = {0};
    if (is_gate)
        scene.gate = gate_new();
    if (!is_gate || journal_path)
        scene.disk = vv_sim_disk_new(0);
    int err = puppet_create(scene.gate, scene.disk, &scene.ring);
    if (err < 0)
        tap_is_int(err, 0, "a volume can be created");
    scene.options = (struct puppet_options){
        .gate = scene.gate, .disk = scene.disk, .journal_path = journal_path, .ring = scene.ring};
    return scene;
}

void scene_done(struct scene *scene)
{
    if (scene->gate)
        gate_free(scene->gate);
    vv_keyring_free(scene->ring);
}

int put_file(struct puppet *puppet, struct file_args *args)
{
    TRY(puppet_run(puppet, puppet_write, args));
    return puppet_run(puppet, puppet_sync, NULL);
}

void check_file(struct puppet *puppet, struct file_args *args, const char *what)
{
    tap_is_int(puppet ? puppet_run(puppet, puppet_check, args) : -ESRCH, 0, "%s", what);
}

uint64_t epoch_of(struct puppet *puppet)
{
    struct vv_volume_stats stats = {0};
    (void)puppet_run(puppet, puppet_stats, &stats);
    return stats.epoch;
}
