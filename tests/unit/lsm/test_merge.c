/* Merging: order, precedence, sums, starved sources. */
#include "lsm/merge_impl.h"

#include "rig.h"

/* A source over an array; it starves before the records that say so. */
struct fake {
    struct vv_source source;
    const char *keys; /* one letter a record; '.' = starve once */
    char kind;        /* all of this kind: P, D, M */
    size_t at;
    bool is_fed;
    char key;
    uint8_t value[VV_SUMS_LEN_MAX];
};

static int fake_next(struct vv_source *base)
{
    struct fake *fake = vv_container_of(base, struct fake, source);
    if (base->is_consumed)
        fake->at++;
    base->is_consumed = false;
    if (fake->keys[fake->at] == '.') {
        if (!fake->is_fed)
            return -VV_ERR_MISS;
        fake->is_fed = false;
        fake->at++;
    }
    if (fake->keys[fake->at] == '\0')
        return 0;
    if (fake->keys[fake->at] == '!')
        return -EIO;
    fake->key = fake->keys[fake->at];
    base->key = (struct vv_bytes){(const uint8_t *)&fake->key, 1};
    base->kind = fake->kind == 'P' ? VV_LSM_PUT : fake->kind == 'D' ? VV_LSM_DELETE : VV_LSM_MERGE;
    base->value = (struct vv_bytes){NULL, 0};
    if (fake->kind != 'D')
        base->value =
            (struct vv_bytes){fake->value, vv_sums_encode(base->rank + 1, -1, fake->value)};
    return 1;
}

/* Merge sources given as "Pabc Mbd", newest first; the answer is a text. */
static const char *merged(const char *sources)
{
    static char text[256];
    char copy[256];
    struct fake fakes[8];
    struct vv_merge merge;
    size_t count = 0;
    size_t len = 0;
    int found;
    snprintf(copy, sizeof(copy), "%s", sources);
    if (vv_merge_init(&merge, 8) < 0)
        return "no memory";
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        fakes[count] = (struct fake){.keys = word + 1, .kind = word[0]};
        fakes[count].source.next = fake_next;
        fakes[count].source.rank = (uint32_t)count;
        vv_merge_add(&merge, &fakes[count++].source);
    }
    struct vv_record record;
    while ((found = vv_merge_next(&merge, &record)) != 0) {
        if (found == -VV_ERR_MISS) {
            for (size_t i = 0; i < count; i++)
                fakes[i].is_fed = fakes[i].is_fed || fakes[i].source.is_starved;
            continue;
        }
        if (found < 0) {
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s", vv_err_name(found));
            break;
        }
        int64_t a = 0;
        int64_t b = 0;
        if (record.kind != VV_LSM_DELETE && vv_sums_decode(record.value, &a, &b) < 0)
            return "not a sum";
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%c%c%d%d ", "DPM"[record.kind],
                                record.key.ptr[0], (int)a, (int)b);
    }
    text[len] = '\0';
    vv_merge_done(&merge);
    return text;
}

int main(void)
{
    tap_is_str(merged(""), "", "nothing");
    tap_is_str(merged("Pabc"), "Pa1-1 Pb1-1 Pc1-1 ", "one source");
    tap_is_str(merged("Pace Pbdf"), "Pa1-1 Pb2-1 Pc1-1 Pd2-1 Pe1-1 Pf2-1 ", "two in turn");
    tap_is_str(merged("Pac Pabc"), "Pa1-1 Pb2-1 Pc1-1 ", "the newer record counts");
    tap_is_str(merged("Da Pab"), "Da00 Pb2-1 ", "a delete hides");
    tap_is_str(merged("Ma Mab Mb"), "Ma3-2 Mb5-2 ", "merges are added up");
    tap_is_str(merged("Ma Ma Pa Ma"), "Pa6-3 ", "down to a put");
    tap_is_str(merged("Ma Da Ma"), "Pa1-1 ", "or a delete");
    tap_is_str(merged("Pa Ma Da"), "Pa1-1 ", "what is older does not matter");
    tap_is_str(merged("Pa.c P.bd"), "Pa1-1 Pb2-1 Pc1-1 Pd2-1 ", "starved sources are fed");
    tap_is_str(merged("Ma. M.ab. P.a.b"), "Pa6-3 Pb5-2 ", "all at once");
    tap_is_str(merged("Pab Pa!"), "Pa1-1 EIO", "an error ends it");
    struct vv_merge merge = {0};
    vv_merge_done(&merge);
    for (int64_t n = 0; n < 2; n++) {
        vv_alloc_fail_at(n, false);
        tap_is_int(vv_merge_init(&merge, 3), -ENOMEM, "no memory");
        vv_alloc_fail_at(-1, false);
    }
    return tap_done();
}
