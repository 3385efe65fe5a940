/* What a reading operation must give, by the model. */
#ifndef SIM_EXPECT_H
#define SIM_EXPECT_H

#include "model.h"
#include "op.h"

#define SIGHT_NAMES_MAX 256
#define SIGHT_BYTES_MAX (128u << 10)

/* What a reading operation saw; large. */
struct sight {
    int err;                  /* 0 or negative errno */
    uint64_t value;           /* bytes read, length of a value or target, offset found */
    struct model_entry entry; /* lookup, getattr: mode, uid, gid, rdev, nlink, size, mtime, key */
    size_t name_count;        /* readdir, listxattr: the names, without "." and ".." */
    uint64_t keys[SIGHT_NAMES_MAX]; /* readdir: their inodes; 0 = not known */
    char names[SIGHT_NAMES_MAX][OP_NAME_MAX + 1];
    uint8_t bytes[SIGHT_BYTES_MAX];
};

/* Forget what was seen. */
void sight_reset(struct sight *sight);
/* Note a name; more than SIGHT_NAMES_MAX are counted only. */
void sight_name(struct sight *sight, const char *name, size_t len, uint64_t key);

/* Compares; 0, or -1 with a text that says what is wrong. */
int expect_check(const struct model *model, const struct op *op, const struct sight *sight,
                 char *text, size_t size);

#endif
