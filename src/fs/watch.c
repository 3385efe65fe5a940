/* Telling the other doors what a call has changed. */
#include "fs/fs_impl.h"

void vv_fs_watch_add(struct vv_fs *fs, struct vv_fs_watch *watch)
{
    vv_list_push_back(&fs->watches, &watch->node);
}

void vv_fs_watch_remove(struct vv_fs *fs, struct vv_fs_watch *watch)
{
    vv_list_remove(&watch->node);
}

void vv_notify_inode(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                     uint64_t offset, uint64_t len)
{
    vv_list_each (node, &fs->watches) {
        struct vv_fs_watch *watch = vv_list_entry(node, struct vv_fs_watch, node);
        if (watch->door != call->door && watch->on_inode)
            watch->on_inode(watch->arg, inode, offset, len);
    }
}

void vv_notify_entry(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                     const char *name, size_t name_len)
{
    vv_list_each (node, &fs->watches) {
        struct vv_fs_watch *watch = vv_list_entry(node, struct vv_fs_watch, node);
        if (watch->door != call->door && watch->on_entry)
            watch->on_entry(watch->arg, parent, name, name_len);
    }
}

/* A watch may go while we wait, so the walk starts again after each wait, with the doors not waited
 * for yet: those with a higher number. */
void vv_notify_wait(struct vv_fs *fs, const struct vv_fs_call *call)
{
    unsigned door_min = 0;
    for (bool is_found = true; is_found;) {
        struct vv_fs_watch *next = NULL;
        vv_list_each (node, &fs->watches) {
            struct vv_fs_watch *watch = vv_list_entry(node, struct vv_fs_watch, node);
            if (watch->door != call->door && watch->wait && watch->door >= door_min &&
                (!next || watch->door < next->door))
                next = watch;
        }
        is_found = next != NULL;
        if (next) {
            door_min = next->door + 1;
            next->wait(next->arg);
        }
    }
}
