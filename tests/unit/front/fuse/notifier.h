/* What the kernel is told of changes, for tests that decide when it has taken notice. It defines the functions of
 * front/fuse/notify.h, whose thread the simulated runtime cannot have: include it in one file of a program. */
#ifndef UNIT_FRONT_FUSE_NOTIFIER_H
#define UNIT_FRONT_FUSE_NOTIFIER_H

#include <stdbool.h>
#include <string.h>

#include "front/fuse/notify.h"

#define NOTES_MAX 4096

/* What was told: an inode, or an entry of a directory. */
struct note {
    uint64_t inode, parent, offset, len;
    char name[16]; /* "" = an inode */
};

static struct {
    struct note notes[NOTES_MAX];
    unsigned count;
    bool is_slow; /* the kernel takes notice when this ends */
    struct vv_waitq waiters;
} notifier;

static void notifier_hurry(void)
{
    notifier.is_slow = false;
    vv_waitq_wake_all(&notifier.waiters);
}

static void notifier_add(struct note note)
{
    if (notifier.count < NOTES_MAX)
        notifier.notes[notifier.count] = note;
    notifier.count++;
}

int vv_fuse_notifier_start(struct vv_fuse_notifier *unused, struct vv_fuse_device *device)
{
    (void)unused;
    (void)device;
    notifier.count = 0;
    vv_waitq_init(&notifier.waiters);
    return 0;
}

void vv_fuse_notifier_stop(struct vv_fuse_notifier *unused)
{
    (void)unused;
    notifier_hurry();
}

void vv_fuse_notify_inode(struct vv_fuse_notifier *unused, uint64_t inode, uint64_t parent, uint64_t offset, uint64_t len)
{
    (void)unused;
    notifier_add((struct note){.inode = inode, .parent = parent, .offset = offset, .len = len});
}

void vv_fuse_notify_entry(struct vv_fuse_notifier *unused, uint64_t parent, const char *name, size_t name_len)
{
    (void)unused;
    struct note note = {.parent = parent};
    memcpy(note.name, name, name_len < sizeof(note.name) ? name_len : sizeof(note.name) - 1);
    notifier_add(note);
}

int vv_fuse_notifier_wait(struct vv_fuse_notifier *unused, uint64_t deadline_ns)
{
    (void)unused;
    while (notifier.is_slow)
        TRY(vv_waitq_wait(&notifier.waiters, deadline_ns));
    return 0;
}

#endif
