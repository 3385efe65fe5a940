/* Advisory locks: byte ranges and flock, all in RAM. A lock belongs to (door, client, owner).
 *
 * Per inode there is one list of byte-range locks and one of flock locks, each sorted by start;
 * locks of one owner in a list never overlap. Who waits stands in the queue of the inode with
 * everything that granting needs, so that whoever makes room grants at once, in the order of the
 * queue. */
#include <assert.h>
#include <string.h>

#include "base/hash.h"
#include "fs/fs_impl.h"

#define SPARES_MAX 2 /* a request adds its own lock and the right part of one that it splits */
#define DEADLOCK_STEPS_MAX                                                                         \
    100000 /* locks compared in looking for a deadlock; then the request waits */

struct lock {
    struct vv_list node;
    struct vv_lock what;
    unsigned door;
};

struct lock_file {
    struct vv_map_node node;
    uint64_t inode;
    struct vv_list ranges;
    struct vv_list flocks;
    struct vv_list waiters;
};

struct request {
    struct vv_list in_all;
    struct vv_list in_file;
    struct lock_file *file;
    struct vv_lock what;
    unsigned door;
    struct lock *spares[SPARES_MAX];
    const bool *cancel;
    struct vv_waitq wake;
    bool is_done;
    int result;
    enum { UNSEEN, SEEN, EXPANDED } mark; /* looking for a deadlock */
};

int vv_locks_init(struct vv_fs *fs)
{
    return vv_map_init(&fs->lock_files);
}

static struct vv_list *list_of(struct lock_file *file, bool is_flock)
{
    return is_flock ? &file->flocks : &file->ranges;
}

static bool is_same_owner(const struct vv_lock *a, unsigned a_door, const struct vv_lock *b,
                          unsigned b_door)
{
    return a_door == b_door && a->client == b->client && a->owner == b->owner &&
           a->is_flock == b->is_flock;
}

static bool is_overlapping(const struct vv_lock *a, const struct vv_lock *b)
{
    return a->start <= b->end && b->start <= a->end;
}

static bool is_conflicting(const struct lock *lock, const struct vv_lock *what, unsigned door)
{
    return is_overlapping(&lock->what, what) &&
           (lock->what.type == F_WRLCK || what->type == F_WRLCK) &&
           !is_same_owner(&lock->what, lock->door, what, door);
}

static struct lock *find_conflict(struct lock_file *file, const struct vv_lock *what, unsigned door)
{
    vv_list_each (node, list_of(file, what->is_flock)) {
        struct lock *lock = vv_list_entry(node, struct lock, node);
        if (lock->what.start > what->end)
            break;
        if (is_conflicting(lock, what, door))
            return lock;
    }
    return NULL;
}

/* ---- lists ---- */

static struct lock_file *find_file(const struct vv_fs *fs, uint64_t inode)
{
    struct vv_map_node *node = vv_map_find(&fs->lock_files, vv_mix64(inode));
    for (; node; node = vv_map_next(node)) {
        struct lock_file *file = vv_container_of(node, struct lock_file, node);
        if (file->inode == inode)
            return file;
    }
    return NULL;
}

static struct lock_file *make_file(struct vv_fs *fs, uint64_t inode)
{
    struct lock_file *file = find_file(fs, inode);
    if (file)
        return file;
    file = vv_zalloc(sizeof(*file));
    if (!file)
        return NULL;
    file->inode = inode;
    vv_list_init(&file->ranges);
    vv_list_init(&file->flocks);
    vv_list_init(&file->waiters);
    vv_map_insert(&fs->lock_files, &file->node, vv_mix64(inode));
    return file;
}

/* Free the file's struct when it has become empty. */
static void tidy_file(struct vv_fs *fs, struct lock_file *file)
{
    if (!vv_list_is_empty(&file->ranges) || !vv_list_is_empty(&file->flocks) ||
        !vv_list_is_empty(&file->waiters))
        return;
    vv_map_remove(&fs->lock_files, &file->node);
    vv_free(file);
}

static void remove_lock(struct vv_fs *fs, struct lock *lock)
{
    vv_list_remove(&lock->node);
    vv_free(lock);
    fs->lock_count--;
}

static void insert_lock(struct vv_fs *fs, struct vv_list *list, struct lock *lock)
{
    struct vv_list *at = list->next;
    while (at != list && vv_list_entry(at, struct lock, node)->what.start < lock->what.start)
        at = at->next;
    vv_list_insert_before(at, &lock->node);
    fs->lock_count++;
}

void vv_locks_done(struct vv_fs *fs)
{
    struct vv_map_node *node = vv_map_walk(&fs->lock_files, NULL);
    while (fs->lock_files.count > 0 && node) {
        struct lock_file *file = vv_container_of(node, struct lock_file, node);
        node = vv_map_walk(&fs->lock_files, node);
        while (!vv_list_is_empty(&file->ranges))
            remove_lock(fs, vv_list_first(&file->ranges, struct lock, node));
        while (!vv_list_is_empty(&file->flocks))
            remove_lock(fs, vv_list_first(&file->flocks, struct lock, node));
        tidy_file(fs, file);
    }
    vv_map_done(&fs->lock_files);
}

/* ---- changing the locks of an owner ---- */

static struct lock *take_spare(struct request *request)
{
    for (int i = 0; i < SPARES_MAX; i++) {
        struct lock *spare = request->spares[i];
        request->spares[i] = NULL;
        if (spare)
            return spare;
    }
    assert(!"a request has the spares that it needs");
    return NULL;
}

/* Take [start, end] out of a lock of the same owner. */
static void cut_lock(struct vv_fs *fs, struct vv_list *list, struct lock *lock,
                     struct request *request)
{
    const struct vv_lock *what = &request->what;
    bool has_left = lock->what.start < what->start;
    bool has_right = lock->what.end > what->end;
    if (has_left && has_right) {
        struct lock *right = take_spare(request);
        *right = *lock;
        right->what.start = what->end + 1;
        lock->what.end = what->start - 1;
        insert_lock(fs, list, right);
    } else if (has_left) {
        lock->what.end = what->start - 1;
    } else if (has_right) {
        vv_list_remove(&lock->node);
        fs->lock_count--;
        lock->what.start = what->end + 1;
        insert_lock(fs, list, lock);
    } else {
        remove_lock(fs, lock);
    }
}

/* Overlapping, or one begins where the other ends. */
static bool is_touching(const struct vv_lock *a, const struct vv_lock *b)
{
    return is_overlapping(a, b) || (a->end != UINT64_MAX && a->end + 1 == b->start) ||
           (b->end != UINT64_MAX && b->end + 1 == a->start);
}

/* Make the owner's locks what the request says. Nobody else is in the way. */
static void apply(struct vv_fs *fs, struct lock_file *file, struct request *request)
{
    struct vv_list *list = list_of(file, request->what.is_flock);
    struct vv_lock joined = request->what;
    vv_list_each_safe (node, list) {
        struct lock *lock = vv_list_entry(node, struct lock, node);
        if (!is_same_owner(&lock->what, lock->door, &request->what, request->door))
            continue;
        if (lock->what.type == request->what.type && is_touching(&lock->what, &request->what)) {
            if (lock->what.start < joined.start)
                joined.start = lock->what.start;
            if (lock->what.end > joined.end)
                joined.end = lock->what.end;
            remove_lock(fs, lock);
        } else if (is_overlapping(&lock->what, &request->what)) {
            cut_lock(fs, list, lock, request);
        }
    }
    if (joined.type == F_UNLCK)
        return;
    struct lock *lock = take_spare(request);
    lock->what = joined;
    lock->door = request->door;
    insert_lock(fs, list, lock);
}

static void finish_request(struct request *request, int result)
{
    vv_list_remove(&request->in_all);
    vv_list_remove(&request->in_file);
    request->is_done = true;
    request->result = result;
    vv_waitq_wake_all(&request->wake);
}

/* Grant what can be granted, first come first served. A grant may turn a write lock into a read
 * lock and so make room for another. */
static void grant_waiters(struct vv_fs *fs, struct lock_file *file)
{
    bool is_granted = true;
    while (is_granted) {
        is_granted = false;
        vv_list_each_safe (node, &file->waiters) {
            struct request *request = vv_list_entry(node, struct request, in_file);
            if (find_conflict(file, &request->what, request->door))
                continue;
            apply(fs, file, request);
            finish_request(request, 0);
            is_granted = true;
        }
    }
}

/* ---- deadlocks ---- */

/* Mark the waiting requests of a lock's owner; true when it is `mine`. */
static bool mark_owner(struct vv_fs *fs, const struct lock *lock, const struct request *mine)
{
    if (is_same_owner(&lock->what, lock->door, &mine->what, mine->door))
        return true;
    vv_list_each (node, &fs->lock_waiters) {
        struct request *other = vv_list_entry(node, struct request, in_all);
        if (other->mark == UNSEEN &&
            is_same_owner(&lock->what, lock->door, &other->what, other->door))
            other->mark = SEEN;
    }
    return false;
}

/* Mark everybody whom `request` waits for; true when that includes `mine`. */
static bool mark_blockers(struct vv_fs *fs, struct request *request, const struct request *mine,
                          size_t *steps)
{
    request->mark = EXPANDED;
    vv_list_each (node, &request->file->ranges) {
        const struct lock *lock = vv_list_entry(node, struct lock, node);
        (*steps)++;
        if (is_conflicting(lock, &request->what, request->door) && mark_owner(fs, lock, mine))
            return true;
    }
    return false;
}

/* Would waiting close a circle of owners who wait for each other? */
static bool is_deadlock(struct vv_fs *fs, struct request *mine)
{
    size_t steps = 0;
    vv_list_each (node, &fs->lock_waiters)
        vv_list_entry(node, struct request, in_all)->mark = UNSEEN;
    if (mark_blockers(fs, mine, mine, &steps))
        return true;
    bool is_new = true;
    while (is_new && steps < DEADLOCK_STEPS_MAX) {
        is_new = false;
        vv_list_each (node, &fs->lock_waiters) {
            struct request *other = vv_list_entry(node, struct request, in_all);
            steps++;
            if (other->mark != SEEN || other->what.is_flock)
                continue;
            is_new = true;
            if (mark_blockers(fs, other, mine, &steps))
                return true;
        }
    }
    return false;
}

/* ---- calls ---- */

static int reserve(struct vv_fs *fs, struct request *request, int count)
{
    if (fs->lock_count + (size_t)count > VV_LOCKS_MAX)
        return -ENOLCK;
    for (int i = 0; i < count; i++) {
        request->spares[i] = vv_alloc(sizeof(struct lock));
        if (!request->spares[i])
            return -ENOMEM;
    }
    return 0;
}

static void request_done(struct request *request)
{
    for (int i = 0; i < SPARES_MAX; i++)
        vv_free(request->spares[i]);
}

/* Does unlocking leave a piece on both sides of some lock? */
static bool is_splitting(struct lock_file *file, const struct request *request)
{
    vv_list_each (node, list_of(file, request->what.is_flock)) {
        const struct lock *lock = vv_list_entry(node, struct lock, node);
        if (is_same_owner(&lock->what, lock->door, &request->what, request->door) &&
            lock->what.start < request->what.start && lock->what.end > request->what.end)
            return true;
    }
    return false;
}

static int unlock(struct vv_fs *fs, struct lock_file *file, struct request *request)
{
    if (is_splitting(file, request))
        TRY(reserve(fs, request, 1));
    apply(fs, file, request);
    grant_waiters(fs, file);
    return 0;
}

/* As Linux: a flock that must wait to change its type gives up what it has. */
static void drop_flock(struct vv_fs *fs, struct lock_file *file, const struct request *request)
{
    struct request drop = {.what = request->what, .door = request->door};
    drop.what.type = F_UNLCK;
    apply(fs, file, &drop);
    grant_waiters(fs, file);
}

static int wait_for_lock(struct vv_fs *fs, struct lock_file *file, struct request *request)
{
    if (request->cancel && *request->cancel)
        return -EINTR;
    if (!request->what.is_flock && is_deadlock(fs, request))
        return -EDEADLK;
    if (request->what.is_flock)
        drop_flock(fs, file, request);
    vv_list_push_back(&fs->lock_waiters, &request->in_all);
    vv_list_push_back(&file->waiters, &request->in_file);
    fs->lock_count++;
    while (!request->is_done)
        vv_waitq_wait(&request->wake, VV_NEVER);
    fs->lock_count--;
    return request->result;
}

static int lock(struct vv_fs *fs, struct lock_file *file, struct request *request, bool is_waiting)
{
    TRY(reserve(fs, request, SPARES_MAX));
    if (find_conflict(file, &request->what, request->door))
        return is_waiting ? wait_for_lock(fs, file, request) : -EAGAIN;
    apply(fs, file, request);
    /* Part of a write lock may have become a read lock. */
    grant_waiters(fs, file);
    return 0;
}

int vv_fs_setlk(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                const struct vv_lock *what, bool is_waiting, const bool *cancel)
{
    struct request request = {.what = *what, .door = call->door, .cancel = cancel};
    if (what->start > what->end ||
        (what->type != F_RDLCK && what->type != F_WRLCK && what->type != F_UNLCK))
        return -EINVAL;
    if (what->is_flock) {
        request.what.start = 0;
        request.what.end = UINT64_MAX;
    }
    vv_waitq_init(&request.wake);
    bool is_unlock = what->type == F_UNLCK;
    request.file = is_unlock ? find_file(fs, inode) : make_file(fs, inode);
    if (!request.file)
        return is_unlock ? 0 : -ENOMEM;
    int err = is_unlock ? unlock(fs, request.file, &request)
                        : lock(fs, request.file, &request, is_waiting);
    request_done(&request);
    /* While we waited, the file may have been freed and made again. */
    struct lock_file *file = find_file(fs, inode);
    if (file)
        tidy_file(fs, file);
    return err;
}

int vv_fs_getlk(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                struct vv_lock *what)
{
    if (what->start > what->end || (what->type != F_RDLCK && what->type != F_WRLCK))
        return -EINVAL;
    struct lock_file *file = find_file(fs, inode);
    const struct lock *conflict = file ? find_conflict(file, what, call->door) : NULL;
    if (conflict)
        *what = conflict->what;
    else
        what->type = F_UNLCK;
    return 0;
}

void vv_fs_lock_poke(struct vv_fs *fs)
{
    vv_list_each_safe (node, &fs->lock_waiters) {
        struct request *request = vv_list_entry(node, struct request, in_all);
        if (request->cancel && *request->cancel)
            finish_request(request, -EINTR);
    }
}

struct whose {
    unsigned door;
    uint64_t client, owner;
    uint64_t opened;   /* not 0: byte ranges set through that, whoever their owner is */
    bool is_any_owner; /* of the client, both kinds of locks */
    bool is_flock;
};

static bool is_theirs(const struct whose *whose, const struct vv_lock *what, unsigned door)
{
    if (door != whose->door || what->client != whose->client)
        return false;
    if (whose->opened != 0)
        return what->opened == whose->opened && !what->is_flock;
    return whose->is_any_owner ||
           (what->owner == whose->owner && what->is_flock == whose->is_flock);
}

static void unlock_list(struct vv_fs *fs, struct vv_list *list, const struct whose *whose)
{
    vv_list_each_safe (node, list) {
        struct lock *lock = vv_list_entry(node, struct lock, node);
        if (is_theirs(whose, &lock->what, lock->door))
            remove_lock(fs, lock);
    }
}

static void unlock_file(struct vv_fs *fs, struct lock_file *file, const struct whose *whose)
{
    vv_list_each_safe (node, &file->waiters) {
        struct request *request = vv_list_entry(node, struct request, in_file);
        if (whose->is_any_owner && is_theirs(whose, &request->what, request->door))
            finish_request(request, -EINTR);
    }
    unlock_list(fs, &file->ranges, whose);
    unlock_list(fs, &file->flocks, whose);
    grant_waiters(fs, file);
    tidy_file(fs, file);
}

static void unlock_files(struct vv_fs *fs, uint64_t inode, const struct whose *whose)
{
    struct lock_file *only = find_file(fs, inode);
    if (only)
        unlock_file(fs, only, whose);
    if (inode != 0)
        return;
    struct vv_map_node *node = vv_map_walk(&fs->lock_files, NULL);
    while (node) {
        struct lock_file *file = vv_container_of(node, struct lock_file, node);
        node = vv_map_walk(&fs->lock_files, node);
        unlock_file(fs, file, whose);
    }
}

void vv_fs_unlock_owner(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                        uint64_t client, uint64_t owner, bool is_flock)
{
    struct whose whose = {
        .door = call->door, .client = client, .owner = owner, .is_flock = is_flock};
    unlock_files(fs, inode, &whose);
}

void vv_fs_unlock_opened(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                         uint64_t client, uint64_t opened)
{
    struct whose whose = {.door = call->door, .client = client, .opened = opened};
    unlock_files(fs, inode, &whose);
}

void vv_fs_unlock_client(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t client)
{
    struct whose whose = {.door = call->door, .client = client, .is_any_owner = true};
    unlock_files(fs, 0, &whose);
}
