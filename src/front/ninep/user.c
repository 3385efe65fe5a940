/* Users and their groups, as the host knows them. Looking up may ask a network service, so it is
 * done on a worker, once for all who wait, and remembered for VV_NINEP_GROUPS_MAX_AGE_S; a user
 * that is in use goes on with the groups known so far while they are looked up again. */
#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "front/ninep/ninep_impl.h"

#define PASSWD_BYTES 16384
#define UNAME_MAX 256

struct lookup {
    uint32_t uid;
    char uname[UNAME_MAX]; /* asked for when not empty */
    struct vv_ninep_groups *groups;
};

static struct vv_ninep_groups *groups_new(uint32_t gid, uint32_t capacity)
{
    struct vv_ninep_groups *groups = vv_zalloc(sizeof(*groups) + capacity * sizeof(uint32_t));
    if (groups) {
        groups->refs = 1;
        groups->gid = gid;
    }
    return groups;
}

void vv_ninep_groups_unref(struct vv_ninep_groups *groups)
{
    if (groups && --groups->refs == 0)
        vv_free(groups);
}

/* On a worker: the groups of a user that the host knows. */
static struct vv_ninep_groups *load_groups(const struct passwd *passwd)
{
    struct vv_ninep_groups *groups = groups_new(passwd->pw_gid, VV_NINEP_GROUPS_MAX);
    if (!groups)
        return NULL;
    int count = VV_NINEP_GROUPS_MAX;
    _Static_assert(sizeof(gid_t) == sizeof(uint32_t), "groups are filled in place");
    getgrouplist(passwd->pw_name, passwd->pw_gid, groups->list, &count);
    groups->count = count < VV_NINEP_GROUPS_MAX ? (uint32_t)count : VV_NINEP_GROUPS_MAX;
    return groups;
}

/* On a worker. */
static void look_up(void *arg)
{
    struct lookup *lookup = arg;
    char buf[PASSWD_BYTES];
    struct passwd passwd;
    struct passwd *found = NULL;
    if (lookup->uname[0]) {
        getpwnam_r(lookup->uname, &passwd, buf, sizeof(buf), &found);
        lookup->uid = found ? found->pw_uid : VV_NINEP_NOBODY;
        return;
    }
    getpwuid_r((uid_t)lookup->uid, &passwd, buf, sizeof(buf), &found);
    uint32_t gid = lookup->uid == 0 ? 0 : VV_NINEP_NOBODY;
    lookup->groups = found ? load_groups(found) : groups_new(gid, 0);
}

static struct vv_ninep_user *find(struct vv_ninep *ninep, uint32_t uid)
{
    struct vv_map_node *node = vv_map_find(&ninep->users, vv_mix64(uid));
    for (; node; node = vv_map_next(node)) {
        struct vv_ninep_user *user = vv_container_of(node, struct vv_ninep_user, node);
        if (user->uid == uid)
            return user;
    }
    return NULL;
}

static void user_free(struct vv_ninep *ninep, struct vv_ninep_user *user)
{
    vv_map_remove(&ninep->users, &user->node);
    vv_ninep_groups_unref(user->groups);
    vv_free(user);
}

/* Look the groups up; the user is referenced by the caller. Suspends. */
static void load(struct vv_ninep *ninep, struct vv_ninep_user *user)
{
    struct lookup lookup = {.uid = user->uid};
    user->is_loading = true;
    vv_rt_offload(look_up, &lookup);
    user->is_loading = false;
    if (lookup.groups) {
        vv_ninep_groups_unref(user->groups);
        user->groups = lookup.groups;
        user->loaded_ns = vv_rt_now_ns();
    }
    vv_waitq_wake_all(&ninep->user_loaded);
}

static int user_new(struct vv_ninep *ninep, uint32_t uid, struct vv_ninep_user **out_user)
{
    struct vv_ninep_user *user = vv_zalloc(sizeof(*user));
    if (!user)
        return -ENOMEM;
    user->uid = uid;
    vv_map_insert(&ninep->users, &user->node, vv_mix64(uid));
    *out_user = user;
    return 0;
}

/* The uid of a name; nobody's when there is none. Suspends. */
static uint32_t uid_of(struct vv_bytes uname)
{
    struct lookup lookup = {.uid = VV_NINEP_NOBODY};
    if (uname.len == 0 || uname.len >= sizeof(lookup.uname))
        return VV_NINEP_NOBODY;
    memcpy(lookup.uname, uname.ptr, uname.len);
    vv_rt_offload(look_up, &lookup);
    return lookup.uid;
}

static bool is_fresh(const struct vv_ninep_user *user)
{
    uint64_t age_ns = vv_rt_now_ns() - user->loaded_ns;
    return user->groups && age_ns < VV_NINEP_GROUPS_MAX_AGE_S * VV_NS_PER_S;
}

int vv_ninep_user_get(struct vv_ninep *ninep, uint32_t uid, struct vv_bytes uname,
                      struct vv_ninep_user **out_user)
{
    if (uid == VV_NINEP_NONUNAME)
        uid = uid_of(uname);
    struct vv_ninep_user *user = find(ninep, uid);
    if (!user)
        TRY(user_new(ninep, uid, &user));
    user->refs++;
    while (!is_fresh(user)) {
        if (!user->is_loading) {
            load(ninep, user);
            break;
        }
        if (user->groups)
            break; /* good enough until the new ones are there */
        vv_waitq_wait(&ninep->user_loaded, VV_NEVER);
    }
    if (!user->groups) {
        vv_ninep_user_unref(ninep, user);
        return -ENOMEM;
    }
    *out_user = user;
    return 0;
}

void vv_ninep_user_ref(struct vv_ninep_user *user)
{
    user->refs++;
}

void vv_ninep_user_unref(struct vv_ninep *ninep, struct vv_ninep_user *user)
{
    if (user && --user->refs == 0 && ninep->users.count > VV_NINEP_USERS_MAX)
        user_free(ninep, user);
}

void vv_ninep_users_done(struct vv_ninep *ninep)
{
    struct vv_map_node *node = vv_map_walk(&ninep->users, NULL);
    while (node) {
        struct vv_map_node *next = vv_map_walk(&ninep->users, node);
        user_free(ninep, vv_container_of(node, struct vv_ninep_user, node));
        node = next;
    }
    vv_map_done(&ninep->users);
}
