#include "base/list.h"

#include "tap.h"

struct item {
    int value;
    struct vv_list node;
};

/* The values of a list as the digits of a number. */
static int digits(struct vv_list *head)
{
    int number = 0;
    vv_list_each (node, head)
        number = number * 10 + vv_list_entry(node, struct item, node)->value;
    return number;
}

int main(void)
{
    struct vv_list a;
    struct vv_list b;
    struct item items[6];
    for (int i = 0; i < 6; i++)
        items[i] = (struct item){.value = i};
    vv_list_init(&a);
    vv_list_init(&b);
    tap_ok(vv_list_is_empty(&a), "a new list is empty");
    vv_list_push_back(&a, &items[2].node);
    vv_list_push_back(&a, &items[3].node);
    vv_list_push_front(&a, &items[1].node);
    tap_is_int(digits(&a), 123, "pushed at both ends");
    tap_is_int(vv_list_first(&a, struct item, node)->value, 1, "first");
    tap_is_int(vv_list_last(&a, struct item, node)->value, 3, "last");
    vv_list_insert_before(&items[2].node, &items[5].node);
    tap_is_int(digits(&a), 1523, "inserted before a node");
    vv_list_remove(&items[5].node);
    vv_list_remove(&items[5].node);
    tap_is_int(digits(&a), 123, "removed, twice without harm");
    vv_list_push_back(&b, &items[4].node);
    vv_list_push_back(&b, &items[5].node);
    vv_list_splice(&a, &b);
    tap_is_int(digits(&a), 12345, "spliced");
    tap_ok(vv_list_is_empty(&b), "the source is empty");
    vv_list_splice(&a, &b);
    tap_is_int(digits(&a), 12345, "splicing nothing");
    vv_list_each_safe (node, &a) {
        if (vv_list_entry(node, struct item, node)->value % 2 == 0)
            vv_list_remove(node);
    }
    tap_is_int(digits(&a), 135, "removed during a walk");
    return tap_done();
}
