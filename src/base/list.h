/* Doubly linked intrusive lists. The head is a node that points to itself when empty.
 * A node that is in no list points to itself (vv_list_init) so that removing it is harmless. */
#ifndef VV_BASE_LIST_H
#define VV_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct vv_list {
    struct vv_list *next;
    struct vv_list *prev;
};

#define vv_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void vv_list_init(struct vv_list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool vv_list_is_empty(const struct vv_list *list)
{
    return list->next == list;
}

static inline void vv_list_insert_before(struct vv_list *at, struct vv_list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void vv_list_push_back(struct vv_list *head, struct vv_list *node)
{
    vv_list_insert_before(head, node);
}

static inline void vv_list_push_front(struct vv_list *head, struct vv_list *node)
{
    vv_list_insert_before(head->next, node);
}

static inline void vv_list_remove(struct vv_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    vv_list_init(node);
}

/* Move all nodes of `from` to the end of `to`. */
static inline void vv_list_splice(struct vv_list *to, struct vv_list *from)
{
    if (vv_list_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    vv_list_init(from);
}

#define vv_list_entry(node, type, member) vv_container_of(node, type, member)
#define vv_list_first(head, type, member) vv_container_of((head)->next, type, member)
#define vv_list_last(head, type, member) vv_container_of((head)->prev, type, member)
#define vv_list_each(node, head)                                                                   \
    for (struct vv_list *node = (head)->next; node != (head); node = node->next)
/* The body may remove `node`. */
#define vv_list_each_safe(node, head)                                                              \
    for (struct vv_list *node = (head)->next, *node##_next = node->next; node != (head);           \
         node = node##_next, node##_next = node->next)

#endif
